"""26 image features for the quality gate: brightness, structure and colour.

They are the same for every resolution and depend little on the camera. The frame is first reduced to 128 px, so that a
large photograph gives the same values as a small one. Structure is measured relative to the brightness around it, so
that it does not depend on the exposure.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from scipy import ndimage

from deepmtdr.photographs.geometry import fov_mask
from deepmtdr.photographs.resize import resize

QUALITY_FRAME_SIDE = 128
"""Side in px to which every frame is resized before it is measured."""
BORDER = 5
"""Width in px of the rim that is left out, since its blur and glare do not come from the retina."""
MIN_PIXELS = 500
"""Smallest number of pixels inside the field of view."""
SIGMAS = (0.7, 1.4, 2.8, 5.6, 11.2)
"""Standard deviations in px of Gaussian filters; differences between them are bands of one octave."""
FEATURE_NAMES = (
    # brightness
    "light",
    "dark",
    "black",
    "white",
    "faintest",
    "darker",
    "brightest",
    "uneven",
    # structure
    "band0",
    "band1",
    "band2",
    "band3",
    "band4",
    "sparse",
    "weak",
    "patchy",
    "patchy_bright",
    "direction",
    "vessels",
    # colour
    "red",
    "green",
    "blue",
    "hues",
    "red_structure",
    "blue_structure",
    "colour_noise",
)
"""Names of the features, in the order of `compute_quality_features`. Logarithms are natural."""


def compute_quality_features(frame: UInt8[np.ndarray, "s s 3"]) -> Float[np.ndarray, " n"] | None:
    """Compute the features of a frame.

    Args:
        frame: a photograph cropped to its field of view, RGB, of any size.

    Returns:
        One number for each of `FEATURE_NAMES`; None if fewer than `MIN_PIXELS` pixels are inside the field of view.
    """
    image = MaskedImage.of(frame)
    return None if image is None else image_features(image)


def image_features(image: MaskedImage) -> Float[np.ndarray, " n"]:
    """Compute the features of a frame that has been reduced already; one number for each of `FEATURE_NAMES`."""
    return np.array([*_brightness(image), *_structure(image), *_colour(image)], np.float64)


class MaskedImage:
    """A frame with its field of view, and Gaussian means over the pixels of the field of view."""

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

    @classmethod
    def of(cls, frame: UInt8[np.ndarray, "s s 3"]) -> MaskedImage | None:
        """Reduce a frame to `QUALITY_FRAME_SIDE`; None if fewer than `MIN_PIXELS` pixels are in its field of view."""
        image = cls(frame if frame.shape[0] == QUALITY_FRAME_SIDE else resize(frame, QUALITY_FRAME_SIDE))
        return image if image.inside.sum() >= MIN_PIXELS else None

    def smooth(self, values: NDArray, sigma: float) -> NDArray:
        """Compute the Gaussian mean over the pixels of the field of view; the dark background is left out."""
        if sigma not in self.weights:
            self.weights[sigma] = np.maximum(ndimage.gaussian_filter(self.mask, sigma, truncate=3), 1e-3)
        return ndimage.gaussian_filter(values * self.mask, sigma, truncate=3) / self.weights[sigma]


def _brightness(image: MaskedImage) -> Iterator[float]:
    """Compute median brightness, shares of dark, black and white pixels, percentiles over the median, unevenness."""
    light = image.light
    median = float(np.median(light))
    first, tenth, last = np.percentile(light, (1, 10, 99))
    yield np.log(median + 4)
    yield (light < 0.4 * np.percentile(light, 75)).mean()
    yield (light < 14).mean()
    yield (image.colours.min(axis=1) >= 235).mean()
    yield from (np.log((level + 4) / (median + 4)) for level in (first, tenth, last))
    yield np.log(np.log(image.around[image.inside]).std() + 0.02)


def _structure(image: MaskedImage) -> Iterator[float]:
    """Compute contrast of the green channel by octave, how evenly it is spread, its direction, and vessels."""
    bands = [(fine - coarse) / image.around for fine, coarse in zip(image.green, image.green[1:], strict=False)]
    spreads = [band[image.inside].std() for band in bands]
    yield from (np.log(spread + 2e-3) for spread in spreads)
    yield np.log(spreads[1] / (np.abs(bands[1][image.inside]).mean() + 1e-4) + 0.01)
    nearby = np.sqrt(image.smooth((bands[1] + bands[2]) ** 2, 6.0))[image.inside]
    low, middle, high = np.percentile(nearby, (15, 50, 90))
    yield np.log(low + 2e-3)
    yield np.log((low + 1e-3) / (middle + 1e-3))
    yield np.log((high + 1e-3) / (middle + 1e-3))
    yield _direction(image)
    yield _vessels(image)


def _direction(image: MaskedImage) -> float:
    """Compute the log ratio of gradient energy along and across the main direction; it is large after motion blur."""
    down, right = (slope[image.inside] for slope in np.gradient(image.green[1] / image.around))
    across, along, mixed = (right * right).mean(), (down * down).mean(), (right * down).mean()
    mean, differ = (across + along) / 2, np.hypot((across - along) / 2, mixed)
    return float(np.log((mean + differ + 1e-6) / max(mean - differ + 1e-6, 1e-9)))


def _vessels(image: MaskedImage) -> float:
    """Compute the logarithm of the strength of dark over that of bright lines; vessels of a retina are dark lines."""
    down, right = np.gradient(image.green[2] / image.around)
    (down_down, mixed), right_right = np.gradient(down), np.gradient(right)[1]
    mean, differ = (right_right + down_down) / 2, np.hypot((right_right - down_down) / 2, mixed)
    dark, bright = ((mean + differ)[image.inside], (differ - mean)[image.inside])
    dark_lines, bright_lines = (max(float(np.percentile(lines, 95)) + 1e-3, 1e-6) for lines in (dark, bright))
    return float(np.log(dark_lines / bright_lines))


def _colour(image: MaskedImage) -> Iterator[float]:
    """Compute median shares of red and green, darkest channel over brightness, spread of hues, colour structure."""
    median = np.median(image.light)
    lit = image.colours[image.light >= 0.25 * median]
    shares = lit / np.maximum(lit.sum(axis=1, keepdims=True), 1)
    centre = np.median(shares, axis=0)
    yield from centre[:2]
    yield np.median(image.colours.min(axis=1)) / (median + 4)
    yield np.log(np.percentile(np.abs(shares - centre).sum(axis=1), 90) + 0.01)
    logs = np.log(image.pixels + 16)
    red, blue = logs[..., 0] - logs[..., 1], logs[..., 2] - logs[..., 1]
    fine = image.smooth(red, SIGMAS[0])
    structure = (fine - image.smooth(red, SIGMAS[2]), image.smooth(blue, SIGMAS[0]) - image.smooth(blue, SIGMAS[2]))
    yield from (np.log(part[image.inside].std() + 2e-3) for part in (*structure, red - fine))
