"""Draw severe changes onto a photograph: the quality gate must not take them for a picture of something else.

Sizes are shares of the side of the field of view. `benchmarks/retina_gate.py` fits the gate with such copies, because
few photographs of advanced disease were at hand.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray

from deepmtdr.photographs.geometry import inscribed_disc

_Change = Callable[[NDArray, NDArray, np.random.Generator], NDArray]


def add_severe_changes(
    frame: UInt8[np.ndarray, "s s 3"], kind: str, rng: np.random.Generator
) -> UInt8[np.ndarray, "s s 3"]:
    """Draw changes of one kind onto a frame.

    Args:
        frame: a photograph cropped to its field of view, RGB.
        kind: one of `SEVERE_CHANGES`.
        rng: draws number, place, size and strength.

    Returns:
        The changed frame; the dark background is as it was.

    Raises:
        ValueError: if the kind is unknown.
    """
    if kind not in SEVERE_CHANGES:
        raise ValueError(f"unknown kind of change {kind!r}, expected one of {', '.join(SEVERE_CHANGES)}")
    retina = np.median(frame[inscribed_disc(len(frame))], axis=0)
    changed = SEVERE_CHANGES[kind](frame.astype(np.float64), retina, rng)
    lit = frame.max(axis=2, keepdims=True) > 12
    return np.rint(np.where(lit, changed, frame).clip(0, 255)).astype(np.uint8)


def _laser_scars(frame: NDArray, retina: NDArray, rng: np.random.Generator) -> NDArray:
    for x, y in _places(rng, int(rng.integers(20, 110)), innermost=0.16):
        radius = rng.uniform(0.009, 0.025)
        pale = retina * (1.1, 1.5, 1.6) + rng.uniform(0, 60)
        frame = _blend(frame, pale.clip(0, 255), _spot(len(frame), x, y, radius) * rng.uniform(0.5, 1))
        if rng.random() < 0.5:
            frame = _blend(frame, retina * 0.3, 0.8 * _spot(len(frame), x, y, radius / 2))
    return frame


def _haemorrhages(frame: NDArray, retina: NDArray, rng: np.random.Generator) -> NDArray:
    for x, y in _places(rng, int(rng.integers(8, 60))):
        stretch = rng.uniform(0.5, 1.5, 2)
        spot = _spot(len(frame), x, y, rng.uniform(0.008, 0.07), stretch) * rng.uniform(0.5, 0.95)
        frame = _blend(frame, retina * (0.55, 0.3, 0.35), spot)
    return frame


def _exudates(frame: NDArray, retina: NDArray, rng: np.random.Generator) -> NDArray:
    yellow = (retina * (1.15, 1.9, 1.2)).clip(0, 255)
    for x, y in _places(rng, int(rng.integers(15, 120))):
        frame = _blend(frame, yellow, _spot(len(frame), x, y, rng.exponential(0.012) + 0.004) * rng.uniform(0.4, 1))
    return frame


def _albinotic(frame: NDArray, retina: NDArray, rng: np.random.Generator) -> NDArray:
    light = frame.mean(axis=2, keepdims=True)
    return 0.7 * frame + 0.3 * np.array((245, 190, 140)) + 0.3 * (light - light.mean())


def _dark(frame: NDArray, retina: NDArray, rng: np.random.Generator) -> NDArray:
    return frame * rng.uniform(0.3, 0.5) * (1, 0.8, 0.7)


SEVERE_CHANGES: dict[str, _Change] = {
    "laser scars": _laser_scars,
    "haemorrhages": _haemorrhages,
    "exudates": _exudates,
    "albinotic": _albinotic,
    "dark": _dark,
}
"""Kind -> the function that draws it."""


def _places(rng: np.random.Generator, count: int, innermost: float = 0.0) -> NDArray:
    """Random points (x, y) in the inscribed disc, beyond a distance from its centre."""
    angle, radius = rng.uniform(0, 2 * np.pi, count), np.sqrt(rng.uniform(innermost**2, 0.47**2, count))
    return np.stack([0.5 + radius * np.cos(angle), 0.5 + radius * np.sin(angle)], axis=1)


def _spot(side: int, x: float, y: float, radius: float, stretch: NDArray | tuple[float, float] = (1.0, 1.0)) -> NDArray:
    """Coverage of each pixel by a soft ellipse."""
    along = (np.arange(side) + 0.5) / side
    distance = np.hypot((along[None] - x) * stretch[0], (along[:, None] - y) * stretch[1])
    return 1 / (1 + np.exp(((distance - radius) / 0.004).clip(-50, 50)))


def _blend(frame: NDArray, colour: NDArray, share: NDArray) -> NDArray:
    return frame + share[..., None] * (colour - frame)
