"""Scores of lesion maps over several photographs, worked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from deepmtdr.evaluation.lesions import PooledCurves, dataset_curves, froc_curves, lesion_scores
from deepmtdr.evaluation.measure import lesion_result
from deepmtdr.evaluation.photograph_result import LesionResult, PhotographResult
from deepmtdr.evaluation.scores import Bootstrap, Score
from deepmtdr.labels import DIABETIC_RETINOPATHY
from deepmtdr.metrics import FrocCounts, PooledCurve

FEW = Bootstrap(resamples=200)
THRESHOLDS = np.array([0.2, 0.5, 0.8])


def curve(lesion: list[float], healthy: list[float]) -> PooledCurve:
    """Counts of pixels with these probabilities."""
    found = PooledCurve()
    found.update(np.array(lesion + healthy), np.array([True] * len(lesion) + [False] * len(healthy)))
    return found


FIRST, SECOND = curve([0.9], [0.6]), curve([0.3], [0.8, 0.7])


def photograph(name: str, lesions: dict[str, LesionResult], dataset: str = "x") -> PhotographResult:
    return PhotographResult(dataset=dataset, name=name, patient=name, lesions=lesions)


def pool(*curves: PooledCurve) -> PooledCurve:
    total = PooledCurve()
    for one in curves:
        total.merge(one)
    return total


def by_score(
    measured: list[PhotographResult], pooled: PooledCurves, subject: str, dataset: str = "x"
) -> dict[str, Score]:
    rows = lesion_scores(measured, pooled, FEW, DIABETIC_RETINOPATHY)
    return {row.score: row for row in rows if (row.dataset, row.subject) == (dataset, subject)}


def test_scores_of_all_pixels_and_image_by_image_worked_by_hand() -> None:
    measured = [
        photograph("a", {"EX": lesion_result(FIRST)}),
        photograph("b", {"EX": lesion_result(SECOND)}),
        photograph("not annotated", {}),
    ]
    found = by_score(measured, {("x", "EX"): pool(FIRST, SECOND)}, "EX")
    # All pixels in order: lesion at 0.9, three healthy pixels, lesion at 0.3; the first four are above one half.
    expected = {
        "aupr_pooled": (1 + 2 / 5) / 2,
        "prevalence": 2 / 5,
        "auc_pooled": 3 / 6,
        "dice_pooled": 2 * 1 / (4 + 2),
        "iou_pooled": 1 / 5,
        "ap_per_image": (1 + 1 / 3) / 2,
        "auc_per_image": (1 + 0) / 2,
        "dice_per_image": (2 / 3 + 0) / 2,
        "iou_per_image": (1 / 2 + 0) / 2,
    }
    assert {name: row.value for name, row in found.items()} == pytest.approx(expected)
    assert {row.photographs for row in found.values()} == {2}
    # The bootstrap over two photographs draws each of them alone in a quarter of the resamples.
    assert (found["ap_per_image"].low, found["ap_per_image"].high) == pytest.approx((1 / 3, 1))
    assert (found["aupr_pooled"].low, found["aupr_pooled"].high) == pytest.approx((1 / 3, 1))


def test_mean_over_lesion_types_is_undefined_if_one_type_is_absent() -> None:
    measured = [photograph("a", {"EX": lesion_result(FIRST)}), photograph("b", {"EX": lesion_result(SECOND)})]
    mean = by_score(measured, {("x", "EX"): pool(FIRST, SECOND)}, "mean")
    assert set(mean) == {"aupr_pooled", "ap_per_image", "auc_per_image"}
    assert all(math.isnan(row.value) and "one of the lesion types" in row.note for row in mean.values())


def test_pixels_of_all_data_sets_are_added_in_the_order_of_the_label_set() -> None:
    pooled = {("x", "SE"): FIRST, ("x", "EX"): FIRST, ("y", "EX"): SECOND}
    together = dataset_curves(pooled, "all", DIABETIC_RETINOPATHY)
    assert list(together) == ["EX", "SE"]
    assert together["EX"].values == pytest.approx([0.3, 0.6, 0.7, 0.8, 0.9])
    assert (together["EX"].positives.tolist(), together["EX"].negatives.tolist()) == ([1, 0, 0, 0, 1], [0, 1, 1, 1, 0])
    assert list(dataset_curves(pooled, "y", DIABETIC_RETINOPATHY)) == ["EX"]


# --- Single lesions (FROC) ---

FROC_FIRST = FrocCounts(THRESHOLDS, np.array([5, 4, 1]), np.array([10, 5, 1]), lesions=6)
FROC_SECOND = FrocCounts(THRESHOLDS, np.array([4, 2, 1]), np.array([6, 3, 1]), lesions=4)


def test_froc_scores_of_two_photographs_worked_by_hand() -> None:
    measured = [
        photograph("a", {"MA": lesion_result(FIRST, FROC_FIRST)}),
        photograph("b", {"MA": lesion_result(SECOND, FROC_SECOND)}),
    ]
    found = by_score(measured, {("x", "MA"): pool(FIRST, SECOND)}, "MA")
    # Together 2, 6 and 9 of 10 lesions are found at 1, 4 and 8 false alarms per photograph.
    assert found["froc_sensitivity_at_1"].value == pytest.approx(0.2)
    assert found["froc_sensitivity_at_8"].value == pytest.approx(0.9)
    at_each = (0.2 / 8, 0.2 / 4, 0.2 / 2, 0.2, 0.2 + 0.4 / 3, 0.6, 0.9)
    assert found["froc_cpm"].value == pytest.approx(np.mean(at_each))
    # The first alone: 4 of 6 at 5 alarms and 5 of 6 at 10; the second alone: 4 of 4 at 6.
    at_8 = found["froc_sensitivity_at_8"]
    assert (at_8.low, at_8.high) == pytest.approx((4 / 6 + 3 / 5 / 6, 1))


def test_without_counts_of_every_photograph_there_are_no_froc_scores() -> None:
    measured = [
        photograph("a", {"MA": lesion_result(FIRST, FROC_FIRST)}),
        photograph("b", {"MA": lesion_result(SECOND)}),
    ]
    found = by_score(measured, {("x", "MA"): pool(FIRST, SECOND)}, "MA")
    assert "aupr_pooled" in found and not any(name.startswith("froc") for name in found)


def test_froc_counts_are_added_for_each_data_set_and_for_all() -> None:
    measured = [
        photograph("a", {"MA": lesion_result(FIRST, FROC_FIRST), "EX": lesion_result(FIRST)}),
        photograph("b", {"MA": lesion_result(SECOND, FROC_SECOND)}, dataset="y"),
    ]
    curves = froc_curves(measured)
    assert set(curves) == {("x", "MA"), ("y", "MA"), ("all", "MA")}
    assert curves["y", "MA"] is FROC_SECOND
    together = curves["all", "MA"]
    assert (together.true_positives.tolist(), together.false_positives.tolist()) == ([9, 6, 2], [16, 8, 2])
    assert (together.lesions, together.images) == (10, 2)
