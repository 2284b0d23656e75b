"""The rim of the field of view: a circle fitted to the step from the lit retina to the dark ground (Sec. V-A).

Candidates come from thresholds and a vote among random triples of rim points, so a notch or tab on the rim, text in a
corner, a shadow or a cut above and below is outvoted; the best is refined on the steepest fall along each ray.
Where a circle was cut and dark bars stand in place of what is missing, the photograph ends for the fit at the bars.
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
    """Fit the circle whose rim is the clearest among those found at several thresholds.

    Args:
        light: brightness of the reduced photograph, 0 to 255.
        dark: brightness of the ground.
        lit: brightness of the retina.

    Returns:
        The circle in the reduced copy's pixels (centres at whole numbers), or None where most of the rim that should be
        seen does not fall into the dark.
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
    # A threshold may have followed a halo around the rim: the first refinement looks further and votes again.
    best = _most_common_circle(_steepest_points(light, best, 0.05), light.shape) or best
    for _ in range(2):
        best = _fit_to(_steepest_points(light, best, 0.03), best, 0.015)
    if _rim_support(light, best, lit - dark) <= 0.6:
        return None
    return Circle(best.x + columns.start, best.y + rows.start, best.radius)


def _without_bars(light: NDArray, dark: float, lit: float) -> slice:
    """The rows between dark bars: where a circle ends by itself, its first rows are short; where it was cut, long."""
    lengths = (light > dark + 0.12 * (lit - dark)).sum(1)
    bare = lengths < 0.02 * light.shape[1]
    long = lengths > 0.4 * lengths.max()
    first, last = int((~bare).argmax()), len(bare) - int((~bare)[::-1].argmax())
    start = first + 2 if first > 0 and long[first + 1 : first + 3].all() else 0
    stop = last - 2 if last < len(bare) and long[last - 3 : last - 1].all() else len(bare)
    return slice(start, stop) if stop - start > len(bare) // 4 else slice(0, len(bare))


def _rim_points(mask: NDArray) -> NDArray:
    """First and last pixel of each row and column of the largest lit part, but for those on the photograph's edge."""
    if not mask.any():
        return np.empty((0, 2))
    labels = np.empty(mask.shape, np.int32)
    ndimage.label(mask, output=labels)
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


def _most_common_circle(points: NDArray, shape: tuple[int, ...]) -> Circle | None:
    """The circle through three of the points that passes most others within 1 % of the longer side."""
    height, width = shape[:2]
    if len(points) < 12:
        return None
    points = points[:: 1 + len(points) // 400]
    centres, radii = _through(points[np.random.default_rng(0).integers(0, len(points), (256, 3))])
    # At least a fifth of the photograph across; at most the circle through its corners, and a little.
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
    """Least squares over the points within this share of the radius from the circle, then within half of it."""
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
    """Where each ray falls steepest within this share of the radius from the rim, to a fraction of a pixel."""
    reach = max(3.0, share * circle.radius)
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


def _rim_support(light: NDArray, circle: Circle, contrast: float) -> float:
    """Share of the visible rim that falls into the dark; 0 where it falls over less than a quarter of the circle."""
    step = max(1.5, 0.02 * circle.radius)
    profiles = _profiles(light, circle, circle.radius + np.array([-2 * step, -step, step]))
    seen = ~np.isnan(profiles).any(1)
    falls = seen & (profiles[:, :2].max(1) - profiles[:, 2] > max(3.0, 0.1 * contrast))
    corners = sum(falls[first : first + 90].sum() >= 5 for first in (0, 90, 180, 270))
    enough = falls.sum() >= 90 or (falls.sum() >= 40 and corners >= 3)  # a tight crop shows the rim in its corners only
    return float(falls.sum() / seen.sum()) if enough else 0.0
