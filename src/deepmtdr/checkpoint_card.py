"""The card of a checkpoint: name of the weights and calibration, with a check of every value."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from deepmtdr.errors import CheckpointError
from deepmtdr.grade_decision import GradeDecision
from deepmtdr.terms import ReferralThreshold
from deepmtdr.toml_config import shorten

REFERRAL_SENSITIVITY = 0.9
"""Target sensitivity of the operating point that is used, if several were calibrated."""
MAX_NAME_LENGTH = 100
"""Longest name of weights, in characters: it is written into every report."""


def weights_name(card: Mapping[str, Any], recipe_name: str) -> str:
    """Return the name of the weights: the entry `weights`, or the name of the recipe.

    Raises:
        CheckpointError: if the name is not one line of at most `MAX_NAME_LENGTH` characters.
    """
    name = card.get("weights", recipe_name)
    if not (isinstance(name, str) and name.isprintable() and 0 < len(name) <= MAX_NAME_LENGTH):
        expected = f"a name of 1 to {MAX_NAME_LENGTH} printable characters"
        raise CheckpointError(f"card: the weights have the name {shorten(repr(name))}, expected {expected}")
    return name


def temperature(card: Mapping[str, Any]) -> float:
    """Return the divisor of the grade logits, as `calibrate` wrote it; 1 if the card has none.

    Raises:
        CheckpointError: if it is not a finite number above 0.
    """
    return _positive_number(_calibration(card).get("temperature", 1.0), "temperature", math.inf)


def grade_decision(card: Mapping[str, Any], grades: int) -> GradeDecision:
    """Return how logits become probabilities and a grade, as `calibrate` wrote it; else the most probable grade.

    Args:
        card: the card.
        grades: number of grades.

    Raises:
        CheckpointError: if temperature, biases or thresholds are invalid.
    """
    found = _calibration(card)
    biases, thresholds = (_numbers(found.get(name) or (), name) for name in ("biases", "grade_thresholds"))
    try:
        decision = GradeDecision(temperature=temperature(card), biases=biases, thresholds=thresholds)
        decision.check_grades(grades)
    except ValueError as error:
        raise CheckpointError(f"card: calibration: {error}") from error
    return decision


def operating_point(card: Mapping[str, Any]) -> ReferralThreshold | None:
    """Return the threshold of P(referable) whose sensitivity is nearest to `REFERRAL_SENSITIVITY`.

    Returns:
        None if the card has none.

    Raises:
        CheckpointError: if the operating points are invalid.
    """
    points = _calibration(card).get("operating_points") or {}
    try:
        found = [(point["wanted"], point["threshold"]) for point in points.get("referable", ())]
    except (AttributeError, KeyError, TypeError) as error:
        expected = "expected lists of wanted and threshold"
        raise CheckpointError(f"card: operating_points {shorten(repr(points))}, {expected}") from error
    calibrated = [
        ReferralThreshold(_positive_number(wanted, "wanted", 1.0), _positive_number(value, "threshold", 1.0))
        for wanted, value in found
    ]
    return min(calibrated, key=lambda threshold: abs(threshold.sensitivity - REFERRAL_SENSITIVITY), default=None)


def _calibration(card: Mapping[str, Any]) -> Mapping[str, Any]:
    found = card.get("calibration") or {}
    if not isinstance(found, Mapping):
        expected = "expected temperature and operating_points"
        raise CheckpointError(f"card: calibration {shorten(repr(found))}, {expected}")
    return found


def _positive_number(value: Any, name: str, most: float) -> float:
    """Return a number of the card after checking its range."""
    number = _to_float(value)
    if not (math.isfinite(number) and 0 < number <= most):
        expected = "a finite number above 0" + (f", at most {most:g}" if math.isfinite(most) else "")
        raise CheckpointError(f"card: calibration has {name} {shorten(repr(value))}, expected {expected}")
    return number


def _numbers(values: Any, name: str) -> tuple[float, ...]:
    """Return a list of numbers of the card after checking its type."""
    numbers = tuple(map(_to_float, values)) if isinstance(values, list | tuple) else (math.nan,)
    if not all(map(math.isfinite, numbers)):
        expected = "a list of finite numbers"
        raise CheckpointError(f"card: calibration has {name} {shorten(repr(values))}, expected {expected}")
    return numbers


def _to_float(value: Any) -> float:
    """Convert a number to a float; NaN for everything else, and for an int that is too large."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.nan
