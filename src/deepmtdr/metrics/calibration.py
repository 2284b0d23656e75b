"""Calibration of probabilities: expected calibration error, plain and debiased, Brier score, log-likelihood."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

Probabilities = Float[np.ndarray, "n k"]
Classes = Int[np.ndarray, " n"]

CALIBRATION_BINS = 15
"""Bins of equal width in (0, 1] for the probability of the most probable class."""


class ReliabilityBin(NamedTuple):
    """The cases whose most probable class has a probability in one bin."""

    number: int
    """Number of the bin, from 0; bin n has the probabilities above n / bins and up to (n + 1) / bins."""
    photographs: int
    confidence: float
    """Mean probability of the most probable class."""
    accuracy: float
    """Fraction of the cases in which the most probable class is right."""


def reliability_bins(probs: Probabilities, truth: Classes, bins: int = CALIBRATION_BINS) -> list[ReliabilityBin]:
    """Compute how often the most probable class is right, for each range of its probability.

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
    """Mean distance between the probability of the most probable class and how often it is right (Guo et al. 2017).

    It is too high in small samples: see `debiased_ece`.

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


PHOTOGRAPHS_PER_BIN = 15
"""Photographs in each bin of `debiased_ece`, if there are enough of them for two bins."""


def debiased_ece(probs: Probabilities, truth: Classes) -> float:
    """Calibration error of the most probable class without the bias of small samples (Kumar et al. 2019).

    In a small sample the expected calibration error is far above 0 even if every probability is right, because the
    fraction of right predictions in each bin differs from its expectation by chance: with 79 photographs and 15 bins
    it is about .12. Here the square of the difference is averaged, from which the variance of the fraction can be
    subtracted without bias: the "debiased" estimator of Kumar, Liang and Ma, Verified Uncertainty Calibration, 2019.
    The value is the root of the result, so it is a root mean square: at least the mean that the plain error estimates,
    and equal to it if all bins have the same error.

    Args:
        probs: probability of each class; rows sum to 1.
        truth: true classes.

    Returns:
        In [0, 1]; 0 if the differences are not larger than chance explains. The bins have equal numbers of photographs:
        about `PHOTOGRAPHS_PER_BIN`, at least 2 and at most `CALIBRATION_BINS` bins. Nan with fewer than four
        photographs.
    """
    if truth.size < 4:
        return float("nan")
    bins = int(np.clip(truth.size // PHOTOGRAPHS_PER_BIN, 2, CALIBRATION_BINS))
    confidence, right = probs.max(axis=1).astype(np.float64), probs.argmax(axis=1) == truth
    number = np.empty(truth.size, np.int64)
    number[np.argsort(confidence, kind="stable")] = np.arange(truth.size) * bins // truth.size
    size = np.bincount(number)
    accuracy = np.bincount(number, weights=right) / size
    difference = np.bincount(number, weights=confidence) / size - accuracy
    variance = accuracy * (1 - accuracy) / (size - 1)
    return float(np.sqrt(max(0.0, size @ (difference**2 - variance) / truth.size)))


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
