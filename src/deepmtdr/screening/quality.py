"""The quality gate: can this frame be graded at all, and if not, why (before Fig. 6).

It refuses what is too small, what is no fundus photograph, and what is so poor that no reader could grade it. It does
not judge whether a specialist would call a faint photograph adequate: that is what the score is beside each grade for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from deepmtdr.screening.quality_model import Fault, score_quality


@dataclass(frozen=True, kw_only=True)
class QualityLimits:
    """Beyond these a frame is not graded. The figures behind them: docs/clinic.md."""

    fov_side: int = 96
    """Smallest field of view in the photograph's pixels."""
    quality: float = 0.3
    """Least score; of the untouched photographs that a fit did not see 99 % have it, of spoilt ones 0.5 %."""
    not_fundus: float = 0.7
    """Largest probability of being no fundus photograph; none of those photographs reached it."""


class Quality(NamedTuple):
    """What the gate says of a frame."""

    score: float
    """In [0, 1]: how fit it is to be graded; little means nothing more where the fault is `NO_FUNDUS` or `SMALL`."""
    fault: Fault | None
    """Why it is not graded; None when gradable."""
    reason: str | None
    """One clause: what was found and what was expected; None when gradable."""

    @property
    def gradable(self) -> bool:
        """Whether it may be graded."""
        return self.fault is None


def assess_quality(
    frame: UInt8[np.ndarray, "s s 3"], fov_side: int | None = None, limits: QualityLimits | None = None
) -> Quality:
    """Decide whether a frame can be graded.

    Args:
        frame: a photograph cropped to its field of view, RGB, of any size.
        fov_side: side of the field of view in the photograph's own pixels; the frame's where it is not given.
        limits: where to draw the line.

    Returns:
        The decision with its score, and with its reason where it is refused.
    """
    limits, side = limits or QualityLimits(), frame.shape[0] if fov_side is None else fov_side
    quality, fault, not_fundus = score_quality(frame)
    if side < limits.fov_side:
        reason = f"field of view of {side} px, expected at least {limits.fov_side} px"
        return Quality(quality, Fault.SMALL, reason)
    if not not_fundus <= limits.not_fundus:  # what cannot be measured is refused too
        found = f"probability {not_fundus:.2f} of being something else, expected at most {limits.not_fundus:.2f}"
        return Quality(quality, Fault.NO_FUNDUS, f"{Fault.NO_FUNDUS.description}: {found}")
    if not quality >= limits.quality:
        return Quality(
            quality, fault, f"{fault.description}: quality {quality:.2f}, expected at least {limits.quality:.2f}"
        )
    return Quality(quality, None, None)
