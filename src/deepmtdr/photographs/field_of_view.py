"""The field of view: finding the lit circle, and the way into the HR frame and back (Sec. V-A, readings R1 and R19).

The circle is fitted to the rim (`rim.py`) on a copy reduced to about 256 px. A circle that the photograph's edge cuts
is found whole, and its square reaches outside the photograph.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log2
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, UInt8
from numpy.typing import NDArray
from PIL import Image

from deepmtdr.errors import InputSizeError, NoFieldOfViewError
from deepmtdr.photographs.circle_fit import fit_circle
from deepmtdr.photographs.resize import resize
from deepmtdr.terms import FRAME, SCALES

SEARCH_SIDE = 256
"""Longer side of the reduced copy on which the rim is looked for, in pixels."""


@dataclass(frozen=True)
class FieldOfView:
    """The square around the field of view, in the photograph's own pixels; it may reach outside the photograph."""

    x: int
    """Column of the left edge; negative where the circle is cut on the left."""
    y: int
    """Row of the upper edge; negative where the circle is cut above."""
    side: int
    """Width and height in pixels."""


class InputScale(NamedTuple):
    """How a photograph gets into the HR frame: `lr_size * scale` is the frame's side (interpretation R19)."""

    lr_size: int
    """Side to which the field of view is brought, in pixels."""
    scale: int
    """2, 4 or 8: the ISR subnet's scale from there. 1: straight into the frame, the ISR subnet is skipped."""


def find_fov(pixels: UInt8[np.ndarray, "h w 3"]) -> FieldOfView:
    """Find the square around the field of view.

    Args:
        pixels: the upright photograph, RGB.

    Returns:
        The square around the fitted circle. Where no rim is to be seen but the photograph is all retina by its colour,
        the square around the whole photograph.

    Raises:
        NoFieldOfViewError: if the photograph is uniform, or shows neither a lit circle on a dark ground nor retina alone.
    """
    height, width = pixels.shape[:2]
    factor = max(1.0, max(height, width) / SEARCH_SIDE)
    small = _reduced(pixels, factor)
    light = _median_of_nine(np.maximum(np.maximum(small[..., 0], small[..., 1]), small[..., 2])).astype(np.float32)
    dark, lit = (float(level) for level in np.percentile(light, (1, 75)))
    if lit - dark < 6 and float(light.max()) - dark < 12:
        raise NoFieldOfViewError(
            f"no field of view: brightness spans {dark:.0f} to {light.max():.0f} of 255 over {width}x{height} px, "
            "expected a lit circle on a dark ground"
        )
    circle = fit_circle(light, dark, max(lit, dark + 12))
    if circle is not None:
        # The reduced copy's pixel centres lie at (i + 0.5) * factor in the photograph.
        x, y = (circle.x + 0.5) * width / small.shape[1], (circle.y + 0.5) * height / small.shape[0]
        radius = circle.radius * factor
        return FieldOfView(round(x - radius), round(y - radius), round(2 * radius))
    if not has_retina_colours(small):
        raise NoFieldOfViewError(
            f"no field of view in {width}x{height} px: found neither the rim of a lit circle on a dark ground "
            "nor the colours of a retina (red over green over blue)"
        )
    side = max(height, width)
    return FieldOfView((width - side) // 2, (height - side) // 2, side)


def has_retina_colours(pixels: UInt8[np.ndarray, "h w 3"]) -> bool:
    """Whether most pixels have a retina's order of colours: red over green over blue."""
    red, green, blue = (pixels[..., i].astype(np.int16) for i in range(3))
    ordered = (red > green + 4) & (green >= blue - 4)
    return bool(ordered.mean() > 0.8)


def crop_to_frame(pixels: UInt8[np.ndarray, "h w 3"], fov: FieldOfView, size: int) -> UInt8[np.ndarray, "size size 3"]:
    """The field of view as a square of `size` px, antialiased bicubic.

    Args:
        pixels: the photograph, RGB.
        fov: its field of view.
        size: side of the result in pixels.

    Returns:
        RGB; black where the square reaches outside the photograph.
    """
    return resize(_cut_out(pixels, fov), size)


def crop_mask(mask: Bool[np.ndarray, "h w"], fov: FieldOfView, size: int) -> Float[np.ndarray, "size size"]:
    """The share of each pixel of the frame that a mask covers: area is kept, a microaneurysm does not vanish.

    Args:
        mask: on the photograph's own pixels.
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
    """Lay a map of the frame back onto the photograph.

    Args:
        frame_map: any value per pixel of the frame, for example a lesion's probability.
        fov: the field of view the frame was cropped by.
        height: of the photograph, pixels.
        width: of the photograph, pixels.

    Returns:
        The map on the photograph's own pixels, float32, bilinear; 0 outside the field of view's square.
    """
    laid = np.zeros((height, width), np.float32)
    left, right = max(fov.x, 0), min(fov.x + fov.side, width)
    top, bottom = max(fov.y, 0), min(fov.y + fov.side, height)
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
        The inscribed disc without the rows and columns at its edge that are dark because the circle was cut there.
        Where the corners are lit too (a photograph without a dark ground), all lit rows and columns.
    """
    size = frame.shape[0]
    light = frame.max(axis=2)
    offset = (np.arange(size) + 0.5) / size - 0.5
    disc = offset[:, None] ** 2 + offset[None, :] ** 2 <= 0.25
    threshold = max(3.0, 0.15 * float(np.median(light[disc])))
    lit = np.zeros((size, size), bool)
    lit[_lit_range(light, disc, 1, threshold), _lit_range(light, disc, 0, threshold)] = True
    corners = light[lit & ~disc]
    return lit if corners.size and float(np.median(corners)) > 2 * threshold else lit & disc


def choose_input_scale(fov_side: int, as_lr: int | None = None, frame: int = FRAME) -> InputScale:
    """Choose the size to which a field of view is resized, and the scale from there to the frame (interpretation R19).

    Args:
        fov_side: side of the field of view in the photograph's pixels.
        as_lr: use this low-resolution size, whatever the photograph's own.
        frame: side of the HR frame, px.

    Returns:
        The size among frame/8, frame/4, frame/2 and the frame itself that is nearest on a logarithmic scale (1024 px:
        128, 256, 512, 1024), and the scale from there.

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


def _lit_range(light: NDArray, disc: NDArray, axis: int, threshold: float) -> slice:
    # A row (column) is lit when a tenth of it inside the disc is: text or noise in the dark does not light it.
    share = ((light > threshold) & disc).sum(axis) / np.maximum(disc.sum(axis), 1)
    lit = np.flatnonzero(share > 0.1)
    return slice(int(lit[0]), int(lit[-1]) + 1) if lit.size else slice(0, 0)


def _cut_out(pixels: NDArray, fov: FieldOfView) -> NDArray:
    height, width = pixels.shape[:2]
    square = np.zeros((fov.side, fov.side, *pixels.shape[2:]), pixels.dtype)
    left, right = max(fov.x, 0), min(fov.x + fov.side, width)
    top, bottom = max(fov.y, 0), min(fov.y + fov.side, height)
    if left < right and top < bottom:
        square[top - fov.y : bottom - fov.y, left - fov.x : right - fov.x] = pixels[top:bottom, left:right]
    return square


def _sums_between(values: NDArray, edges: NDArray) -> NDArray:
    """Sum of the rows between each two edges, a row cut by an edge counting by its share; no rows lie outside."""
    sums = np.concatenate([np.zeros((1, values.shape[1]), np.float32), np.cumsum(values, axis=0, dtype=np.float32)])
    edges = edges.clip(0, len(values))
    whole = np.floor(edges).astype(int)
    share = (edges - whole).astype(np.float32)[:, None]
    at_edges = (1 - share) * sums[whole] + share * sums[np.minimum(whole + 1, len(values))]
    return np.diff(at_edges, axis=0)


def _median_of_nine(values: NDArray) -> NDArray:
    """The median of each pixel and its neighbours; the libraries' take thirty times as long."""
    columns = (part.T for part in _in_order(*_with_neighbours(values)))
    low, middle, high = (_in_order(*_with_neighbours(part)) for part in columns)
    return _in_order(low[2], middle[1], high[0])[1].T


def _with_neighbours(values: NDArray) -> tuple[NDArray, NDArray, NDArray]:
    """The row above each, itself, and the row below."""
    wide = np.pad(values, ((1, 1), (0, 0)), mode="edge")
    return wide[:-2], wide[1:-1], wide[2:]


def _in_order(a: NDArray, b: NDArray, c: NDArray) -> tuple[NDArray, NDArray, NDArray]:
    low, high = np.minimum(a, b), np.maximum(a, b)
    return np.minimum(low, c), np.maximum(low, np.minimum(high, c)), np.maximum(high, c)


def _reduced(pixels: NDArray, factor: float) -> NDArray:
    height, width = pixels.shape[:2]
    size = (max(1, round(width / factor)), max(1, round(height / factor)))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX, reducing_gap=2.0))
