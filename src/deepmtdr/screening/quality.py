"""The quality gate: can this frame be graded at all, and if not, why (before Fig. 6).

It refuses what is certainly no gradable fundus photograph: too small, too dark, burnt out, without structure, mere
noise, or a picture of something else. It does not judge whether a specialist would call a faint photograph adequate.
The limits stand outside of all that was measured on 1,319 raw photographs (IDRiD, EyePACS, DIARETDB0, DRIVE).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray
from scipy import ndimage

from deepmtdr.data.field_of_view import fov_mask
from deepmtdr.data.resize import resize

MEASURED_AT = 256
"""Side in pixels at which every frame is measured, so that one limit holds for all sizes."""


@dataclass(frozen=True, kw_only=True)
class QualityLimits:
    """Beyond these a frame is not graded; in brackets the extremes of the real photographs."""

    fov_side: int = 96
    """Smallest field of view in the photograph's pixels."""
    brightness: float = 8.0
    """Least median brightness, 0-255 (10)."""
    burnt_out: float = 0.5
    """Largest share of pixels at 245 or more in every channel (0.12)."""
    structure: tuple[float, float] = (0.008, 13.0)
    """Least structure as a share of the brightness; most structure in grey levels."""
    sharpness: float = 0.35
    """Least structure below vessel width, in grey levels (0.52); a blur of 1.5 % of the side leaves less."""
    noise: float = 1.3
    """Largest ratio of pixel-wide to vessel-wide structure: white noise has about 2.5."""
    redness: float = 0.30
    """Least median of red / (red + green + blue): 1/3 is grey."""
    hue_spread: float = 0.25
    """Largest 90th percentile of the distance from the median colour, in shares of red and green."""
    rimless_structure: tuple[float, float] = (0.02, 0.12)
    """Without a dark ground, least and most structure as a share of the brightness: less to go by, so less leeway."""
    rimless_slope: float = 0.005
    """Without a dark ground, least median slope per pixel as a share of the brightness: a retina is nowhere flat."""


class Measured(NamedTuple):
    """What was measured inside the field of view; units as in QualityLimits."""

    fov_side: int
    brightness: float
    burnt_out: float
    structure: float
    """Standard deviation of the green channel between 1 and 6 px, as a share of the brightness."""
    structure_levels: float
    """The same in grey levels."""
    sharpness: float
    """Standard deviation of the green channel below 1 px, in grey levels."""
    redness: float
    hue_spread: float
    slope: float
    rim: bool
    """Whether the field of view lies on a dark ground."""

    @property
    def noise(self) -> float:
        """How many times the structure below 1 px is as strong as that between 1 and 6 px."""
        return self.sharpness / max(self.structure_levels, 0.1)


class Quality(NamedTuple):
    """What the gate says of a frame."""

    gradable: bool
    reason: str | None
    """One clause: what was found and what was expected; None when gradable."""
    measured: Measured


def assess(
    frame: UInt8[np.ndarray, "s s 3"], fov_side: int | None = None, limits: QualityLimits | None = None
) -> Quality:
    """Decide whether a frame can be graded.

    Args:
        frame: a photograph cropped to its field of view, RGB, of any size.
        fov_side: side of the field of view in the photograph's own pixels; the frame's where it is not given.
        limits: where to draw the line.

    Returns:
        The decision with its reason and all that was measured.
    """
    measured = measure(frame, frame.shape[0] if fov_side is None else fov_side)
    reason = _reason(measured, limits or QualityLimits())
    return Quality(reason is None, reason, measured)


def measure(frame: UInt8[np.ndarray, "s s 3"], fov_side: int) -> Measured:
    """Measure a frame, reduced or enlarged to 256 px.

    Args:
        frame: a photograph cropped to its field of view, RGB.
        fov_side: side of the field of view in the photograph's own pixels.

    Returns:
        The measured values; all 0 for a frame without any lit pixel.
    """
    small = resize(frame, MEASURED_AT)
    mask = fov_mask(small)
    # The rim's own blur and glare say nothing about the retina.
    inside = np.asarray(ndimage.binary_erosion(mask, iterations=10), bool)
    if not inside.any():
        return Measured(fov_side, 0, 0, 0, 0, 0, 0, 0, 0, rim=False)
    colours = small[inside].astype(np.float32)
    light = colours.mean(axis=1)
    brightness = float(np.median(light))
    level = max(brightness, 10.0)
    green = small[..., 1].astype(np.float32)
    smooth = _smooth(green, mask, 1.0)
    levels = float((smooth - _smooth(green, mask, 6.0))[inside].std())
    down, right = np.gradient(_smooth(green, mask, 1.5))
    redness, spread = _hue(colours, light)
    return Measured(
        fov_side=fov_side,
        brightness=brightness,
        burnt_out=float((colours.min(axis=1) >= 245).mean()),
        structure=levels / level,
        structure_levels=levels,
        sharpness=float((green - smooth)[inside].std()),
        redness=redness,
        hue_spread=spread,
        slope=float(np.median(np.hypot(down, right)[inside])) / level,
        rim=not mask[mask.any(axis=1)][:, mask.any(axis=0)].all(),
    )


def _smooth(values: NDArray, mask: NDArray, sigma: float) -> NDArray:
    """Gaussian mean over the field of view alone: the dark ground does not leak in."""
    weight = ndimage.gaussian_filter(mask.astype(np.float32), sigma)
    return ndimage.gaussian_filter(values * mask, sigma) / np.maximum(weight, 1e-3)


def _hue(colours: NDArray, light: NDArray) -> tuple[float, float]:
    """Median share of red, and how far the colours of the lit pixels spread around their median."""
    lit = colours[light >= 0.25 * np.median(light)]
    shares = lit[:, :2] / np.maximum(lit.sum(axis=1, keepdims=True), 1)
    median = np.median(shares, axis=0)
    return float(median[0]), float(np.percentile(np.linalg.norm(shares - median, axis=1), 90))


def _reason(m: Measured, limits: QualityLimits) -> str | None:
    """The first limit that is passed, in words."""
    least, most = limits.structure
    checks = (
        (
            m.fov_side < limits.fov_side,
            f"field of view of {m.fov_side} px, expected at least {limits.fov_side} px",
        ),
        (
            m.brightness < limits.brightness,
            f"too dark: median brightness {m.brightness:.0f} of 255, expected at least {limits.brightness:.0f}",
        ),
        (
            m.burnt_out > limits.burnt_out,
            f"burnt out: {m.burnt_out:.0%} of the field of view is white, expected at most {limits.burnt_out:.0%}",
        ),
        (
            m.structure < least,
            f"no structure: contrast {m.structure:.3f} of the brightness, expected at least {least}",
        ),
        (
            m.sharpness < limits.sharpness,
            f"too blurred: finest structure of {m.sharpness:.2f} grey levels, expected at least {limits.sharpness}",
        ),
        (
            m.noise > limits.noise,
            f"mere noise: {m.noise:.1f} times as strong as any structure, expected at most {limits.noise}",
        ),
        (
            m.structure_levels > most,
            f"no fundus photograph: contrast of {m.structure_levels:.0f} grey levels, expected at most {most:.0f}",
        ),
        (
            m.redness < limits.redness,
            f"no fundus photograph: {m.redness:.0%} of the light is red, expected at least {limits.redness:.0%}",
        ),
        (
            m.hue_spread > limits.hue_spread,
            f"no fundus photograph: colours spread by {m.hue_spread:.2f}, expected at most {limits.hue_spread}",
        ),
        (
            not m.rim and not _retina_alone(m, limits),
            "no fundus photograph: neither a dark ground around the field of view nor retina alone",
        ),
    )
    return next((reason for failed, reason in checks if failed), None)


def _retina_alone(m: Measured, limits: QualityLimits) -> bool:
    least, most = limits.rimless_structure
    return least <= m.structure <= most and m.slope >= limits.rimless_slope
