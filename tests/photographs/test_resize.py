"""Antialiased bicubic resampling: as Pillow's, the same with and without PyTorch."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from deepmtdr.photographs.resize import resize, resize_by_numpy, resize_by_torch


@pytest.mark.parametrize(("width", "height", "side"), [(64, 64, 16), (61, 97, 32), (40, 24, 80), (1705, 1705, 1024)])
def test_result_is_pillows_bicubic(width: int, height: int, side: int, rng: np.random.Generator) -> None:
    # 64 to 192, so that overshoot stays within 8 bits: both clip it between their two passes.
    pixels = rng.integers(64, 193, (height, width, 3), dtype=np.uint8)
    theirs = np.asarray(Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC), int)
    differ = abs(resize(pixels, side) - theirs)
    assert differ.max() <= 1
    other = np.asarray(Image.fromarray(pixels).resize((side, side), Image.Resampling.BILINEAR), int)
    assert differ.mean() < 0.1 * abs(other - theirs).mean()


def test_read_only_pixels_are_not_changed(rng: np.random.Generator) -> None:
    pixels = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)
    again = pixels.copy()
    pixels.flags.writeable = False
    assert np.array_equal(resize(pixels, 10), resize(again, 10)) and np.array_equal(pixels, again)
    assert resize(pixels, 10).flags.c_contiguous


@pytest.mark.parametrize(
    ("width", "height", "side"),
    [(64, 64, 16), (61, 97, 32), (40, 24, 80), (300, 300, 128), (513, 513, 512), (70, 70, 70)],
)
@pytest.mark.parametrize("values", ["all", "extremes"])
def test_numpy_gives_the_pixels_of_torch(
    width: int, height: int, side: int, values: str, rng: np.random.Generator
) -> None:
    pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    if values == "extremes":  # overshoot on every edge
        pixels = np.where(pixels > 127, 255, 0).astype(np.uint8)
    assert np.array_equal(resize_by_numpy(pixels, side), resize_by_torch(pixels, side))


def test_photographs_are_decoded_cropped_and_resized_without_loading_torch() -> None:
    program = """
import sys
import numpy as np
import deepmtdr.photographs.decode
from deepmtdr.photographs.field_of_view import crop_to_frame
from deepmtdr.photographs.geometry import FieldOfView
assert crop_to_frame(np.zeros((64, 64, 3), np.uint8), FieldOfView(0, 0, 64), 32).shape == (32, 32, 3)
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)
