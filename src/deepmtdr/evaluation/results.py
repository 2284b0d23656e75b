"""What an evaluation gives: tables for the screen, JSON, and a CSV row for each photograph (Sec. V-B)."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from deepmtdr.errors import DataError
from deepmtdr.evaluation.curves import CurvePoints, froc_points
from deepmtdr.evaluation.glossary import score_source
from deepmtdr.evaluation.measure import BICUBIC, HR, SR, PhotographResult
from deepmtdr.evaluation.scores import Score
from deepmtdr.evaluation.super_resolution import IMAGE_SCORES
from deepmtdr.files import write_atomically
from deepmtdr.metrics import FrocCounts
from deepmtdr.rendering.html import Table
from deepmtdr.terms import Grade, Lesion

IMAGE_COLUMNS = [f"{score}_{image}" for score in IMAGE_SCORES for image in (SR, BICUBIC)]
LESION_COLUMNS = {
    "ap": "average_precision",
    "auc": "auc",
    "prevalence": "prevalence",
    "dice": "dice",
    "iou": "iou",
}
"""Beginnings of columns, and the fields of `LesionResult` they show."""
CSV_COLUMNS = [
    *("dataset", "name", "patient", "status", "message", "fov_side", "lr_size", "scale"),
    *("grade", "predicted_grade", *(f"p{grade:d}" for grade in Grade), "p_referable", "p_positive"),
    *(f"{score}_{lesion.name}" for score in LESION_COLUMNS for lesion in Lesion),
    *IMAGE_COLUMNS,
    *(f"predicted_grade_{image}" for image in (BICUBIC, HR)),
]
"""Of `predictions.csv`; a cell is empty where nothing is known or the score is undefined."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Everything that came out of one run over a split."""

    protocol: dict[str, Any]
    """What was done: weights, way into the frame, thresholds, bootstrap, number of photographs."""
    scores: list[Score]
    confusion: dict[str, list[list[int]]]
    """By data set: photographs by true grade (row) and predicted grade (column)."""
    results: list[PhotographResult]
    """One for each photograph, whatever happened."""
    curves: dict[tuple[str, Lesion], CurvePoints] = field(default_factory=dict)
    """Precision over recall of all pixels, by data set and lesion type, thinned to be drawn."""
    froc: dict[tuple[str, Lesion], FrocCounts] = field(default_factory=dict)
    """Lesions counted one by one, by data set and lesion type."""
    thumbnails: dict[tuple[str, str], bytes] = field(default_factory=dict)
    """Small JPEG pictures of the worst cases, by data set and name; empty if nobody asked for them."""

    @property
    def failures(self) -> list[PhotographResult]:
        """The photographs that could not be read, each with its reason."""
        return [m for m in self.results if m.failure]

    def tables(self) -> list[Table]:
        """One table for each task and data set, with `value [low, high]` in the cells."""
        places = dict.fromkeys((score.task, score.dataset) for score in self.scores)
        tables = [_table([s for s in self.scores if (s.task, s.dataset) == place]) for place in places]
        for dataset, counts in self.confusion.items():
            rows = [(str(grade), *(str(count) for count in row)) for grade, row in enumerate(counts)]
            tables.append(Table(f"confusion, {dataset}", ("true \\ predicted", *(f"{g:d}" for g in Grade)), rows))
        return tables

    def as_dict(self) -> dict[str, Any]:
        """For JSON: a value that is undefined is None, with the reason in `note`."""
        return {
            "protocol": self.protocol,
            "scores": [json_safe(score._asdict()) | {"source": score_source(score.score)} for score in self.scores],
            "confusion": self.confusion,
            "curves": {"precision_recall": _by_place(self.curves), "froc": _by_place(self.froc, froc_points)},
            "failures": [{"dataset": m.dataset, "name": m.name, "reason": m.failure} for m in self.failures],
        }

    def write_scores(self, folder: Path) -> None:
        """Write `evaluation.json` alone, all or nothing.

        Raises:
            DataError: if the folder cannot be written.
        """
        write_json(folder / "evaluation.json", self.as_dict())

    def write(self, folder: Path, *, parquet: bool = False) -> None:
        """Write `evaluation.json` and `predictions.csv`, each all or nothing.

        Args:
            folder: made if it is not there.
            parquet: write `predictions.parquet` too, the same table with numbers as numbers.

        Raises:
            DataError: if the folder cannot be written, or Parquet is wanted and PyArrow is not installed.
        """
        self.write_scores(folder)
        with _whole(folder / "predictions.csv") as file:
            rows = csv.DictWriter(file, CSV_COLUMNS, restval="", lineterminator="\n")
            rows.writeheader()
            rows.writerows({key: _cell(v) for key, v in prediction_row(m).items()} for m in self.results)
        if parquet:
            _write_parquet(folder / "predictions.parquet", [prediction_row(m) for m in self.results])


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write all or nothing.

    Raises:
        DataError: if the folder cannot be written.
    """
    with _whole(path) as file:
        json.dump(content, file, indent=1, allow_nan=False)
        file.write("\n")


def prediction_row(measured: PhotographResult) -> dict[str, Any]:
    """A photograph's row of `predictions.csv`; what is unknown is left out, and what is undefined is nan."""
    m = measured
    row = {"dataset": m.dataset, "name": m.name, "patient": m.patient, "grade": m.grade}
    row |= {"status": "error" if m.failure else "ok", "message": m.failure}
    row |= {"fov_side": m.fov_side, "lr_size": m.lr_size, "scale": m.scale}
    if m.positive is not None:
        row |= {"grade": "positive" if m.positive else "negative", "p_positive": m.p_positive}
    if m.probs:
        row["predicted_grade"] = max(Grade, key=lambda grade: m.probs[grade]).value
    if m.probs and not m.grade_only:
        row["p_referable"] = sum(m.probs[grade] for grade in Grade if grade.referable)
        row |= {f"p{grade:d}": m.probs[grade] for grade in Grade}
    for lesion, pixels in m.lesions.items():
        row |= {f"{start}_{lesion.name}": getattr(pixels, name) for start, name in LESION_COLUMNS.items()}
    for image in (BICUBIC, HR):
        if image in m.other_inputs:
            row[f"predicted_grade_{image}"] = int(np.argmax(m.other_inputs[image].probs))
    return {**row, **m.image}


def _write_parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    """One column for each of `CSV_COLUMNS`; what is unknown or undefined is null, and an empty column is of strings."""
    try:
        from pyarrow import array, string, table
        from pyarrow.parquet import write_table
    except ImportError as error:
        raise DataError(f"{path}: Parquet needs PyArrow, expected `pip install deepmtdr[parquet]`") from error
    columns = {}
    for name in CSV_COLUMNS:
        values = [None if isinstance(v := row.get(name), float) and math.isnan(v) else v for row in rows]
        if any(isinstance(value, str) for value in values) or not any(value is not None for value in values):
            columns[name] = array([None if value is None else str(value) for value in values], string())
        else:
            columns[name] = array(values)
    buffer = io.BytesIO()
    write_table(table(columns), buffer)
    write_atomically(path, buffer.getvalue())


def _table(scores: list[Score]) -> Table:
    first, most = scores[0], max(scores, key=lambda score: score.photographs)
    title = f"{first.task}, {first.dataset} ({most.photographs} photographs, {most.patients} patients)"
    return score_table(title, {(s.subject, s.score): format_score(s) for s in scores})


def score_table(title: str, cells: Mapping[tuple[str, str], str]) -> Table:
    """Subjects down and scores across; the other way round if there are more scores than subjects.

    Args:
        title: of the table.
        cells: by subject and score. A score that stands in the paper too is marked by a star.
    """
    subjects, names = (list(dict.fromkeys(keys)) for keys in zip(*cells, strict=True))
    marked = {name: f"{name} *" if score_source(name) == "paper" else name for name in names}
    if len(subjects) < len(names):
        rows = [(marked[name], *(cells.get((subject, name), "") for subject in subjects)) for name in names]
        return Table(title, ("score", *subjects), rows)
    rows = [(subject, *(cells.get((subject, name), "") for name in names)) for subject in subjects]
    return Table(title, ("", *marked.values()), rows)


def format_score(score: Score) -> str:
    """`0.8123 [0.77, 0.85]`; if the value is undefined, the reason."""
    if math.isnan(score.value):
        return f"undefined: {score.note}"
    bounds = "" if math.isnan(score.low) else f" [{score.low:.3g}, {score.high:.3g}]"
    return f"{score.value:.4g}{bounds}"


def json_safe(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row for JSON, which has no nan and no infinity (the PSNR of equal images): None."""
    return {key: None if isinstance(v, float) and not math.isfinite(v) else v for key, v in row.items()}


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return "" if math.isnan(value) else repr(value)  # every digit: what is scored again is the same
    return "" if value is None else value


def _by_place(curves: Mapping[tuple[str, Lesion], Any], points: Callable[[Any], Any] = lambda c: c) -> dict[str, Any]:
    """For JSON: the points of each curve by data set and lesion type, to five digits."""
    nested: dict[str, Any] = {}
    for (dataset, lesion), curve in curves.items():
        lists = {name: [_rounded(v) for v in values] for name, values in points(curve)._asdict().items()}
        nested.setdefault(dataset, {})[lesion.name] = lists
    return nested


def _rounded(value: float) -> float | None:
    return None if math.isnan(value) else round(float(value), 5)


@contextmanager
def _whole(path: Path) -> Iterator[TextIO]:
    """Write beside the place and move over it: nobody finds half a file."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("w", encoding="utf-8", newline="") as file:
            yield file
        partial.replace(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror})") from error
    finally:
        with suppress(OSError):
            partial.unlink()
