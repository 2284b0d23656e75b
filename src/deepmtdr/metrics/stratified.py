"""Means of a score over data sets, with bootstrap intervals that draw patients within each data set.

A score of all photographs of several data sets together rewards a system that recognises the camera: the grades of two
data sets are distributed differently, so "camera A, therefore grade 3" is right more often than chance. The mean of the
scores within each data set does not reward it.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from jaxtyping import Float, Int

from deepmtdr.metrics.intervals import (
    Difference,
    Interval,
    ScoreFunction,
    interval_of,
    resampled_scores,
    tested_difference,
)

MIN_PHOTOGRAPHS = 10
"""Smallest number of photographs with which a data set counts, if there is a data set with as many."""


def strata_with_score(
    score: ScoreFunction, strata: Sequence[str], *arrays: np.ndarray, least: int = MIN_PHOTOGRAPHS
) -> dict[str, Int[np.ndarray, " m"]]:
    """Choose the data sets whose scores are averaged.

    Args:
        score: function of `arrays`; returns nan where the score is undefined.
        strata: the data set of each row.
        *arrays: arguments of the score, one row per photograph.
        least: smallest number of photographs of a data set.

    Returns:
        Name -> its rows, for the data sets in which the score is defined and that have at least `least` photographs;
        for all data sets in which it is defined, if none of them has so many.
    """
    names = np.array(strata, dtype=object)
    rows = {name: np.flatnonzero(names == name) for name in sorted(set(strata))}
    defined = {name: own for name, own in rows.items() if not np.isnan(score(*(array[own] for array in arrays)))}
    return {name: own for name, own in defined.items() if own.size >= least} or defined


def mean_over_strata(
    score: ScoreFunction, strata: Sequence[str], *arrays: np.ndarray, least: int = MIN_PHOTOGRAPHS
) -> float:
    """Compute the mean of a score over the data sets of `strata_with_score`; nan if there is none.

    Args:
        score: see `strata_with_score`.
        strata: the data set of each row.
        *arrays: arguments of the score, one row per photograph.
        least: smallest number of photographs of a data set.
    """
    chosen = strata_with_score(score, strata, *arrays, least=least)
    values = [score(*(array[rows] for array in arrays)) for rows in chosen.values()]
    return float(np.mean(values)) if values else float("nan")


def stratified_interval(
    score: ScoreFunction,
    strata: Sequence[str],
    clusters: Sequence[Hashable],
    *arrays: np.ndarray,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    recentred: bool = False,
) -> Interval:
    """Bootstrap interval of the mean of a score over data sets; patients are drawn within each data set.

    Args:
        score: function of `arrays`; returns nan where the score is undefined.
        strata: the data set of each row.
        clusters: the patient of each row.
        *arrays: arguments of the score, one row per photograph.
        resamples: number of resamples.
        seed: seed of the random numbers.
        level: confidence level.
        recentred: see `bootstrap_interval`.

    Returns:
        The mean over the data sets of `strata_with_score`, and its bounds as in `bootstrap_interval`; all nan if there
        is no such data set.
    """
    chosen = strata_with_score(score, strata, *arrays)
    value, drawn = _mean_of_resamples(score, chosen, clusters, arrays, resamples, seed)
    return interval_of(value, drawn, level, recentred)


def stratified_difference(
    score: ScoreFunction,
    strata: Sequence[str],
    clusters: Sequence[Hashable],
    first: Sequence[np.ndarray],
    second: Sequence[np.ndarray],
    *,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Difference:
    """Paired bootstrap of the difference of two means over data sets; the same patients are drawn for both.

    Args:
        score: function of the arrays of `first` or of `second`; returns nan where the score is undefined.
        strata: the data set of each row.
        clusters: the patient of each row.
        first: arrays of one system, one row per photograph.
        second: arrays of the other system, for the same photographs in the same order.
        resamples: number of resamples.
        seed: seed of the random numbers.
        level: confidence level.

    Returns:
        The mean of score(*first) - score(*second) over the data sets in which both are defined, as
        `bootstrap_difference`.
    """
    count = len(first)

    def difference(*arrays: np.ndarray) -> float:
        return score(*arrays[:count]) - score(*arrays[count:])

    chosen = strata_with_score(difference, strata, *first, *second)
    value, drawn = _mean_of_resamples(difference, chosen, clusters, (*first, *second), resamples, seed)
    return tested_difference(value, drawn, level)


def _mean_of_resamples(
    score: ScoreFunction,
    chosen: dict[str, Int[np.ndarray, " m"]],
    clusters: Sequence[Hashable],
    arrays: Sequence[np.ndarray],
    resamples: int,
    seed: int,
) -> tuple[float, Float[np.ndarray, " r"]]:
    """Compute the mean over the data sets of all rows, and of each resample; each data set is drawn independently."""
    if not chosen:
        return float("nan"), np.full(resamples, np.nan)
    values, drawn = [], []
    for number, rows in enumerate(chosen.values()):
        own = [array[rows] for array in arrays]
        one = resampled_scores(
            lambda drawn_rows, own=own: score(*(array[drawn_rows] for array in own)),
            [clusters[row] for row in rows],
            own,
            resamples,
            [seed, number],
        )
        values.append(one[0])
        drawn.append(one[1])
    return float(np.mean(values)), np.mean(drawn, axis=0)
