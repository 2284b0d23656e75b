"""Means over data sets: by hand, by simulation, and that recognising the camera is not rewarded."""

from __future__ import annotations

import math

import numpy as np
import pytest

from deepmtdr.metrics import auc, kappa_quadratic
from deepmtdr.metrics.intervals import bootstrap_difference, bootstrap_interval
from deepmtdr.metrics.stratified import (
    mean_over_strata,
    strata_with_score,
    stratified_difference,
    stratified_interval,
)


def mean(values: np.ndarray) -> float:
    return float(values.mean())


def test_mean_over_data_sets_has_equal_weights() -> None:
    values, strata = np.array([1.0] * 30 + [4.0] * 10), ["a"] * 30 + ["b"] * 10
    assert mean_over_strata(mean, strata, values) == 2.5
    assert stratified_interval(mean, strata, range(40), values).value == 2.5


def test_data_set_with_few_photographs_counts_only_if_all_have_few() -> None:
    values = np.array([1.0] * 10 + [4.0] * 9)
    assert mean_over_strata(mean, ["a"] * 10 + ["b"] * 9, values) == 1
    assert mean_over_strata(mean, ["a"] * 9 + ["b"] * 10, values) == pytest.approx((1 + 9 * 4) / 10)
    assert mean_over_strata(mean, ["a"] * 3 + ["b"] * 2, np.array([1.0, 1, 1, 4, 4])) == 2.5


def test_data_set_in_which_the_score_is_undefined_does_not_count() -> None:
    positive = np.array([True, False] * 10 + [True] * 20)
    chosen = strata_with_score(auc, ["a"] * 20 + ["b"] * 20, np.arange(40.0), positive)
    assert list(chosen) == ["a"] and chosen["a"].tolist() == list(range(20))
    assert math.isnan(mean_over_strata(auc, ["b"] * 20, np.arange(20.0), np.ones(20, bool)))
    assert all(
        math.isnan(x) for x in stratified_interval(auc, ["b"] * 20, range(20), np.arange(20.0), np.ones(20, bool))
    )


def test_predicting_the_camera_scores_at_chance_although_the_pooled_score_is_high() -> None:
    rng = np.random.default_rng(0)
    truth = np.concatenate([rng.choice([2, 3, 4], 80), rng.choice([0, 0, 0, 2], 140)])
    camera = np.array([3] * 80 + [0] * 140)
    strata = ["a"] * 80 + ["b"] * 140
    assert kappa_quadratic(camera, truth) > 0.5
    assert mean_over_strata(kappa_quadratic, strata, camera, truth) == pytest.approx(0)


def test_interval_has_the_width_of_independent_data_sets(rng: np.random.Generator) -> None:
    values, strata = rng.normal(0, 1, 400), ["a"] * 100 + ["b"] * 300
    interval = stratified_interval(mean, strata, range(400), values, resamples=4000)
    half = 1.96 * math.sqrt(values[:100].var() / 100 + values[100:].var() / 300) / 2
    assert (interval.low, interval.high) == pytest.approx((interval.value - half, interval.value + half), abs=0.008)


def test_patients_are_drawn_within_their_data_set() -> None:
    strata, clusters = ["a"] * 10 + ["b"] * 30, [*range(10), *range(30)]
    seen = set()
    stratified_interval(lambda names: seen.add((names.size, *set(names))) or 0.0, strata, clusters, np.array(strata))
    assert seen == {(10, "a"), (30, "b")}


def test_one_data_set_has_the_interval_of_the_plain_bootstrap_with_that_seed(rng: np.random.Generator) -> None:
    values = rng.normal(size=50)
    found = stratified_interval(mean, ["a"] * 50, range(50), values, resamples=200)
    plain = bootstrap_interval(mean, range(50), values, resamples=200)
    assert found.value == plain.value
    assert (found.low, found.high) == pytest.approx((plain.low, plain.high), abs=0.1)


def test_difference_is_paired_and_the_mean_of_the_differences(rng: np.random.Generator) -> None:
    shared, strata = rng.normal(0, 5, 200), ["a"] * 50 + ["b"] * 150
    first, second = shared + rng.normal(0.5, 0.1, 200), shared
    found = stratified_difference(mean, strata, range(200), [first], [second])
    change = first - second
    assert found.value == pytest.approx((change[:50].mean() + change[50:].mean()) / 2)
    assert found.high - found.low < 0.1 and found.p_value < 0.01
    one = stratified_difference(mean, ["a"] * 200, range(200), [first], [second])
    assert one.value == pytest.approx(bootstrap_difference(mean, range(200), [first], [second]).value)
    assert math.isnan(stratified_difference(auc, strata, range(200), [first, first > 99], [first, first > 99]).p_value)


def test_recentred_bounds_are_around_the_value_and_not_below_0(rng: np.random.Generator) -> None:
    values, strata = rng.normal(0, 1, 60), ["a"] * 30 + ["b"] * 30

    def square_of_mean(x: np.ndarray) -> float:  # resampling adds a variance to it
        return max(0.0, float(x.mean() ** 2 - 1 / x.size))

    plain = stratified_interval(square_of_mean, strata, range(60), values)
    shifted = stratified_interval(square_of_mean, strata, range(60), values, recentred=True)
    assert shifted.value == plain.value and 0 <= shifted.low <= shifted.value <= shifted.high < plain.high
