"""Temperature scaling: known temperatures are found again."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from deepmtdr.calibration.temperature import fit_temperature
from deepmtdr.metrics.calibration import brier, expected_calibration_error


def graded(rng: np.random.Generator, temperature: float) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are `temperature` times too large, and grades drawn by the right probabilities."""
    honest = rng.normal(0, 2, (4000, 5))
    truth = np.array([rng.choice(5, p=p) for p in softmax(honest, axis=1)])
    return temperature * honest, truth


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_fit_temperature_finds_the_factor_of_the_logits(temperature: float, rng: np.random.Generator) -> None:
    logits, truth = graded(rng, temperature)
    fitted = fit_temperature(logits, truth)
    theirs = minimize(
        lambda t: -log_softmax(logits / t[0], axis=1)[np.arange(len(truth)), truth].mean(), [1.0], method="Nelder-Mead"
    )
    assert fitted == pytest.approx(temperature, rel=0.06)
    assert fitted == pytest.approx(float(theirs.x[0]), rel=1e-3)


def test_temperature_improves_calibration(rng: np.random.Generator) -> None:
    logits, truth = graded(rng, 3.0)
    before, after = softmax(logits, axis=1), softmax(logits / fit_temperature(logits, truth), axis=1)
    assert expected_calibration_error(before, truth) > 0.1 > 0.03 > expected_calibration_error(after, truth)
    assert brier(after, truth) < brier(before, truth)


def test_temperature_of_a_network_that_is_always_right_is_the_lower_bound() -> None:
    assert fit_temperature(np.eye(5) / 5, np.arange(5)) == pytest.approx(0.05, rel=1e-3)


def test_fit_temperature_without_photographs_or_with_infinite_logits_is_an_error() -> None:
    with pytest.raises(ValueError, match="0 photographs"):
        fit_temperature(np.zeros((0, 5)), np.zeros(0, int))
    with pytest.raises(ValueError, match="1 logits not finite"):
        fit_temperature(np.array([[0.0, np.inf]]), np.array([0]))
