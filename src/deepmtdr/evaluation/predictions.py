"""The predictions of any system, from a CSV table, scored as `evaluate` scores this one's (Sec. V-B).

    predictions    name; p0 ... p4, or predicted_grade; optional dataset, status, message
    truth          name, grade; optional patient, dataset

Other columns are left aside, so that `predictions.csv` of an evaluation can be either of the two.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from deepmtdr import __version__
from deepmtdr.csv_tables import read_column_names, read_table
from deepmtdr.datasets.layout import parse_grade
from deepmtdr.errors import DataError
from deepmtdr.evaluation.binary import BINARY_TASK
from deepmtdr.evaluation.grading import by_grade_scores, confusion_matrices, grading_scores, operating_point_scores
from deepmtdr.evaluation.measure import PhotographResult
from deepmtdr.evaluation.results import Evaluation
from deepmtdr.evaluation.scores import ALL, Bootstrap
from deepmtdr.terms import Grade

PROBABILITY_COLUMNS = tuple(f"p{grade:d}" for grade in Grade)
PREDICTION_COLUMNS = ("dataset", "status", "message", "predicted_grade", "p_positive", *PROBABILITY_COLUMNS)
FAILURE_STATUSES = ("error", "ungradable")
"""What `status` says in a row that is no prediction."""
SUM_TOLERANCE = 1e-3
"""How far the sum of the five probabilities may be from 1."""
MAX_NAMED = 3
"""How many photographs a message names of those that it counts."""

Row = tuple[str, dict[str, str]]
"""A row's place, "FILE, row N", and its cells."""
PhotographKey = tuple[str, str]
"""Data set and name; the first is empty where one of the two tables does not say it."""


class _Table(NamedTuple):
    path: Path
    rows: list[Row]

    @property
    def has_dataset(self) -> bool:
        return "dataset" in self.rows[0][1]


def score_predictions(
    predictions: Path,
    truth: Path,
    *,
    binary: bool = False,
    bootstrap: Bootstrap | None = None,
    allow_missing: bool = False,
) -> Evaluation:
    """Score a table of predictions against a table of true grades.

    Args:
        predictions: CSV with a row for each photograph: `name`, and `p0` ... `p4` or `predicted_grade`. Of grades alone
            the scores that need probabilities are undefined. A row whose `status` is error or ungradable is a failure.
            With `binary`: `p_positive`, or `p1` ... `p4`, or `predicted_grade`, which may be negative or positive too.
        truth: CSV with `name` and `grade`; an empty grade contributes nothing. Without `patient` each photograph is its
            own patient. With `binary` the grade may be negative or positive too.
        binary: ask for grade >= 1 alone.
        bootstrap: how the intervals are made.
        allow_missing: take a photograph without a prediction as a failure instead of refusing all.

    Returns:
        The scores, and every photograph of `truth` in its order. Where both tables have `dataset`, a photograph is
        known by both names; otherwise by `name` alone.

    Raises:
        DataError: naming file and row, if a column is absent, a photograph stands there twice, has no prediction or no
            truth, or a grade or probability is out of range; if no photograph has a true grade.
    """
    said, known = (
        _read(predictions, ("name",), PREDICTION_COLUMNS),
        _read(truth, ("name", "grade"), ("patient", "dataset")),
    )
    measured = _pair(said, known, binary, allow_missing)
    if all(m.grade is None and m.positive is None for m in measured):
        raise DataError(f"{truth}: expected grades, found no photograph that has one")
    bootstrap = bootstrap or Bootstrap()
    return Evaluation(
        protocol=_protocol(predictions, truth, measured, binary, bootstrap),
        scores=[
            *grading_scores(measured, bootstrap),
            *by_grade_scores(measured, bootstrap),
            *operating_point_scores(measured, bootstrap),
            *grading_scores(measured, bootstrap, BINARY_TASK),
        ],
        confusion=confusion_matrices(measured),
        results=measured,
    )


# --- Two tables, one row each for every photograph ---


def _read(path: Path, required: tuple[str, ...], optional: tuple[str, ...]) -> _Table:
    """Every row, with those of the columns that are there; whoever it is about has a name."""
    columns = read_column_names(path)
    wanted = (*required, *(column for column in optional if column in columns))
    if twice := [column for column in wanted if columns.count(column) > 1]:
        raise DataError(f"{path}, row 1: the column {twice[0]} stands there twice; expected it once")
    rows = list(read_table(path, wanted))
    if not rows:
        raise DataError(f"{path}: expected a row for each photograph, found none")
    for where, row in rows:
        if not row["name"]:
            raise DataError(f"{where}: expected the name of a photograph in name, found an empty cell")
        if row.get("dataset") in ("", ALL):
            raise DataError(f"{where}: expected the name of one data set in dataset, found {row['dataset']!r}")
    return _Table(path, rows)


def _pair(said: _Table, known: _Table, binary: bool, allow_missing: bool) -> list[PhotographResult]:
    """Truth and prediction of every photograph, in the order of the truth."""
    by_both = said.has_dataset and known.has_dataset
    predictions, truths = _by_photograph(said, by_both), _by_photograph(known, by_both)
    if unknown := [photograph for photograph in predictions if photograph not in truths]:
        has, first = _named(unknown), predictions[unknown[0]][0]
        raise DataError(f"{first}: {len(unknown)} photographs not in {known.path}: {has}; it has {_named(truths)}")
    missing = [photograph for photograph in truths if photograph not in predictions]
    if missing and not allow_missing:
        raise DataError(
            f"{said.path}: no row for {len(missing)} of the {len(truths)} photographs of {known.path}: "
            f"{_named(missing)}; expected one for each, or --allow-missing to take them as failures"
        )
    pairs = [(truth, predictions.get(photograph)) for photograph, truth in truths.items()]
    absent: dict[str, Any] = {"failure": f"no row in {said.path}"}
    return [
        PhotographResult(**_truth(truth, known.path, binary), **(_prediction(row, binary) if row else absent))
        for truth, row in pairs
    ]


def _by_photograph(table: _Table, by_both: bool) -> dict[PhotographKey, Row]:
    found: dict[PhotographKey, Row] = {}
    for where, row in table.rows:
        photograph = row["dataset"] if by_both else "", row["name"]
        if photograph in found:
            more = "" if by_both or not table.has_dataset else "; its data set tells nothing, the other table has none"
            raise DataError(
                f"{where}: {row['name']} for the second time, first in {found[photograph][0]}; "
                f"expected one row for each photograph{more}"
            )
        found[photograph] = where, row
    return found


def _named(photographs: dict[PhotographKey, Row] | Sequence[PhotographKey]) -> str:
    """The first few of them, for a message."""
    names = [name for _, name in photographs]
    return ", ".join(names[:MAX_NAMED]) + (", ..." if len(names) > MAX_NAMED else "")


# --- What a row says ---


def _truth(truth: Row, path: Path, binary: bool) -> dict[str, Any]:
    where, row = truth
    fields: dict[str, Any] = {"dataset": row.get("dataset", path.stem), "name": row["name"]}
    fields["patient"] = row.get("patient") or row["name"]
    if not row["grade"]:
        return fields
    if binary:
        return fields | {"positive": _is_positive(row["grade"], where)}
    return fields | {"grade": int(parse_grade(row["grade"], where))}


def _prediction(said: Row, binary: bool) -> dict[str, Any]:
    where, row = said
    if (status := row.get("status", "").lower()) in FAILURE_STATUSES:
        return {"failure": row.get("message") or f"{where}: status {status}, without a message"}
    return _of_two(row, where) if binary else _of_five(row, where)


def _of_five(row: dict[str, str], where: str) -> dict[str, Any]:
    """Probabilities if there are any, else the grade; both have to say the same."""
    cell = row.get("predicted_grade", "")
    grade = parse_grade(cell, where) if cell else None
    if any(row.get(column) for column in PROBABILITY_COLUMNS):
        probs = _probabilities(row, where)
        if grade is not None and probs[grade] < max(probs) - SUM_TOLERANCE:
            most = probs.index(max(probs))
            raise DataError(f"{where}: predicted_grade {cell}, but p{most} is the highest; expected one of the two")
        return {"probs": probs}
    if grade is None:
        raise DataError(f"{where}: expected p0 ... p4 or predicted_grade, found neither")
    return {"probs": tuple(float(grade == other) for other in Grade), "grade_only": True}


def _of_two(row: dict[str, str], where: str) -> dict[str, Any]:
    """The probability of grade >= 1, or whether it was said to be."""
    if row.get("p_positive"):
        return {"p_positive": _probability(row, "p_positive", where)}
    if any(row.get(column) for column in PROBABILITY_COLUMNS):
        if "p0" not in row:  # what the others leave
            others = sum(_probability(row, column, where) for column in PROBABILITY_COLUMNS[1:])
            row = row | {"p0": repr(max(0.0, 1 - others))}
        return {"p_positive": min(1.0, sum(_probabilities(row, where)[1:]))}
    if not row.get("predicted_grade"):
        raise DataError(f"{where}: expected p_positive, p1 ... p4 or predicted_grade, found none")
    return {"p_positive": float(_is_positive(row["predicted_grade"], where)), "grade_only": True}


def _probabilities(row: dict[str, str], where: str) -> tuple[float, ...]:
    probs = tuple(_probability(row, column, where) for column in PROBABILITY_COLUMNS)
    if abs(sum(probs) - 1) > SUM_TOLERANCE:
        raise DataError(f"{where}: p0 ... p4 sum to {sum(probs):.6g}, expected 1")
    return probs


def _probability(row: dict[str, str], column: str, where: str) -> float:
    text = row.get(column, "")
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0 <= value <= 1:  # nan fails it too
        raise DataError(f"{where}: expected a probability in [0, 1] in {column}, found {text!r}")
    return value


def _is_positive(text: str, where: str) -> bool:
    if text not in {"negative", "positive", "0", "1", "2", "3", "4"}:
        raise DataError(f"{where}: expected negative, positive or a grade 0-4, found {text!r}")
    return text not in {"negative", "0"}


def _protocol(
    predictions: Path, truth: Path, measured: Sequence[PhotographResult], binary: bool, bootstrap: Bootstrap
) -> dict[str, Any]:
    """What somebody who wants the same numbers has to know."""
    tables = {"predictions": predictions, "truth": truth}
    return {
        "version": __version__,
        **{name: {"file": p.name, "sha256": hashlib.sha256(p.read_bytes()).hexdigest()} for name, p in tables.items()},
        "asked": "grade >= 1" if binary else "grade 0-4",
        "grades_alone": sum(m.grade_only for m in measured),
        "photographs": len(measured),
        "failed": sum(bool(m.failure) for m in measured),
        "without_grade": sum(m.grade is None and m.positive is None for m in measured),
        "bootstrap": {"unit": "patient", **bootstrap._asdict()},
    }
