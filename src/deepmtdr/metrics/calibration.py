"""Calibration of probabilities: expected calibration error, Brier score, negative log-likelihood."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

Probabilities = Float[np.ndarray, "n k"]
Classes = Int[np.ndarray, " n"]

CALIBRATION_BINS = 15
"""Bins of equal width in (0, 1] for the probability of the predicted class."""


class ReliabilityBin(NamedTuple):
    """The cases whose predicted class has a probability in one bin."""

    number: int
    """Number of the bin, from 0; bin n has the probabilities above n / bins and up to (n + 1) / bins."""
    photographs: int
    confidence: float
    """Mean probability of the predicted class."""
    accuracy: float
    """Fraction of the predicted classes that are right."""


def reliability_bins(probs: Probabilities, truth: Classes, bins: int = CALIBRATION_BINS) -> list[ReliabilityBin]:
    """Compute how often the predicted class is right, for each range of its probability.

    Args:
        probs: probability of each class; rows sum to 1.
        truth: true classes.
        bins: number of bins, as in `expected_calibration_error`.

    Returns:
        The bins that are not empty, the lowest first.
    """
    confidence, right = probs.max(axis=1), probs.argmax(axis=1) == truth
    number = _bin_numbers(confidence, bins)
    members = [(int(n), number == n) for n in np.unique(number)]
    return [ReliabilityBin(n, int(m.sum()), float(confidence[m].mean()), float(right[m].mean())) for n, m in members]


def _bin_numbers(confidence: Float[np.ndarray, " n"], bins: int) -> Int[np.ndarray, " n"]:
    """The bin of each probability, from 0; a probability on a border belongs to the lower bin."""
    return np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)


def expected_calibration_error(probs: Probabilities, truth: Classes, bins: int = CALIBRATION_BINS) -> float:
    """Mean distance between the probability of the predicted class and how often it is right (Guo et al. 2017).

    Args:
        probs: probability of each class; rows sum to 1.
        truth: true classes.
        bins: number of bins of equal width in (0, 1]; each is weighted by its number of photographs.

    Returns:
        In [0, 1]; nan without photographs.
    """
    if not truth.size:
        return float("nan")
    confidence = probs.max(axis=1).astype(np.float64)
    surplus = confidence - (probs.argmax(axis=1) == truth)
    return float(
        np.abs(np.bincount(_bin_numbers(confidence, bins), weights=surplus, minlength=bins)).sum() / truth.size
    )


def brier(probs: Probabilities, truth: Classes) -> float:
    """Mean squared error of the probabilities, summed over the classes (Brier 1950).

    Returns:
        In [0, 2]; for two classes it is twice the mean of (p - y)^2. Nan without photographs.
    """
    if not truth.size:
        return float("nan")
    return float(np.square(probs - np.eye(probs.shape[1])[truth]).sum(axis=1).mean())


def negative_log_likelihood(probs: Probabilities, truth: Classes) -> float:
    """Mean of -log p of the true class: the loss of the grading subnet, which punishes confident errors most.

    Args:
        probs: probability of each class; rows sum to 1.
        truth: true classes.

    Returns:
        In [0, inf]; log k if all k classes have equal probabilities, infinite if a true class has probability 0. Nan
        without photographs.
    """
    if not truth.size:
        return float("nan")
    of_truth = np.take_along_axis(probs.astype(np.float64), truth[:, None], axis=1)
    with np.errstate(divide="ignore"):
        return -float(np.log(of_truth).mean())
