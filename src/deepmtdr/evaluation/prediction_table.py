"""Write `predictions.csv`, one row per photograph, and the same table as Parquet."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from deepmtdr.csv_tables import write_table
from deepmtdr.errors import DataError
from deepmtdr.evaluation.photograph_result import InputImage, LesionResult, PhotographResult
from deepmtdr.evaluation.super_resolution import IMAGE_SCORES, SCORED_IMAGES
from deepmtdr.files import make_folder, write_atomically
from deepmtdr.labels import LabelSet

Cell = str | int | float | None

LESION_COLUMNS: Mapping[str, Callable[[LesionResult], float]] = {
    "ap": lambda pixels: pixels.average_precision,
    "auc": lambda pixels: pixels.auc,
    "prevalence": lambda pixels: pixels.prevalence,
    "dice": lambda pixels: pixels.dice,
    "iou": lambda pixels: pixels.iou,
}
"""Beginning of a column name, which is followed by the lesion code -> function that computes the value."""
OTHER_IMAGES = (InputImage.BICUBIC, InputImage.HR)


def prediction_columns(labels: LabelSet) -> list[str]:
    """Return the columns of `predictions.csv`. A cell is empty where a value is unknown or undefined."""
    photograph = ["dataset", "name", "patient", "status", "message", "fov_side", "lr_size", "scale"]
    grades = ["grade", "predicted_grade", *probability_columns(labels), "p_referable", "p_positive"]
    lesions = [f"{start}_{code}" for start in LESION_COLUMNS for code in labels.codes]
    images = [f"{score}_{image}" for score in IMAGE_SCORES for image in SCORED_IMAGES]
    return photograph + grades + lesions + images + [f"predicted_grade_{image}" for image in OTHER_IMAGES]


def probability_columns(labels: LabelSet) -> list[str]:
    """Return the columns `p0`, `p1`, ... of the probability of each grade."""
    return [f"p{grade}" for grade in range(len(labels.grades))]


def prediction_row(measured: PhotographResult, labels: LabelSet) -> dict[str, Cell]:
    """Make the row of a photograph. Unknown values are left out; undefined values are nan."""
    m = measured
    row: dict[str, Cell] = {
        "dataset": m.dataset,
        "name": m.name,
        "patient": m.patient,
        "status": "error" if m.failure else "ok",
        "message": m.failure,
        "fov_side": m.fov_side,
        "lr_size": m.lr_size,
        "scale": m.scale,
        "grade": m.grade,
        "predicted_grade": m.predicted_grade,
    }
    if m.positive is not None:
        row |= {"grade": "positive" if m.positive else "negative", "p_positive": m.p_positive}
    if m.probs and not m.grade_only:
        row["p_referable"] = sum(m.probs[labels.referable_from :])
        row |= dict(zip(probability_columns(labels), m.probs, strict=True))
    for code, pixels in m.lesions.items():
        row |= {f"{start}_{code}": value(pixels) for start, value in LESION_COLUMNS.items()}
    for image in OTHER_IMAGES:
        if image in m.other_inputs:
            row[f"predicted_grade_{image}"] = m.other_inputs[image].predicted_grade
    return {**row, **m.image}


def write_prediction_csv(path: Path, results: Iterable[PhotographResult], labels: LabelSet) -> None:
    """Write `predictions.csv`.

    Raises:
        DataError: if the file cannot be written.
    """
    columns = prediction_columns(labels)
    rows = [prediction_row(m, labels) for m in results]
    with reports_write_errors(path):
        write_table(path, columns, ([_csv_cell(row.get(column)) for column in columns] for row in rows))


def _csv_cell(value: Cell) -> Cell:
    if isinstance(value, float):
        return "" if math.isnan(value) else repr(value)  # all digits, so that the table can be scored again exactly
    return "" if value is None else value


def write_prediction_parquet(path: Path, results: Sequence[PhotographResult], labels: LabelSet) -> None:
    """Write the same table as Parquet. Undefined values are null; an empty column has the type string.

    Raises:
        DataError: if PyArrow is not installed, or the file cannot be written.
    """
    try:
        from pyarrow import array, string, table
        from pyarrow.parquet import write_table as write_parquet
    except ImportError as error:
        raise DataError(f"{path}: Parquet needs PyArrow; install it with `pip install deepmtdr[parquet]`") from error
    rows = [prediction_row(m, labels) for m in results]
    columns = {}
    for name in prediction_columns(labels):
        values = [None if isinstance(v := row.get(name), float) and math.isnan(v) else v for row in rows]
        if any(isinstance(value, str) for value in values) or not any(value is not None for value in values):
            columns[name] = array([None if value is None else str(value) for value in values], string())
        else:
            columns[name] = array(values)
    buffer = io.BytesIO()
    write_parquet(table(columns), buffer)
    with reports_write_errors(path):
        write_atomically(path, buffer.getvalue())


@contextmanager
def reports_write_errors(path: Path) -> Iterator[None]:
    """Context manager in which a file is written: makes its folder, and reports failures as DataError.

    Raises:
        DataError: if the file cannot be written; the message names it.
    """
    try:
        make_folder(path.parent)
        yield
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror})") from error
