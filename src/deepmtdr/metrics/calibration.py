"""Calibration of probabilities: expected calibration error, Brier score, negative log-likelihood."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

Probabilities = Float[np.ndarray, "n k"]
Classes = Int[np.ndarray, " n"]


def expected_calibration_error(probs: Probabilities, truth: Classes, bins: int = 15) -> float:
    """How far the probability of the predicted class is from how often it is right (Guo et al. 2017).

    Args:
        probs: of each class, rows sum to 1.
        truth: true classes.
        bins: of equal width in (0, 1], each weighted by its photographs.

    Returns:
        In [0, 1]; nan without photographs.
    """
    if not truth.size:
        return float("nan")
    confidence = probs.max(axis=1).astype(np.float64)
    place = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    surplus = confidence - (probs.argmax(axis=1) == truth)
    return float(np.abs(np.bincount(place, weights=surplus, minlength=bins)).sum() / truth.size)


def brier(probs: Probabilities, truth: Classes) -> float:
    """Mean squared distance of the probabilities from the truth, summed over classes (Brier 1950).

    Returns:
        In [0, 2]; for two classes twice the mean of (p - y)^2. Nan without photographs.
    """
    if not truth.size:
        return float("nan")
    return float(np.square(probs - np.eye(probs.shape[1])[truth]).sum(axis=1).mean())


def negative_log_likelihood(probs: Probabilities, truth: Classes) -> float:
    """Mean of -log p of the true class: what training lowers, and the strictest judge of a wrong certainty.

    Args:
        probs: of each class, rows sum to 1.
        truth: true classes.

    Returns:
        In [0, inf], log k for a network that knows nothing of k classes; infinite if a true class was given
        probability 0. Nan without photographs.
    """
    if not truth.size:
        return float("nan")
    of_truth = np.take_along_axis(probs.astype(np.float64), truth[:, None], axis=1)
    with np.errstate(divide="ignore"):
        return -float(np.log(of_truth).mean())
