"""The field of view: finding the lit circle, and the way into the HR frame and back (Sec. V-A, readings R1 and R19).

The circle is fitted to the rim, the step from the lit retina to the dark border around it, on a copy reduced to about
256 px. Only the rim that the photograph shows is used, so a circle cut by the photograph's edge is found whole and its
square reaches outside the photograph. A notch or tab on the rim, text in a corner or a shadow is outvoted.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import hypot, log2
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, UInt8
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from deepmtdr.errors import NoFieldOfView
from deepmtdr.terms import FRAME, SCALES

REDUCED = 256
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


class Way(NamedTuple):
    """How a photograph gets into the HR frame: lr_size * scale == FRAME (reading R19)."""

    lr_size: int
    """Side to which the field of view is brought, in pixels."""
    scale: int
    """2, 4 or 8: the ISR subnet's scale from there. 1: straight into the frame, the ISR subnet is skipped."""


class _Circle(NamedTuple):
    x: float
    y: float
    radius: float


def find_fov(pixels: UInt8[np.ndarray, "h w 3"]) -> FieldOfView:
    """Find the square around the field of view.

    Args:
        pixels: the upright photograph, RGB.

    Returns:
        The square around the fitted circle. Where no rim is to be seen but the photograph is all retina by its colour,
        the square around the whole photograph.

    Raises:
        NoFieldOfView: if the photograph is uniform, or shows neither a lit circle on a dark ground nor retina alone.
    """
    height, width = pixels.shape[:2]
    factor = max(1.0, max(height, width) / REDUCED)
    small = _reduced(pixels, factor)
    light = ndimage.median_filter(small.max(axis=2).astype(np.float32), 3)
    dark, lit = (float(level) for level in np.percentile(light, (1, 75)))
    if lit - dark < 6 and float(light.max()) - dark < 12:
        raise NoFieldOfView(
            f"no field of view: brightness spans {dark:.0f} to {light.max():.0f} of 255 over {width}x{height} px, "
            "expected a lit circle on a dark ground"
        )
    circle = _fit_circle(light, dark, max(lit, dark + 12))
    if circle is not None:
        # The reduced copy's pixel centres lie at (i + 0.5) * factor in the photograph.
        x, y = (circle.x + 0.5) * width / small.shape[1], (circle.y + 0.5) * height / small.shape[0]
        radius = circle.radius * factor
        return FieldOfView(round(x - radius), round(y - radius), round(2 * radius))
    if not retina_colours(small):
        raise NoFieldOfView(
            f"no field of view in {width}x{height} px: found neither the rim of a lit circle on a dark ground "
            "nor the colours of a retina (red over green over blue)"
        )
    side = max(height, width)
    return FieldOfView((width - side) // 2, (height - side) // 2, side)


def retina_colours(pixels: UInt8[np.ndarray, "h w 3"]) -> bool:
    """Whether most pixels have a retina's order of colours: red over green over blue."""
    red, green, blue = (pixels[..., i].astype(np.int16) for i in range(3))
    ordered = (red > green + 4) & (green >= blue - 4)
    return bool(ordered.mean() > 0.8)


def crop_to_frame(pixels: UInt8[np.ndarray, "h w 3"], fov: FieldOfView, size: int) -> UInt8[np.ndarray, "size size 3"]:
    """The field of view as a square of `size` px, antialiased bicubic (the kernel of `model.isr.bicubic`).

    Args:
        pixels: the photograph, RGB.
        fov: its field of view.
        size: side of the result in pixels.

    Returns:
        RGB; black where the square reaches outside the photograph.
    """
    square = Image.fromarray(_cut_out(pixels, fov))
    return np.asarray(square.resize((size, size), Image.Resampling.BICUBIC))


def crop_mask(mask: Bool[np.ndarray, "h w"], fov: FieldOfView, size: int) -> Float[np.ndarray, "size size"]:
    """The share of each pixel of the frame that a mask covers: area is kept, a microaneurysm does not vanish.

    Args:
        mask: on the photograph's own pixels.
        fov: the photograph's field of view.
        size: side of the result in pixels.

    Returns:
        Coverage in [0, 1], float32; 0 outside the photograph.
    """
    square = Image.fromarray(_cut_out(mask, fov).astype(np.float32))
    return np.asarray(square.resize((size, size), Image.Resampling.BOX)).clip(0, 1)


def lay_back(
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
        part = Image.fromarray(np.asarray(frame_map, np.float32))
        laid[top:bottom, left:right] = part.resize((right - left, bottom - top), Image.Resampling.BILINEAR, box)
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
    rows, columns = (_lit_range(light, disc, axis, threshold) for axis in (1, 0))
    lit[rows, columns] = True
    corners = light[lit & ~disc]
    return lit if corners.size and float(np.median(corners)) > 2 * threshold else lit & disc


def way_into_frame(fov_side: int, as_lr: int | None = None) -> Way:
    """Choose how a field of view gets into the HR frame (reading R19).

    Args:
        fov_side: side of the field of view in the photograph's pixels.
        as_lr: force this low-resolution size (128, 256 or 512) whatever the photograph's own.

    Returns:
        The size among 128, 256, 512 and 1024 that is nearest on a logarithmic scale, and the scale from there.

    Raises:
        ValueError: if `as_lr` is no size that a scale leads from, or the side is not positive.
    """
    sizes = [FRAME // scale for scale in (1, *SCALES)]
    if as_lr is not None and as_lr not in sizes[1:]:
        raise ValueError(f"low-resolution size {as_lr}, expected one of {sorted(sizes[1:])}")
    if fov_side < 1:
        raise ValueError(f"field of view of {fov_side} px, expected at least 1")
    lr_size = as_lr or min(sizes, key=lambda size: abs(log2(size / fov_side)))
    return Way(lr_size, FRAME // lr_size)


def _lit_range(light: NDArray, disc: NDArray, axis: int, threshold: float) -> slice:
    # The 90th percentile along each row (column) inside the disc: a line of text in the dark does not light it.
    level = np.nanpercentile(np.where(disc, light, np.nan).astype(np.float32), 90, axis=axis)
    lit = np.flatnonzero(level > threshold)
    return slice(int(lit[0]), int(lit[-1]) + 1) if lit.size else slice(0, 0)


def _cut_out(pixels: NDArray, fov: FieldOfView) -> NDArray:
    height, width = pixels.shape[:2]
    square = np.zeros((fov.side, fov.side, *pixels.shape[2:]), pixels.dtype)
    left, right = max(fov.x, 0), min(fov.x + fov.side, width)
    top, bottom = max(fov.y, 0), min(fov.y + fov.side, height)
    if left < right and top < bottom:
        square[top - fov.y : bottom - fov.y, left - fov.x : right - fov.x] = pixels[top:bottom, left:right]
    return square


def _reduced(pixels: NDArray, factor: float) -> NDArray:
    height, width = pixels.shape[:2]
    size = (max(1, round(width / factor)), max(1, round(height / factor)))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX, reducing_gap=2.0))


def _fit_circle(light: NDArray, dark: float, lit: float) -> _Circle | None:
    """The circle with the clearest rim among those fitted at several thresholds between dark and lit."""
    best, best_support = None, 0.0
    for share in (0.06, 0.12, 0.2, 0.3, 0.45):
        points = _rim_points(light > dark + share * (lit - dark))
        circle = _robust_circle(points, light.shape)
        for _ in range(3):
            if circle is None:
                break
            circle = _robust_circle(_steepest_points(light, circle), light.shape) or circle
        support = _rim_support(light, circle, lit - dark) if circle is not None else 0.0
        if support > best_support:
            best, best_support = circle, support
    return best if best_support > 0.6 else None


def _rim_points(mask: NDArray) -> NDArray:
    """First and last pixel of each row and column of the largest lit part, but for those on the photograph's edge."""
    labels, count = ndimage.label(mask)
    if count == 0:
        return np.empty((0, 2))
    largest = labels == 1 + np.argmax(np.bincount(labels.ravel())[1:])
    height, width = mask.shape
    rows, columns = np.flatnonzero(largest.any(1)), np.flatnonzero(largest.any(0))
    by_row, by_column = largest[rows], largest[:, columns]
    # Half a pixel outwards: the rim lies between the last lit and the first dark pixel.
    points = np.concatenate(
        [
            np.stack([by_row.argmax(1) - 0.5, rows], 1),
            np.stack([width - 0.5 - by_row[:, ::-1].argmax(1), rows], 1),
            np.stack([columns, by_column.argmax(0) - 0.5], 1),
            np.stack([columns, height - 0.5 - by_column[::-1].argmax(0)], 1),
        ]
    )
    x, y = points.T
    return points[(x > 1) & (x < width - 2) & (y > 1) & (y < height - 2)]


def _robust_circle(points: NDArray, shape: tuple[int, ...]) -> _Circle | None:
    """The circle through most points within 1 % of the longer side, refined by least squares on those."""
    height, width = shape[:2]
    if len(points) < 12:
        return None
    triples = points[np.random.default_rng(0).integers(0, len(points), (256, 3))]
    centres, radii = _through(triples)
    possible = (radii > 0.2 * min(height, width)) & (radii < 0.55 * hypot(height, width))
    possible &= (abs(centres - [width / 2, height / 2]) < [0.5 * width, 0.5 * height]).all(1)
    centres, radii = centres[possible], radii[possible]
    if not len(radii):
        return None
    distance = np.linalg.norm(points[None] - centres[:, None], axis=2) - radii[:, None]
    tolerance = max(0.75, 0.01 * max(height, width))
    near = abs(distance[(abs(distance) < tolerance).sum(1).argmax()]) < tolerance
    circle = _least_squares(points[near])
    for shrink in (0.7, 0.5):
        distance = np.hypot(points[:, 0] - circle.x, points[:, 1] - circle.y) - circle.radius
        near = abs(distance) < max(0.75, shrink * tolerance)
        if near.sum() < 8:
            break
        circle = _least_squares(points[near])
    return circle


def _through(triples: NDArray) -> tuple[NDArray, NDArray]:
    a, b, c = triples[:, 0], triples[:, 1], triples[:, 2]
    (bx, by), (cx, cy) = (b - a).T, (c - a).T
    d = 2 * (bx * cy - by * cx)
    d = np.where(abs(d) < 1e-6, np.inf, d)
    b2, c2 = bx**2 + by**2, cx**2 + cy**2
    offset = np.stack([(cy * b2 - by * c2) / d, (bx * c2 - cx * b2) / d], 1)
    return a + offset, np.linalg.norm(offset, axis=1)


def _least_squares(points: NDArray) -> _Circle:
    mean = points.mean(0)
    x, y = (points - mean).T
    (a, b, c), *_ = np.linalg.lstsq(np.stack([x, y, np.ones_like(x)], 1), x**2 + y**2, rcond=None)
    return _Circle(float(a / 2 + mean[0]), float(b / 2 + mean[1]), float(np.sqrt(max(c + (a**2 + b**2) / 4, 0))))


_ANGLES = np.arange(360) * np.pi / 180


def _profiles(light: NDArray, circle: _Circle, radii: NDArray) -> NDArray:
    """Brightness along 360 rays at the given radii; NaN outside the photograph."""
    x = circle.x + radii[None] * np.cos(_ANGLES)[:, None]
    y = circle.y + radii[None] * np.sin(_ANGLES)[:, None]
    return ndimage.map_coordinates(light, [y, x], order=1, mode="constant", cval=np.nan)


def _steepest_points(light: NDArray, circle: _Circle) -> NDArray:
    """Where each ray falls half the way from its brightest to its darkest near the rim, to a fraction of a pixel."""
    reach = max(3.0, 0.05 * circle.radius)
    radii = circle.radius + np.arange(-reach, reach + 0.125, 0.25)
    profiles = _profiles(light, circle, radii)
    seen = ~np.isnan(profiles).any(1)
    fall = profiles[seen, :-8] - profiles[seen, 8:]  # over two pixels
    steepest = fall.argmax(1)
    clear = fall.max(1) > 3
    # The centre of gravity of the fall around its peak.
    index = steepest[:, None] + np.arange(-4, 5)[None]
    inside = (index >= 0) & (index < fall.shape[1])
    mass = np.where(inside, np.take_along_axis(fall, index.clip(0, fall.shape[1] - 1), 1), 0).clip(0)
    at = radii[0] + 0.25 * ((mass * index).sum(1) / mass.sum(1).clip(1e-6) + 4)
    at, angles = at[clear], _ANGLES[seen][clear]
    return np.stack([circle.x + at * np.cos(angles), circle.y + at * np.sin(angles)], 1)


def _rim_support(light: NDArray, circle: _Circle, contrast: float) -> float:
    """Share of the visible rim that falls into the dark; 0 where less than three quadrants show any."""
    step = max(1.5, 0.02 * circle.radius)
    profiles = _profiles(light, circle, circle.radius + np.array([-2 * step, -step, step]))
    seen = ~np.isnan(profiles).any(1)
    if seen.sum() < 40:
        return 0.0
    inner, outer = profiles[:, :2].max(1), profiles[:, 2]
    falls = seen & (inner - outer > max(3.0, 0.1 * contrast))
    quadrants = sum(falls[first : first + 90].sum() >= 5 for first in (0, 90, 180, 270))
    return float(falls.sum() / seen.sum()) if quadrants >= 3 else 0.0
