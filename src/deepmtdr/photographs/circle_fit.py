"""Fit a circle to the rim of the field of view, where the bright retina meets the dark background (Sec. V-A).

Candidates come from several thresholds and a vote among random triples of rim points, so that a notch or tab on the
rim, text in a corner, a shadow, or a cut above and below do not matter. The best candidate is refined on the steepest
decrease of brightness along each ray. Dark bars, where the circle was cut, are left out of the fit.
"""

from __future__ import annotations

from math import hypot
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage


class Circle(NamedTuple):
    """Centre and radius in pixels."""

    x: float
    y: float
    radius: float


def fit_circle(light: NDArray, dark: float, lit: float) -> Circle | None:
    """Fit the circle with the clearest rim among those found at several thresholds.

    Args:
        light: brightness of the reduced photograph, 0 to 255.
        dark: brightness of the background.
        lit: brightness of the retina.

    Returns:
        The circle in pixels of the reduced copy (centres at whole numbers). None, if along most of the visible rim the
        brightness does not decrease.
    """
    rows, columns = (_without_bars(part, dark, lit) for part in (light, light.T))
    light = light[rows, columns]
    best, best_support = None, 0.0
    for share in (0.12, 0.25, 0.06, 0.45):
        circle = _most_common_circle(_rim_points(light > dark + share * (lit - dark)), light.shape)
        support = _rim_support(light, circle, lit - dark) if circle is not None else 0.0
        if support > best_support:
            best, best_support = circle, support
        if support > 0.95:
            break
    if best is None:
        return None
    # A threshold may have followed a halo around the rim, so the first refinement has a wider range and votes again.
    best = _most_common_circle(_steepest_points(light, best, 0.05), light.shape) or best
    for _ in range(2):
        best = _fit_to(_steepest_points(light, best, 0.03), best, 0.015)
    if _rim_support(light, best, lit - dark) <= 0.6:
        return None
    return Circle(best.x + columns.start, best.y + rows.start, best.radius)


def _without_bars(light: NDArray, dark: float, lit: float) -> slice:
    """The rows between dark bars. At the end of a circle the first lit rows are short; at a cut they are long."""
    lengths = (light > dark + 0.12 * (lit - dark)).sum(1)
    bare = lengths < 0.02 * light.shape[1]
    long = lengths > 0.4 * lengths.max()
    first, last = int((~bare).argmax()), len(bare) - int((~bare)[::-1].argmax())
    start = first + 2 if first > 0 and long[first + 1 : first + 3].all() else 0
    stop = last - 2 if last < len(bare) and long[last - 3 : last - 1].all() else len(bare)
    return slice(start, stop) if stop - start > len(bare) // 4 else slice(0, len(bare))


def _rim_points(mask: NDArray) -> NDArray:
    """First and last pixel of each row and column of the largest bright area, except at the photograph's edge."""
    if not mask.any():
        return np.empty((0, 2))
    labels = np.empty(mask.shape, np.int32)
    ndimage.label(mask, output=labels)
    largest = labels == 1 + np.argmax(np.bincount(labels.ravel())[1:])
    height, width = mask.shape
    rows, columns = np.flatnonzero(largest.any(1)), np.flatnonzero(largest.any(0))
    by_row, by_column = largest[rows], largest[:, columns]
    # Half a pixel outwards, because the rim is between the last lit and the first dark pixel.
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


def _most_common_circle(points: NDArray, shape: tuple[int, ...]) -> Circle | None:
    """The circle through three of the points that has most other points within 1 % of the longer side."""
    height, width = shape[:2]
    if len(points) < 12:
        return None
    points = points[:: 1 + len(points) // 400]
    centres, radii = _through(points[np.random.default_rng(0).integers(0, len(points), (256, 3))])
    # Diameter of at least a fifth of the photograph; at most a little more than the circle through its corners.
    possible = (radii > 0.1 * min(height, width)) & (radii < 0.55 * hypot(height, width))
    possible &= (abs(centres - [width / 2, height / 2]) < [0.5 * width, 0.5 * height]).all(1)
    centres, radii = centres[possible], radii[possible]
    if not len(radii):
        return None
    distances = np.hypot(points[:, 0] - centres[:, :1], points[:, 1] - centres[:, 1:]) - radii[:, None]
    near = abs(distances) < max(0.75, 0.01 * max(height, width))
    (x, y), radius = centres[near.sum(1).argmax()], radii[near.sum(1).argmax()]
    return _fit_to(points, Circle(float(x), float(y), float(radius)), 0.015)


def _fit_to(points: NDArray, circle: Circle, share: float) -> Circle:
    """Fit by least squares to the points within a share of the radius from the circle, then within half that share."""
    for tolerance in (share, share / 2):
        distance = np.hypot(points[:, 0] - circle.x, points[:, 1] - circle.y) - circle.radius
        near = abs(distance) < max(0.75, tolerance * circle.radius)
        if near.sum() < 12:
            break
        circle = _least_squares(points[near])
    return circle


def _through(triples: NDArray) -> tuple[NDArray, NDArray]:
    a, b, c = triples[:, 0], triples[:, 1], triples[:, 2]
    (bx, by), (cx, cy) = np.transpose(b - a), np.transpose(c - a)
    d = 2 * (bx * cy - by * cx)
    d = np.where(abs(d) < 1e-6, np.inf, d)
    b2, c2 = bx**2 + by**2, cx**2 + cy**2
    offset = np.stack([(cy * b2 - by * c2) / d, (bx * c2 - cx * b2) / d], 1)
    return a + offset, np.linalg.norm(offset, axis=1)


def _least_squares(points: NDArray) -> Circle:
    mean = points.mean(0)
    x, y = (points - mean).T
    (a, b, c), *_ = np.linalg.lstsq(np.stack([x, y, np.ones_like(x)], 1), x**2 + y**2, rcond=None)
    return Circle(float(a / 2 + mean[0]), float(b / 2 + mean[1]), float(np.sqrt(max(c + (a**2 + b**2) / 4, 0))))


_ANGLES = np.arange(360) * np.pi / 180


def _profiles(light: NDArray, circle: Circle, radii: NDArray) -> NDArray:
    """Brightness along 360 rays at the given radii; NaN outside the photograph."""
    x = circle.x + radii[None] * np.cos(_ANGLES)[:, None]
    y = circle.y + radii[None] * np.sin(_ANGLES)[:, None]
    return ndimage.map_coordinates(light, [y, x], order=1, mode="constant", cval=np.nan)


def _steepest_points(light: NDArray, circle: Circle, share: float) -> NDArray:
    """The steepest decrease along each ray within this share of the radius from the rim, to a fraction of a pixel."""
    reach = max(3.0, share * circle.radius)
    radii = circle.radius + np.arange(-reach, reach + 0.125, 0.25)
    profiles = _profiles(light, circle, radii)
    visible = ~np.isnan(profiles).any(1)
    fall = profiles[visible, :-8] - profiles[visible, 8:]  # over two pixels
    steepest = fall.argmax(1)
    clear = fall.max(1) > 3
    # The centre of gravity of the decrease around its maximum.
    index = steepest[:, None] + np.arange(-4, 5)[None]
    inside = (index >= 0) & (index < fall.shape[1])
    mass = np.where(inside, np.take_along_axis(fall, index.clip(0, fall.shape[1] - 1), 1), 0).clip(0)
    at = radii[0] + 0.25 * ((mass * index).sum(1) / mass.sum(1).clip(1e-6) + 4)
    at, angles = at[clear], _ANGLES[visible][clear]
    return np.stack([circle.x + at * np.cos(angles), circle.y + at * np.sin(angles)], 1)


def _rim_support(light: NDArray, circle: Circle, contrast: float) -> float:
    """Share of the visible rim along which brightness decreases; 0 if that is less than a quarter of the circle."""
    step = max(1.5, 0.02 * circle.radius)
    profiles = _profiles(light, circle, circle.radius + np.array([-2 * step, -step, step]))
    visible = ~np.isnan(profiles).any(1)
    falls = visible & (profiles[:, :2].max(1) - profiles[:, 2] > max(3.0, 0.1 * contrast))
    corners = sum(falls[first : first + 90].sum() >= 5 for first in (0, 90, 180, 270))
    enough = falls.sum() >= 90 or (
        falls.sum() >= 40 and corners >= 3
    )  # in a tight crop the rim is visible in the corners only
    return float(falls.sum() / visible.sum()) if enough else 0.0
