"""Thresholds of the expected grade, fitted for quadratic kappa within each data set (interpretation R34).

The most probable grade is rarely a grade between two others, such as 1, because it is seldom the single most probable
one. The expected grade E = sum_k k p_k uses the order of the grades; thresholds turn it into a grade.

A quadratic kappa over all photographs of several cameras would reward thresholds that tell the cameras apart. The mean
of the kappas within each data set is maximised instead.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from deepmtdr.metrics.stratified import MIN_PHOTOGRAPHS

RESAMPLES = 100
"""Bootstrap resamples over which the thresholds are averaged."""
PENALTY = 0.02
"""Kappa that a threshold must gain to move by 1 from the middle between two grades; it grows with the square."""
STEP = 0.05
"""Distance of the thresholds that are tried."""
MIN_GAP = 0.05
"""Smallest distance of two thresholds."""
SWEEPS = 10
"""Largest number of passes over the thresholds."""


class _DataSet(NamedTuple):
    """Expected and true grades of one data set, by increasing expected grade."""

    expected: Float[np.ndarray, " n"]
    truth: Int[np.ndarray, " n"]
    patient: Int[np.ndarray, " n"]
    """Number of the patient of each photograph, from 0."""


class _Moments(NamedTuple):
    """Sums over the weighted photographs of one data set, from which the kappa of any thresholds follows."""

    expected: Float[np.ndarray, " n"]
    share_above: Float[np.ndarray, " m"]
    """Share of the photographs from each place on; the last is 0."""
    truth_above: Float[np.ndarray, " m"]
    """Sum of their true grades, each times its share."""
    mean_square: float
    """Mean of the squared true grades."""

    @classmethod
    def of(cls, one: _DataSet, weights: Float[np.ndarray, " n"]) -> _Moments:
        """Compute the sums."""
        share = weights / weights.sum()
        above, truth_above = (np.append(np.cumsum(x[::-1])[::-1], 0.0) for x in (share, share * one.truth))
        return cls(one.expected, above, truth_above, float(share @ np.square(one.truth)))

    def kappa(self, candidates: Float[np.ndarray, "k t"]) -> Float[np.ndarray, " k"]:
        """Compute the quadratic kappa for each row of increasing thresholds.

        The predicted grade is p = sum_k [E >= t_k], therefore E[p] = sum_k W_k and E[p^2] = sum_k (2k + 1) W_k with
        the share W_k of the photographs above threshold k = 0, 1, ... The observed disagreement is E[(p - g)^2] for the
        true grade g; that of chance is E[p^2] + E[g^2] - 2 E[p] E[g]. If the latter is 0, all grades are alike and the
        kappa counts as 0.
        """
        place = np.searchsorted(self.expected, candidates)
        above, both = self.share_above[place], self.truth_above[place].sum(axis=1)
        squares = above @ (2.0 * np.arange(candidates.shape[1]) + 1) + self.mean_square
        chance = squares - 2 * above.sum(axis=1) * self.truth_above[0]
        return np.where(chance > 1e-12, 1 - (squares - 2 * both) / np.maximum(chance, 1e-12), 0.0)


def fit_grade_thresholds(
    expected: Float[np.ndarray, " n"],
    truth: Int[np.ndarray, " n"],
    datasets: Sequence[str],
    patients: Sequence[Hashable],
    *,
    grades: int,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[float, ...]:
    """Find thresholds of the expected grade with a high mean of the quadratic kappas of the data sets.

    Coordinate search from the middles between the grades, .5, 1.5, ..., with a penalty on the distance from there. The
    search is repeated on bootstrap resamples of the patients within each data set, and the thresholds are averaged: the
    kappa is a step function of them, and one search would follow single photographs.

    Args:
        expected: expected grade of each photograph.
        truth: true grades.
        datasets: data set of each photograph.
        patients: patient of each photograph.
        grades: number of grades.
        resamples: number of resamples; 0: one search on the photographs themselves.
        seed: seed of the resamples.

    Returns:
        Increasing thresholds, one fewer than grades. The middles between the grades if no data set has at least
        `MIN_PHOTOGRAPHS` photographs of two grades.
    """
    start = np.arange(grades - 1) + 0.5
    sets = _data_sets(expected, truth, datasets, patients)
    if not sets:
        return tuple(map(float, start))
    if not resamples:
        return tuple(map(float, _search([_Moments.of(one, np.ones(one.truth.size)) for one in sets], start)))
    rng = np.random.default_rng(seed)
    found = [_search([_Moments.of(one, _draw_weights(one, rng)) for one in sets], start) for _ in range(resamples)]
    return tuple(map(float, np.mean(found, axis=0)))


def _data_sets(
    expected: Float[np.ndarray, " n"],
    truth: Int[np.ndarray, " n"],
    datasets: Sequence[str],
    patients: Sequence[Hashable],
) -> list[_DataSet]:
    """Divide the photographs by data set; those with too few photographs or one grade are left out."""
    names, sets = np.array(datasets, dtype=object), []
    for name in sorted(set(datasets)):
        rows = np.flatnonzero(names == name)
        rows = rows[np.argsort(expected[rows], kind="stable")]
        if rows.size >= MIN_PHOTOGRAPHS and np.unique(truth[rows]).size > 1:
            numbers: dict[Hashable, int] = {}
            patient = np.array([numbers.setdefault(patients[row], len(numbers)) for row in rows.tolist()])
            sets.append(_DataSet(expected[rows], truth[rows], patient))
    return sets


def _draw_weights(one: _DataSet, rng: np.random.Generator) -> Float[np.ndarray, " n"]:
    """Draw patients with replacement: how often each photograph is drawn."""
    count = int(one.patient.max()) + 1
    times = np.bincount(rng.integers(count, size=count), minlength=count)
    return times[one.patient].astype(np.float64)


def _search(sets: Sequence[_Moments], start: Float[np.ndarray, " t"]) -> Float[np.ndarray, " t"]:
    """Change one threshold at a time to the best of a grid, until none changes."""
    thresholds = start.copy()
    for _ in range(SWEEPS):
        before = thresholds.copy()
        for place in range(thresholds.size):
            low = thresholds[place - 1] + MIN_GAP if place else STEP
            high = thresholds[place + 1] - MIN_GAP if place + 1 < thresholds.size else thresholds.size - STEP
            tried = np.unique(np.append(np.arange(low, high + 1e-9, STEP), thresholds[place]))
            candidates = np.tile(thresholds, (tried.size, 1))
            candidates[:, place] = tried
            value = np.mean([one.kappa(candidates) for one in sets], axis=0)
            value -= PENALTY * np.square(candidates - start).sum(axis=1)
            best = value >= value.max() - 1e-12
            thresholds[place] = min(tried[best], key=lambda t: abs(t - start[place]))
        if np.array_equal(before, thresholds):
            break
    return thresholds
