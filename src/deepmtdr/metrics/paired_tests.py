"""Whether one system is better than another on the same photographs: the tests that papers are asked for.

Both take the photographs as independent. Where a patient has two of them, `statistics.bootstrap_difference` does not.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Num
from scipy.special import bdtr, ndtr, ndtri

Scores = Num[np.ndarray, " n"]
Truth = Bool[np.ndarray, " n"]


class AucDifference(NamedTuple):
    """Two areas under the ROC curve, the first minus the second, and the two-sided p-value of no difference."""

    auc_a: float
    auc_b: float
    difference: float
    low: float
    high: float
    p_value: float


def delong(scores_a: Scores, scores_b: Scores, positive: Truth, level: float = 0.95) -> AucDifference:
    """The test of DeLong et al. 1988 for two AUCs on the same photographs, by the midranks of Sun and Xu 2014.

    Args:
        scores_a: of the one system; higher means more likely positive, and only the order counts.
        scores_b: of the other, the same photographs in the same order.
        positive: the truth.
        level: of the interval, 0.95 for 2.5 % on either side.

    Returns:
        AUCs as in `metrics.auc`; nan without a positive or without a negative case. Interval and p-value are nan for
        fewer than two of either, and where the areas differ although neither order has any spread (one system all
        right, the other all wrong). Equal orders give a difference of 0 and p = 1.

    Raises:
        ValueError: if the arrays are not of one length, or a score is nan.
    """
    for name, scores in (("a", scores_a), ("b", scores_b)):
        if scores.shape != positive.shape:
            raise ValueError(f"{scores.size} scores of system {name} for {positive.size} photographs, expected as many")
        if np.isnan(scores).any():
            raise ValueError(f"{int(np.isnan(scores).sum())} of {scores.size} scores of system {name} are nan")
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
    """For each positive case the fraction of negatives below it, for each negative that of positives above it.

    These are the structural components V10 and V01 of DeLong et al.; ties count half, and both have the AUC as mean.
    """
    ranks = _midranks(scores)
    below = (ranks[positive] - _midranks(scores[positive])) / np.count_nonzero(~positive)
    above = 1 - (ranks[~positive] - _midranks(scores[~positive])) / np.count_nonzero(positive)
    return below, above


def _midranks(scores: Scores) -> Float[np.ndarray, " n"]:
    """Ranks from 1; equal scores share the mean of theirs."""
    _, place, times = np.unique(scores, return_inverse=True, return_counts=True)
    return (np.cumsum(times) - (times - 1) / 2)[place]


def _variance_of_mean(values: Float[np.ndarray, " n"]) -> float:
    return float(values.var(ddof=1)) / values.size if values.size > 1 else float("nan")


class McNemar(NamedTuple):
    """Photographs that only one of two systems got right, and the two-sided p-value of no difference."""

    only_a: int
    only_b: int
    p_value: float


def mcnemar(correct_a: Truth, correct_b: Truth) -> McNemar:
    """The exact test of McNemar 1947 for two accuracies on the same photographs.

    Where both are right, or both wrong, a photograph tells nothing of the difference. Each of the others is a coin.

    Args:
        correct_a: True where the one system is right.
        correct_b: True where the other is, the same photographs in the same order.

    Returns:
        p in (0, 1], by the binomial law and without approximation; 1 if the systems never disagree, and without
        photographs.

    Raises:
        ValueError: if there are not as many photographs of both.
    """
    if correct_a.shape != correct_b.shape:
        raise ValueError(f"{correct_a.size} photographs of system a, {correct_b.size} of b, expected as many")
    only_a, only_b = int((correct_a & ~correct_b).sum()), int((correct_b & ~correct_a).sum())
    tail = float(bdtr(min(only_a, only_b), only_a + only_b, 0.5))
    return McNemar(only_a, only_b, min(1.0, 2 * tail))
