import numpy as np
import pytest
from PIL import Image

from deepmtdr.photographs.resize import resize


@pytest.mark.parametrize(("width", "height", "side"), [(64, 64, 16), (61, 97, 32), (40, 24, 80), (1705, 1705, 1024)])
def test_it_is_pillows_bicubic(width: int, height: int, side: int, rng: np.random.Generator) -> None:
    # 64 to 192: overshoot stays inside 8 bits, where both would clip it between their two passes.
    pixels = rng.integers(64, 193, (height, width, 3), dtype=np.uint8)
    theirs = np.asarray(Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC), int)
    differ = abs(resize(pixels, side) - theirs)
    assert differ.max() <= 1
    other = np.asarray(Image.fromarray(pixels).resize((side, side), Image.Resampling.BILINEAR), int)
    assert differ.mean() < 0.1 * abs(other - theirs).mean()


def test_pixels_that_are_read_only_are_left_as_they_are(rng: np.random.Generator) -> None:
    pixels = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)
    again = pixels.copy()
    pixels.flags.writeable = False
    assert np.array_equal(resize(pixels, 10), resize(again, 10)) and np.array_equal(pixels, again)
    assert resize(pixels, 10).flags.c_contiguous
