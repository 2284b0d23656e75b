"""Severe changes drawn onto a photograph."""

from __future__ import annotations

import numpy as np
import pytest

from deepmtdr.photographs.field_of_view import crop_to_frame, find_fov
from deepmtdr.synthetic.severe_changes import SEVERE_CHANGES, add_severe_changes
from fundus import draw_fundus


@pytest.mark.parametrize("kind", SEVERE_CHANGES)
def test_change_is_inside_the_field_of_view_and_the_same_for_the_same_seed(kind: str) -> None:
    frame = crop_to_frame(draw_fundus(), find_fov(draw_fundus()), 128)
    first, second = (add_severe_changes(frame, kind, np.random.default_rng(3)) for _ in range(2))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, frame)
    dark = frame.max(axis=2) <= 12
    assert dark.any()
    assert np.array_equal(first[dark], frame[dark])


def test_unknown_kind_is_an_error() -> None:
    with pytest.raises(ValueError, match="unknown kind of change 'rain', expected one of laser scars, "):
        add_severe_changes(np.zeros((8, 8, 3), np.uint8), "rain", np.random.default_rng(0))
