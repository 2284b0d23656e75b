"""Eight image features for the quality gate that measure vessels: dark lines, long and connected, above the noise.

A line is a pixel whose neighbourhood along one direction is darker (or brighter) than both strips beside it. So steps,
the flanks of a bright spot and gradients count little. Two kinds of numbers follow: the contrast of the strongest lines
in units of the finest grain, and how far the strongest lines are connected. Neither depends on exposure or contrast;
grain, compression and plain surfaces have lines of low contrast that end after a few pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from scipy import ndimage

from deepmtdr.screening.quality_features import MaskedImage

STRUCTURE_NAMES = (
    "dark_lines",
    "darkest_lines",
    "bright_lines",
    "longest_dark",
    "connected_dark",
    "connected_more_dark",
    "longest_bright",
    "connected_more_bright",
)
"""Names of the features, in the order of `compute_structure_features`. All are natural logarithms."""
DIRECTIONS = 12
HALF_LENGTH = 4
"""Half of the length in px along which a line is averaged; the frame has 128 px."""
DISTANCES = (2, 3, 4)
"""Distances in px between a line and the strips beside it, for vessels of different width."""
MIN_CONTRAST = 0.004
"""Smallest contrast of a line, as a share of the brightness around it."""
MIN_LINE_PIXELS = 25
"""Connected lines with more pixels than this count as long."""


def compute_structure_features(image: MaskedImage) -> Float[np.ndarray, " n"]:
    """Compute the features of a frame; one number for each of `STRUCTURE_NAMES`."""
    inside = np.asarray(ndimage.binary_erosion(image.inside, iterations=3), bool)
    if not inside.any():
        return np.full(len(STRUCTURE_NAMES), np.log(0.02))
    return np.log(np.fromiter(_structure(image, inside), np.float64) + 0.02)


def _structure(image: MaskedImage, inside: NDArray) -> Iterator[float]:
    relative = np.where(image.mask > 0, image.green[1] / image.around, 1).astype(np.float32)
    dark, bright = _line_contrasts(relative)
    grain = float(((image.green[0] - image.green[1]) / image.around)[inside].std()) + 1e-3
    yield max(float(np.percentile(dark[inside], 95)), 0) / grain
    yield max(float(np.percentile(dark[inside], 98)), 0) / grain
    yield max(float(np.percentile(bright[inside], 98)), 0) / grain
    yield from _connection(dark, inside, 4.0)
    yield _connection(dark, inside, 8.0)[1]
    yield _connection(bright, inside, 4.0)[0]
    yield _connection(bright, inside, 8.0)[1]


def _line_contrasts(values: NDArray) -> tuple[NDArray, NDArray]:
    """Contrast of dark and of bright lines for each pixel: the largest over directions and distances."""
    dark = np.full(values.shape, -1, np.float32)
    bright = dark.copy()
    for angle in np.pi / DIRECTIONS * np.arange(DIRECTIONS):
        across, along = np.cos(angle), np.sin(angle)
        steps = [(round(step * along), round(step * across)) for step in range(-HALF_LENGTH, HALF_LENGTH + 1)]
        line = np.mean(list(_shifted(values, steps)), axis=0)
        for distance in DISTANCES:
            y, x = round(distance * across), round(-distance * along)
            left, right = _shifted(line, [(y, x), (-y, -x)])
            dark = np.maximum(dark, np.minimum(left, right) - line)
            bright = np.maximum(bright, line - np.maximum(left, right))
    return dark, bright


def _shifted(values: NDArray, steps: Sequence[tuple[int, int]]) -> Iterator[NDArray]:
    """For each step (y, x) the values at (row + y, column + x); beyond the edge the nearest ones."""
    (height, width), margin = values.shape, HALF_LENGTH
    padded = np.pad(values, margin, mode="edge")
    for y, x in steps:
        yield padded[margin + y : margin + y + height, margin + x : margin + x + width]


def _connection(contrast: NDArray, inside: NDArray, per_cent: float) -> tuple[float, float]:
    """Of the strongest lines, the extent of the longest in sides of the frame, and the share of pixels in long ones."""
    limit = max(float(np.percentile(contrast[inside], 100 - per_cent)), MIN_CONTRAST)
    labels, count = ndimage.label((contrast > limit) & inside, np.ones((3, 3)))  # pyright: ignore
    if not count:
        return 0.0, 0.0
    boxes = ndimage.find_objects(labels)
    extent = max(np.hypot(rows.stop - rows.start, columns.stop - columns.start) for rows, columns in boxes)
    sizes = np.bincount(labels.ravel())[1:]
    return float(extent) / len(contrast), float(sizes[sizes > MIN_LINE_PIXELS].sum() / sizes.sum())
