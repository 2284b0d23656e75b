"""Thresholds of the expected grade: by hand, against scikit-learn, and on photographs of other patients."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from deepmtdr.calibration import grade_thresholds
from deepmtdr.calibration.grade_thresholds import fit_grade_thresholds
from deepmtdr.grade_decision import grades_from_thresholds

MIDDLES = (0.5, 1.5, 2.5, 3.5)


def fit(expected: np.ndarray, truth: np.ndarray, datasets: list[str] | None = None, resamples: int = 0) -> tuple:
    datasets = datasets or ["d"] * truth.size
    return fit_grade_thresholds(expected, truth, datasets, range(truth.size), grades=5, resamples=resamples)


def compressed(rng: np.random.Generator, count: int = 600) -> tuple[np.ndarray, np.ndarray]:
    """Expected grades that are 1 + half of the true grade, with noise: rounding predicts 1, 2 and 3 only."""
    truth = rng.integers(0, 5, count)
    return 1 + truth / 2 + rng.normal(0, 0.1, count), truth


def test_thresholds_of_grades_that_can_be_told_apart_separate_them(rng: np.random.Generator) -> None:
    expected, truth = compressed(rng)
    assert fit(expected, truth) == pytest.approx((1.25, 1.75, 2.25, 2.75), abs=0.1)
    assert fit(expected, truth, resamples=20) == pytest.approx((1.25, 1.75, 2.25, 2.75), abs=0.1)


def test_rounding_stays_if_every_rounded_grade_is_right() -> None:
    truth = np.tile(np.arange(5), 4)
    assert fit(truth.astype(np.float64), truth) == MIDDLES


def test_kappa_of_the_search_is_that_of_scikit_learn(rng: np.random.Generator) -> None:
    expected, truth = rng.uniform(0, 4, 50), rng.integers(0, 5, 50)
    (one,) = grade_thresholds._data_sets(expected, truth, ["d"] * 50, range(50))
    weights = rng.integers(0, 3, 50)
    weights = weights[np.argsort(expected, kind="stable")]
    (found,) = grade_thresholds._Moments.of(one, weights.astype(np.float64)).kappa(np.array([MIDDLES]))
    predicted = grades_from_thresholds(one.expected, MIDDLES)
    assert found == pytest.approx(cohen_kappa_score(one.truth, predicted, weights="quadratic", sample_weight=weights))


def test_kappa_without_chance_disagreement_counts_as_0() -> None:
    (one,) = grade_thresholds._data_sets(np.zeros(20), np.array([0] * 19 + [1]), ["d"] * 20, range(20))
    weights = np.array([1.0] * 19 + [0.0])
    assert grade_thresholds._Moments.of(one, weights).kappa(np.array([MIDDLES])).tolist() == [0.0]


def test_recognising_the_camera_is_not_rewarded(rng: np.random.Generator) -> None:
    """Camera a: grade 0 at 1.0 and 1 at 1.2; camera b: 3 at 2.0 and 4 at 2.2. Pooled, one threshold at 1.6 would do."""
    truth = np.repeat([0, 1, 3, 4], 30)
    expected = np.repeat([1.0, 1.2, 2.0, 2.2], 30) + rng.normal(0, 0.01, 120)
    thresholds = fit(expected, truth, ["a"] * 60 + ["b"] * 60)
    predicted = grades_from_thresholds(expected, thresholds)
    for half in (slice(0, 60), slice(60, 120)):
        assert np.unique(predicted[half]).size == 2, "grades within a camera are told apart"


def test_small_data_set_and_one_grade_do_not_count(rng: np.random.Generator) -> None:
    expected, truth = compressed(rng, 100)
    few = (np.append(expected, [4.0] * 9), np.append(truth, [0, 1] * 4 + [0]))
    assert fit(*few, ["d"] * 100 + ["few"] * 9) == fit(expected, truth)
    assert fit(np.ones(20), np.zeros(20, int)) == MIDDLES
    assert fit(np.ones(5), np.arange(5)) == MIDDLES


def test_averaged_thresholds_increase_and_move_less_than_single_ones(rng: np.random.Generator) -> None:
    def spread(resamples: int) -> float:
        rows = []
        for seed in range(8):
            own = np.random.default_rng(seed)
            truth = own.integers(0, 5, 60)
            rows.append(fit(1 + truth / 2 + own.normal(0, 0.6, 60), truth, resamples=resamples))
        assert all((np.diff(row) > 0).all() for row in rows)
        return float(np.std(rows, axis=0).mean())

    assert spread(30) < 0.9 * spread(0)


def test_same_seed_gives_the_same_thresholds(rng: np.random.Generator) -> None:
    expected, truth = compressed(rng, 60)
    assert fit(expected, truth, resamples=5) == fit(expected, truth, resamples=5)
