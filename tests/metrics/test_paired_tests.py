"""DeLong's test against its definition and a bootstrap; McNemar's test against the binomial distribution."""

from __future__ import annotations

import inspect
import math

import numpy as np
import pytest
from scipy.stats import binomtest, norm
from sklearn.metrics import roc_auc_score

from deepmtdr.metrics import auc
from deepmtdr.metrics.intervals import bootstrap_difference
from deepmtdr.metrics.paired_tests import delong, mcnemar


def systems(seed: int, levels: int | None = None, n: int = 120) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores of two systems for the same cases; the first is slightly better."""
    rng = np.random.default_rng(seed)
    positive = rng.random(n) < 0.3
    shared = rng.normal(positive, 1)
    scores = shared + rng.normal(0.4 * positive, 0.6), shared + rng.normal(0, 0.6, n)
    a, b = scores if levels is None else (np.round(s * levels) / levels for s in scores)
    return a, b, positive


def delong_by_definition(a: np.ndarray, b: np.ndarray, positive: np.ndarray) -> tuple[float, float]:
    """Difference and p-value as in DeLong et al. 1988, from all pairs and 2x2 covariances."""
    v10, v01 = [], []
    for scores in (a, b):
        psi = [[(x > y) + (x == y) / 2 for y in scores[~positive]] for x in scores[positive]]
        v10.append([sum(row) / len(row) for row in psi])
        v01.append([sum(column) / len(column) for column in zip(*psi, strict=True)])
    s = np.cov(v10) / positive.sum() + np.cov(v01) / (~positive).sum()
    difference = float(np.mean(v10[0]) - np.mean(v10[1]))
    return difference, float(2 * norm.sf(abs(difference) / np.sqrt(s[0, 0] + s[1, 1] - 2 * s[0, 1])))


@pytest.mark.parametrize("levels", [None, 2])
@pytest.mark.parametrize("seed", range(4))
def test_delong_agrees_with_its_definition_over_all_pairs(seed: int, levels: int | None) -> None:
    a, b, positive = systems(seed, levels)
    test = delong(a, b, positive)
    difference, p_value = delong_by_definition(a, b, positive)
    assert (test.auc_a, test.auc_b) == pytest.approx((roc_auc_score(positive, a), roc_auc_score(positive, b)))
    assert test.difference == pytest.approx(difference)
    assert test.p_value == pytest.approx(p_value)
    error = (test.high - test.low) / 2 / norm.ppf(0.975)
    assert 2 * norm.sf(abs(test.difference) / error) == pytest.approx(test.p_value)


def test_delong_and_bootstrap_give_nearly_the_same_interval() -> None:
    a, b, positive = systems(1, n=400)
    test = delong(a, b, positive)
    drawn = bootstrap_difference(auc, range(400), (a, positive), (b, positive), resamples=2000)
    assert test.difference == pytest.approx(drawn.value)
    assert (test.low, test.high) == pytest.approx((drawn.low, drawn.high), abs=0.005)


def test_delong_depends_on_the_order_only_and_is_antisymmetric() -> None:
    a, b, positive = systems(0)
    test, swapped = delong(a, b, positive), delong(b, a, positive)
    assert delong(np.exp(a), 3 * b - 7, positive) == test
    assert (swapped.difference, swapped.low, swapped.high, swapped.p_value) == pytest.approx(
        (-test.difference, -test.high, -test.low, test.p_value)
    )
    wider = delong(a, b, positive, level=0.99)
    assert wider.low < test.low < test.high < wider.high


def test_delong_of_a_system_with_itself_has_p_1() -> None:
    a, _, positive = systems(0)
    assert delong(a, a, positive)[2:] == (0, 0, 0, 1)


def test_delong_p_values_without_a_difference_are_uniform() -> None:
    p_values = []
    for seed in range(400):
        rng = np.random.default_rng(seed)
        positive = np.arange(150) < 60
        shared = rng.normal(positive, 1)
        p_values.append(delong(shared + rng.normal(0, 1, 150), shared + rng.normal(0, 1, 150), positive).p_value)
    for level in (0.05, 0.2, 0.5):  # within three standard errors
        assert abs(np.mean(np.array(p_values) < level) - level) < 3 * math.sqrt(level * (1 - level) / 400)


def test_delong_is_undefined_without_variance() -> None:
    scores = np.array([0.1, 0.4, 0.3, 0.8])
    assert np.isnan(delong(scores, scores, np.ones(4, bool))).all()
    lonely = delong(scores, -scores, np.array([False, False, False, True]))
    assert (lonely.auc_a, lonely.auc_b, lonely.difference) == (1, 0, 1)
    assert np.isnan(lonely[3:]).all()
    opposite = delong(scores, -scores, np.array([False, True, False, True]))
    assert opposite.difference == 1
    assert np.isnan(opposite[3:]).all()


def test_delong_of_unpaired_scores_is_an_error() -> None:
    positive = np.array([True, False, True])
    with pytest.raises(ValueError, match="2 scores of system b for 3 photographs"):
        inspect.unwrap(delong)(np.zeros(3), np.zeros(2), positive)
    with pytest.raises(ValueError, match="found nan in 1 of 3 scores of system a"):
        delong(np.array([0.1, np.nan, 0.2]), np.zeros(3), positive)


def test_mcnemar_worked_by_hand() -> None:
    # Only a is right on one photograph, only b on five: 2 (1 + 6) / 2^6.
    a, b = np.array([True] * 5 + [False] * 7), np.array([True] * 4 + [False] + [True] * 5 + [False] * 2)
    assert mcnemar(a, b) == (1, 5, pytest.approx(14 / 64))


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 1), (3, 3), (7, 8), (2, 19), (40, 80), (0, 2000)])
def test_mcnemar_agrees_with_scipys_binomial_test(only_a: int, only_b: int) -> None:
    a = np.repeat([True, False, True], [only_a, only_b, 50])
    b = np.repeat([False, True, True], [only_a, only_b, 50])
    test = mcnemar(a, b)
    assert (test.only_a, test.only_b) == (only_a, only_b)
    assert test.p_value == pytest.approx(binomtest(only_a, only_a + only_b).pvalue, rel=1e-9)
    assert mcnemar(b, a) == (only_b, only_a, test.p_value)


def test_mcnemar_of_systems_that_agree_has_p_1() -> None:
    right = np.array([True, False, True])
    assert mcnemar(right, right) == (0, 0, 1)
    assert mcnemar(np.zeros(0, bool), np.zeros(0, bool)) == (0, 0, 1)


def test_mcnemar_of_unpaired_predictions_is_an_error() -> None:
    with pytest.raises(ValueError, match="3 photographs of system a and 2 of system b"):
        inspect.unwrap(mcnemar)(np.zeros(3, bool), np.zeros(2, bool))  # without the type check of the tests
