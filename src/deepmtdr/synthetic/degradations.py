"""Degrade photographs as in screening, until they cannot be graded: examples that the quality gate must refuse.

Sizes are shares of the side of the field of view, levels are of 255. The strength is drawn at random within the ranges
in the code; at their mild end the smaller vessels and all microaneurysms are invisible.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage, signal

from deepmtdr.photographs.geometry import inscribed_disc

_Degradation = Callable[[NDArray, np.random.Generator], NDArray]


def degrade(frame: UInt8[np.ndarray, "s s 3"], kind: str, rng: np.random.Generator) -> UInt8[np.ndarray, "s s 3"]:
    """Degrade a frame.

    Args:
        frame: a photograph cropped to its field of view, RGB, at least 256 px.
        kind: one of `DEGRADATIONS`.
        rng: draws strength and place.

    Returns:
        The degraded frame, black outside the inscribed disc.

    Raises:
        ValueError: if the kind is unknown.
    """
    if kind not in DEGRADATIONS:
        raise ValueError(f"unknown kind of degradation {kind!r}, expected one of {', '.join(DEGRADATIONS)}")
    degraded = DEGRADATIONS[kind](frame.astype(np.float32), rng)
    return np.rint(degraded * inscribed_disc(len(frame))[..., None]).clip(0, 255).astype(np.uint8)


def _defocus(frame: NDArray, rng: np.random.Generator) -> NDArray:
    return _blurred(frame, rng.uniform(0.01, 0.03))


def _motion(frame: NDArray, rng: np.random.Generator) -> NDArray:
    size, angle = int(len(frame) * rng.uniform(0.06, 0.13)), rng.uniform(0, np.pi)
    path, half = np.zeros((size, size)), (size - 1) / 2
    steps = np.linspace(-half, half, 4 * size)
    path[np.rint(half + steps * np.sin(angle)).astype(int), np.rint(half + steps * np.cos(angle)).astype(int)] = 1
    return signal.fftconvolve(frame, (path / path.sum())[..., None], mode="same", axes=(0, 1))


def _under_exposed(frame: NDArray, rng: np.random.Generator) -> NDArray:
    dimmed = frame * (rng.uniform(3.5, 13) / _level(frame))
    return dimmed + rng.normal(0, rng.uniform(0.5, 2.5), frame.shape)


def _over_exposed(frame: NDArray, rng: np.random.Generator) -> NDArray:
    return frame * (rng.uniform(230, 420) / _level(frame[..., 1:2])) * (1, 1, rng.uniform(1, 1.6))


def _flare(frame: NDArray, rng: np.random.Generator) -> NDArray:
    x, y = _places(len(frame))
    across = np.hypot(x - rng.uniform(-0.2, 0.2), y - rng.uniform(-0.2, 0.2))
    share = _step(rng.uniform(0.38, 0.55) - across, rng.uniform(0.03, 0.08)) * rng.uniform(0.85, 1)
    return _mixed(frame, np.array((255, rng.uniform(225, 255), rng.uniform(190, 250))), share)


def _haze(frame: NDArray, rng: np.random.Generator) -> NDArray:
    veil = (
        np.median(frame[inscribed_disc(len(frame))], axis=0) * rng.uniform(0.5, 1)
        + rng.uniform(0, 60)
        + rng.uniform(0, 25, 3)
    )
    return _mixed(_blurred(frame, rng.uniform(0.004, 0.01)), veil, np.full(frame.shape[:2], rng.uniform(0.72, 0.92)))


def _faint(frame: NDArray, rng: np.random.Generator) -> NDArray:
    smooth = _blurred(frame, 0.06)
    return smooth + (frame - smooth) * rng.uniform(0.06, 0.2)


def _shadow(frame: NDArray, rng: np.random.Generator) -> NDArray:
    """Darken most of the field: all but one side, or all but a spot."""
    x, y = _places(len(frame))
    if rng.random() < 0.5:
        angle = rng.uniform(0, 2 * np.pi)
        lit = _step(x * np.cos(angle) + y * np.sin(angle) - rng.uniform(0.08, 0.25), rng.uniform(0.02, 0.06))
    else:
        across = np.hypot(x - rng.uniform(-0.25, 0.25), y - rng.uniform(-0.25, 0.25))
        lit = _step(rng.uniform(0.14, 0.24) - across, rng.uniform(0.02, 0.05))
    least = rng.uniform(0.01, 0.08)
    return frame * (least + (1 - least) * lit)[..., None]


def _eyelid(frame: NDArray, rng: np.random.Generator) -> NDArray:
    x, y = _places(len(frame))
    angle = rng.choice([-1, 1]) * np.pi / 2 + rng.uniform(-0.5, 0.5)
    along = x * np.sin(angle) - y * np.cos(angle)
    deep = x * np.cos(angle) + y * np.sin(angle) + rng.uniform(-0.8, 0.8) * along**2
    skin = np.median(frame[inscribed_disc(len(frame))], axis=0) * rng.uniform(0.1, 1.4)
    skin = skin * (1, rng.uniform(0.8, 1.1), rng.uniform(0.7, 1.2)) * (1 + 0.1 * x[..., None])
    lid = _mixed(frame, skin, _step(deep - rng.uniform(-0.18, 0.05), rng.uniform(0.01, 0.04)))
    return _lashes(lid, rng) if rng.random() < 0.5 else lid


def _lashes(frame: NDArray, rng: np.random.Generator) -> NDArray:
    side = len(frame)
    drawn = Image.new("L", (side, side))
    for _ in range(rng.integers(14, 30)):
        start, bend, length = rng.uniform(0, side), rng.uniform(-0.3, 0.3) * side, rng.uniform(0.4, 0.8) * side
        points = [(start + bend * u * u, length * u) for u in np.linspace(0, 1, 12)]
        ImageDraw.Draw(drawn).line(points, 255, int(side * rng.uniform(0.012, 0.03)))
    hair = np.asarray(drawn, np.float32)[:: rng.choice([-1, 1])] / 255
    hair = ndimage.gaussian_filter(hair, side * rng.uniform(0.004, 0.012)) * rng.uniform(0.7, 0.95)
    return frame * (1 - hair[..., None])


def _noise(frame: NDArray, rng: np.random.Generator) -> NDArray:
    return frame + rng.normal(
        0, rng.uniform(40, 90) * len(frame) / 512, frame.shape
    )  # as strong at every size: the ranges are for 512 px


def _compressed(frame: NDArray, rng: np.random.Generator) -> NDArray:
    """Compress as JPEG of the lowest quality at 192 or 256 px."""
    small, file = int(rng.choice([192, 256])), io.BytesIO()
    picture = Image.fromarray(frame.clip(0, 255).astype(np.uint8)).resize((small, small), Image.Resampling.BICUBIC)
    picture.save(file, "JPEG", quality=int(rng.integers(1, 5)))
    return np.asarray(Image.open(file).resize(frame.shape[:2], Image.Resampling.BICUBIC), np.float32)


DEGRADATIONS: dict[str, _Degradation] = {
    "defocus": _defocus,
    "motion": _motion,
    "under-exposed": _under_exposed,
    "over-exposed": _over_exposed,
    "flare": _flare,
    "haze": _haze,
    "faint": _faint,
    "shadow": _shadow,
    "eyelid": _eyelid,
    "lashes": _lashes,
    "noise": _noise,
    "compressed": _compressed,
}
"""Kinds of degradation by name."""


def _blurred(frame: NDArray, share: float) -> NDArray:
    sigma = share * len(frame)
    return ndimage.gaussian_filter(frame, (sigma, sigma, 0))


def _level(frame: NDArray) -> float:
    """Median brightness in the disc."""
    return max(float(np.median(frame.mean(axis=2)[inscribed_disc(len(frame))])), 1.0)


def _places(side: int) -> tuple[NDArray, NDArray]:
    y, x = (np.mgrid[:side, :side] + 0.5) / side - 0.5
    return x, y


def _step(value: NDArray, width: float) -> NDArray:
    return 1 / (1 + np.exp(-(value / width).clip(-30, 30)))


def _mixed(frame: NDArray, over: NDArray, share: NDArray) -> NDArray:
    return frame * (1 - share[..., None]) + over * share[..., None]
