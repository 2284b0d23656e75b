"""Parse the rows of a table of predictions or labels."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from deepmtdr.datasets.layout import parse_grade
from deepmtdr.errors import DataError
from deepmtdr.evaluation.photograph_result import PhotographResult
from deepmtdr.evaluation.prediction_table import probability_columns
from deepmtdr.labels import LabelSet

FAILURE_STATUSES = ("error", "ungradable")
"""Values of `status` in a row without prediction."""
SUM_TOLERANCE = 1e-3
"""Largest accepted distance of the sum of the probabilities from 1."""
MAX_DISTANCE = 2.0
"""A predicted grade that is not the most probable one must be nearer than this to the expected grade."""


class TableRow(NamedTuple):
    """One row of a table."""

    where: str
    """File and row number, for error messages."""
    cells: dict[str, str]


class RowParser:
    """Adds the labels and predictions of a row to the result of its photograph."""

    def __init__(self, labels: LabelSet, *, binary: bool) -> None:
        """Choose the columns of the probabilities.

        Args:
            labels: the label set, which has the grades.
            binary: parse negative and positive instead of grades.
        """
        self.labels = labels
        self.binary = binary
        self.columns = probability_columns(labels)
        self.listed = f"{self.columns[0]} ... {self.columns[-1]}"

    def add_truth(self, result: PhotographResult, row: TableRow) -> PhotographResult:
        """Add the true label of a row to a result, if the row has one.

        Raises:
            DataError: if the cell is not a grade.
        """
        cell = row.cells["grade"]
        if not cell:
            return result
        if self.binary:
            return replace(result, positive=self._is_positive(cell, row.where))
        return replace(result, grade=parse_grade(cell, row.where, self.labels))

    def add_prediction(self, result: PhotographResult, row: TableRow) -> PhotographResult:
        """Add the prediction of a row, or the reason of its failure, to a result.

        Raises:
            DataError: if there is no prediction, or a grade or probability is out of range.
        """
        where, cells = row
        if (status := cells.get("status", "").lower()) in FAILURE_STATUSES:
            return replace(result, failure=cells.get("message") or f"{where}: status {status}, without a message")
        return self._add_positive(result, row) if self.binary else self._add_grade(result, row)

    def _add_grade(self, result: PhotographResult, row: TableRow) -> PhotographResult:
        """Add the probabilities and the grade, or one of them."""
        where, cells = row
        cell = cells.get("predicted_grade", "")
        grade = parse_grade(cell, where, self.labels) if cell else None
        if self._has_probabilities(cells):
            probs = self._probabilities(row)
            decided = None if grade is None else _decided_grade(grade, probs, where)
            return replace(result, probs=probs, decided_grade=decided)
        if grade is None:
            raise DataError(f"{where}: found no prediction, expected {self.listed} or predicted_grade")
        probs = tuple(float(grade == other) for other in range(len(self.columns)))
        return replace(result, probs=probs, grade_only=True)

    def _add_positive(self, result: PhotographResult, row: TableRow) -> PhotographResult:
        """Add the probability of grade >= 1, or whether grade >= 1 was predicted."""
        where, cells = row
        if cells.get("p_positive"):
            return replace(result, p_positive=_probability(row, "p_positive"))
        if self._has_probabilities(cells):
            if not cells.get(self.columns[0]):  # 1 minus the sum of the other probabilities
                others = sum(_probability(row, column) for column in self.columns[1:])
                row = row._replace(cells=cells | {self.columns[0]: repr(max(0.0, 1 - others))})
            return replace(result, p_positive=min(1.0, sum(self._probabilities(row)[1:])))
        if not cells.get("predicted_grade"):
            expected = f"p_positive, {self.columns[1]} ... {self.columns[-1]} or predicted_grade"
            raise DataError(f"{where}: found no prediction, expected {expected}")
        positive = self._is_positive(cells["predicted_grade"], where)
        return replace(result, p_positive=float(positive), grade_only=True)

    def _has_probabilities(self, cells: dict[str, str]) -> bool:
        return any(cells.get(column) for column in self.columns)

    def _probabilities(self, row: TableRow) -> tuple[float, ...]:
        probs = tuple(_probability(row, column) for column in self.columns)
        if abs(sum(probs) - 1) > SUM_TOLERANCE:
            raise DataError(f"{row.where}: the sum of {self.listed} is {sum(probs):.6g}, expected 1")
        return probs

    def _is_positive(self, text: str, where: str) -> bool:
        if text in {"negative", "positive"}:
            return text == "positive"
        try:
            return parse_grade(text, where, self.labels) > 0
        except DataError as error:
            last = len(self.columns) - 1
            raise DataError(f"{where}: grade is {text!r}, expected negative, positive or a grade 0-{last}") from error


def _decided_grade(grade: int, probs: tuple[float, ...], where: str) -> int | None:
    """Check that a predicted grade fits its probabilities; None if it is the most probable grade.

    Thresholds of the expected grade can decide for another grade, but not for one that is far from the expected grade.
    """
    if probs[grade] >= max(probs) - SUM_TOLERANCE:
        return None
    expected = sum(other * p for other, p in enumerate(probs))
    if abs(grade - expected) >= MAX_DISTANCE:
        raise DataError(
            f"{where}: predicted_grade {grade}, but the highest probability is that of grade {probs.index(max(probs))} "
            f"and the expected grade is {expected:.2f}; expected a grade that fits the probabilities"
        )
    return grade


def _probability(row: TableRow, column: str) -> float:
    text = row.cells.get(column, "")
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0 <= value <= 1:  # also for nan
        raise DataError(f"{row.where}: {column} is {text!r}, expected a probability in [0, 1]")
    return value
