"""Bootstrap confidence intervals by patient, and mean and standard deviation over seeds.

Two photographs of one patient are not two observations: whatever is resampled here is a patient, with all photographs.
The field's practice, beyond Sec. V-B.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

ScoreFunction = Callable[..., float]


class Interval(NamedTuple):
    """A score with the bounds of its bootstrap interval; bounds are nan where the score has no spread to be read."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """`0.62 [0.51, 0.72]`."""
        return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}]"


class Difference(NamedTuple):
    """First minus second, with its interval, and the two-sided p-value of no difference."""

    value: float
    low: float
    high: float
    p_value: float


MIN_DEFINED_SHARE = 0.9
"""A bound needs the score to be defined in this fraction of the resamples (a rare grade is absent from some)."""


def bootstrap_interval(
    score: ScoreFunction,
    clusters: Sequence[Hashable],
    *arrays: np.ndarray,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Percentile bootstrap of a score, whole patients drawn with replacement.

    Args:
        score: takes `arrays`, gives a float; nan where it is undefined.
        clusters: the patient of each row.
        *arrays: what the score is computed from, one row per photograph.
        resamples: how many times the patients are drawn.
        seed: of the draws; the same seed gives the same interval.
        level: of the interval, 0.95 for 2.5 % on either side.

    Returns:
        The score of all rows and the bounds; bounds are nan for fewer than two patients, and where the score is
        undefined in more than a tenth of the resamples.

    Raises:
        ValueError: if an array has not one row per cluster.
    """
    value, drawn = _resampled(lambda rows: score(*(array[rows] for array in arrays)), clusters, arrays, resamples, seed)
    return Interval(value, *_bounds(drawn, level))


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
    """Paired bootstrap: the same patients are drawn for both, so that what they share cancels.

    Args:
        score: takes the arrays of `first` or `second`, gives a float; nan where it is undefined.
        clusters: the patient of each row.
        first: arrays of the one system, one row per photograph.
        second: arrays of the other, in the same order of photographs.
        resamples: how many times the patients are drawn.
        seed: of the draws.
        level: of the interval.

    Returns:
        score(*first) - score(*second); interval and p-value are nan where `bootstrap_interval`'s bounds are. The
        p-value is never below 1 / (resamples + 1).

    Raises:
        ValueError: if an array has not one row per cluster.
    """

    def difference(rows: Int[np.ndarray, " n"]) -> float:
        return score(*(array[rows] for array in first)) - score(*(array[rows] for array in second))

    value, drawn = _resampled(difference, clusters, (*first, *second), resamples, seed)
    low, high = _bounds(drawn, level)
    if np.isnan(low):
        return Difference(value, low, high, float("nan"))
    drawn = drawn[~np.isnan(drawn)]
    tail = min((drawn <= 0).sum(), (drawn >= 0).sum())
    return Difference(value, low, high, min(1.0, 2 * float(tail + 1) / (drawn.size + 1)))


def _resampled(
    score_of_rows: Callable[[np.ndarray], float],
    clusters: Sequence[Hashable],
    arrays: Sequence[np.ndarray],
    resamples: int,
    seed: int,
) -> tuple[float, Float[np.ndarray, " r"]]:
    """The score of all rows, and of the rows of patients drawn with replacement."""
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
    """Rows sorted by cluster, and where in that order each cluster starts and how many rows it has."""
    numbers: dict[Hashable, int] = {}
    label = np.array([numbers.setdefault(cluster, len(numbers)) for cluster in clusters], dtype=np.int64)
    size = np.bincount(label, minlength=len(numbers))
    return np.argsort(label, kind="stable"), np.cumsum(size) - size, size


def _bounds(drawn: Float[np.ndarray, " r"], level: float) -> tuple[float, float]:
    defined = drawn[~np.isnan(drawn)]
    if defined.size < MIN_DEFINED_SHARE * drawn.size:
        return float("nan"), float("nan")
    ends = [(1 - level) / 2, (1 + level) / 2]
    if not np.isfinite(defined).all():  # between a number and infinity nothing can be interpolated
        low, high = np.sort(defined)[[round(end * (defined.size - 1)) for end in ends]]
    else:
        low, high = np.quantile(defined, ends)
    return float(low), float(high)


class MeanAndSd(NamedTuple):
    """A score over the seeds of one recipe."""

    mean: float
    sd: float

    def __str__(self) -> str:
        """`0.62 (0.03)`, as in the paper's tables."""
        return f"{self.mean:.3g} ({self.sd:.2g})"


def mean_and_sd(values: Sequence[float]) -> MeanAndSd:
    """Mean and standard deviation of what was run several times.

    It is the spread of single runs from their own number (n - 1), not the error of the mean; how sure a score is on
    these photographs, `bootstrap_interval` says.

    Args:
        values: one score per seed.

    Returns:
        The mean is nan without values and if a value is nan; the deviation also for one value, which has no
        spread, and if a value is infinite.
    """
    runs = np.asarray(values, dtype=np.float64)
    mean = float(runs.mean()) if runs.size else float("nan")
    has_spread = runs.size > 1 and bool(np.isfinite(runs).all())
    return MeanAndSd(mean, float(runs.std(ddof=1)) if has_spread else float("nan"))
