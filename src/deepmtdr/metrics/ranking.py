"""Scores of yes-or-no predictions: areas under the ROC and precision-recall curves, operating points (Sec. V-B)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int, Num

Scores = Num[np.ndarray, " n"]
Truth = Bool[np.ndarray, " n"]
Counts = Int[np.ndarray, " values"] | Num[np.ndarray, " values"]


def auc(scores: Scores, positive: Truth) -> float:
    """Area under the ROC curve: the probability that a positive case scores above a negative one; ties count one half.

    Returns:
        In [0, 1]; nan if there is no positive or no negative case.

    Raises:
        ValueError: if a score is nan.
    """
    return auc_from_counts(*_counts(scores, positive))


def average_precision(scores: Scores, positive: Truth) -> float:
    """Area under the precision-recall curve (AUPR, AP): the sum of (R_k - R_{k-1}) P_k, without interpolation.

    Returns:
        In [0, 1], about the prevalence for a random score; nan if there is no positive case.

    Raises:
        ValueError: if a score is nan.
    """
    return average_precision_from_counts(*_counts(scores, positive))


class OperatingPoint(NamedTuple):
    """A threshold (`score >= threshold` is positive) with its sensitivity and specificity on the same cases."""

    threshold: float
    sensitivity: float
    specificity: float


def sensitivity_at_specificity(scores: Scores, positive: Truth, specificity: float) -> OperatingPoint:
    """The threshold with the highest sensitivity among those with at least the given specificity.

    Args:
        scores: higher means more likely positive.
        positive: the truth.
        specificity: lowest specificity that is accepted, in [0, 1].

    Returns:
        The operating point. Its threshold is infinite, so that no case is positive, if no score is specific enough.
        All three are nan if there is no positive or no negative case.

    Raises:
        ValueError: if a score is nan.
    """
    hits, alarms = (np.append(0, np.cumsum(counts[::-1])) for counts in _counts(scores, positive))
    if hits[-1] == 0 or alarms[-1] == 0:
        return OperatingPoint(float("nan"), float("nan"), float("nan"))
    thresholds = np.append(np.inf, np.unique(scores)[::-1].astype(np.float64))
    specificities = 1 - alarms / alarms[-1]
    # Sensitivity increases while specificity decreases, so the last threshold that is specific enough is the best.
    # 1e-12 allows for rounding.
    last = int(np.flatnonzero(specificities >= specificity - 1e-12)[-1])
    return OperatingPoint(float(thresholds[last]), float(hits[last] / hits[-1]), float(specificities[last]))


def average_precision_from_counts(positives: Counts, negatives: Counts) -> float:
    """Compute `average_precision` from the number of cases at each distinct score, ascending."""
    total = positives.sum()
    if total == 0:
        return float("nan")
    hits, alarms = np.cumsum(positives[::-1]), np.cumsum(negatives[::-1])
    precision = hits / np.maximum(hits + alarms, 1)  # 0 / 0 only above the first case, which has no weight
    return float(precision @ positives[::-1] / total)


def auc_from_counts(positives: Counts, negatives: Counts) -> float:
    """Compute `auc` from the number of cases at each distinct score, ascending."""
    pairs = float(positives.sum()) * float(negatives.sum())
    if pairs == 0:
        return float("nan")
    below = np.cumsum(negatives) - negatives
    return float((below + negatives / 2) @ positives / pairs)


def _counts(scores: Scores, positive: Truth) -> tuple[Counts, Counts]:
    """Number of positive and negative cases at each distinct score, ascending."""
    if np.isnan(scores).any():
        raise ValueError(f"found nan in {int(np.isnan(scores).sum())} of {scores.size} scores, expected numbers")
    values, place = np.unique(scores, return_inverse=True)
    return np.bincount(place[positive], minlength=values.size), np.bincount(place[~positive], minlength=values.size)


def threshold_for_sensitivity(
    scores: Num[np.ndarray, " n"], positive: Bool[np.ndarray, " n"], sensitivity: float
) -> float:
    """The highest threshold at which at least the given fraction of the positive cases has `score >= threshold`.

    Args:
        scores: higher means more likely positive.
        positive: the truth.
        sensitivity: lowest sensitivity that is accepted, in (0, 1].

    Returns:
        The threshold; nan if there is no positive case.

    Raises:
        ValueError: if `sensitivity` is outside (0, 1].
    """
    if not 0 < sensitivity <= 1:
        raise ValueError(f"found a sensitivity of {sensitivity}, expected above 0 and at most 1")
    found = np.sort(scores[positive])[::-1]
    return float(found[int(np.ceil(sensitivity * found.size - 1e-9)) - 1]) if found.size else float("nan")
