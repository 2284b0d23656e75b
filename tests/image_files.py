"""Photographs and masks for the tests: a lit circle, a square lesion."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def write_photograph(path: Path, side: int = 100, tint: int = 0) -> Path:
    """A lit circle of 0.8 of the height on a dark ground."""
    y, x = np.mgrid[:side, : side + 20] - np.array([(side - 1) / 2, (side + 19) / 2])[:, None, None]
    lit = np.hypot(y, x) < 0.4 * side
    pixels = lit[..., None] * np.array([180 - tint, 100, 50]) + 5
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path)
    return path


def write_mask(path: Path, shape: tuple[int, int] = (100, 120), value: int = 255) -> Path:
    """A square of 20 px in the middle."""
    pixels = np.zeros(shape, np.uint8)
    pixels[40:60, 50:70] = value
    Image.fromarray(pixels).save(path)
    return path
