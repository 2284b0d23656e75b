"""The result of a calibration: the decision, scores before and after, operating points (Sec. V-B)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from deepmtdr.evaluation.photograph_result import PhotographResult
from deepmtdr.evaluation.results import finite_or_none
from deepmtdr.grade_decision import GradeDecision
from deepmtdr.metrics.calibration import ReliabilityBin
from deepmtdr.metrics.intervals import Difference, Interval
from deepmtdr.rendering.html import Table
from deepmtdr.rendering.numbers import format_interval

CROSS_FITTED = "each half of the patients scored with the fit on the other half"


class BeforeAfter(NamedTuple):
    """One score without and with the calibration; of several data sets the mean over them."""

    score: str
    before: Interval
    after: Interval
    """The score with the calibration, cross-fitted: each half of the patients with the fit on the other half."""
    difference: Difference
    """After - before, by paired bootstrap over patients."""


class DataSetScore(NamedTuple):
    """Scores of one data set without and with the calibration, for a check that one calibration suits all of them."""

    dataset: str
    photographs: int
    temperature: float
    """Temperature fitted on this data set alone, without biases."""
    scores: Mapping[str, tuple[float, float]]
    """Score -> before and after, cross-fitted."""


class CalibratedThreshold(NamedTuple):
    """A threshold fitted on all photographs, with the cross-fitted sensitivity and specificity."""

    target: str
    """Name of the threshold, such as `referable`."""
    min_grade: int
    """The lowest grade that is positive."""
    target_sensitivity: float
    threshold: float
    """Threshold of the probability of these grades; nan if it is undefined. `note` gives the reason."""
    sensitivity: Interval
    """Sensitivity, cross-fitted: each half of the patients at the threshold of the other half."""
    specificity: Interval
    """Specificity, cross-fitted like `sensitivity`."""
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """A decision and operating points fitted on graded photographs, with scores before and after."""

    protocol: dict[str, Any]
    """How the calibration was done: weights, photographs, input size, bootstrap."""
    decision: GradeDecision
    """Temperature, biases and grade thresholds fitted on all photographs, which are stored in the checkpoint."""
    half_decisions: tuple[GradeDecision, GradeDecision]
    """The same fitted on each half of the patients. A large difference means that they are uncertain."""
    scores: list[BeforeAfter]
    reliability_before: list[ReliabilityBin]
    reliability_after: list[ReliabilityBin]
    """Reliability with the calibration, cross-fitted like the scores."""
    thresholds: list[CalibratedThreshold]
    by_dataset: list[DataSetScore] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    """Descriptions of possible problems."""
    results: list[PhotographResult] = field(default_factory=list)
    """A result for each graded photograph, predicted without calibration; also for photographs that failed."""

    @property
    def failures(self) -> list[PhotographResult]:
        """List the photographs without prediction, each with the reason."""
        return [m for m in self.results if m.failure]

    @property
    def temperature(self) -> float:
        """Temperature fitted on all photographs."""
        return self.decision.temperature

    @property
    def half_temperatures(self) -> tuple[float, float]:
        """Temperatures fitted on each half of the patients."""
        first, second = self.half_decisions
        return first.temperature, second.temperature

    def tables(self) -> list[Table]:
        """Tables of the fit, the scores and the reliability before and after, and the operating points."""
        title = f"{self.protocol['photographs']} photographs, {self.protocol['patients']} patients"
        fits = {
            "on all photographs (stored)": self.decision,
            "on the first half of the patients": self.half_decisions[0],
            "on the second half": self.half_decisions[1],
        }
        rows = [(name, *_decision_cells(decision)) for name, decision in fits.items()]
        columns = ("fitted", "temperature", "biases of the grades", "thresholds of the expected grade")
        scores = [(s.score, _cell(*s.before), _cell(*s.after), _cell(*s.difference[:3])) for s in self.scores]
        return [
            Table(f"calibration, {title}", columns, rows),
            Table(f"before and after, {CROSS_FITTED}", ("score", "before", "after", "after - before"), scores),
            _dataset_table(self.by_dataset),
            _reliability_table("before", self.reliability_before),
            _reliability_table("after", self.reliability_after),
            _operating_table(self.thresholds),
        ]

    def to_card(self) -> dict[str, Any]:
        """The entry `calibration` in the card of the checkpoint.

        Undefined thresholds are left out; undefined scores and bounds are None.
        """
        points: dict[str, list[dict[str, Any]]] = {}
        for point in self.thresholds:
            if not math.isnan(point.threshold):
                points.setdefault(point.target, []).append(_point(point))
        return {
            **_decision_entries(self.decision),
            "temperature_of_halves": list(self.half_temperatures),
            "of_halves": [_decision_entries(half) for half in self.half_decisions],
            "operating_points": points,
            "judged": CROSS_FITTED,
            "scores": {s.score: {"before": _bounds(s.before), "after": _bounds(s.after)} for s in self.scores},
            "by_dataset": {one.dataset: _dataset_entry(one) for one in self.by_dataset},
            **self.protocol,
            "warnings": list(self.warnings),
        }


def _decision_entries(decision: GradeDecision) -> dict[str, Any]:
    """The entries of the card that `Checkpoint.decision` reads."""
    return {
        "temperature": decision.temperature,
        "biases": list(decision.biases),
        "grade_thresholds": list(decision.thresholds),
    }


def _decision_cells(decision: GradeDecision) -> tuple[str, str, str]:
    lists = (" ".join(f"{value:.2f}" for value in values) for values in (decision.biases, decision.thresholds))
    return f"{decision.temperature:.4g}", *lists  # pyright: ignore[reportReturnType]


def _dataset_entry(one: DataSetScore) -> dict[str, Any]:
    rounded = {name: [finite_or_none(round(float(v), 6)) for v in values] for name, values in one.scores.items()}
    return {"photographs": one.photographs, "temperature_alone": one.temperature, "scores": rounded}


def _dataset_table(rows: Sequence[DataSetScore]) -> Table:
    names = list(rows[0].scores) if rows else []
    cells = [
        (
            one.dataset,
            str(one.photographs),
            f"{one.temperature:.3g}",
            *(f"{before:.3f} to {after:.3f}" for before, after in one.scores.values()),
        )
        for one in rows
    ]
    columns = ("data set", "photographs", "temperature of this set alone", *names)
    return Table(f"each data set, before to after, {CROSS_FITTED}", columns, cells)


def _point(point: CalibratedThreshold) -> dict[str, Any]:
    return {
        "wanted": point.target_sensitivity,
        "threshold": point.threshold,
        "sensitivity": _bounds(point.sensitivity),
        "specificity": _bounds(point.specificity),
    }


def _bounds(interval: Interval) -> list[float | None]:
    """Convert value, low and high for JSON."""
    return [finite_or_none(round(float(number), 6)) for number in interval]


def _reliability_table(when: str, bins: Sequence[ReliabilityBin]) -> Table:
    rows = [(f"{one.confidence:.3f}", f"{one.accuracy:.3f}", str(one.photographs)) for one in bins]
    return Table(f"reliability {when}", ("highest probability", "how often its grade is right", "photographs"), rows)


def _operating_table(operating: Sequence[CalibratedThreshold]) -> Table:
    columns = ("grade", "target sensitivity", "threshold", "sensitivity", "specificity")
    return Table(f"thresholds, {CROSS_FITTED}", columns, list(_operating_rows(operating)))


def _operating_rows(operating: Sequence[CalibratedThreshold]) -> Iterator[tuple[str, ...]]:
    for point in operating:
        first = f"{point.min_grade} or worse: {point.target}", f"{point.target_sensitivity:.2f}"
        if math.isnan(point.threshold):
            yield *first, f"undefined: {point.note}", "", ""
        else:
            reached = (_cell(*interval, note=point.note) for interval in (point.sensitivity, point.specificity))
            yield *first, f"{point.threshold:.6f}", *reached


def _cell(value: float, low: float, high: float, note: str = "") -> str:
    return f"undefined: {note}" if math.isnan(value) else format_interval(value, low, high)
