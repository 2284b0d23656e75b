"""What a calibration says: the temperature, the probabilities before and after it, and thresholds (Sec. V-B)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from deepmtdr.evaluation.curves import ReliabilityBin
from deepmtdr.evaluation.measure import PhotographResult
from deepmtdr.metrics.intervals import Difference, Interval
from deepmtdr.rendering.html import Table

CROSS_FITTED = "judged on the half of the patients that it was not fitted on, both ways"


class BeforeAfter(NamedTuple):
    """One score of the probabilities as the network gives them, and at the temperature."""

    score: str
    before: Interval
    after: Interval
    """Each half of the patients at the temperature of the other half."""
    difference: Difference
    """After minus before, by paired bootstrap over patients."""


class CalibratedThreshold(NamedTuple):
    """A threshold, read from all photographs, and what such a threshold brings on other patients."""

    target: str
    """`any`, `referable` or `sight-threatening`."""
    min_grade: int
    """The least grade that it asks for."""
    target_sensitivity: float
    """Sensitivity."""
    threshold: float
    """Of the probability of these grades; nan: undefined, for the reason in `note`."""
    sensitivity: Interval
    """Each half of the patients at the threshold of the other half; so is the specificity."""
    specificity: Interval
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """A temperature fitted to graded photographs, and how honest it made the probabilities."""

    protocol: dict[str, Any]
    """What was done: weights, photographs, way into the frame, bootstrap."""
    temperature: float
    """Fitted on all photographs: the one that is kept."""
    half_temperatures: tuple[float, float]
    """Fitted on either half of the patients: how much it hangs on who was photographed."""
    scores: list[BeforeAfter]
    reliability_before: list[ReliabilityBin]
    reliability_after: list[ReliabilityBin]
    """Cross-fitted as the scores are."""
    thresholds: list[CalibratedThreshold]
    warnings: list[str] = field(default_factory=list)
    """What makes it doubtful."""
    results: list[PhotographResult] = field(default_factory=list)
    """One for each graded photograph, at temperature 1, whatever happened."""

    @property
    def failures(self) -> list[PhotographResult]:
        """The photographs that could not be read, each with its reason."""
        return [m for m in self.results if m.failure]

    def tables(self) -> list[Table]:
        """Temperature, scores before and after, reliability before and after, thresholds."""
        title = f"{self.protocol['photographs']} photographs, {self.protocol['patients']} patients"
        halves = " and ".join(f"{t:.4g}" for t in self.half_temperatures)
        rows = [("on all: kept", f"{self.temperature:.4g}"), ("on either half of the patients", halves)]
        scores = [(s.score, *map(_said, (s.before, s.after, Interval(*s.difference[:3])))) for s in self.scores]
        return [
            Table(f"temperature, {title}", ("fitted", "temperature"), rows),
            Table(f"before and after, {CROSS_FITTED}", ("score", "before", "after", "after - before"), scores),
            _reliability_table("before", self.reliability_before),
            _reliability_table("after", self.reliability_after),
            _operating_table(self.thresholds),
        ]

    def to_card(self) -> dict[str, Any]:
        """For the card of the checkpoint: what is used from now on, and what it was found by.

        A threshold that is undefined is left out; a score or bound that is undefined is None.
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
    judged = {"sensitivity": _bounds(point.sensitivity), "specificity": _bounds(point.specificity)}
    return {"wanted": point.target_sensitivity, "threshold": point.threshold, **judged}


def _bounds(interval: Interval) -> list[float | None]:
    """Value, low and high, for JSON."""
    return [None if not math.isfinite(number) else round(float(number), 6) for number in interval]


def _reliability_table(when: str, bins: Sequence[ReliabilityBin]) -> Table:
    rows = [(f"{one.confidence:.3f}", f"{one.accuracy:.3f}", str(one.photographs)) for one in bins]
    return Table(f"reliability {when}", ("probability of the predicted grade", "how often right", "photographs"), rows)


def _operating_table(operating: Sequence[CalibratedThreshold]) -> Table:
    columns = ("grade", "sensitivity wanted", "threshold", "sensitivity", "specificity")
    return Table(f"thresholds, {CROSS_FITTED}", columns, list(_operating_rows(operating)))


def _operating_rows(operating: Sequence[CalibratedThreshold]) -> Iterator[tuple[str, ...]]:
    for point in operating:
        first = f"{point.min_grade} or worse: {point.target}", f"{point.target_sensitivity:.2f}"
        if math.isnan(point.threshold):
            yield *first, f"undefined: {point.note}", "", ""
        else:
            judged = (_said(interval, point.note) for interval in (point.sensitivity, point.specificity))
            yield *first, f"{point.threshold:.6f}", *judged


def _said(interval: Interval, note: str = "") -> str:
    if math.isnan(interval.value):
        return f"undefined: {note}"
    return f"{interval.value:.3g}" if math.isnan(interval.low) else str(interval)
