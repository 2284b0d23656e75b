"""Spoilt photographs: what each way takes away, on a drawing."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from deepmtdr.photographs.field_of_view import crop_to_frame, find_fov
from deepmtdr.synthetic.degradations import DEGRADATIONS, degrade, inscribed_disc
from fundus import draw_fundus


@pytest.fixture(scope="module")
def frame() -> NDArray[np.uint8]:
    drawing = draw_fundus(600, 700, (350, 300), 280)
    return crop_to_frame(drawing, find_fov(drawing), 256)


def spoilt(frame: NDArray[np.uint8], way: str, seed: int = 0) -> NDArray[np.uint8]:
    return degrade(frame, way, np.random.default_rng(seed))


@pytest.mark.parametrize("way", DEGRADATIONS)
def test_each_way_changes_the_field_of_view_alone_and_the_same_draw_repeats(frame: NDArray[np.uint8], way: str) -> None:
    before, once = frame.copy(), spoilt(frame, way)
    np.testing.assert_array_equal(frame, before)
    np.testing.assert_array_equal(once, spoilt(frame, way))
    assert once.shape == frame.shape and not once[~inscribed_disc(256)].any()
    assert np.abs(once.astype(int) - frame)[inscribed_disc(256)].mean() > 3
    assert (once != spoilt(frame, way, 1)).any()


@pytest.mark.parametrize("seed", range(5))
def test_exposure_goes_where_its_name_says(frame: NDArray[np.uint8], seed: int) -> None:
    inside = inscribed_disc(256)
    assert np.median(spoilt(frame, "under-exposed", seed)[inside].mean(axis=1)) < 16
    assert np.median(spoilt(frame, "over-exposed", seed)[inside][:, 1]) > 220


@pytest.mark.parametrize("way", ["defocus", "motion", "haze", "faint"])
def test_fine_structure_is_lost(frame: NDArray[np.uint8], way: str) -> None:
    def slope(pixels: NDArray[np.uint8]) -> float:
        inner = pixels[64:192, 64:192, 1].astype(float)
        return float(np.abs(np.diff(inner, axis=0)).mean() + np.abs(np.diff(inner, axis=1)).mean())

    assert slope(spoilt(frame, way)) < 0.5 * slope(frame)


def test_an_unknown_way_is_an_error_that_lists_the_known(frame: NDArray[np.uint8]) -> None:
    with pytest.raises(ValueError, match=r"kind 'fog', expected one of defocus, motion"):
        spoilt(frame, "fog")
