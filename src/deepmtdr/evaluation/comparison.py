"""The result of comparing two systems, as tables and as `comparison.json`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from deepmtdr.evaluation.pairing import PhotographKey
from deepmtdr.evaluation.prediction_table import reports_write_errors
from deepmtdr.evaluation.results import json_safe
from deepmtdr.files import write_json
from deepmtdr.rendering.html import Table
from deepmtdr.rendering.numbers import format_interval, format_p_value


class ScoreDifference(NamedTuple):
    """One score of two systems on the same photographs."""

    dataset: str
    subject: str
    """What is scored, as in `Score.subject`."""
    score: str
    a: float
    b: float
    difference: float
    """A - B; nan if one of the scores is undefined. `note` gives the reason."""
    low: float
    high: float
    p_value: float
    """Two-sided p-value of no difference, by paired bootstrap over patients."""
    photographs: int
    patients: int
    note: str = ""


class PairedTest(NamedTuple):
    """A test of no difference that assumes independent photographs."""

    dataset: str
    test: str
    """Name of the test. `mcnemar` compares the number of right predictions, `delong` the area under the ROC curve."""
    found: Mapping[str, float]
    """Other results of the test, named as in `deepmtdr.metrics.paired_tests`."""
    p_value: float
    """Two-sided p-value; nan if the test is undefined. `note` gives the reason."""
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The result of comparing two systems on the same photographs."""

    protocol: dict[str, Any]
    """The protocols of both systems, and the bootstrap settings."""
    differences: list[ScoreDifference]
    tests: list[PairedTest]
    left_out: list[PhotographKey]
    """Photographs without prediction of one of the systems; they are not used."""

    def tables(self) -> list[Table]:
        """Tables of the differences, then of the tests, for each data set."""
        return [
            table
            for dataset in dict.fromkeys(row.dataset for row in self.differences)
            for table in (
                _difference_table([row for row in self.differences if row.dataset == dataset]),
                _test_table([row for row in self.tests if row.dataset == dataset], dataset),
            )
        ]

    def as_dict(self) -> dict[str, Any]:
        """Convert to a dict for JSON. An undefined value is None; `note` gives the reason."""
        return {
            "protocol": self.protocol,
            "differences": [json_safe(row._asdict()) for row in self.differences],
            "tests": [json_safe(row._asdict() | {"found": json_safe(row.found)}) for row in self.tests],
            "left_out": [{"dataset": dataset, "name": name} for dataset, name in self.left_out],
        }

    def write(self, folder: Path) -> None:
        """Write `comparison.json`.

        Raises:
            DataError: if the file cannot be written.
        """
        with reports_write_errors(path := folder / "comparison.json"):
            write_json(path, self.as_dict())


def _difference_table(rows: Sequence[ScoreDifference]) -> Table:
    most = max(rows, key=lambda row: row.photographs)
    title = f"difference, {most.dataset} ({most.photographs} photographs, {most.patients} patients)"
    return Table(title, ("", "score", "A", "B", "A - B", "p"), [_difference_row(row) for row in rows])


def _difference_row(row: ScoreDifference) -> tuple[str, ...]:
    a, b = ("undefined" if math.isnan(value) else f"{value:.4g}" for value in (row.a, row.b))
    if math.isnan(row.difference):
        return row.subject, row.score, a, b, f"undefined: {row.note}", ""
    interval = format_interval(row.difference, row.low, row.high)
    return row.subject, row.score, a, b, interval, format_p_value(row.p_value)


def _test_table(rows: Sequence[PairedTest], dataset: str) -> Table:
    return Table(
        f"tests of no difference, {dataset}", ("test", "result", "p", "note"), [_test_row(row) for row in rows]
    )


def _test_row(row: PairedTest) -> tuple[str, ...]:
    found = ", ".join(f"{name} {value:.4g}" for name, value in row.found.items() if not math.isnan(value))
    return row.test, found, format_p_value(row.p_value) or "undefined", row.note
