"""Temperature scaling of logits (Guo et al. 2017)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import fminbound
from scipy.special import log_softmax

TEMPERATURE_RANGE = (0.05, 20.0)
"""Between which a temperature is looked for."""


def fit_temperature(logits: Float[np.ndarray, "n k"], truth: Int[np.ndarray, " n"]) -> float:
    """Temperature T that makes softmax(logits / T) most likely (Guo et al. 2017).

    Args:
        logits: of the grades, one row per photograph.
        truth: true grades.

    Returns:
        Within `TEMPERATURE_RANGE`; above 1 for an overconfident network. A bound is reached where the likelihood has no
        optimum (every photograph graded right).

    Raises:
        ValueError: if there is no photograph, or a logit is not finite.
    """
    if not truth.size or not np.isfinite(logits).all():
        raise ValueError(f"{truth.size} photographs, {int((~np.isfinite(logits)).sum())} logits not finite")

    def loss(log_temperature: float) -> float:
        log_probs = log_softmax(logits.astype(np.float64) / np.exp(log_temperature), axis=1)
        return -float(np.take_along_axis(log_probs, truth[:, None], axis=1).mean())

    return float(np.exp(fminbound(loss, *np.log(TEMPERATURE_RANGE), xtol=1e-6)))
