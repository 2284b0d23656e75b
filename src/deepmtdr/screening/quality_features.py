"""What a frame looks like, in 26 numbers that are the same for every resolution and little moved by the camera.

All is measured on the frame at 128 px, the smallest field of view the project reads: a larger photograph has nothing
more to show there than a small one. Structure is taken relative to the light around it, so that exposure drops out.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from scipy import ndimage

from deepmtdr.photographs.field_of_view import fov_mask
from deepmtdr.photographs.resize import resize

QUALITY_FRAME_SIDE = 128
"""Side in pixels at which every frame is measured."""
BORDER = 5
"""Pixels at the rim that are left out: its own blur and glare say nothing about the retina."""
MIN_PIXELS = 500
"""Pixels inside the field of view below which nothing is measured."""
SIGMAS = (0.7, 1.4, 2.8, 5.6, 11.2)
"""Standard deviations of the Gaussians between which structure is measured, px: bands of one octave."""
FEATURE_NAMES = (
    *("light", "dark", "black", "white", "faintest", "darker", "brightest", "uneven"),
    *("band0", "band1", "band2", "band3", "band4", "sparse", "weak", "patchy", "patchy_bright", "direction", "vessels"),
    *("red", "green", "blue", "hues", "red_structure", "blue_structure", "colour_noise"),
)
"""In the order of what `compute_quality_features` returns. Where a logarithm is meant, it is the natural one."""


def compute_quality_features(frame: UInt8[np.ndarray, "s s 3"]) -> Float[np.ndarray, " n"] | None:
    """Measure a frame.

    Args:
        frame: a photograph cropped to its field of view, RGB, of any size.

    Returns:
        One number for each of `FEATURE_NAMES`; None for a frame with next to no lit pixel.
    """
    small = frame if frame.shape[0] == QUALITY_FRAME_SIDE else resize(frame, QUALITY_FRAME_SIDE)
    seen = _Seen(small)
    if seen.inside.sum() < MIN_PIXELS:
        return None
    return np.array([*_light(seen), *_structure(seen), *_colour(seen)], np.float64)


class _Seen:
    """A frame with its field of view, and Gaussian means over the field of view alone."""

    def __init__(self, small: UInt8[np.ndarray, "s s 3"]) -> None:
        self.mask = fov_mask(small).astype(np.float32)
        self.inside = np.asarray(ndimage.binary_erosion(self.mask, iterations=BORDER), bool)
        self.pixels = small.astype(np.float32)
        self.colours = self.pixels[self.inside]
        self.light = self.colours.mean(axis=1)
        self.weights: dict[float, NDArray] = {}
        if self.inside.any():
            self.green = [self.pixels[..., 1], *(self.smooth(self.pixels[..., 1], scale) for scale in SIGMAS)]
            self.around = self.green[-1] + 8

    def smooth(self, values: NDArray, sigma: float) -> NDArray:
        """The dark ground does not leak in."""
        if sigma not in self.weights:
            self.weights[sigma] = np.maximum(ndimage.gaussian_filter(self.mask, sigma, truncate=3), 1e-3)
        return ndimage.gaussian_filter(values * self.mask, sigma, truncate=3) / self.weights[sigma]


def _light(seen: _Seen) -> Iterator[float]:
    """Brightness, shares of dark, black and white, how far the ends lie from the median, and unevenness."""
    light = seen.light
    median = float(np.median(light))
    first, tenth, last = np.percentile(light, (1, 10, 99))
    yield np.log(median + 4)
    yield (light < 0.4 * np.percentile(light, 75)).mean()
    yield (light < 14).mean()
    yield (seen.colours.min(axis=1) >= 235).mean()
    yield from (np.log((level + 4) / (median + 4)) for level in (first, tenth, last))
    yield np.log(np.log(seen.around[seen.inside]).std() + 0.02)


def _structure(seen: _Seen) -> Iterator[float]:
    """Of the green channel: contrast by octave, whether it is everywhere, and whether it has a direction."""
    bands = [(fine - coarse) / seen.around for fine, coarse in zip(seen.green, seen.green[1:], strict=False)]
    spreads = [band[seen.inside].std() for band in bands]
    yield from (np.log(spread + 2e-3) for spread in spreads)
    yield np.log(spreads[1] / (np.abs(bands[1][seen.inside]).mean() + 1e-4) + 0.01)
    nearby = np.sqrt(seen.smooth((bands[1] + bands[2]) ** 2, 6.0))[seen.inside]
    low, middle, high = np.percentile(nearby, (15, 50, 90))
    yield np.log(low + 2e-3)
    yield np.log((low + 1e-3) / (middle + 1e-3))
    yield np.log((high + 1e-3) / (middle + 1e-3))
    yield _direction(seen)
    yield _vessels(seen)


def _direction(seen: _Seen) -> float:
    """Logarithm of how much steeper the slopes are along one direction than across: motion leaves one."""
    down, right = (slope[seen.inside] for slope in np.gradient(seen.green[1] / seen.around))
    across, along, mixed = (right * right).mean(), (down * down).mean(), (right * down).mean()
    mean, differ = (across + along) / 2, np.hypot((across - along) / 2, mixed)
    return float(np.log((mean + differ + 1e-6) / max(mean - differ + 1e-6, 1e-9)))


def _vessels(seen: _Seen) -> float:
    """Logarithm of how much stronger dark lines are than bright ones: a retina's vessels are dark."""
    down, right = np.gradient(seen.green[2] / seen.around)
    (down_down, mixed), right_right = np.gradient(down), np.gradient(right)[1]
    mean, differ = (right_right + down_down) / 2, np.hypot((right_right - down_down) / 2, mixed)
    dark, bright = ((mean + differ)[seen.inside], (differ - mean)[seen.inside])
    dark_lines, bright_lines = (max(float(np.percentile(lines, 95)) + 1e-3, 1e-6) for lines in (dark, bright))
    return float(np.log(dark_lines / bright_lines))


def _colour(seen: _Seen) -> Iterator[float]:
    """Median shares of red and green, the darkest channel beside the light, their spread, and structure in colour."""
    median = np.median(seen.light)
    lit = seen.colours[seen.light >= 0.25 * median]
    shares = lit / np.maximum(lit.sum(axis=1, keepdims=True), 1)
    centre = np.median(shares, axis=0)
    yield from centre[:2]
    yield np.median(seen.colours.min(axis=1)) / (median + 4)
    yield np.log(np.percentile(np.abs(shares - centre).sum(axis=1), 90) + 0.01)
    logs = np.log(seen.pixels + 16)
    red, blue = logs[..., 0] - logs[..., 1], logs[..., 2] - logs[..., 1]
    fine = seen.smooth(red, SIGMAS[0])
    structure = (fine - seen.smooth(red, SIGMAS[2]), seen.smooth(blue, SIGMAS[0]) - seen.smooth(blue, SIGMAS[2]))
    yield from (np.log(part[seen.inside].std() + 2e-3) for part in (*structure, red - fine))
