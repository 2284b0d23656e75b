"""The quality gate: decides whether a photograph can be graded, and if not, why (before Fig. 6).

It refuses pictures of several fields of view, photographs that are too small, pictures that are no fundus photographs,
and photographs that no person could grade. It does not decide whether a specialist would call a faint photograph
adequate; the quality score beside each grade is for that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from deepmtdr.photographs.field_of_view import crop_to_frame, find_fov
from deepmtdr.photographs.geometry import FieldOfView
from deepmtdr.photographs.second_disc import find_second_disc
from deepmtdr.screening.quality_features import QUALITY_FRAME_SIDE
from deepmtdr.screening.quality_model import Fault, score_quality


@dataclass(frozen=True, kw_only=True)
class QualityLimits:
    """Limits beyond which a photograph is not graded. How they were chosen: docs/clinic.md."""

    fov_side: int = 96
    """Smallest field of view, px of the photograph."""
    quality: float = 0.3
    """Smallest quality score. In cross-validation 99 % of untouched and 0.5 % of degraded photographs reach it."""
    not_fundus: float = 0.7
    """Largest probability of being no fundus photograph. No untouched photograph reached it in cross-validation."""
    no_retina: float = 0.8
    """Largest probability of showing no retina. In cross-validation 0.3 % of the untouched photographs exceeded it."""


class Quality(NamedTuple):
    """The gate's decision on a photograph."""

    score: float
    """How fit the photograph is to be graded, in [0, 1]. It has no meaning if the fault is none of quality."""
    fault: Fault | None
    """Why the photograph cannot be graded; None if it can."""
    reason: str | None
    """One clause: what was found and what was expected; None if the photograph can be graded."""

    @property
    def gradable(self) -> bool:
        """Whether the photograph can be graded."""
        return self.fault is None


def assess_photograph(
    pixels: UInt8[np.ndarray, "h w 3"], limits: QualityLimits | None = None
) -> tuple[FieldOfView, Quality]:
    """Find the field of view and decide whether the photograph can be graded.

    Args:
        pixels: the upright photograph, RGB.
        limits: limits of the decision; None: the defaults.

    Returns:
        The field of view and the decision. A picture of several fields of view cannot be graded: the answer would be
        that of one of them only.

    Raises:
        NoFieldOfViewError: if there is no field of view.
    """
    fov = find_fov(pixels)
    quality = assess_quality(crop_to_frame(pixels, fov, QUALITY_FRAME_SIDE), fov.side, limits)
    second = find_second_disc(pixels, fov)
    if second is None:
        return fov, quality
    reason = (
        f"{Fault.SEVERAL.description}: found discs of {fov.side} and {second.side} px, "
        "expected one photograph of one eye; cut the picture into single photographs"
    )
    return fov, Quality(quality.score, Fault.SEVERAL, reason)


def assess_quality(
    frame: UInt8[np.ndarray, "s s 3"], fov_side: int | None = None, limits: QualityLimits | None = None
) -> Quality:
    """Decide whether a photograph can be graded.

    Args:
        frame: the photograph cropped to its field of view, RGB, of any size.
        fov_side: side of the field of view in pixels of the photograph; None: the frame's side.
        limits: limits of the decision; None: the defaults.

    Returns:
        The decision with its score, and with its reason if the photograph is refused.
    """
    limits, side = limits or QualityLimits(), frame.shape[0] if fov_side is None else fov_side
    quality, fault, not_fundus, no_retina = score_quality(frame)
    if side < limits.fov_side:
        reason = f"field of view of {side} px, expected at least {limits.fov_side} px"
        return Quality(quality, Fault.SMALL, reason)
    if not not_fundus <= limits.not_fundus:  # "not <=": NaN is refused, too
        found = f"probability {not_fundus:.2f} of being something else, expected at most {limits.not_fundus:.2f}"
        return Quality(quality, Fault.NO_FUNDUS, f"{Fault.NO_FUNDUS.description}: {found}")
    if not quality >= limits.quality:
        reason = f"{fault.description}: quality {quality:.2f}, expected at least {limits.quality:.2f}"
        return Quality(quality, fault, reason)
    if not no_retina <= limits.no_retina:
        found = f"probability {no_retina:.2f} of showing no retina, expected at most {limits.no_retina:.2f}"
        return Quality(quality, Fault.NO_FUNDUS, f"{Fault.NO_FUNDUS.description}: {found}")
    return Quality(quality, None, None)
