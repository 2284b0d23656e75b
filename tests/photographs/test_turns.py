"""The eight turns of a square image."""

from __future__ import annotations

import numpy as np
import pytest

from deepmtdr.photographs.turns import TURNS, turn, turn_back

CORNERS = np.array([[1, 2], [3, 4]])


def test_quarter_turns_and_their_mirror_images_by_hand() -> None:
    assert turn(CORNERS, 0).tolist() == [[1, 2], [3, 4]]
    assert turn(CORNERS, 1).tolist() == [[2, 4], [1, 3]]
    assert turn(CORNERS, 4).tolist() == [[2, 1], [4, 3]]
    assert len({turn(CORNERS, number).tobytes() for number in range(TURNS)}) == 8


@pytest.mark.parametrize("number", range(TURNS))
def test_turning_back_gives_the_image(number: int, rng: np.random.Generator) -> None:
    image = rng.integers(0, 256, (6, 6, 3), np.uint8)
    turned = turn(image, number)
    assert turned.flags.c_contiguous and turned.shape == image.shape
    np.testing.assert_array_equal(turn_back(turned, number), image)


@pytest.mark.parametrize("wrong", [-1, 8])
def test_unknown_turn_is_an_error(wrong: int) -> None:
    for function in (turn, turn_back):
        with pytest.raises(ValueError, match=f"found turn {wrong}, expected 0 to 7"):
            function(CORNERS, wrong)
