"""Predict the mirror image or all eight turns of a photograph: test-time averaging, and a check of consistency.

A retina has no preferred side, so mirrored and turned copies of a photograph should get the same grade. Where they do
not, a person should review it.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from deepmtdr.photographs.turns import TURNS, turn, turn_back
from deepmtdr.screening.predictor import Findings, Predictor, check_findings

MIRROR = TURNS // 2
"""Number of the turn that exchanges left and right."""


class TurnedCopies(StrEnum):
    """Which turned copies of a photograph are predicted besides the photograph itself."""

    NONE = "none"
    """None of them."""
    MIRROR = "mirror"
    """The mirror image (left and right exchanged), for the check only: results are those of the photograph."""
    ALL = "all"
    """All eight turns: logits, lesion maps and evidence are averaged over them (test-time averaging)."""

    @property
    def numbers(self) -> tuple[int, ...]:
        """Numbers of the turns (`photographs.turns`), the photograph itself first."""
        return {TurnedCopies.NONE: (0,), TurnedCopies.MIRROR: (0, MIRROR)}.get(self, tuple(range(TURNS)))


def choose_copies(*, tta: bool, check_mirror: bool) -> TurnedCopies:
    """Return the copies for the options `--tta` and `--check-mirror`; the eight turns contain the mirror image."""
    return TurnedCopies.ALL if tta else TurnedCopies.MIRROR if check_mirror else TurnedCopies.NONE


class TurnedFindings(NamedTuple):
    """Outputs of the network for a photograph and its copies."""

    findings: Findings
    """Outputs that the report is made of."""
    logits: tuple[Float[np.ndarray, " c"], ...]
    """Grade logits of each turn, the photograph itself first."""


def predict_copies(
    predictor: Predictor, lr: UInt8[np.ndarray, "h h 3"], scale: int, copies: TurnedCopies
) -> TurnedFindings:
    """Predict a photograph and its turned copies.

    Args:
        predictor: the network.
        lr: see `Predictor.predict`.
        scale: see `Predictor.predict`.
        copies: which copies are predicted.

    Returns:
        The findings. With `ALL`, maps and evidence are turned back and averaged like the logits; the SR image stays
        that of the photograph itself.

    Raises:
        PredictionError: if the network returns something other than finite numbers of the expected shapes.
    """
    side = lr.shape[0] * scale
    upright = predictor.predict(lr, scale)
    check_findings(upright, predictor.info, side)
    logits = [upright.grade_logits]
    lesions, evidence = upright.lesions.astype(np.float32), upright.evidence.astype(np.float32)
    for number in copies.numbers[1:]:
        found = predictor.predict(turn(lr, number), scale)
        check_findings(found, predictor.info, side)
        logits.append(found.grade_logits)
        if copies is TurnedCopies.ALL:
            lesions += turn_back(found.lesions.transpose(1, 2, 0), number).transpose(2, 0, 1)
            evidence += turn_back(found.evidence, number)
    if copies is not TurnedCopies.ALL:
        return TurnedFindings(upright, tuple(logits))
    mean = np.mean(np.asarray(logits, np.float64), axis=0).astype(np.float32)
    averaged = Findings(
        sr=upright.sr,
        lesions=(lesions / TURNS).clip(0, 1),
        grade_logits=mean,
        evidence=(evidence / TURNS).clip(0, 1),
    )
    return TurnedFindings(averaged, tuple(logits))
