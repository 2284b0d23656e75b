"""Paired tests of two systems on the same photographs: DeLong's test and McNemar's test.

Both assume that the photographs are independent. For patients with several photographs use
`intervals.bootstrap_difference`, which does not assume this.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Num
from scipy.special import bdtr, ndtr, ndtri

Scores = Num[np.ndarray, " n"]
Truth = Bool[np.ndarray, " n"]


class AucDifference(NamedTuple):
    """Two areas under the ROC curve, their difference a - b with its interval, and the two-sided p-value."""

    auc_a: float
    auc_b: float
    difference: float
    low: float
    high: float
    p_value: float


def delong(scores_a: Scores, scores_b: Scores, positive: Truth, level: float = 0.95) -> AucDifference:
    """The test of DeLong et al. 1988 for two AUCs on the same photographs, by the midranks of Sun and Xu 2014.

    Args:
        scores_a: scores of one system; higher means more likely positive. Only the order matters.
        scores_b: scores of the other system, for the same photographs in the same order.
        positive: the truth.
        level: confidence level; 0.95 leaves 2.5 % on either side.

    Returns:
        AUCs as in `metrics.auc`; nan without a positive or without a negative case. Interval and p-value are nan with
        fewer than two positive or two negative cases, and where the estimated variance is 0 although the AUCs differ
        (one system ranks all pairs right, the other all wrong). Equal orders give a difference of 0 and p = 1.

    Raises:
        ValueError: if the arrays are not of one length, or a score is nan.
    """
    for name, scores in (("a", scores_a), ("b", scores_b)):
        if scores.shape != positive.shape:
            raise ValueError(
                f"found {scores.size} scores of system {name} for {positive.size} photographs, expected one for each"
            )
        if np.isnan(scores).any():
            raise ValueError(
                f"found nan in {int(np.isnan(scores).sum())} of {scores.size} scores of system {name}, expected numbers"
            )
    if positive.all() or not positive.any():
        return AucDifference(*[float("nan")] * 6)
    (below_a, above_a), (below_b, above_b) = _placements(scores_a, positive), _placements(scores_b, positive)
    difference = float((below_a - below_b).mean())
    error = float(np.sqrt(_variance_of_mean(below_a - below_b) + _variance_of_mean(above_a - above_b)))
    if error == 0 and difference != 0:
        error = float("nan")
    margin = float(ndtri((1 + level) / 2)) * error
    p_value = 2 * float(ndtr(-abs(difference) / error)) if error else 1.0
    areas = float(below_a.mean()), float(below_b.mean())
    return AucDifference(*areas, difference, difference - margin, difference + margin, p_value)


def _placements(scores: Scores, positive: Truth) -> tuple[Float[np.ndarray, " p"], Float[np.ndarray, " q"]]:
    """For each positive case the fraction of negatives below it; for each negative case that of positives above it.

    These are V10 and V01 of DeLong et al. Ties count one half. The mean of each is the AUC.
    """
    ranks = _midranks(scores)
    below = (ranks[positive] - _midranks(scores[positive])) / np.count_nonzero(~positive)
    above = 1 - (ranks[~positive] - _midranks(scores[~positive])) / np.count_nonzero(positive)
    return below, above


def _midranks(scores: Scores) -> Float[np.ndarray, " n"]:
    """Ranks from 1; equal scores have the mean of their ranks."""
    _, place, times = np.unique(scores, return_inverse=True, return_counts=True)
    return (np.cumsum(times) - (times - 1) / 2)[place]


def _variance_of_mean(values: Float[np.ndarray, " n"]) -> float:
    return float(values.var(ddof=1)) / values.size if values.size > 1 else float("nan")


class McNemar(NamedTuple):
    """Numbers of photographs that only one of the systems predicts right, and the two-sided p-value."""

    only_a: int
    only_b: int
    p_value: float


def mcnemar(correct_a: Truth, correct_b: Truth) -> McNemar:
    """The exact test of McNemar 1947 for two accuracies on the same photographs.

    It uses the photographs on which exactly one of the systems is right. Without a difference, each of these is like
    the toss of a coin.

    Args:
        correct_a: True where one system is right.
        correct_b: True where the other system is right, for the same photographs in the same order.

    Returns:
        p in (0, 1], from the exact binomial distribution; 1 if there is no such photograph.

    Raises:
        ValueError: if the numbers of photographs differ.
    """
    if correct_a.shape != correct_b.shape:
        raise ValueError(
            f"found {correct_a.size} photographs of system a and {correct_b.size} of system b, expected equal numbers"
        )
    only_a, only_b = int((correct_a & ~correct_b).sum()), int((correct_b & ~correct_a).sum())
    tail = float(bdtr(min(only_a, only_b), only_a + only_b, 0.5))
    return McNemar(only_a, only_b, min(1.0, 2 * tail))
