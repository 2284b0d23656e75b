"""Whether one system grades better than another on the same photographs (Sec. V-B)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from deepmtdr.errors import DataError
from deepmtdr.evaluation.binary import BINARY
from deepmtdr.evaluation.measure import Measured
from deepmtdr.evaluation.results import Evaluation, Table, known, write_json
from deepmtdr.evaluation.scores import (
    GRADES,
    NO_INTERVAL,
    NO_PHOTOGRAPH_OF_BOTH,
    NO_PROBABILITIES,
    Bootstrap,
    Grading,
    by_dataset,
    patients,
)
from deepmtdr.paired import delong, mcnemar

NAMED = 3
"""How many photographs a message names of those that it counts."""
INDEPENDENT = "takes photographs as independent, but some are of one patient"
TOO_FEW = "needs two photographs of either kind, and a spread"

Photograph = tuple[str, str]
"""Data set and name."""
Arrays = tuple[np.ndarray, np.ndarray]
"""Predictions and truths, as the scores take them."""


class Compared(NamedTuple):
    """One score of two systems on the same photographs."""

    dataset: str
    score: str
    a: float
    b: float
    difference: float
    """A minus B; nan where either is undefined, for the reason in `note`."""
    low: float
    high: float
    p_value: float
    """Two-sided, of no difference, by paired bootstrap over patients."""
    photographs: int
    patients: int
    note: str = ""


class PairedTest(NamedTuple):
    """A test of no difference that takes single photographs."""

    dataset: str
    test: str
    """`mcnemar`: how often each is right. `delong`: area under the ROC curve."""
    found: Mapping[str, float]
    """What the test saw, as `deepmtdr.paired` names it."""
    p_value: float
    """Two-sided; nan: undefined, for the reason in `note`."""
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Everything that was said of two systems."""

    protocol: dict[str, Any]
    """Of both, and how the intervals were made."""
    differences: list[Compared]
    tests: list[PairedTest]
    left_out: list[Photograph]
    """Photographs that one of the two failed on: neither is scored on them."""

    def tables(self) -> list[Table]:
        """For each data set the differences, then the tests."""
        return [
            table
            for dataset in dict.fromkeys(row.dataset for row in self.differences)
            for table in (
                _differences_table([row for row in self.differences if row.dataset == dataset]),
                _tests_table([row for row in self.tests if row.dataset == dataset]),
            )
        ]

    def as_dict(self) -> dict[str, Any]:
        """For JSON: a value that is undefined is None, with the reason in `note`."""
        return {
            "protocol": self.protocol,
            "differences": [known(row._asdict()) for row in self.differences],
            "tests": [known(row._asdict() | {"found": known(row.found)}) for row in self.tests],
            "left_out": [{"dataset": dataset, "name": name} for dataset, name in self.left_out],
        }

    def write(self, folder: Path) -> None:
        """Write `comparison.json`, all or nothing.

        Raises:
            DataError: if the folder cannot be written.
        """
        write_json(folder / "comparison.json", self.as_dict())


def compare(
    a: Evaluation | Sequence[Measured], b: Evaluation | Sequence[Measured], *, bootstrap: Bootstrap | None = None
) -> Comparison:
    """Score two systems on the same photographs, and test every difference.

    Args:
        a: an evaluation, or its photographs.
        b: of the other system; the order of the photographs may be another.
        bootstrap: how intervals and p-values are made.

    Returns:
        A minus B of every grading score by data set, over the photographs that both systems predicted.

    Raises:
        DataError: if one has photographs that the other lacks, the two differ in a photograph's true grade or patient,
            one was asked for grade >= 1 and the other for grades 0-4, or no photograph is scored in both.
    """
    bootstrap = bootstrap or Bootstrap()
    ours, theirs = (list(x.measured if isinstance(x, Evaluation) else x) for x in (a, b))
    grading = _grading(ours, theirs)
    pairs = _pairs(ours, theirs)
    scored = [(x, y) for x, y in pairs if grading.is_scored(x) and grading.is_scored(y)]
    if not scored:
        raise DataError("no photograph with a true grade that both systems predicted, expected at least one")
    other = {_photograph(x): y for x, y in scored}
    groups = [
        (name, group, [other[_photograph(x)] for x in group]) for name, group in by_dataset([x for x, _ in scored])
    ]
    return Comparison(
        protocol={
            **{name: x.protocol for name, x in (("a", a), ("b", b)) if isinstance(x, Evaluation)},
            "bootstrap": {"unit": "patient", **bootstrap._asdict()},
        },
        differences=[row for group in groups for row in _differences(*group, grading, bootstrap)],
        tests=[row for group in groups for row in _tests(*group, grading)],
        left_out=[_photograph(x) for x, y in pairs if x.failure or y.failure],
    )


def _grading(a: list[Measured], b: list[Measured]) -> Grading:
    """What both were asked."""
    binary = [any(m.p_positive is not None or m.positive is not None for m in system) for system in (a, b)]
    if binary[0] != binary[1]:
        raise DataError("one system was asked for grade >= 1, the other for grades 0-4; expected the same of both")
    return BINARY if binary[0] else GRADES


def _pairs(a: list[Measured], b: list[Measured]) -> list[tuple[Measured, Measured]]:
    """Each photograph as both saw it, in the order of A."""
    ours, theirs = _by_photograph("A", a), _by_photograph("B", b)
    for system, lacking in (("A", theirs.keys() - ours.keys()), ("B", ours.keys() - theirs.keys())):
        if lacking:
            names = [name for _, name in sorted(lacking)]
            shown = ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")
            raise DataError(f"system {system} lacks {len(names)} photographs of the other: {shown}; expected the same")
    for photograph, x in ours.items():
        y = theirs[photograph]
        for what in ("grade", "positive", "patient"):
            if getattr(x, what) != getattr(y, what):
                raise DataError(
                    f"{x.dataset} {x.name}: true {what} {getattr(x, what)} in system A, {getattr(y, what)} in B; "
                    "expected the same of both"
                )
    return [(x, theirs[photograph]) for photograph, x in ours.items()]


def _by_photograph(system: str, measured: list[Measured]) -> dict[Photograph, Measured]:
    found: dict[Photograph, Measured] = {}
    for m in measured:
        if found.setdefault(_photograph(m), m) is not m:
            raise DataError(f"{m.dataset} {m.name}: twice in system {system}, expected each photograph once")
    return found


def _photograph(m: Measured) -> Photograph:
    return m.dataset, m.name


def _differences(
    dataset: str, a: list[Measured], b: list[Measured], grading: Grading, bootstrap: Bootstrap
) -> Iterator[Compared]:
    """Every score of one data set."""
    arrays_a, arrays_b = grading.arrays(a), grading.arrays(b)
    scores_a, scores_b = grading.defined(a), grading.defined(b)
    for name, (score, why) in grading.defined([*a, *b]).items():
        values = scores_a[name][0](*arrays_a), scores_b[name][0](*arrays_b)
        difference = bootstrap.difference(score, a, arrays_a, arrays_b)
        note = why if math.isnan(difference.value) else NO_INTERVAL if math.isnan(difference.low) else ""
        yield Compared(dataset, name, *values, *difference, len(a), len(set(patients(a))), note)


def _tests(dataset: str, a: list[Measured], b: list[Measured], grading: Grading) -> Iterator[PairedTest]:
    """Both tests on one data set."""
    arrays_a, arrays_b = grading.arrays(a), grading.arrays(b)
    related = INDEPENDENT if len(set(patients(a))) < len(a) else ""
    counts = mcnemar(grading.is_right(*arrays_a), grading.is_right(*arrays_b))
    yield PairedTest(dataset, "mcnemar", _found(counts), counts.p_value, related)
    if any(m.grade_alone for m in (*a, *b)):
        yield PairedTest(dataset, "delong", {}, float("nan"), NO_PROBABILITIES)
        return
    (ranked_a, positive), (ranked_b, _) = grading.ranked(*arrays_a), grading.ranked(*arrays_b)
    areas = delong(ranked_a, ranked_b, positive)
    why = NO_PHOTOGRAPH_OF_BOTH if math.isnan(areas.difference) else TOO_FEW
    yield PairedTest(dataset, "delong", _found(areas), areas.p_value, why if math.isnan(areas.p_value) else related)


def _found(result: Any) -> dict[str, float]:
    return {name: float(value) for name, value in result._asdict().items() if name != "p_value"}


def _differences_table(rows: list[Compared]) -> Table:
    title = f"difference, {rows[0].dataset} ({rows[0].photographs} photographs, {rows[0].patients} patients)"
    return Table(title, ("score", "A", "B", "A - B", "p"), [_difference_row(row) for row in rows])


def _difference_row(row: Compared) -> tuple[str, ...]:
    a, b = ("undefined" if math.isnan(value) else f"{value:.4g}" for value in (row.a, row.b))
    if math.isnan(row.difference):
        return row.score, a, b, f"undefined: {row.note}", ""
    if math.isnan(row.p_value):
        return row.score, a, b, f"{row.difference:.3g}", ""
    return row.score, a, b, f"{row.difference:.3g} [{row.low:.3g}, {row.high:.3g}]", f"{row.p_value:.3g}"


def _tests_table(rows: list[PairedTest]) -> Table:
    title = f"tests of no difference, {rows[0].dataset}"
    return Table(title, ("test", "found", "p", "note"), [_test_row(row) for row in rows])


def _test_row(row: PairedTest) -> tuple[str, ...]:
    found = ", ".join(f"{name} {value:.4g}" for name, value in row.found.items() if not math.isnan(value))
    return row.test, found, "undefined" if math.isnan(row.p_value) else f"{row.p_value:.3g}", row.note
