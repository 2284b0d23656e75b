"""Degraded photographs: each kind changes a drawn fundus as its name tells."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from deepmtdr.photographs.field_of_view import crop_to_frame, find_fov
from deepmtdr.photographs.geometry import inscribed_disc
from deepmtdr.synthetic.degradations import DEGRADATIONS, degrade
from fundus import draw_fundus


@pytest.fixture(scope="module")
def frame() -> NDArray[np.uint8]:
    drawing = draw_fundus(600, 700, (350, 300), 280)
    return crop_to_frame(drawing, find_fov(drawing), 256)


def degraded(frame: NDArray[np.uint8], kind: str, seed: int = 0) -> NDArray[np.uint8]:
    return degrade(frame, kind, np.random.default_rng(seed))


@pytest.mark.parametrize("kind", DEGRADATIONS)
def test_only_the_field_of_view_changes_and_the_same_seed_repeats(frame: NDArray[np.uint8], kind: str) -> None:
    before, once = frame.copy(), degraded(frame, kind)
    np.testing.assert_array_equal(frame, before)
    np.testing.assert_array_equal(once, degraded(frame, kind))
    assert once.shape == frame.shape and not once[~inscribed_disc(256)].any()
    assert np.abs(once.astype(int) - frame)[inscribed_disc(256)].mean() > 3
    assert (once != degraded(frame, kind, 1)).any()


@pytest.mark.parametrize("seed", range(5))
def test_exposure_is_too_dark_or_too_bright(frame: NDArray[np.uint8], seed: int) -> None:
    inside = inscribed_disc(256)
    assert np.median(degraded(frame, "under-exposed", seed)[inside].mean(axis=1)) < 16
    assert np.median(degraded(frame, "over-exposed", seed)[inside][:, 1]) > 220


@pytest.mark.parametrize("kind", ["defocus", "motion", "haze", "faint"])
def test_fine_structure_is_lost(frame: NDArray[np.uint8], kind: str) -> None:
    def slope(pixels: NDArray[np.uint8]) -> float:
        inner = pixels[64:192, 64:192, 1].astype(float)
        return float(np.abs(np.diff(inner, axis=0)).mean() + np.abs(np.diff(inner, axis=1)).mean())

    assert slope(degraded(frame, kind)) < 0.5 * slope(frame)


def test_unknown_kind_is_an_error_that_lists_the_known_ones(frame: NDArray[np.uint8]) -> None:
    with pytest.raises(ValueError, match=r"kind of degradation 'fog', expected one of defocus, motion"):
        degraded(frame, "fog")
