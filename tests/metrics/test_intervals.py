"""Bootstrap intervals and paired differences: against known answers and by simulation."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable

import numpy as np
import pytest
from scipy.special import ndtr

from deepmtdr.metrics import auc, kappa_quadratic
from deepmtdr.metrics.intervals import bootstrap_difference, bootstrap_interval, mean_and_sd, mean_or_nan, nan_mean


def mean(values: np.ndarray) -> float:
    return float(values.mean())


def test_interval_of_a_mean_is_that_of_the_normal_distribution(rng: np.random.Generator) -> None:
    values = rng.normal(3, 1, 400)
    interval = bootstrap_interval(mean, range(400), values, resamples=4000)
    half = 1.96 * values.std() / 20
    assert interval.value == values.mean()
    assert (interval.low, interval.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.006)


def test_same_seed_gives_the_same_interval(rng: np.random.Generator) -> None:
    values = rng.normal(size=50)
    first, again, other = (bootstrap_interval(mean, range(50), values, seed=seed) for seed in (1, 1, 2))
    assert first == again != other


def test_second_photograph_of_each_patient_does_not_narrow_the_interval(rng: np.random.Generator) -> None:
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
        assert draw.count("a") / 3 + draw.count("b") / 2 + draw.count("c") == 3  # as many patients as in the data


TWO_EYES = np.repeat(np.arange(200), 2)
"""The patient of each of 400 photographs."""


def patients_with_a_mean(rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    return ((rng.normal(size=200)[TWO_EYES] + rng.normal(size=400)) * math.sqrt(0.5),)


def patients_with_a_disease(rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Both eyes are diseased or none; diseased ones score 1 higher, with a standard deviation of 1."""
    positive = (rng.random(200) < 0.4)[TWO_EYES]
    return positive + patients_with_a_mean(rng)[0], positive


@pytest.mark.slow
@pytest.mark.parametrize(
    ("score", "simulated", "truth"),
    [(mean, patients_with_a_mean, 0), (auc, patients_with_a_disease, float(ndtr(math.sqrt(0.5))))],
)
def test_95_percent_intervals_cover_the_truth_in_93_to_97_percent(
    score: Callable[..., float], simulated: Callable[[np.random.Generator], tuple[np.ndarray, ...]], truth: float
) -> None:
    repetitions, patients = 1500, TWO_EYES.tolist()
    covered = 0
    for seed in range(repetitions):
        arrays = simulated(np.random.default_rng(seed))
        interval = bootstrap_interval(score, patients, *arrays, resamples=400, seed=seed)
        covered += interval.low <= truth <= interval.high
    assert 0.93 <= covered / repetitions <= 0.97


def test_interval_of_one_patient_is_undefined() -> None:
    interval = bootstrap_interval(mean, ["a", "a"], np.array([1.0, 2.0]))
    assert interval.value == 1.5
    assert math.isnan(interval.low)
    assert math.isnan(interval.high)


def test_interval_of_a_score_that_is_often_undefined_is_undefined() -> None:
    scores, positive = (
        np.linspace(0, 1, 30),
        np.arange(30) == 29,
    )  # a third of the resamples lack the only positive case
    interval = bootstrap_interval(auc, range(30), scores, positive)
    assert interval.value == 1
    assert math.isnan(interval.low)


def test_array_of_another_length_is_an_error() -> None:
    with pytest.raises(ValueError, match="array 1 has 2 rows, expected one for each of 3 clusters"):
        bootstrap_interval(auc, range(3), np.zeros(3), np.zeros(2, bool))


def test_a_thousand_resamples_of_four_thousand_photographs_take_seconds(rng: np.random.Generator) -> None:
    truth, patients = rng.integers(0, 5, 4000), np.repeat(np.arange(2000), 2).tolist()
    predicted = np.where(rng.random(4000) < 0.7, truth, rng.integers(0, 5, 4000))
    begun = time.process_time()
    interval = bootstrap_interval(kappa_quadratic, patients, predicted, truth)
    assert time.process_time() - begun < 10
    assert interval.low < interval.value < interval.high


def test_paired_difference_has_a_narrower_interval_than_each_score(rng: np.random.Generator) -> None:
    truth = rng.random(300) < 0.4
    shared = rng.normal(truth, 1)
    better, worse = shared + rng.normal(0.4 * truth, 0.2), shared + rng.normal(0, 0.2, 300)
    difference = bootstrap_difference(auc, range(300), (better, truth), (worse, truth))
    alone = [bootstrap_interval(auc, range(300), scores, truth) for scores in (better, worse)]
    assert difference.value == pytest.approx(alone[0].value - alone[1].value)
    assert 0 < difference.low < difference.value < difference.high
    assert difference.high - difference.low < min(one.high - one.low for one in alone)
    assert difference.p_value == pytest.approx(2 / 1001)  # no resample has the other sign


def test_equal_systems_have_p_value_1(rng: np.random.Generator) -> None:
    truth, scores = rng.random(100) < 0.5, rng.normal(size=100)
    same = bootstrap_difference(auc, range(100), (scores, truth), (scores, truth))
    assert same == (0, 0, 0, 1)
    alone = bootstrap_difference(auc, ["a"] * 100, (scores, truth), (scores, truth))
    assert math.isnan(alone.p_value)


@pytest.mark.slow
def test_p_values_without_a_difference_are_uniform() -> None:
    p_values = []
    for seed in range(200):
        first, second = np.random.default_rng(seed).normal(size=(2, 80))
        p_values.append(bootstrap_difference(mean, range(80), (first,), (second,), resamples=200, seed=seed).p_value)
    assert 0.35 < np.mean(np.array(p_values) < 0.5) < 0.65
    assert np.mean(np.array(p_values) < 0.05) < 0.12


def test_mean_and_sd_over_seeds() -> None:
    runs = [0.61, 0.65, 0.58]
    assert mean_and_sd(runs) == pytest.approx((statistics.mean(runs), statistics.stdev(runs)))
    assert mean_and_sd([0.5]) == pytest.approx((0.5, math.nan), nan_ok=True)
    assert mean_and_sd([]) == pytest.approx((math.nan, math.nan), nan_ok=True)
    assert mean_and_sd([0.5, math.nan]) == pytest.approx((math.nan, math.nan), nan_ok=True)


def test_means_leave_out_nan_and_are_nan_without_values() -> None:
    assert nan_mean(np.array([1.0, math.nan, 4.0])) == 2.5
    assert math.isnan(mean_or_nan(np.array([1.0, math.nan])))
    assert mean_or_nan(np.array([True, False])) == 0.5
    assert math.isnan(mean_or_nan(np.array([]))) and math.isnan(nan_mean(np.array([math.nan])))
