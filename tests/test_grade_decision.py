"""From logits to probabilities and one grade: by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax

from deepmtdr.grade_decision import MOST_PROBABLE, GradeDecision, expected_grade, grades_from_thresholds


def test_without_settings_probabilities_are_the_softmax_and_the_grade_the_most_probable() -> None:
    logits = np.array([[0.0, 2.0, 1.0], [1.0, 1.0, 0.0]], np.float32)
    probs = MOST_PROBABLE.probabilities(logits)
    np.testing.assert_array_equal(probs, softmax(logits.astype(np.float64), axis=1))
    assert MOST_PROBABLE.grades(probs).tolist() == [1, 0]
    np.testing.assert_array_equal(MOST_PROBABLE.probabilities(logits[0]), probs[0])


def test_logits_are_divided_by_the_temperature_before_the_biases_are_added() -> None:
    decision = GradeDecision(temperature=2.0, biases=(np.log(2), 0.0))
    assert decision.probabilities(np.array([2.0, 2.0])) == pytest.approx([2 / 3, 1 / 3])
    assert decision.probabilities(np.array([0.0, 2 * np.log(2)])) == pytest.approx([0.5, 0.5])


def test_expected_grade_is_the_mean_grade() -> None:
    assert expected_grade(np.array([[0.5, 0.0, 0.25, 0.0, 0.25]])) == pytest.approx([1.5])


def test_grade_is_the_number_of_thresholds_that_the_expected_grade_reaches() -> None:
    thresholds = (0.5, 1.0, 2.5, 3.0)
    assert grades_from_thresholds(np.array([0.0, 0.5, 0.99, 1.0, 2.6, 3.0, 4.0]), thresholds).tolist() == [
        0,
        1,
        1,
        2,
        3,
        4,
        4,
    ]


def test_thresholds_decide_for_a_grade_that_is_not_the_most_probable() -> None:
    probs = (0.5, 0.1, 0.4, 0.0, 0.0)  # expected grade 0.9
    assert GradeDecision(thresholds=(0.5, 1.5, 2.5, 3.5)).grade(probs) == 1
    assert MOST_PROBABLE.grade(probs) == 0


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"temperature": 0.0}, "found temperature 0.0, expected a finite number above 0"),
        ({"temperature": float("nan")}, "expected a finite number"),
        ({"biases": (0.0, float("inf"))}, "expected finite numbers"),
        ({"thresholds": (1.0, 1.0)}, "expected increasing"),
    ],
)
def test_settings_out_of_range_are_an_error(settings: dict, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        GradeDecision(**settings)


def test_number_of_biases_and_thresholds_must_fit_the_grades() -> None:
    GradeDecision(biases=(0.0, 1.0, 2.0), thresholds=(0.5, 1.5)).check_grades(3)
    MOST_PROBABLE.check_grades(5)
    with pytest.raises(ValueError, match="found 3 biases, expected 5 for 5 grades"):
        GradeDecision(biases=(0.0, 1.0, 2.0)).check_grades(5)
    with pytest.raises(ValueError, match="found 2 thresholds, expected 4 for 5 grades"):
        GradeDecision(thresholds=(0.5, 1.5)).check_grades(5)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -float("inf")])
def test_probabilities_that_are_not_finite_get_no_grade(wrong: float) -> None:
    """NaN is the most probable grade for argmax, and above every threshold for a search."""
    for decision in (MOST_PROBABLE, GradeDecision(thresholds=(0.5,))):
        with pytest.raises(ValueError, match="1 of 2 probabilities that are NaN or infinite, expected finite numbers"):
            decision.grade([0.5, wrong])
    with pytest.raises(ValueError, match="1 of 4 calibrated logits that are NaN or infinite"):
        MOST_PROBABLE.probabilities(np.array([[0.0, 1.0], [wrong, 1.0]]))


def test_a_temperature_that_makes_logits_overflow_gives_no_probabilities() -> None:
    with pytest.raises(ValueError, match="2 of 2 calibrated logits that are NaN or infinite"):
        GradeDecision(temperature=1e-308).probabilities(np.array([10.0, 20.0]))
