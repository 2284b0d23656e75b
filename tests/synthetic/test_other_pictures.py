"""Drawn pictures that are no fundus photographs."""

from __future__ import annotations

import numpy as np
import pytest

from deepmtdr.synthetic.other_pictures import OTHER_PICTURES, draw_other_picture


@pytest.mark.parametrize("kind", OTHER_PICTURES)
def test_picture_is_a_disc_on_its_ground_and_the_same_for_the_same_seed(kind: str) -> None:
    first, second, other = (draw_other_picture(kind, np.random.default_rng(seed), 96, 40) for seed in (1, 1, 2))
    assert first.shape[0] == 96 <= first.shape[1] <= 144
    assert (first[0, 0] == 40).all() and (first[-1, -1] == 40).all()
    assert (first != 40).any(axis=2).mean() > 0.2
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)


def test_unknown_kind_is_an_error() -> None:
    with pytest.raises(ValueError, match="unknown kind of picture 'sun', expected one of plain, "):
        draw_other_picture("sun", np.random.default_rng(0), 96)
