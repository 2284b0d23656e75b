"""The result of an evaluation, as tables and as `evaluation.json` (Sec. V-B)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deepmtdr.evaluation.curves import CurvePoints, froc_points
from deepmtdr.evaluation.glossary import score_source
from deepmtdr.evaluation.lesions import CurveKey
from deepmtdr.evaluation.photograph_result import PhotographResult
from deepmtdr.evaluation.prediction_table import reports_write_errors, write_prediction_csv, write_prediction_parquet
from deepmtdr.evaluation.scores import Score
from deepmtdr.files import write_json
from deepmtdr.labels import DIABETIC_RETINOPATHY, LabelSet
from deepmtdr.metrics import FrocCounts
from deepmtdr.rendering.html import Table
from deepmtdr.rendering.numbers import format_interval


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The result of evaluating one system on one set of photographs."""

    labels: LabelSet = DIABETIC_RETINOPATHY
    """Lesion types and grades."""
    protocol: dict[str, Any]
    """What was evaluated and how: weights, input scale, thresholds, bootstrap, number of photographs."""
    scores: list[Score]
    confusion: dict[str, list[list[int]]]
    """Number of photographs by true grade (row) and predicted grade (column), for each data set."""
    results: list[PhotographResult]
    """A result for each photograph, also for photographs that failed."""
    curves: dict[CurveKey, CurvePoints] = field(default_factory=dict)
    """Precision-recall curve of all pixels, thinned for drawing."""
    froc: dict[CurveKey, FrocCounts] = field(default_factory=dict)
    thumbnails: dict[tuple[str, str], bytes] = field(default_factory=dict)
    """Small JPEG pictures of the worst cases, by data set and name."""

    @property
    def failures(self) -> list[PhotographResult]:
        """List the photographs without prediction, each with the reason."""
        return [m for m in self.results if m.failure]

    def tables(self) -> list[Table]:
        """Make a table for each task and data set, with cells as `0.8123 [0.77, 0.85]`; then confusion matrices."""
        places = dict.fromkeys((score.task, score.dataset) for score in self.scores)
        tables = [_table([s for s in self.scores if (s.task, s.dataset) == place]) for place in places]
        columns = ("true \\ predicted", *map(str, range(len(self.labels.grades))))
        for dataset, counts in self.confusion.items():
            rows = [(str(grade), *map(str, row)) for grade, row in enumerate(counts)]
            tables.append(Table(f"confusion, {dataset}", columns, rows))
        return tables

    def as_dict(self) -> dict[str, Any]:
        """Convert to a dict for JSON. An undefined value is None; `note` gives the reason."""
        return {
            "protocol": self.protocol,
            "scores": [json_safe(score._asdict()) | {"source": score_source(score.score)} for score in self.scores],
            "confusion": self.confusion,
            "curves": {"precision_recall": _nested(self.curves), "froc": _nested(self.froc, froc_points)},
            "failures": [{"dataset": m.dataset, "name": m.name, "reason": m.failure} for m in self.failures],
        }

    def write_scores(self, folder: Path) -> None:
        """Write `evaluation.json`.

        Raises:
            DataError: if the file cannot be written.
        """
        with reports_write_errors(path := folder / "evaluation.json"):
            write_json(path, self.as_dict())

    def write(self, folder: Path, *, parquet: bool = False) -> None:
        """Write `evaluation.json` and `predictions.csv`.

        Args:
            folder: created if it does not exist.
            parquet: write `predictions.parquet` too, the same table with typed columns.

        Raises:
            DataError: if a file cannot be written, or PyArrow is not installed.
        """
        self.write_scores(folder)
        write_prediction_csv(folder / "predictions.csv", self.results, self.labels)
        if parquet:
            write_prediction_parquet(folder / "predictions.parquet", self.results, self.labels)


def _table(scores: list[Score]) -> Table:
    first, most = scores[0], max(scores, key=lambda score: score.photographs)
    title = f"{first.task}, {first.dataset} ({most.photographs} photographs, {most.patients} patients)"
    return score_table(title, {(s.subject, s.score): format_score(s) for s in scores})


def score_table(title: str, cells: Mapping[tuple[str, str], str]) -> Table:
    """Make a table with one row per subject and one column per score, or the transpose if there are more scores.

    Args:
        title: title of the table.
        cells: scores by subject and name. Scores of the paper are marked with a star.
    """
    subjects, names = (list(dict.fromkeys(keys)) for keys in zip(*cells, strict=True))
    marked = {name: f"{name} *" if score_source(name) == "paper" else name for name in names}
    if len(subjects) < len(names):
        rows = [(marked[name], *(cells.get((subject, name), "") for subject in subjects)) for name in names]
        return Table(title, ("score", *subjects), rows)
    rows = [(subject, *(cells.get((subject, name), "") for name in names)) for subject in subjects]
    return Table(title, ("", *marked.values()), rows)


def format_score(score: Score) -> str:
    """Format a score, such as `0.8123 [0.77, 0.85]`, or the reason if the value is undefined."""
    if math.isnan(score.value):
        return f"undefined: {score.note}"
    return format_interval(score.value, score.low, score.high, digits=4)


def json_safe(row: Mapping[str, Any]) -> dict[str, Any]:
    """Convert a row for JSON: nan and infinity (such as the PSNR of equal images) become None."""
    return {key: finite_or_none(v) if isinstance(v, float) else v for key, v in row.items()}


def finite_or_none(value: float) -> float | None:
    """Return the value; None if it is nan or infinite."""
    return value if math.isfinite(value) else None


def _nested(curves: Mapping[CurveKey, Any], points: Callable[[Any], Any] = lambda c: c) -> dict[str, Any]:
    """Convert the points of each curve for JSON, by data set and code, to five digits."""
    nested: dict[str, Any] = {}
    for (dataset, code), curve in curves.items():
        lists = {name: [_rounded(v) for v in values] for name, values in points(curve)._asdict().items()}
        nested.setdefault(dataset, {})[code] = lists
    return nested


def _rounded(value: float) -> float | None:
    return None if math.isnan(value) else round(float(value), 5)
