"""Scores of negative and positive, worked by hand."""

from __future__ import annotations

import math

from deepmtdr.evaluation import Bootstrap, PhotographResult
from deepmtdr.evaluation.binary import BINARY_TASK
from deepmtdr.evaluation.grading import grading_scores
from deepmtdr.evaluation.scores import Score

FEW = Bootstrap(resamples=20)


def scores(*photographs: tuple[float, bool], grade_only: bool = False) -> dict[str, Score]:
    """The binary scores of photographs with these predicted probabilities and true labels."""
    measured = [
        PhotographResult(
            dataset="x", name=f"{i}", patient=f"{i}", p_positive=p, positive=positive, grade_only=grade_only
        )
        for i, (p, positive) in enumerate(photographs)
    ]
    return {row.score: row for row in grading_scores(measured, FEW, BINARY_TASK)}


def test_sensitivity_and_specificity_do_not_need_probabilities() -> None:
    found = scores((1.0, True), (0.0, True), (0.0, True), (0.0, False), (1.0, False), grade_only=True)
    assert found["sensitivity"].value == 1 / 3
    assert found["specificity"].value == 1 / 2
    assert found["accuracy"].value == 2 / 5
    assert math.isnan(found["auc"].value) and found["auc"].note == "needs probabilities, found predicted grades only"


def test_probability_of_exactly_one_half_is_positive() -> None:
    found = scores((0.5, True), (0.5, False), (0.4, False))
    assert (found["sensitivity"].value, found["specificity"].value) == (1, 0.5)
