"""Geometry of the field of view: from the photograph into the HR frame and back (interpretations R1 and R19).

Needs NumPy and Pillow only, so that an inference engine without PyTorch can use it.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log2
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, UInt8
from numpy.typing import NDArray
from PIL import Image

from deepmtdr.errors import InputSizeError
from deepmtdr.terms import FRAME, SCALES


@dataclass(frozen=True)
class FieldOfView:
    """The square around the field of view in pixels of the photograph; it may reach outside the photograph."""

    x: int
    """Column of the left edge; negative where the circle is cut on the left."""
    y: int
    """Row of the upper edge; negative where the circle is cut above."""
    side: int
    """Width and height in pixels."""

    def scaled(self, factor: int) -> FieldOfView:
        """The same square in a copy of the photograph with `factor` times as many rows and columns."""
        return FieldOfView(self.x * factor, self.y * factor, self.side * factor)

    def cut_out(self, pixels: NDArray) -> NDArray:
        """The square's pixels, 0 where it reaches outside the photograph."""
        square = np.zeros((self.side, self.side, *pixels.shape[2:]), pixels.dtype)
        left, top, right, bottom = self.clipped(*pixels.shape[:2])
        square[top - self.y : bottom - self.y, left - self.x : right - self.x] = pixels[top:bottom, left:right]
        return square

    def clipped(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Left, top, right and bottom edge of the part of the square that lies in the photograph; it may be empty."""
        left, top = min(max(self.x, 0), width), min(max(self.y, 0), height)
        right, bottom = max(min(self.x + self.side, width), left), max(min(self.y + self.side, height), top)
        return left, top, right, bottom


class InputScale(NamedTuple):
    """How a photograph is resized to the HR frame: `lr_size * scale` is the side of the frame (interpretation R19)."""

    lr_size: int
    """Side to which the field of view is resized, px."""
    scale: int
    """Factor by which the ISR subnet enlarges the `lr_size` image to the frame: 2, 4 or 8. 1: no super-resolution."""


def choose_input_scale(fov_side: int, as_lr: int | None = None, frame: int = FRAME) -> InputScale:
    """Choose the size to which a field of view is resized, and the scale to the frame (interpretation R19).

    Args:
        fov_side: side of the field of view in the photograph's pixels.
        as_lr: low-resolution size to use; None: the one nearest to the size of the field of view.
        frame: side of the HR frame, px.

    Returns:
        The size among frame/8, frame/4, frame/2 and the frame itself that is nearest on a logarithmic scale (1024 px:
        128, 256, 512, 1024), and the scale from that size to the frame.

    Raises:
        InputSizeError: if `as_lr` is not a low-resolution size of this frame.
        ValueError: if the side is not positive.
    """
    if fov_side < 1:
        raise ValueError(f"field of view of {fov_side} px, expected at least 1")
    low_resolution = [frame // scale for scale in SCALES]
    if as_lr is not None and as_lr not in low_resolution:
        expected = ", ".join(map(str, sorted(low_resolution)))
        raise InputSizeError(f"low-resolution size {as_lr} px, expected one of {expected} for a frame of {frame} px")
    lr_size = as_lr or min((frame, *low_resolution), key=lambda size: abs(log2(size / fov_side)))
    return InputScale(lr_size, frame // lr_size)


def crop_mask(mask: Bool[np.ndarray, "h w"], fov: FieldOfView, size: int) -> Float[np.ndarray, "size size"]:
    """The share of each pixel of the frame that a mask covers, so that a microaneurysm keeps its area.

    Args:
        mask: the mask of the photograph, pixel by pixel.
        fov: the photograph's field of view.
        size: side of the result in pixels.

    Returns:
        Coverage in [0, 1], float32; 0 outside the photograph.
    """
    edges = np.arange(size + 1) * fov.side / size
    by_row = _sums_between(mask, fov.y + edges)
    by_pixel = _sums_between(by_row.T, fov.x + edges).T
    return (by_pixel * (size / fov.side) ** 2).clip(0, 1).astype(np.float32)


def map_to_photograph(
    frame_map: Float[np.ndarray, "s s"], fov: FieldOfView, height: int, width: int
) -> Float[np.ndarray, "{height} {width}"]:
    """Resample a map of the frame onto the pixels of the photograph.

    Args:
        frame_map: one value per pixel of the frame, for example a lesion's probability.
        fov: the field of view by which the frame was cropped.
        height: height of the photograph, px.
        width: width of the photograph, px.

    Returns:
        The map on the photograph's pixels, float32, bilinear; 0 outside the square of the field of view.
    """
    laid = np.zeros((height, width), np.float32)
    left, top, right, bottom = fov.clipped(height, width)
    if left < right and top < bottom:
        step = frame_map.shape[0] / fov.side
        box = ((left - fov.x) * step, (top - fov.y) * step, (right - fov.x) * step, (bottom - fov.y) * step)
        image = Image.fromarray(np.asarray(frame_map, np.float32))
        part = image.resize((right - left, bottom - top), Image.Resampling.BILINEAR, box)
        laid[top:bottom, left:right] = np.asarray(part)
    return laid


def fov_mask(frame: UInt8[np.ndarray, "s s 3"]) -> Bool[np.ndarray, "s s"]:
    """Which pixels of a frame lie inside the field of view.

    Args:
        frame: a photograph cropped to its field of view, RGB.

    Returns:
        The inscribed disc, without the dark rows and columns at its edge where the camera cut the circle. If the
        corners are lit too (a photograph without a dark background), all lit rows and columns.
    """
    size = frame.shape[0]
    light = frame.max(axis=2)
    disc = inscribed_disc(size)
    threshold = max(3.0, 0.15 * float(np.median(light[disc])))
    lit = np.zeros((size, size), bool)
    lit[_lit_range(light, disc, 1, threshold), _lit_range(light, disc, 0, threshold)] = True
    corners = light[lit & ~disc]
    return lit if corners.size and float(np.median(corners)) > 2 * threshold else lit & disc


def inscribed_disc(side: int) -> Bool[np.ndarray, "{side} {side}"]:
    """The pixels of a square of `side` px whose centres lie in its inscribed circle."""
    offset = (np.arange(side) + 0.5) / side - 0.5
    return offset[:, None] ** 2 + offset[None, :] ** 2 <= 0.25


def _lit_range(light: NDArray, disc: NDArray, axis: int, threshold: float) -> slice:
    # A row or column counts as lit if at least a tenth of its pixels in the disc are lit: text or noise is not enough.
    share = ((light > threshold) & disc).sum(axis) / np.maximum(disc.sum(axis), 1)
    lit = np.flatnonzero(share > 0.1)
    return slice(int(lit[0]), int(lit[-1]) + 1) if lit.size else slice(0, 0)


def _sums_between(values: NDArray, edges: NDArray) -> NDArray:
    """Sum of the rows between each two edges; a row that an edge cuts counts by its share, rows outside are 0."""
    sums = np.concatenate([np.zeros((1, values.shape[1]), np.float32), np.cumsum(values, axis=0, dtype=np.float32)])
    edges = edges.clip(0, len(values))
    whole = np.floor(edges).astype(int)
    share = (edges - whole).astype(np.float32)[:, None]
    at_edges = (1 - share) * sums[whole] + share * sums[np.minimum(whole + 1, len(values))]
    return np.diff(at_edges, axis=0)
