"""Temperature and biases fitted together."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from deepmtdr.calibration.temperature import TEMPERATURE_RANGE
from deepmtdr.calibration.vector_scaling import fit_vector_scaling


def drawn(rng: np.random.Generator, temperature: float, biases: list[float], count: int = 4000) -> tuple:
    """Logits, and grades drawn by softmax(logits / temperature + biases)."""
    logits = rng.normal(0, 2 * temperature, (count, len(biases)))
    probs = softmax(logits / temperature + np.array(biases), axis=1)
    return logits, (probs.cumsum(axis=1) < rng.random((count, 1))).sum(axis=1).clip(max=len(biases) - 1)


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_known_temperature_and_biases_are_found_again(rng: np.random.Generator, temperature: float) -> None:
    biases = [1.2, -0.6, 0.4, -0.3, -0.7]  # their sum is 0
    found = fit_vector_scaling(*drawn(rng, temperature, biases))
    assert found.temperature == pytest.approx(temperature, rel=0.06)
    assert found.biases == pytest.approx(biases, abs=0.15)
    assert sum(found.biases) == pytest.approx(0, abs=1e-9)


def test_fit_is_the_minimum_of_likelihood_and_penalty(rng: np.random.Generator) -> None:
    logits, truth = drawn(rng, 1.5, [0.5, 0.0, -0.5], 60)

    def loss(x: np.ndarray) -> float:
        return -log_softmax(logits / x[0] + x[1:], axis=1)[np.arange(60), truth].sum() + (x[1:] ** 2).sum() / 2

    theirs = minimize(loss, np.array([1.0, 0, 0, 0]), method="Nelder-Mead", options={"xatol": 1e-8, "maxiter": 9999}).x
    found = fit_vector_scaling(logits, truth)
    assert (found.temperature, *found.biases) == pytest.approx(tuple(theirs), abs=1e-3)


def test_grade_that_does_not_occur_keeps_a_finite_bias(rng: np.random.Generator) -> None:
    truth = np.tile([0, 1], 50)
    found = fit_vector_scaling(rng.normal(size=(100, 3)), truth)
    assert -6 < found.biases[2] < -1
    assert fit_vector_scaling(rng.normal(size=(100, 3)), truth, sigma=0.1).biases[2] > -0.3


def test_right_grades_only_give_the_lower_bound_of_the_temperature() -> None:
    found = fit_vector_scaling(np.tile(np.eye(3), (10, 1)), np.tile([0, 1, 2], 10))
    assert found.temperature == pytest.approx(TEMPERATURE_RANGE[0], rel=0.01)


def test_no_photographs_or_infinite_logits_are_an_error() -> None:
    with pytest.raises(ValueError, match="0 photographs"):
        fit_vector_scaling(np.zeros((0, 5)), np.zeros(0, int))
    with pytest.raises(ValueError, match="1 logits not finite"):
        fit_vector_scaling(np.array([[0.0, np.inf]]), np.array([0]))
