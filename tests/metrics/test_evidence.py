"""Scores of evidence maps: worked by hand, against scikit-learn and plain loops."""

from __future__ import annotations

import math
from collections.abc import Callable

import jaxtyping
import numpy as np
import pytest
from sklearn import metrics as reference

from deepmtdr.metrics import area_under_curve, evidence_auc, pointing_chance, pointing_game
from deepmtdr.metrics.evidence import patch_chance, top_patch_precision

EVIDENCE = np.array([[0.9, 0.2, 0.0], [0.5, 0.2, 1.0]])
REGION = np.array([[1, 1, 0], [0, 0, 0]], dtype=bool)
INSIDE = np.array([[1, 1, 1], [1, 1, 0]], dtype=bool)
"""All pixels but the one with the highest evidence."""
NOTHING = np.zeros((2, 3), bool)


def a_region(rng: np.random.Generator, side: int = 24) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Evidence with ties, a few scattered pixels, a disc."""
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    return rng.integers(0, 9, (side, side)) / 8, rng.random((side, side)) < 0.03, np.hypot(y, x) < side / 2


def turned(*arrays: np.ndarray) -> list[np.ndarray]:
    return [np.rot90(array).copy() for array in arrays]


def test_evidence_auc_worked_by_hand() -> None:
    # .9 is above .0, .5 and .2; .2 is above .0, equal to .2, below .5: (3 + 1.5) of 6 pairs. 1.0 is outside.
    assert evidence_auc(EVIDENCE, REGION, INSIDE) == pytest.approx(0.75)


def test_evidence_auc_agrees_with_scikit_learn(rng: np.random.Generator) -> None:
    evidence, region, inside = a_region(rng)
    theirs = reference.roc_auc_score(region[inside], evidence[inside])
    assert evidence_auc(evidence, region, inside) == pytest.approx(theirs)
    assert evidence_auc(evidence.astype(np.float32), region, inside) == pytest.approx(theirs)


def test_auc_of_background_and_of_all_lesions_add_to_1(rng: np.random.Generator) -> None:
    evidence, region, inside = a_region(rng)
    lesions, background = (evidence_auc(evidence, part, inside) for part in (region, inside & ~region))
    assert lesions + background == pytest.approx(1)


def test_auc_of_the_annotation_itself_is_1_and_of_constant_evidence_one_half() -> None:
    assert evidence_auc(REGION.astype(float), REGION, INSIDE) == 1
    assert evidence_auc(np.ones((2, 3)), REGION, INSIDE) == 0.5


def test_pixels_outside_the_field_of_view_do_not_count(rng: np.random.Generator) -> None:
    evidence, region, inside = a_region(rng)
    elsewhere, more = np.where(inside, evidence, np.nan), np.where(inside, region, True)
    assert evidence_auc(elsewhere, more, inside) == evidence_auc(evidence, region, inside)
    assert pointing_game(elsewhere, more, inside, 2.0) == pointing_game(evidence, region, inside, 2.0)
    assert pointing_chance(more, inside, 2.0) == pointing_chance(region, inside, 2.0)


def test_pointing_game_hits_up_to_the_tolerance() -> None:
    evidence, region = np.zeros((9, 9)), np.zeros((9, 9), bool)
    evidence[4, 4], region[0, 1] = 0.3, True  # 4 up and 3 to the left: 5 pixels away
    inside = np.ones((9, 9), bool)
    assert pointing_game(evidence, region, inside, 5.0) == 1
    assert pointing_game(evidence, region, inside, 4.9) == 0
    assert pointing_game(evidence, evidence > 0, inside, 0.0) == 1


def test_maximum_outside_the_field_of_view_does_not_count() -> None:
    assert pointing_game(EVIDENCE, REGION, INSIDE, 0.0) == 1
    assert pointing_game(EVIDENCE, REGION, np.ones((2, 3), bool), 0.0) == 0


def test_all_pixels_that_share_the_maximum_must_hit() -> None:
    both, one = np.array([[0.9, 0.9, 0.0], [0.0, 0.0, 0.0]]), np.array([[0.9, 0.0, 0.9], [0.0, 0.0, 0.0]])
    assert pointing_game(both, REGION, INSIDE, 0.0) == 1
    assert pointing_game(one, REGION, INSIDE, 0.0) == 0
    assert (
        pointing_game(one[:, ::-1], REGION[:, ::-1], np.ones((2, 3), bool), 0.0) == 0
    )  # the order of the pixels does not matter
    assert pointing_game(np.ones((2, 3)), REGION, INSIDE, 0.0) == 0


def test_zero_evidence_is_a_miss() -> None:
    assert pointing_game(np.zeros((2, 3)), np.ones((2, 3), bool), INSIDE) == 0


def test_pointing_chance_is_the_fraction_of_pixels_that_hit(rng: np.random.Generator) -> None:
    evidence, region, inside = a_region(rng)
    hits = []
    for y, x in np.argwhere(inside):
        evidence = np.zeros(region.shape)
        evidence[y, x] = 1
        hits.append(pointing_game(evidence, region, inside, 2.0))
    assert pointing_chance(region, inside, 2.0) == pytest.approx(np.mean(hits))
    assert 0 < np.mean(hits) < 1
    assert pointing_chance(region, inside, 0.0) == pytest.approx(region[inside].mean())
    assert pointing_chance(region, inside, 99.0) == 1


def test_scores_do_not_change_if_the_image_is_rotated(rng: np.random.Generator) -> None:
    evidence, region, inside = a_region(rng)
    assert evidence_auc(*turned(evidence, region, inside)) == pytest.approx(evidence_auc(evidence, region, inside))
    assert pointing_game(*turned(evidence, region, inside)) == pointing_game(evidence, region, inside)
    assert pointing_chance(*turned(region, inside), 2.0) == pointing_chance(region, inside, 2.0)


def test_scores_without_region_or_field_of_view_are_undefined() -> None:
    outside = np.array([[0, 0, 0], [0, 0, 1]], dtype=bool)
    for region, inside in ((NOTHING, INSIDE), (outside, INSIDE), (REGION, NOTHING)):
        assert math.isnan(evidence_auc(EVIDENCE, region, inside))
        assert math.isnan(pointing_game(EVIDENCE, region, inside))
        assert math.isnan(pointing_chance(region, inside))
    assert math.isnan(evidence_auc(EVIDENCE, INSIDE, INSIDE))  # no pixel outside the region


def test_area_under_a_curve_worked_by_hand() -> None:
    assert area_under_curve(np.array([1.0, 0.5, 0.0])) == 0.5
    assert area_under_curve(np.array([0.8, 0.2, 0.0, 0.0])) == pytest.approx((0.5 + 0.1 + 0.0) / 3)
    assert area_under_curve(np.full(11, 0.7)) == pytest.approx(0.7)
    assert area_under_curve(np.array([1.0, 0.0])) == 0.5


def test_deletion_curve_that_falls_earlier_has_a_smaller_area() -> None:
    assert area_under_curve(np.array([1.0, 0.1, 0.1, 0.1])) < area_under_curve(np.array([1.0, 0.9, 0.2, 0.1]))


def test_nan_evidence_and_short_curves_are_errors() -> None:
    for score in (evidence_auc, pointing_game):
        with pytest.raises(ValueError, match=r"nan.*, expected numbers"):
            score(np.full((2, 3), np.nan), REGION, INSIDE)
    for points in (0, 1):
        with pytest.raises(ValueError, match=rf"curve of {points} points, expected at least 2"):
            area_under_curve(np.zeros(points))


@pytest.mark.parametrize("score", [evidence_auc, pointing_game])
def test_different_shapes_are_an_error_that_names_the_array(
    score: Callable[..., float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # types are checked in tests only
    with pytest.raises(ValueError, match=r"region has the shape \(3, 2\), expected \(2, 3\)"):
        score(EVIDENCE, REGION.T, INSIDE)
    with pytest.raises(ValueError, match=r"inside has the shape \(3, 2\), expected \(2, 3\)"):
        score(EVIDENCE, REGION, INSIDE.T)
    with pytest.raises(ValueError, match=r"region has the shape \(3, 2\), expected \(2, 3\)"):
        pointing_chance(REGION.T, INSIDE)


def patches_of_2_px(*values: tuple[int, int, float]) -> np.ndarray:
    """A map of 32 px, so that a patch has 2 x 2 px; values by row and column of the patch, in one of its pixels."""
    evidence = np.zeros((32, 32))
    for row, column, value in values:
        evidence[2 * row + 1, 2 * column] = value
    return evidence


def test_top_patch_precision_by_hand() -> None:
    evidence = patches_of_2_px((0, 0, 0.9), (3, 5, 0.8), (15, 15, 0.7))
    region = patches_of_2_px((0, 0, 1), (15, 15, 1), (8, 8, 1)) > 0
    found = top_patch_precision(evidence, region, np.ones((32, 32), bool))
    # hits after 1, 2, 3 patches: 1, 1, 2; the other patches have no evidence, so they are misses
    assert found[:3] == pytest.approx([1, 1 / 2, 2 / 3])
    assert found[3:] == pytest.approx([2 / k for k in range(4, 13)])


def test_patch_touches_the_region_with_another_pixel_than_the_one_with_evidence() -> None:
    region = np.zeros((32, 32), bool)
    region[1, 1] = True
    assert top_patch_precision(patches_of_2_px((0, 0, 1)), region, np.ones_like(region))[0] == 1
    assert top_patch_precision(patches_of_2_px((0, 1, 1)), region, np.ones_like(region))[0] == 0


def test_patches_with_equal_evidence_count_in_proportion(rng: np.random.Generator) -> None:
    region = patches_of_2_px((1, 1, 1)) > 0
    evidence, inside = patches_of_2_px((0, 0, 0.9), (1, 1, 0.5), (2, 2, 0.5)), np.ones((32, 32), bool)
    assert top_patch_precision(evidence, region, inside)[:3] == pytest.approx([0, 0.5 / 2, 1 / 3])
    constant = np.ones((32, 32))
    assert top_patch_precision(constant, region, inside) == pytest.approx(np.full(12, patch_chance(region, inside)))


def test_evidence_and_region_outside_the_field_of_view_do_not_count_for_patches() -> None:
    inside = np.ones((32, 32), bool)
    inside[:16] = False
    region = np.zeros((32, 32), bool)
    region[:20] = True
    evidence = patches_of_2_px((0, 0, 0.9), (12, 0, 0.5))
    assert top_patch_precision(evidence, region, inside)[0] == 0
    assert patch_chance(region, inside) == pytest.approx(2 / 8)
    assert np.isnan(top_patch_precision(evidence, region & ~inside, inside)).all()
    assert math.isnan(patch_chance(region & ~inside, inside))


def test_map_that_is_too_small_for_patches_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"found a map of \(3, 8\) px, expected at least 4 px per side"):
        top_patch_precision(np.ones((3, 8)), np.ones((3, 8), bool), np.ones((3, 8), bool))
