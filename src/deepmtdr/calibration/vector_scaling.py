"""Temperature and one bias per grade, fitted together by maximum likelihood (interpretation R34).

This is the vector scaling of Guo et al. 2017 with one temperature for all grades. The temperature corrects the
confidence. The biases correct the frequencies of the grades, which differ between the training (balanced over the
grades) and the photographs of use.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import minimize
from scipy.special import log_softmax

from deepmtdr.calibration.temperature import TEMPERATURE_RANGE, check_logits

BIAS_SIGMA = 1.0
"""Standard deviation of the normal prior of each bias: a bias of 1 multiplies the odds of a grade by 2.7.

The penalty is that of a photograph or two, so it matters only for a grade with few photographs: a grade that does not
occur keeps a finite bias, and with 100 photographs of a grade its bias is fitted as without penalty."""


class VectorScaling(NamedTuple):
    """The fitted correction of the logits: logits / temperature + biases."""

    temperature: float
    biases: tuple[float, ...]
    """One for each grade; their sum is 0."""


def fit_vector_scaling(
    logits: Float[np.ndarray, "n c"], truth: Int[np.ndarray, " n"], sigma: float = BIAS_SIGMA
) -> VectorScaling:
    """Find the temperature T and biases b with the highest likelihood of softmax(logits / T + b) and prior of b.

    The sum over photographs of -log p(true grade), plus sum_k b_k^2 / (2 sigma^2), is minimised. It is convex in 1 / T
    and b, so there is one minimum. Adding a number to all biases changes no probability; the prior makes their sum 0.

    Args:
        logits: logits of the grades, one row per photograph.
        truth: true grades.
        sigma: standard deviation of the prior of each bias, above 0.

    Returns:
        T within `TEMPERATURE_RANGE`, and the biases.

    Raises:
        ValueError: if there is no photograph, or a logit is not finite.
    """
    check_logits(logits, truth)
    values = logits.astype(np.float64)
    target = np.eye(values.shape[1])[truth]

    def loss(x: Float[np.ndarray, " p"]) -> tuple[float, Float[np.ndarray, " p"]]:
        inverse, biases = x[0], x[1:]
        log_probs = log_softmax(inverse * values + biases, axis=1)
        residual = np.exp(log_probs) - target
        value = -(log_probs * target).sum() + biases @ biases / (2 * sigma**2)
        return value, np.append((residual * values).sum(), residual.sum(axis=0) + biases / sigma**2)

    low, high = 1 / TEMPERATURE_RANGE[1], 1 / TEMPERATURE_RANGE[0]
    bounds = [(low, high), *[(None, None)] * values.shape[1]]
    start = np.append(1.0, np.zeros(values.shape[1]))
    options = {"maxiter": 1000, "ftol": 1e-12, "gtol": 1e-8}
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options).x
    biases = found[1:] - found[1:].mean()
    return VectorScaling(float(1 / found[0]), tuple(map(float, biases)))
