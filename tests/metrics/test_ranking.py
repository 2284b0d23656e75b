"""Areas under curves, operating points and thresholds: worked by hand and against scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn import metrics as reference

from deepmtdr.metrics import auc, average_precision, sensitivity_at_specificity
from deepmtdr.metrics.ranking import threshold_for_sensitivity


def cases(seed: int, levels: int | None) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    positive = rng.random(200) < 0.2
    scores = rng.normal(positive, 1)
    return (scores if levels is None else np.round(scores * levels) / levels), positive


def test_auc_counts_pairs_and_ties_count_half() -> None:
    # Pairs (positive, negative): 3 > 1, 3 > 2, 2 > 1 right, 2 = 2 half: 3.5 of 4.
    scores, positive = np.array([3.0, 2.0, 2.0, 1.0]), np.array([True, True, False, False])
    assert auc(scores, positive) == 3.5 / 4


def test_average_precision_is_the_sum_of_steps() -> None:
    # Ranks 1 and 3 are positive: 1/2 * 1/1 + 1/2 * 2/3.
    scores, positive = np.array([0.9, 0.8, 0.7, 0.1]), np.array([True, False, True, False])
    assert average_precision(scores, positive) == pytest.approx(1 / 2 + 1 / 3)


@pytest.mark.parametrize("levels", [None, 2])
@pytest.mark.parametrize("seed", range(4))
def test_areas_agree_with_scikit_learn_with_and_without_ties(seed: int, levels: int | None) -> None:
    scores, positive = cases(seed, levels)
    assert auc(scores, positive) == pytest.approx(reference.roc_auc_score(positive, scores), abs=1e-12)
    assert average_precision(scores, positive) == pytest.approx(
        reference.average_precision_score(positive, scores), abs=1e-12
    )


@pytest.mark.parametrize("specificity", [0.0, 0.5, 0.9, 1.0])
def test_operating_point_is_the_best_point_of_the_roc_curve_of_scikit_learn(specificity: float) -> None:
    scores, positive = cases(0, 4)
    alarms, hits, _ = reference.roc_curve(positive, scores, drop_intermediate=False)
    point = sensitivity_at_specificity(scores, positive, specificity)
    assert point.sensitivity == pytest.approx(hits[1 - alarms >= specificity - 1e-12].max())
    assert point.specificity >= specificity - 1e-12
    called = scores >= point.threshold
    assert called[positive].mean() == pytest.approx(point.sensitivity)
    assert (~called)[~positive].mean() == pytest.approx(point.specificity)


def test_threshold_is_infinite_if_no_score_is_specific_enough() -> None:
    point = sensitivity_at_specificity(np.array([0.9, 0.1]), np.array([False, True]), 1.0)
    assert point == (math.inf, 0.0, 1.0)


@pytest.mark.parametrize("truth", [True, False])
def test_auc_of_one_class_is_undefined(truth: bool) -> None:
    scores, positive = np.array([0.1, 0.2]), np.array([truth, truth])
    assert math.isnan(auc(scores, positive))
    assert math.isnan(sensitivity_at_specificity(scores, positive, 0.9).sensitivity)
    assert math.isnan(average_precision(scores, positive)) is not truth  # all positive: precision is 1 throughout


def test_nan_scores_are_an_error() -> None:
    for score in (auc, average_precision):
        with pytest.raises(ValueError, match="found nan in 1 of 2 scores"):
            score(np.array([0.1, np.nan]), np.array([True, False]))


@pytest.mark.parametrize(("sensitivity", "threshold"), [(1.0, 0.2), (0.75, 0.4), (0.6, 0.4), (0.5, 0.6), (0.01, 0.8)])
def test_threshold_for_sensitivity_is_the_highest_that_reaches_it(sensitivity: float, threshold: float) -> None:
    scores, positive = np.array([0.8, 0.6, 0.4, 0.2, 0.9, 0.1]), np.array([True, True, True, True, False, False])
    assert threshold_for_sensitivity(scores, positive, sensitivity) == threshold
    assert (scores[positive] >= threshold).mean() >= sensitivity


def test_threshold_without_positive_cases_is_undefined() -> None:
    assert math.isnan(threshold_for_sensitivity(np.array([0.5]), np.array([False]), 0.9))
    with pytest.raises(ValueError, match=r"sensitivity of 90\.0, expected above 0 and at most 1"):
        threshold_for_sensitivity(np.array([0.5]), np.array([True]), 90.0)
