"""Temperature scaling of logits (Guo et al. 2017)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import fminbound
from scipy.special import log_softmax, softmax

TEMPERATURE_RANGE = (0.05, 20.0)
"""The lowest and highest temperature of the search."""


def softmax_probabilities(logits: Float[np.ndarray, "n c"], temperature: float = 1.0) -> Float[np.ndarray, "n c"]:
    """Softmax of the logits divided by the temperature."""
    return softmax(logits / temperature, axis=1)


def check_logits(logits: Float[np.ndarray, "n c"], truth: Int[np.ndarray, " n"]) -> None:
    """Check that there are photographs and finite logits.

    Raises:
        ValueError: if there is no photograph, or a logit is not finite.
    """
    if not truth.size or not np.isfinite(logits).all():
        not_finite = int((~np.isfinite(logits)).sum())
        raise ValueError(
            f"found {truth.size} photographs, {not_finite} logits not finite; expected photographs with finite logits"
        )


def fit_temperature(logits: Float[np.ndarray, "n c"], truth: Int[np.ndarray, " n"]) -> float:
    """Find the temperature T for which softmax(logits / T) has the highest likelihood (Guo et al. 2017).

    Args:
        logits: logits of the grades, one row per photograph.
        truth: true grades.

    Returns: T, within `TEMPERATURE_RANGE`; above 1 for an overconfident network. An end of the range is returned if the
        likelihood has no maximum, as when every photograph is graded right.

    Raises:
        ValueError: if there is no photograph, or a logit is not finite.
    """
    check_logits(logits, truth)

    def loss(log_temperature: float) -> float:
        log_probs = log_softmax(logits.astype(np.float64) / np.exp(log_temperature), axis=1)
        return -float(np.take_along_axis(log_probs, truth[:, None], axis=1).mean())

    return float(np.exp(fminbound(loss, *np.log(TEMPERATURE_RANGE), xtol=1e-6)))
