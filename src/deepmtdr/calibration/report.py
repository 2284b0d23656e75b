"""The result of a calibration: temperature, scores before and after, thresholds (Sec. V-B)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from deepmtdr.evaluation.photograph_result import PhotographResult
from deepmtdr.evaluation.results import finite_or_none
from deepmtdr.metrics.calibration import ReliabilityBin
from deepmtdr.metrics.intervals import Difference, Interval
from deepmtdr.rendering.html import Table
from deepmtdr.rendering.numbers import format_interval

CROSS_FITTED = "each half of the patients scored with the fit on the other half"


class BeforeAfter(NamedTuple):
    """One score of the probabilities without and with the temperature."""

    score: str
    before: Interval
    after: Interval
    """The score with the temperature, cross-fitted: each half of the patients at the temperature of the other half."""
    difference: Difference
    """After - before, by paired bootstrap over patients."""


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
    """A temperature and thresholds fitted on graded photographs, with scores before and after."""

    protocol: dict[str, Any]
    """How the calibration was done: weights, photographs, input size, bootstrap."""
    temperature: float
    """Temperature fitted on all photographs, which is stored in the checkpoint."""
    half_temperatures: tuple[float, float]
    """Temperatures fitted on each half of the patients. A large difference means that they are uncertain."""
    scores: list[BeforeAfter]
    reliability_before: list[ReliabilityBin]
    reliability_after: list[ReliabilityBin]
    """Reliability with the temperature, cross-fitted like the scores."""
    thresholds: list[CalibratedThreshold]
    warnings: list[str] = field(default_factory=list)
    """Descriptions of possible problems."""
    results: list[PhotographResult] = field(default_factory=list)
    """A result for each graded photograph, predicted at temperature 1; also for photographs that failed."""

    @property
    def failures(self) -> list[PhotographResult]:
        """List the photographs without prediction, each with the reason."""
        return [m for m in self.results if m.failure]

    def tables(self) -> list[Table]:
        """Tables of the temperature, the scores and the reliability before and after, and the thresholds."""
        title = f"{self.protocol['photographs']} photographs, {self.protocol['patients']} patients"
        halves = " and ".join(f"{t:.4g}" for t in self.half_temperatures)
        rows = [("on all photographs (stored)", f"{self.temperature:.4g}"), ("on each half of the patients", halves)]
        scores = [(s.score, _cell(*s.before), _cell(*s.after), _cell(*s.difference[:3])) for s in self.scores]
        return [
            Table(f"temperature, {title}", ("fitted", "temperature"), rows),
            Table(f"before and after, {CROSS_FITTED}", ("score", "before", "after", "after - before"), scores),
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
            "temperature": self.temperature,
            "temperature_of_halves": list(self.half_temperatures),
            "operating_points": points,
            "judged": CROSS_FITTED,
            "scores": {s.score: {"before": _bounds(s.before), "after": _bounds(s.after)} for s in self.scores},
            **self.protocol,
            "warnings": list(self.warnings),
        }


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
    return Table(f"reliability {when}", ("probability of the predicted grade", "how often right", "photographs"), rows)


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
