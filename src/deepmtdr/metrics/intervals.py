"""Bootstrap confidence intervals over patients, and means of arrays in which values may be missing.

The two eyes of one person are not independent. Patients are therefore resampled as a whole, with all their
photographs. This is common practice; the paper has no intervals.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped

ScoreFunction = Callable[..., float]


class Interval(NamedTuple):
    """A score with the bounds of its bootstrap interval; the bounds are nan where there is no interval."""

    value: float
    low: float
    high: float


class Difference(NamedTuple):
    """The difference of two scores with its interval, and the two-sided p-value of no difference."""

    value: float
    low: float
    high: float
    p_value: float


MIN_DEFINED_SHARE = 0.9
"""An interval requires that the score is defined in this fraction of the resamples; some miss a rare grade."""


def bootstrap_interval(
    score: ScoreFunction,
    clusters: Sequence[Hashable],
    *arrays: np.ndarray,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    recentred: bool = False,
) -> Interval:
    """Percentile bootstrap interval of a score; patients are drawn with replacement.

    Args:
        score: function of `arrays`; returns nan where the score is undefined.
        clusters: the patient of each row.
        *arrays: arguments of the score, one row per photograph.
        resamples: number of resamples.
        seed: seed of the random numbers; the same seed gives the same interval.
        level: confidence level; 0.95 leaves 2.5 % on either side.
        recentred: shift the bounds so that the mean of the resamples is the score of all rows, and not below 0. For a
            score of at least 0 that resampling makes larger by itself, such as `debiased_ece`: drawing a photograph
            twice adds to the variance that such a score subtracts.

    Returns:
        The score of all rows, and the bounds. The bounds are nan with fewer than two patients, and where the score is
        undefined in more than a tenth of the resamples.

    Raises:
        ValueError: if an array does not have one row for each entry of `clusters`.
    """
    value, drawn = resampled_scores(
        lambda rows: score(*(array[rows] for array in arrays)), clusters, arrays, resamples, seed
    )
    return interval_of(value, drawn, level, recentred)


def interval_of(value: float, drawn: Float[np.ndarray, " r"], level: float, recentred: bool) -> Interval:
    """Add the bounds of the resamples to a score; `recentred` as in `bootstrap_interval`."""
    low, high = _bounds(drawn, level)
    if not recentred or np.isnan(low):
        return Interval(value, low, high)
    shift = value - nan_mean(drawn)
    return Interval(value, max(0.0, low + shift), max(0.0, high + shift))


def bootstrap_difference(
    score: ScoreFunction,
    clusters: Sequence[Hashable],
    first: Sequence[np.ndarray],
    second: Sequence[np.ndarray],
    *,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Difference:
    """Paired bootstrap of the difference of two scores: the same patients are drawn for both.

    Args:
        score: function of the arrays of `first` or of `second`; returns nan where the score is undefined.
        clusters: the patient of each row.
        first: arrays of one system, one row per photograph.
        second: arrays of the other system, for the same photographs in the same order.
        resamples: number of resamples.
        seed: seed of the random numbers.
        level: confidence level.

    Returns:
        score(*first) - score(*second). Interval and p-value are nan where the bounds of `bootstrap_interval` are nan.
        The p-value is at least 1 / (resamples + 1).

    Raises:
        ValueError: if an array does not have one row for each entry of `clusters`.
    """

    def difference(rows: Int[np.ndarray, " n"]) -> float:
        return score(*(array[rows] for array in first)) - score(*(array[rows] for array in second))

    return tested_difference(*resampled_scores(difference, clusters, (*first, *second), resamples, seed), level)


def tested_difference(value: float, drawn: Float[np.ndarray, " r"], level: float) -> Difference:
    """Add the bounds and the p-value of no difference."""
    low, high = _bounds(drawn, level)
    if np.isnan(low):
        return Difference(value, low, high, float("nan"))
    drawn = drawn[~np.isnan(drawn)]
    tail = min((drawn <= 0).sum(), (drawn >= 0).sum())
    return Difference(value, low, high, min(1.0, 2 * float(tail + 1) / (drawn.size + 1)))


def resampled_scores(
    score_of_rows: Callable[[np.ndarray], float],
    clusters: Sequence[Hashable],
    arrays: Sequence[np.ndarray],
    resamples: int,
    seed: int | Sequence[int],
) -> tuple[float, Float[np.ndarray, " r"]]:
    """Compute the score of all rows, and the scores of the resamples."""
    for place, array in enumerate(arrays):
        if len(array) != len(clusters):
            raise ValueError(f"array {place} has {len(array)} rows, expected one for each of {len(clusters)} clusters")
    value = float(score_of_rows(np.arange(len(clusters))))
    order, start, size = _grouped(clusters)
    if start.size < 2:
        return value, np.full(resamples, np.nan)
    generator = np.random.default_rng(seed)
    drawn = np.empty(resamples)
    for r in range(resamples):
        chosen = generator.integers(start.size, size=start.size)
        ends = np.cumsum(size[chosen])
        within = np.arange(ends[-1]) - np.repeat(ends - size[chosen], size[chosen])
        drawn[r] = score_of_rows(order[np.repeat(start[chosen], size[chosen]) + within])
    return value, drawn


def _grouped(clusters: Sequence[Hashable]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sort the rows by cluster. Also return where each cluster starts in that order, and its number of rows."""
    numbers: dict[Hashable, int] = {}
    label = np.array([numbers.setdefault(cluster, len(numbers)) for cluster in clusters], dtype=np.int64)
    size = np.bincount(label, minlength=len(numbers))
    return np.argsort(label, kind="stable"), np.cumsum(size) - size, size


def _bounds(drawn: Float[np.ndarray, " r"], level: float) -> tuple[float, float]:
    defined = drawn[~np.isnan(drawn)]
    if defined.size < MIN_DEFINED_SHARE * drawn.size:
        return float("nan"), float("nan")
    ends = [(1 - level) / 2, (1 + level) / 2]
    if not np.isfinite(defined).all():  # no interpolation between a number and infinity
        low, high = np.sort(defined)[[round(end * (defined.size - 1)) for end in ends]]
    else:
        low, high = np.quantile(defined, ends)
    return float(low), float(high)


class MeanAndSd(NamedTuple):
    """Mean and standard deviation of a score over several seeds."""

    mean: float
    sd: float


def mean_and_sd(values: Sequence[float]) -> MeanAndSd:
    """Mean and standard deviation of a score over several training runs.

    The standard deviation is that of single runs (with n - 1), not the error of the mean. It describes the runs; for
    the uncertainty that comes from the photographs use `bootstrap_interval`.

    Args:
        values: one score per seed.

    Returns:
        The mean is nan without values and if a value is nan. The standard deviation is nan then too, and with a single
        value, and if a value is infinite.
    """
    runs = np.asarray(values, dtype=np.float64)
    mean = float(runs.mean()) if runs.size else float("nan")
    has_spread = runs.size > 1 and bool(np.isfinite(runs).all())
    return MeanAndSd(mean, float(runs.std(ddof=1)) if has_spread else float("nan"))


def mean_or_nan(values: Shaped[np.ndarray, " n"]) -> float:
    """Mean of the values; nan without values."""
    return float(values.mean()) if values.size else float("nan")


def nan_mean(values: Float[np.ndarray, " n"]) -> float:
    """Mean of the values that are not nan; nan without such values."""
    return mean_or_nan(values[~np.isnan(values)])
