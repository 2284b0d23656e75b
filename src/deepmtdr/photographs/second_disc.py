"""Find a second field of view in a picture: two eyes side by side, or a sheet of several photographs.

Only one of them could be graded, and nobody would notice that the others were left out.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray
from scipy import ndimage

from deepmtdr.photographs.circle_fit import Circle, fit_circle
from deepmtdr.photographs.field_of_view import reduced_light
from deepmtdr.photographs.geometry import FieldOfView

SIMILAR_RADIUS = (0.55, 1.8)
"""Radius of a second disc over that of the first one."""
LIT_SHARES = (0.12, 0.3)
"""Thresholds between the brightness of the background (0) and of the retina (1), above which a pixel is lit."""
MIN_AREA = 0.2
"""Smallest lit area beside the first disc that is examined, as a share of the first disc's area."""
MIN_LIT = 0.6
"""Smallest lit share of a second disc, as far as it lies in the picture and outside of the first one."""


def find_second_disc(pixels: UInt8[np.ndarray, "h w 3"], fov: FieldOfView) -> FieldOfView | None:
    """Find a disc of similar size beside the field of view. Labels, notches, reflections and bright frames are none.

    Args:
        pixels: the upright picture, RGB.
        fov: the field of view that was found in it.

    Returns:
        The square around the second disc; None if there is none.
    """
    light, factor = reduced_light(pixels)
    first = Circle((fov.x + fov.side / 2) / factor - 0.5, (fov.y + fov.side / 2) / factor - 0.5, fov.side / factor / 2)
    distance = _distance(light, first)
    if not (distance < 1).any():
        return None
    dark, lit = float(np.percentile(light, 1)), float(np.median(light[distance < 0.9]))
    for share in LIT_SHARES:
        beside = (light > dark + share * (lit - dark)) & (distance > 1.04)
        for part in _large_parts(beside, MIN_AREA * np.pi * first.radius**2):
            second = fit_circle(np.where(part, light, dark), dark, max(lit, dark + 12))
            if second is not None and _is_another_disc(second, first, beside, distance):
                x, y, radius = (second.x + 0.5) * factor, (second.y + 0.5) * factor, second.radius * factor
                return FieldOfView(round(x - radius), round(y - radius), round(2 * radius))
    return None


def _large_parts(mask: NDArray, area: float) -> list[NDArray]:
    """The connected parts with at least this area in pixels, each with a margin for its blurred rim, largest first."""
    labels, _ = ndimage.label(mask)  # pyright: ignore[reportGeneralTypeIssues]
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    large = [number for number in np.argsort(-sizes) if sizes[number] >= area]
    return [ndimage.binary_dilation(labels == number, iterations=3) for number in large]


def _is_another_disc(second: Circle, first: Circle, lit: NDArray, distance: NDArray) -> bool:
    """Whether a circle is of similar size, beside the first one, and filled with light."""
    least, most = SIMILAR_RADIUS
    apart = np.hypot(second.x - first.x, second.y - first.y)
    own = (_distance(lit, second) < 0.95) & (distance > 1.04)
    similar = least < second.radius / first.radius < most and apart > max(first.radius, second.radius)
    return bool(similar and own.any() and lit[own].mean() >= MIN_LIT)


def _distance(image: NDArray, circle: Circle) -> NDArray:
    """Distance of each pixel from the circle's centre, in radii."""
    y, x = np.ogrid[: image.shape[0], : image.shape[1]]
    return np.hypot(x - circle.x, y - circle.y) / circle.radius
