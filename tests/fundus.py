"""Draw a simple fundus: a lit retina with disc and vessels on a dark ground, at any position and size."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

RETINA, OPTIC_DISC, VESSEL = (190, 95, 45), (245, 205, 140), (120, 40, 25)


def draw_fundus(
    height: int = 300,
    width: int = 400,
    centre: tuple[float, float] = (200, 150),
    radius: float = 140,
    *,
    ground: int = 0,
) -> NDArray[np.uint8]:
    """RGB of height x width px; `centre` is (x, y); parts outside the picture are cut."""
    y, x = np.mgrid[:height, :width] + 0.5
    u, v = (x - centre[0]) / radius, (y - centre[1]) / radius
    pixels = np.full((height, width, 3), ground, float)
    light = 1 - 0.35 * np.hypot(u, v) ** 2
    pixels[:] = light[..., None] * RETINA
    for bend in (-0.9, -0.5, 0.5, 0.9):  # arcades that leave the disc
        pixels[(abs(v - bend * np.sqrt(abs(u - 0.5))) < 0.015) & (u < 0.5)] = VESSEL
    for row in (-0.25, 0.1, 0.35):
        pixels[abs(v - row - 0.1 * np.sin(5 * u)) < 0.012] = VESSEL
    pixels[np.hypot(u - 0.5, v) < 0.13] = OPTIC_DISC
    rim = np.clip((1 - np.hypot(u, v)) * radius + 0.5, 0, 1)[..., None]
    return np.rint(ground + rim * (pixels - ground)).clip(0, 255).astype(np.uint8)
