"""The order of the photographs with the worst predicted grades."""

from __future__ import annotations

from deepmtdr.evaluation.photograph_result import PhotographResult
from deepmtdr.evaluation.worst_cases import worst_cases


def case(name: str, grade: int, *probs: float) -> PhotographResult:
    return PhotographResult(dataset="one", name=name, patient=name, grade=grade, probs=probs)


def test_grade_0_predicted_for_grade_2_is_a_larger_error_than_grade_1() -> None:
    two = case("two", 2, 0.5, 0.1, 0.4, 0.0, 0.0)
    one = case("one", 2, 0.1, 0.8, 0.1, 0.0, 0.0)  # less probability of the true grade, but an error of 1
    assert [m.name for m in worst_cases([one, two])] == ["two", "one"]


def test_grade_2_predicted_for_grade_0_is_a_larger_error_than_grade_1() -> None:
    two = case("two", 0, 0.4, 0.1, 0.5, 0.0, 0.0)
    one = case("one", 0, 0.1, 0.8, 0.1, 0.0, 0.0)
    assert [m.name for m in worst_cases([one, two])] == ["two", "one"]
