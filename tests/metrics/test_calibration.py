"""Calibration scores: worked by hand and against scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import softmax
from sklearn import metrics as reference

from deepmtdr.metrics.calibration import (
    brier,
    debiased_ece,
    expected_calibration_error,
    negative_log_likelihood,
    reliability_bins,
)
from deepmtdr.metrics.intervals import bootstrap_interval


def test_expected_calibration_error_by_hand() -> None:
    # (0.5, 0.6]: one of two right at 0.6, |0.6 - 0.5| * 2/4. (0.9, 1]: two right at 1 and 0.92, |0.96 - 1| * 2/4.
    probs = np.array([[0.6, 0.4], [0.6, 0.4], [1.0, 0.0], [0.08, 0.92]])
    assert expected_calibration_error(probs, np.array([0, 1, 0, 1]), bins=10) == pytest.approx(0.05 + 0.02)


def test_brier_of_two_classes_is_twice_the_binary_brier_score() -> None:
    probs, truth = np.array([[0.7, 0.3], [0.2, 0.8], [0.9, 0.1]]), np.array([0, 1, 1])
    assert brier(probs, truth) == pytest.approx(2 * reference.brier_score_loss(truth, probs[:, 1]))


def test_calibration_scores_without_photographs_are_undefined() -> None:
    assert math.isnan(expected_calibration_error(np.zeros((0, 5)), np.zeros(0, int)))
    assert math.isnan(brier(np.zeros((0, 5)), np.zeros(0, int)))
    assert math.isnan(negative_log_likelihood(np.zeros((0, 5)), np.zeros(0, int)))


def drawn(rng: np.random.Generator, count: int, surplus: float) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of five grades; the most probable grade is right `surplus` less often than it should be."""
    probs = softmax(rng.normal(0, 1.5, (count, 5)), axis=1)
    best = probs.argmax(axis=1)
    right = rng.random(count) < (probs.max(axis=1) - surplus)
    return probs, np.where(right, best, (best + 1) % 5)


def test_debiased_ece_by_hand() -> None:
    # Two bins of two. Probabilities .5, .6: none right, (.55 - 0)^2 - 0. Probabilities .8, .9: one right,
    # (.85 - .5)^2 - .5 * .5 / 1 = -.1275.
    probs = np.array([[0.8, 0.2], [0.5, 0.5], [0.6, 0.4], [0.9, 0.1]])
    found = debiased_ece(probs, np.array([0, 1, 1, 1]))
    assert found == pytest.approx(math.sqrt((0.55**2 - 0.1275) / 2))
    assert debiased_ece(probs, np.array([0, 0, 1, 1])) == 0  # one of two right in each: .05^2 and .35^2 below .25
    assert math.isnan(debiased_ece(probs[:3], np.array([0, 1, 1])))


@pytest.mark.parametrize("count", [79, 146, 225])
def test_debiased_ece_of_a_perfect_predictor_is_near_0_in_small_samples(count: int) -> None:
    rng = np.random.default_rng(count)
    samples = [drawn(rng, count, 0.0) for _ in range(300)]
    assert np.mean([debiased_ece(*sample) for sample in samples]) < 0.045
    assert np.median([debiased_ece(*sample) for sample in samples]) < 0.02
    assert np.mean([expected_calibration_error(*sample) for sample in samples]) > 0.07


@pytest.mark.parametrize("count", [79, 146, 225])
def test_debiased_ece_of_a_miscalibrated_predictor_is_near_the_truth(count: int) -> None:
    rng = np.random.default_rng(count)
    found = np.mean([debiased_ece(*drawn(rng, count, 0.2)) for _ in range(300)])
    truth = np.mean([np.minimum(drawn(rng, count, 0.2)[0].max(axis=1), 0.2).mean() for _ in range(20)])
    assert found == pytest.approx(truth, abs=0.03)


def test_interval_of_debiased_ece_contains_a_value_of_0() -> None:
    rng = np.random.default_rng(1)
    probs, truth = drawn(rng, 146, 0.0)
    found = bootstrap_interval(debiased_ece, range(146), probs, truth, resamples=300, recentred=True)
    assert 0 <= found.low <= found.value <= found.high < 0.2


def test_negative_log_likelihood_by_hand() -> None:
    probs = np.array([[0.5, 0.5], [0.75, 0.25]])
    assert negative_log_likelihood(probs, np.array([0, 1])) == pytest.approx(math.log(2 * 4) / 2)
    assert negative_log_likelihood(np.full((3, 5), 0.2), np.array([0, 2, 4])) == pytest.approx(math.log(5))


def test_negative_log_likelihood_agrees_with_scikit_learn(rng: np.random.Generator) -> None:
    probs, truth = softmax(rng.normal(size=(400, 5)), axis=1), rng.integers(0, 5, 400)
    assert negative_log_likelihood(probs, truth) == pytest.approx(reference.log_loss(truth, probs, labels=range(5)))


def test_true_class_of_probability_0_makes_the_likelihood_infinite() -> None:
    assert negative_log_likelihood(np.array([[1.0, 0.0]]), np.array([1])) == math.inf
    assert negative_log_likelihood(np.array([[1.0, 0.0]]), np.array([0])) == 0


def test_probability_on_the_border_of_two_bins_belongs_to_the_lower_one() -> None:
    bins = reliability_bins(np.array([[0.6, 0.4], [0.601, 0.399]]), np.array([0, 1]))
    assert [(one.number, one.photographs, one.accuracy) for one in bins] == [(8, 1, 1), (9, 1, 0)]


def test_expected_calibration_error_is_the_weighted_distance_of_the_reliability_bins(rng: np.random.Generator) -> None:
    probs, truth = softmax(rng.normal(size=(500, 4)), axis=1), rng.integers(0, 4, 500)
    bins = reliability_bins(probs, truth)
    assert sum(one.photographs for one in bins) == 500
    error = sum(one.photographs * abs(one.confidence - one.accuracy) for one in bins) / 500
    assert error == pytest.approx(expected_calibration_error(probs, truth))
    assert all(one.number / 15 < one.confidence <= (one.number + 1) / 15 for one in bins)
