"""Whether one system is better than another on the same photographs: images, lesions and grades (Sec. V-B)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from deepmtdr.errors import DataError
from deepmtdr.evaluation.binary import BINARY_TASK
from deepmtdr.evaluation.grading import GRADE_TASK, NEEDS_BOTH_CLASSES, NO_PROBABILITIES, GradingTask
from deepmtdr.evaluation.lesions import ResampledCurves
from deepmtdr.evaluation.measure import SR, PhotographResult
from deepmtdr.evaluation.results import Evaluation, Table, json_safe, write_json
from deepmtdr.evaluation.scores import NO_INTERVAL, Bootstrap, group_by_dataset, nan_mean, patient_keys
from deepmtdr.evaluation.super_resolution import IMAGE_SCORES
from deepmtdr.metrics.intervals import Difference
from deepmtdr.metrics.paired_tests import delong, mcnemar
from deepmtdr.terms import Lesion

MAX_NAMED = 3
"""How many photographs a message names of those that it counts."""
INDEPENDENT = "takes photographs as independent, but some are of one patient"
TOO_FEW = "needs two photographs of either kind, and a spread"

PhotographKey = tuple[str, str]
"""Data set and name."""
Arrays = tuple[np.ndarray, np.ndarray]
"""Predictions and truths, as the scores take them."""


class ScoreDifference(NamedTuple):
    """One score of two systems on the same photographs."""

    dataset: str
    subject: str
    """As in the tables of an evaluation: `sr`, a lesion type, `grade`, `positive`."""
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
    """What the test saw, as `deepmtdr.metrics.paired_tests` names it."""
    p_value: float
    """Two-sided; nan: undefined, for the reason in `note`."""
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Everything that was said of two systems."""

    protocol: dict[str, Any]
    """Of both, and how the intervals were made."""
    differences: list[ScoreDifference]
    tests: list[PairedTest]
    left_out: list[PhotographKey]
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
            "differences": [json_safe(row._asdict()) for row in self.differences],
            "tests": [json_safe(row._asdict() | {"found": json_safe(row.found)}) for row in self.tests],
            "left_out": [{"dataset": dataset, "name": name} for dataset, name in self.left_out],
        }

    def write(self, folder: Path) -> None:
        """Write `comparison.json`, all or nothing.

        Raises:
            DataError: if the folder cannot be written.
        """
        write_json(folder / "comparison.json", self.as_dict())


def compare(
    a: Evaluation | Sequence[PhotographResult],
    b: Evaluation | Sequence[PhotographResult],
    *,
    bootstrap: Bootstrap | None = None,
) -> Comparison:
    """Score two systems on the same photographs, and test every difference.

    Args:
        a: an evaluation, or its photographs.
        b: of the other system; the order of the photographs may be another.
        bootstrap: how intervals and p-values are made.

    Returns:
        A minus B by data set: the super-resolved image's scores, each lesion type's pooled AUPR, every grading score,
        each over the photographs of which both systems have it.

    Raises:
        DataError: if one has photographs that the other lacks, the two differ in a photograph's true grade or patient,
            one was asked for grade >= 1 and the other for grades 0-4, or nothing is scored in both.
    """
    bootstrap = bootstrap or Bootstrap()
    ours, theirs = (list(x.results if isinstance(x, Evaluation) else x) for x in (a, b))
    _asked_the_same(ours, theirs)
    pairs = _pairs(ours, theirs)
    sound = [(x, y) for x, y in pairs if not (x.failure or y.failure)]
    groups = [(name, *_both(group, sound)) for name, group in group_by_dataset([x for x, _ in sound])]
    differences = [row for group in groups for row in _differences(*group, bootstrap)]
    if not differences:
        raise DataError("no photograph with a known truth that both systems read, expected at least one")
    return Comparison(
        protocol={
            **{name: x.protocol for name, x in (("a", a), ("b", b)) if isinstance(x, Evaluation)},
            "bootstrap": {"unit": "patient", **bootstrap._asdict()},
        },
        differences=differences,
        tests=[row for group in groups for row in _tests(*group)],
        left_out=[_photograph(x) for x, y in pairs if x.failure or y.failure],
    )


def _both(
    group: list[PhotographResult], pairs: list[tuple[PhotographResult, PhotographResult]]
) -> tuple[list[PhotographResult], list[PhotographResult]]:
    other = {_photograph(x): y for x, y in pairs}
    return group, [other[_photograph(x)] for x in group]


def _where(
    is_there: Callable[[PhotographResult], bool], a: list[PhotographResult], b: list[PhotographResult]
) -> tuple[list[PhotographResult], list[PhotographResult]]:
    """The photographs of which both systems have it."""
    kept = [(x, y) for x, y in zip(a, b, strict=True) if is_there(x) and is_there(y)]
    return [x for x, _ in kept], [y for _, y in kept]


def _asked_the_same(a: list[PhotographResult], b: list[PhotographResult]) -> None:
    binary = [any(m.p_positive is not None or m.positive is not None for m in system) for system in (a, b)]
    if binary[0] != binary[1]:
        raise DataError("one system was asked for grade >= 1, the other for grades 0-4; expected the same of both")


def _pairs(a: list[PhotographResult], b: list[PhotographResult]) -> list[tuple[PhotographResult, PhotographResult]]:
    """Each photograph as both saw it, in the order of A."""
    ours, theirs = _by_photograph("A", a), _by_photograph("B", b)
    for system, lacking in (("A", theirs.keys() - ours.keys()), ("B", ours.keys() - theirs.keys())):
        if lacking:
            names = [name for _, name in sorted(lacking)]
            shown = ", ".join(names[:MAX_NAMED]) + (", ..." if len(names) > MAX_NAMED else "")
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


def _by_photograph(system: str, measured: list[PhotographResult]) -> dict[PhotographKey, PhotographResult]:
    found: dict[PhotographKey, PhotographResult] = {}
    for m in measured:
        if found.setdefault(_photograph(m), m) is not m:
            raise DataError(f"{m.dataset} {m.name}: twice in system {system}, expected each photograph once")
    return found


def _photograph(m: PhotographResult) -> PhotographKey:
    return m.dataset, m.name


def _differences(
    dataset: str, a: list[PhotographResult], b: list[PhotographResult], bootstrap: Bootstrap
) -> Iterator[ScoreDifference]:
    """Every score of one data set."""
    yield from _image_differences(dataset, *_where(lambda m: bool(m.image), a, b), bootstrap)
    for lesion in Lesion:
        yield from _lesion_differences(
            dataset, lesion, *_where(lambda m, lesion=lesion: lesion in m.lesions, a, b), bootstrap
        )
    for grading in (GRADE_TASK, BINARY_TASK):
        yield from _grade_differences(dataset, grading, *_where(grading.is_scored, a, b), bootstrap)


def _compared(
    place: tuple[str, str, str], values: tuple[float, float], found: Difference, group: list[PhotographResult], why: str
) -> ScoreDifference:
    note = why if math.isnan(found.value) else NO_INTERVAL if math.isnan(found.low) else ""
    return ScoreDifference(*place, *values, *found, len(group), len(set(patient_keys(group))), note)


def _image_differences(
    dataset: str, a: list[PhotographResult], b: list[PhotographResult], bootstrap: Bootstrap
) -> Iterator[ScoreDifference]:
    for name in IMAGE_SCORES:
        values = [np.array([m.image.get(f"{name}_{SR}", np.nan) for m in system]) for system in (a, b)]
        if a and not all(np.isnan(own).all() for own in values):
            found = bootstrap.difference(nan_mean, a, [values[0]], [values[1]])
            means = nan_mean(values[0]), nan_mean(values[1])
            yield _compared((dataset, SR, name), means, found, a, "no pixel counts")


def _lesion_differences(
    dataset: str, lesion: Lesion, a: list[PhotographResult], b: list[PhotographResult], bootstrap: Bootstrap
) -> Iterator[ScoreDifference]:
    """AUPR of all pixels, from the coarse counts that are kept of each photograph: within 0.01 of the tables'."""
    if not a:
        return
    systems = [ResampledCurves(a, lesion), ResampledCurves(b, lesion)]

    def aupr(system: np.ndarray, rows: np.ndarray) -> float:
        return systems[system[0]](rows).average_precision()

    numbers = np.arange(len(a))
    arrays = [(np.full(len(a), system), numbers) for system in (0, 1)]
    found = bootstrap.difference(aupr, a, *arrays)
    values = aupr(*arrays[0]), aupr(*arrays[1])
    why = f"no {lesion.full_name} on these photographs"
    yield _compared((dataset, lesion.name, "aupr_pooled"), values, found, a, why)


def _grade_differences(
    dataset: str, grading: GradingTask, a: list[PhotographResult], b: list[PhotographResult], bootstrap: Bootstrap
) -> Iterator[ScoreDifference]:
    if not a:
        return
    arrays_a, arrays_b = grading.arrays(a), grading.arrays(b)
    scores_a, scores_b = grading.defined_scores(a), grading.defined_scores(b)
    for name, (score, why) in grading.defined_scores([*a, *b]).items():
        values = scores_a[name][0](*arrays_a), scores_b[name][0](*arrays_b)
        found = bootstrap.difference(score, a, arrays_a, arrays_b)
        yield _compared((dataset, grading.subject, name), values, found, a, why)


def _tests(dataset: str, a: list[PhotographResult], b: list[PhotographResult]) -> Iterator[PairedTest]:
    for grading in (GRADE_TASK, BINARY_TASK):
        yield from _tests_of(dataset, grading, *_where(grading.is_scored, a, b))


def _tests_of(
    dataset: str, grading: GradingTask, a: list[PhotographResult], b: list[PhotographResult]
) -> Iterator[PairedTest]:
    """Both tests on one data set."""
    if not a:
        return
    arrays_a, arrays_b = grading.arrays(a), grading.arrays(b)
    related = INDEPENDENT if len(set(patient_keys(a))) < len(a) else ""
    counts = mcnemar(grading.is_correct(*arrays_a), grading.is_correct(*arrays_b))
    yield PairedTest(dataset, "mcnemar", _found(counts), counts.p_value, related)
    if any(m.grade_only for m in (*a, *b)):
        yield PairedTest(dataset, "delong", {}, float("nan"), NO_PROBABILITIES)
        return
    (ranked_a, positive), (ranked_b, _) = grading.auc_inputs(*arrays_a), grading.auc_inputs(*arrays_b)
    areas = delong(ranked_a, ranked_b, positive)
    why = NEEDS_BOTH_CLASSES if math.isnan(areas.difference) else TOO_FEW
    yield PairedTest(dataset, "delong", _found(areas), areas.p_value, why if math.isnan(areas.p_value) else related)


def _found(result: Any) -> dict[str, float]:
    return {name: float(value) for name, value in result._asdict().items() if name != "p_value"}


def _differences_table(rows: list[ScoreDifference]) -> Table:
    most = max(rows, key=lambda row: row.photographs)
    title = f"difference, {most.dataset} ({most.photographs} photographs, {most.patients} patients)"
    return Table(title, ("", "score", "A", "B", "A - B", "p"), [_difference_row(row) for row in rows])


def _difference_row(row: ScoreDifference) -> tuple[str, ...]:
    a, b = ("undefined" if math.isnan(value) else f"{value:.4g}" for value in (row.a, row.b))
    told = row.subject, row.score, a, b
    if math.isnan(row.difference):
        return *told, f"undefined: {row.note}", ""
    if math.isnan(row.p_value):
        return *told, f"{row.difference:.3g}", ""
    return *told, f"{row.difference:.3g} [{row.low:.3g}, {row.high:.3g}]", f"{row.p_value:.3g}"


def _tests_table(rows: list[PairedTest]) -> Table:
    title = f"tests of no difference, {rows[0].dataset}"
    return Table(title, ("test", "found", "p", "note"), [_test_row(row) for row in rows])


def _test_row(row: PairedTest) -> tuple[str, ...]:
    found = ", ".join(f"{name} {value:.4g}" for name, value in row.found.items() if not math.isnan(value))
    return row.test, found, "undefined" if math.isnan(row.p_value) else f"{row.p_value:.3g}", row.note
