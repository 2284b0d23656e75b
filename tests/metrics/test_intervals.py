"""Intervals, paired differences and calibration: by hand, against known answers, and by simulation."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import log_softmax, ndtr, softmax
from sklearn import metrics as judge

from deepmtdr.calibration.temperature import fit_temperature
from deepmtdr.metrics import auc, kappa_quadratic
from deepmtdr.metrics.calibration import brier, expected_calibration_error, negative_log_likelihood
from deepmtdr.metrics.intervals import bootstrap_difference, bootstrap_interval, mean_and_sd
from deepmtdr.metrics.ranking import threshold_for_sensitivity


def mean(values: np.ndarray) -> float:
    return float(values.mean())


def test_the_interval_of_a_mean_is_the_one_of_the_normal_law(rng: np.random.Generator) -> None:
    values = rng.normal(3, 1, 400)
    interval = bootstrap_interval(mean, range(400), values, resamples=4000)
    half = 1.96 * values.std() / 20
    assert interval.value == values.mean()
    assert (interval.low, interval.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.006)


def test_the_same_seed_gives_the_same_interval(rng: np.random.Generator) -> None:
    values = rng.normal(size=50)
    first, again, other = (bootstrap_interval(mean, range(50), values, seed=seed) for seed in (1, 1, 2))
    assert first == again != other


def test_two_photographs_of_a_patient_are_not_two_observations(rng: np.random.Generator) -> None:
    values = rng.normal(size=100)
    alone = bootstrap_interval(mean, range(100), values)
    twice = bootstrap_interval(mean, [*range(100), *range(100)], np.tile(values, 2))
    as_if_independent = bootstrap_interval(mean, range(200), np.tile(values, 2))
    assert twice == pytest.approx(alone)
    assert as_if_independent.high - as_if_independent.low < 0.8 * (twice.high - twice.low)


def test_patients_are_drawn_with_all_their_photographs() -> None:
    clusters = ["a", "b", "a", "c", "b", "a"]
    seen = []
    bootstrap_interval(lambda names: seen.append("".join(sorted(names))) or 0.0, clusters, np.array(clusters))
    for draw in seen:
        assert (draw.count("a") % 3, draw.count("b") % 2) == (0, 0)
        assert draw.count("a") / 3 + draw.count("b") / 2 + draw.count("c") == 3  # as many patients as there are


TWO_EYES = np.repeat(np.arange(200), 2)
"""The patient of each of 400 photographs."""


def patients_with_a_mean(rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    return ((rng.normal(size=200)[TWO_EYES] + rng.normal(size=400)) * math.sqrt(0.5),)


def patients_with_a_disease(rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Both eyes are ill or none; ill ones score 1 higher, with a deviation of 1."""
    positive = (rng.random(200) < 0.4)[TWO_EYES]
    return positive + patients_with_a_mean(rng)[0], positive


@pytest.mark.slow
@pytest.mark.parametrize(
    ("score", "simulated", "truth"),
    [(mean, patients_with_a_mean, 0), (auc, patients_with_a_disease, float(ndtr(math.sqrt(0.5))))],
)
def test_95_percent_intervals_cover_the_truth_93_to_97_times_in_100(
    score: Callable[..., float], simulated: Callable[[np.random.Generator], tuple[np.ndarray, ...]], truth: float
) -> None:
    repetitions, patients = 1500, TWO_EYES.tolist()
    covered = 0
    for seed in range(repetitions):
        arrays = simulated(np.random.default_rng(seed))
        interval = bootstrap_interval(score, patients, *arrays, resamples=400, seed=seed)
        covered += interval.low <= truth <= interval.high
    assert 0.93 <= covered / repetitions <= 0.97


def test_one_patient_alone_has_no_interval() -> None:
    interval = bootstrap_interval(mean, ["a", "a"], np.array([1.0, 2.0]))
    assert interval.value == 1.5
    assert math.isnan(interval.low)
    assert math.isnan(interval.high)


def test_a_score_that_is_rarely_defined_has_no_interval() -> None:
    scores, positive = np.linspace(0, 1, 30), np.arange(30) == 29  # a third of the resamples miss the one positive
    interval = bootstrap_interval(auc, range(30), scores, positive)
    assert interval.value == 1
    assert math.isnan(interval.low)


def test_arrays_that_do_not_fit_the_clusters_are_refused() -> None:
    with pytest.raises(ValueError, match="array 1 has 2 rows, expected one for each of 3 clusters"):
        bootstrap_interval(auc, range(3), np.zeros(3), np.zeros(2, bool))


def test_a_thousand_resamples_of_four_thousand_photographs_take_seconds(rng: np.random.Generator) -> None:
    truth, patients = rng.integers(0, 5, 4000), np.repeat(np.arange(2000), 2).tolist()
    predicted = np.where(rng.random(4000) < 0.7, truth, rng.integers(0, 5, 4000))
    begun = time.process_time()
    interval = bootstrap_interval(kappa_quadratic, patients, predicted, truth)
    assert time.process_time() - begun < 10
    assert interval.low < interval.value < interval.high


def test_a_paired_difference_is_surer_than_two_intervals(rng: np.random.Generator) -> None:
    truth = rng.random(300) < 0.4
    shared = rng.normal(truth, 1)
    better, worse = shared + rng.normal(0.4 * truth, 0.2), shared + rng.normal(0, 0.2, 300)
    difference = bootstrap_difference(auc, range(300), (better, truth), (worse, truth))
    alone = [bootstrap_interval(auc, range(300), scores, truth) for scores in (better, worse)]
    assert difference.value == pytest.approx(alone[0].value - alone[1].value)
    assert 0 < difference.low < difference.value < difference.high
    assert difference.high - difference.low < min(one.high - one.low for one in alone)
    assert difference.p_value == pytest.approx(2 / 1001)  # no resample on the other side


def test_no_difference_has_no_small_p_value(rng: np.random.Generator) -> None:
    truth, scores = rng.random(100) < 0.5, rng.normal(size=100)
    same = bootstrap_difference(auc, range(100), (scores, truth), (scores, truth))
    assert same == (0, 0, 0, 1)
    alone = bootstrap_difference(auc, ["a"] * 100, (scores, truth), (scores, truth))
    assert math.isnan(alone.p_value)


@pytest.mark.slow
def test_p_values_of_no_difference_are_spread_evenly() -> None:
    p_values = []
    for seed in range(200):
        first, second = np.random.default_rng(seed).normal(size=(2, 80))
        p_values.append(bootstrap_difference(mean, range(80), (first,), (second,), resamples=200, seed=seed).p_value)
    assert 0.35 < np.mean(np.array(p_values) < 0.5) < 0.65
    assert np.mean(np.array(p_values) < 0.05) < 0.12


def graded(rng: np.random.Generator, temperature: float) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are `temperature` times too large for how often they are right."""
    honest = rng.normal(0, 2, (4000, 5))
    truth = np.array([rng.choice(5, p=p) for p in softmax(honest, axis=1)])
    return temperature * honest, truth


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_fit_temperature_finds_how_far_the_logits_are_off(temperature: float, rng: np.random.Generator) -> None:
    logits, truth = graded(rng, temperature)
    fitted = fit_temperature(logits, truth)
    theirs = minimize(
        lambda t: -log_softmax(logits / t[0], axis=1)[np.arange(len(truth)), truth].mean(), [1.0], method="Nelder-Mead"
    )
    assert fitted == pytest.approx(temperature, rel=0.06)
    assert fitted == pytest.approx(float(theirs.x[0]), rel=1e-3)


def test_temperature_repairs_the_calibration(rng: np.random.Generator) -> None:
    logits, truth = graded(rng, 3.0)
    before, after = softmax(logits, axis=1), softmax(logits / fit_temperature(logits, truth), axis=1)
    assert expected_calibration_error(before, truth) > 0.1 > 0.03 > expected_calibration_error(after, truth)
    assert brier(after, truth) < brier(before, truth)


def test_a_network_that_is_always_right_ends_at_the_bound() -> None:
    assert fit_temperature(np.eye(5) / 5, np.arange(5)) == pytest.approx(0.05, rel=1e-3)


def test_fit_temperature_refuses_what_has_no_likelihood() -> None:
    with pytest.raises(ValueError, match="0 photographs"):
        fit_temperature(np.zeros((0, 5)), np.zeros(0, int))
    with pytest.raises(ValueError, match="1 logits not finite"):
        fit_temperature(np.array([[0.0, np.inf]]), np.array([0]))


def test_expected_calibration_error_by_hand() -> None:
    # (0.5, 0.6]: one of two right at 0.6, |0.6 - 0.5| * 2/4. (0.9, 1]: two right at 1 and 0.92, |0.96 - 1| * 2/4.
    probs = np.array([[0.6, 0.4], [0.6, 0.4], [1.0, 0.0], [0.08, 0.92]])
    assert expected_calibration_error(probs, np.array([0, 1, 0, 1]), bins=10) == pytest.approx(0.05 + 0.02)


def test_brier_is_twice_the_binary_one() -> None:
    probs, truth = np.array([[0.7, 0.3], [0.2, 0.8], [0.9, 0.1]]), np.array([0, 1, 1])
    assert brier(probs, truth) == pytest.approx(2 * judge.brier_score_loss(truth, probs[:, 1]))


def test_calibration_of_nobody_is_undefined() -> None:
    assert math.isnan(expected_calibration_error(np.zeros((0, 5)), np.zeros(0, int)))
    assert math.isnan(brier(np.zeros((0, 5)), np.zeros(0, int)))
    assert math.isnan(negative_log_likelihood(np.zeros((0, 5)), np.zeros(0, int)))


def test_negative_log_likelihood_by_hand() -> None:
    probs = np.array([[0.5, 0.5], [0.75, 0.25]])
    assert negative_log_likelihood(probs, np.array([0, 1])) == pytest.approx(math.log(2 * 4) / 2)
    assert negative_log_likelihood(np.full((3, 5), 0.2), np.array([0, 2, 4])) == pytest.approx(math.log(5))


def test_negative_log_likelihood_agrees_with_scikit_learn(rng: np.random.Generator) -> None:
    logits, truth = graded(rng, 2.0)
    probs = softmax(logits, axis=1)
    assert negative_log_likelihood(probs, truth) == pytest.approx(judge.log_loss(truth, probs, labels=range(5)))


def test_a_truth_that_was_ruled_out_is_infinitely_unlikely() -> None:
    assert negative_log_likelihood(np.array([[1.0, 0.0]]), np.array([1])) == math.inf
    assert negative_log_likelihood(np.array([[1.0, 0.0]]), np.array([0])) == 0


def test_mean_and_sd_over_seeds() -> None:
    runs = [0.61, 0.65, 0.58]
    assert mean_and_sd(runs) == pytest.approx((statistics.mean(runs), statistics.stdev(runs)))
    assert str(mean_and_sd(runs)) == "0.613 (0.035)"
    assert mean_and_sd([0.5]) == pytest.approx((0.5, math.nan), nan_ok=True)
    assert mean_and_sd([]) == pytest.approx((math.nan, math.nan), nan_ok=True)
    assert mean_and_sd([0.5, math.nan]) == pytest.approx((math.nan, math.nan), nan_ok=True)


@pytest.mark.parametrize(("wanted", "threshold"), [(1.0, 0.2), (0.75, 0.4), (0.6, 0.4), (0.5, 0.6), (0.01, 0.8)])
def test_threshold_for_sensitivity_is_the_highest_that_finds_enough(wanted: float, threshold: float) -> None:
    scores, positive = np.array([0.8, 0.6, 0.4, 0.2, 0.9, 0.1]), np.array([True, True, True, True, False, False])
    assert threshold_for_sensitivity(scores, positive, wanted) == threshold
    assert (scores[positive] >= threshold).mean() >= wanted


def test_threshold_without_a_positive_case_is_undefined() -> None:
    assert math.isnan(threshold_for_sensitivity(np.array([0.5]), np.array([False]), 0.9))
    with pytest.raises(ValueError, match=r"sensitivity 90\.0, expected above 0 and at most 1"):
        threshold_for_sensitivity(np.array([0.5]), np.array([True]), 90.0)
