"""From the logits of the grades to probabilities and one predicted grade (interpretation R34).

Everything that predicts a grade uses this module: screening and its reports, DICOM, FHIR, evaluation and calibration.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.special import softmax


@dataclass(frozen=True, kw_only=True)
class GradeDecision:
    """How logits become probabilities, and probabilities become a grade.

    Without any setting, the probabilities are the softmax of the logits and the grade is the most probable one.

    Raises:
        ValueError: from the constructor, if a number is not finite, the temperature is not above 0, or the thresholds
            do not increase.
    """

    temperature: float = 1.0
    """Divisor of the logits before the softmax."""
    biases: tuple[float, ...] = ()
    """Number added to the logit of each grade after the division: the prior correction. Empty: none."""
    thresholds: tuple[float, ...] = ()
    """Increasing thresholds of the expected grade, one fewer than grades. The grade is the number of thresholds that
    the expected grade reaches. Empty: the most probable grade."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise ValueError(f"found temperature {self.temperature}, expected a finite number above 0")
        if not all(map(math.isfinite, (*self.biases, *self.thresholds))):
            raise ValueError(f"found biases {self.biases} and thresholds {self.thresholds}, expected finite numbers")
        if any(high <= low for low, high in zip(self.thresholds, self.thresholds[1:], strict=False)):
            raise ValueError(f"found grade thresholds {self.thresholds}, expected increasing ones")

    def check_grades(self, count: int) -> None:
        """Check that biases and thresholds fit the number of grades.

        Args:
            count: number of grades.

        Raises:
            ValueError: if there is not one bias for each grade, or not one threshold between two grades.
        """
        for name, values, expected in (("biases", self.biases, count), ("thresholds", self.thresholds, count - 1)):
            if values and len(values) != expected:
                raise ValueError(f"found {len(values)} {name}, expected {expected} for {count} grades")

    def probabilities(self, logits: Float[np.ndarray, "*n c"]) -> Float[np.ndarray, "*n c"]:
        """Compute the probability of each grade: softmax(logits / temperature + biases), float64.

        Raises:
            ValueError: if a logit is not finite, before or after the division.
        """
        with np.errstate(over="ignore"):
            scaled = logits.astype(np.float64) / self.temperature
        scaled = scaled + np.array(self.biases) if self.biases else scaled
        return softmax(_finite(scaled, "calibrated logits"), axis=-1)

    def grades(self, probs: Float[np.ndarray, "n c"]) -> Int[np.ndarray, " n"]:
        """Predict the grade of each photograph from its probabilities.

        Raises:
            ValueError: if a probability is not finite: NaN has no place among the grades.
        """
        _finite(probs, "probabilities")
        return grades_from_thresholds(expected_grade(probs), self.thresholds) if self.thresholds else probs.argmax(1)

    def grade(self, probs: Sequence[float] | Float[np.ndarray, " c"]) -> int:
        """Predict the grade of one photograph; the lowest of equally probable grades without thresholds."""
        return int(self.grades(np.asarray(probs)[None])[0])


def _finite(values: Float[np.ndarray, "*n c"], name: str) -> Float[np.ndarray, "*n c"]:
    if not np.isfinite(values).all():
        wrong = int((~np.isfinite(values)).sum())
        raise ValueError(f"found {wrong} of {values.size} {name} that are NaN or infinite, expected finite numbers")
    return values


MOST_PROBABLE = GradeDecision()
"""Without calibration: softmax, and the most probable grade."""


def expected_grade(probs: Float[np.ndarray, "n c"]) -> Float[np.ndarray, " n"]:
    """Compute the expected grade E = sum_k k p_k of each photograph, in [0, c - 1]."""
    return probs.astype(np.float64) @ np.arange(probs.shape[1], dtype=np.float64)


def grades_from_thresholds(expected: Float[np.ndarray, " n"], thresholds: Sequence[float]) -> Int[np.ndarray, " n"]:
    """Count the thresholds that each expected grade reaches; a value equal to a threshold reaches it."""
    return np.searchsorted(np.asarray(thresholds, np.float64), expected, side="right")
