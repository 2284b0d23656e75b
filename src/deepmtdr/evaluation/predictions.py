"""Score the predictions of any system from a table, as `evaluate` scores a checkpoint (Sec. V-B).

    predictions    name; p0, p1, ... or predicted_grade; optional dataset, status, message
    truth          name, grade; optional patient, dataset

Other columns are ignored, so the `predictions.csv` of an evaluation can be used as either table.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from deepmtdr._version import __version__
from deepmtdr.csv_tables import add_once, read_column_names, read_table
from deepmtdr.errors import DataError
from deepmtdr.evaluation.grading import confusion_matrices
from deepmtdr.evaluation.pairing import first_names
from deepmtdr.evaluation.photograph_result import PhotographResult
from deepmtdr.evaluation.prediction_rows import RowParser, TableRow
from deepmtdr.evaluation.results import Evaluation
from deepmtdr.evaluation.run import grade_scores
from deepmtdr.evaluation.scores import DEFAULT_BOOTSTRAP, RESERVED_NAMES, Bootstrap
from deepmtdr.files import file_sha256
from deepmtdr.labels import DIABETIC_RETINOPATHY, LabelSet

_NAME_COLUMNS = ("name", "dataset", "message")
"""Columns in which "NA" is a name."""
RowKey = tuple[str, ...]
"""The photograph of a row: data set and name, or only the name if one of the tables has no data sets."""


class _Table(NamedTuple):
    path: Path
    rows: list[TableRow]

    @property
    def has_dataset(self) -> bool:
        return "dataset" in self.rows[0].cells


def score_predictions(
    predictions: Path,
    truth: Path,
    *,
    binary: bool = False,
    allow_missing: bool = False,
    labels: LabelSet = DIABETIC_RETINOPATHY,
    bootstrap: Bootstrap = DEFAULT_BOOTSTRAP,
) -> Evaluation:
    """Score a table of predictions against a table of true grades.

    Photographs are matched by data set and name if both tables have the column `dataset`, otherwise by name.

    Args:
        predictions: CSV or Parquet with one row per photograph: `name`, and `p0`, `p1`, ... or `predicted_grade`. If
            there is only `predicted_grade`, scores that need probabilities are undefined. A row whose `status` is error
            or ungradable is a failure. With `binary`: `p_positive`, or `p1`, `p2`, ..., or `predicted_grade`, which may
            also be negative or positive.
        truth: CSV or Parquet with `name` and `grade`; photographs with an empty grade are not scored. Without
            `patient`, each photograph is taken as a patient. With `binary` the grade may also be negative or positive.
        binary: score the question "grade >= 1" only.
        allow_missing: count a photograph without a row of predictions as a failure; otherwise this is an error.
        labels: the label set, which has the grades.
        bootstrap: how intervals are computed.

    Returns:
        The scores, and a result for every photograph of `truth` in its order.

    Raises:
        DataError: with file and row, if a column is missing, a photograph appears twice, has no prediction or no row in
            `truth`, or a grade or probability is out of range; also if no photograph has a true grade.
    """
    parser = RowParser(labels, binary=binary)
    optional = ("dataset", "status", "message", "predicted_grade", "p_positive", *parser.columns)
    predicted = _read(predictions, ("name",), optional)
    known = _read(truth, ("name", "grade"), ("patient", "dataset"))
    measured = _match(predicted, known, parser, allow_missing)
    if all(m.grade is None and m.positive is None for m in measured):
        raise DataError(f"{truth}: found no photograph with a grade, expected at least one")
    return Evaluation(
        labels=labels,
        protocol=_protocol(predictions, truth, measured, parser, bootstrap),
        scores=grade_scores(measured, bootstrap, labels),
        confusion=confusion_matrices(measured, labels),
        results=measured,
    )


# --- Reading and matching the tables ---


def _read(path: Path, required: tuple[str, ...], optional: Iterable[str]) -> _Table:
    """Read the rows of a table with the required columns, and with the optional columns if they exist."""
    columns = read_column_names(path)
    wanted = (*required, *(column for column in optional if column in columns))
    if twice := [column for column in wanted if columns.count(column) > 1]:
        raise DataError(f"{path}, row 1: found two columns {twice[0]}, expected one")
    rows = [TableRow(where, cells) for where, cells in read_table(path, wanted, names=_NAME_COLUMNS)]
    if not rows:
        raise DataError(f"{path}: found no rows, expected one for each photograph")
    for where, cells in rows:
        if not cells["name"]:
            raise DataError(f"{where}: the cell `name` is empty, expected the name of a photograph")
        if cells.get("dataset") in ("", *RESERVED_NAMES):
            raise DataError(
                f"{where}: found dataset {cells['dataset']!r}, expected the name of a data set (the names "
                f"{' and '.join(map(repr, RESERVED_NAMES))} are reserved)"
            )
    return _Table(path, rows)


def _match(predicted: _Table, known: _Table, parser: RowParser, allow_missing: bool) -> list[PhotographResult]:
    """Make a result for each row of the truth, in the order of the rows."""
    by_dataset = predicted.has_dataset and known.has_dataset
    predictions, truths = _by_photograph(predicted, by_dataset), _by_photograph(known, by_dataset)
    if unknown := [key for key in predictions if key not in truths]:
        where = predictions[unknown[0]].where
        raise DataError(
            f"{where}: {len(unknown)} photographs not in {known.path}: {_names(unknown)}; "
            f"expected its photographs: {_names(truths)}"
        )
    missing = [key for key in truths if key not in predictions]
    if missing and not allow_missing:
        raise DataError(
            f"{predicted.path}: no row for {len(missing)} of the {len(truths)} photographs of {known.path}: "
            f"{_names(missing)}; expected one for each, or --allow-missing to count them as failures"
        )
    results = []
    for key, row in truths.items():
        result = parser.add_truth(_unlabelled(row, known.path), row)
        if key in predictions:
            results.append(parser.add_prediction(result, predictions[key]))
        else:
            results.append(replace(result, failure=f"no row in {predicted.path}"))
    return results


def _by_photograph(table: _Table, by_dataset: bool) -> dict[RowKey, TableRow]:
    expected = "one row for each photograph"
    if table.has_dataset and not by_dataset:
        expected += "; the column dataset is not used because the other table does not have it"
    found: dict[RowKey, TableRow] = {}
    for row in table.rows:
        name = row.cells["name"]
        add_once(found, (row.cells["dataset"], name) if by_dataset else (name,), row, row.where, expected)
    return found


def _names(keys: Iterable[RowKey]) -> str:
    return first_names(key[-1] for key in keys)


def _unlabelled(row: TableRow, truth: Path) -> PhotographResult:
    cells = row.cells
    patient = cells.get("patient") or cells["name"]
    return PhotographResult(dataset=cells.get("dataset", truth.stem), name=cells["name"], patient=patient)


def _protocol(
    predictions: Path, truth: Path, measured: Sequence[PhotographResult], parser: RowParser, bootstrap: Bootstrap
) -> dict[str, Any]:
    """Record everything that is needed to compute the same numbers again."""
    tables = {"predictions": predictions, "truth": truth}
    return {
        "version": __version__,
        **{name: {"file": path.name, "sha256": file_sha256(path)} for name, path in tables.items()},
        "asked": "grade >= 1" if parser.binary else f"grade 0-{len(parser.columns) - 1}",
        "grades_alone": sum(m.grade_only for m in measured),
        "photographs": len(measured),
        "failed": sum(bool(m.failure) for m in measured),
        "without_grade": sum(m.grade is None and m.positive is None for m in measured),
        "bootstrap": bootstrap.to_protocol(),
    }
