"""Compare two systems on the same photographs: images, lesions and grades (Sec. V-B)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from deepmtdr.errors import DataError
from deepmtdr.evaluation.binary import BINARY_TASK
from deepmtdr.evaluation.comparison import Comparison, PairedTest, ScoreDifference
from deepmtdr.evaluation.grading import NEEDS_BOTH_CLASSES, NO_PROBABILITIES, GradingTask, grade_task
from deepmtdr.evaluation.lesions import ResampledCurves, absent_note
from deepmtdr.evaluation.pairing import Pair, pair_results, photograph_key
from deepmtdr.evaluation.photograph_result import InputImage, PhotographResult
from deepmtdr.evaluation.results import Evaluation
from deepmtdr.evaluation.scores import (
    ALL,
    DEFAULT_BOOTSTRAP,
    MEAN_OVER_SETS,
    NO_INTERVAL,
    Bootstrap,
    group_by_dataset,
    patient_count,
)
from deepmtdr.evaluation.super_resolution import IMAGE_SCORES, image_scores
from deepmtdr.labels import DIABETIC_RETINOPATHY, LabelSet
from deepmtdr.metrics.intervals import Difference, nan_mean
from deepmtdr.metrics.paired_tests import AucDifference, McNemar, delong, mcnemar
from deepmtdr.metrics.stratified import mean_over_strata

DEPENDENT = "assumes independent photographs, but some are of the same patient"
TOO_FEW = "needs two positive and two negative photographs, and a variance above 0"


class _Case(NamedTuple):
    """The photographs of one data set as predicted by both systems, in the same order."""

    dataset: str
    a: list[PhotographResult]
    b: list[PhotographResult]

    def where(self, known: Callable[[PhotographResult], bool]) -> _Case:
        """The case restricted to the photographs for which `known` is true of the results of both systems."""
        kept = [(x, y) for x, y in zip(self.a, self.b, strict=True) if known(x) and known(y)]
        return _Case(self.dataset, [x for x, _ in kept], [y for _, y in kept])


def compare(
    a: Evaluation | Sequence[PhotographResult],
    b: Evaluation | Sequence[PhotographResult],
    *,
    bootstrap: Bootstrap = DEFAULT_BOOTSTRAP,
    labels: LabelSet = DIABETIC_RETINOPATHY,
) -> Comparison:
    """Compute every score of two systems on the same photographs, and test the differences.

    Args:
        a: an evaluation, or its photographs.
        b: the same for the other system; the photographs can be in another order.
        bootstrap: how intervals and p-values are computed.
        labels: lesion types and grades; not used for an `Evaluation`, which has a label set.

    Returns:
        The differences A - B for each data set: scores of the SR image, pooled AUPR of each lesion type, and every
        score of the grade. Each is computed over the photographs for which both systems have it. Of several data sets
        together, images and lesions are pooled; scores of the grade are means over the data sets, and there is no
        McNemar's or DeLong's test.

    Raises:
        DataError: if the systems have different photographs, labels or tasks, or no photograph is scored in both.
    """
    labels = _common_labels(a, b, labels)
    of_a, of_b = (list(x.results if isinstance(x, Evaluation) else x) for x in (a, b))
    _check_same_task(of_a, of_b)
    pairs = pair_results(of_a, of_b)
    cases = list(_cases([pair for pair in pairs if not pair.failed]))
    tasks = (grade_task(labels), BINARY_TASK)
    differences = [row for case in cases for row in _differences(case, tasks, labels, bootstrap)]
    if not differences:
        raise DataError("found no photograph with a known label and predictions of both systems, expected at least one")
    return Comparison(
        protocol={
            **{name: x.protocol for name, x in (("a", a), ("b", b)) if isinstance(x, Evaluation)},
            "bootstrap": bootstrap.to_protocol(),
        },
        differences=differences,
        tests=[row for case in cases if case.dataset != ALL for task in tasks for row in _tests(case, task)],
        left_out=[photograph_key(pair.a) for pair in pairs if pair.failed],
    )


def _common_labels(
    a: Evaluation | Sequence[PhotographResult], b: Evaluation | Sequence[PhotographResult], labels: LabelSet
) -> LabelSet:
    """The label set of the evaluations, which must be the same."""
    found = [x.labels for x in (a, b) if isinstance(x, Evaluation)]
    if any(other != found[0] for other in found):
        raise DataError(f"the systems have the label sets {found[0].name!r} and {found[1].name!r}; expected the same")
    return found[0] if found else labels


def _check_same_task(a: list[PhotographResult], b: list[PhotographResult]) -> None:
    binary = [any(m.p_positive is not None or m.positive is not None for m in system) for system in (a, b)]
    if binary[0] != binary[1]:
        raise DataError("one system predicts grade >= 1 only, the other all grades; expected the same task")


def _cases(pairs: Sequence[Pair]) -> Iterator[_Case]:
    """Make a case for each data set, then one for all together if there are several."""
    other = {photograph_key(pair.a): pair.b for pair in pairs}
    for dataset, group in group_by_dataset([pair.a for pair in pairs]):
        yield _Case(dataset, group, [other[photograph_key(m)] for m in group])


def _differences(
    case: _Case, tasks: Sequence[GradingTask], labels: LabelSet, bootstrap: Bootstrap
) -> Iterator[ScoreDifference]:
    dataset = MEAN_OVER_SETS if case.dataset == ALL else case.dataset
    yield from _image_differences(case.where(lambda m: bool(m.image)), bootstrap)
    unions = sorted({code for m in case.a for code in m.lesions} - set(labels.codes))
    for code in (*labels.codes, *unions):
        annotated = case.where(lambda m, code=code: code in m.lesions)
        yield from _lesion_differences(annotated, code, absent_note(labels, code), bootstrap)
    for task in tasks:
        yield from _grade_differences(case.where(task.is_scored)._replace(dataset=dataset), task, bootstrap)


def _row(
    case: _Case, subject: str, score: str, values: tuple[float, float], found: Difference, why: str
) -> ScoreDifference:
    note = why if math.isnan(found.value) else NO_INTERVAL if math.isnan(found.low) else ""
    return ScoreDifference(case.dataset, subject, score, *values, *found, len(case.a), patient_count(case.a), note)


def _image_differences(case: _Case, bootstrap: Bootstrap) -> Iterator[ScoreDifference]:
    for name in IMAGE_SCORES:
        a, b = (image_scores(system, name, InputImage.SR) for system in (case.a, case.b))
        if case.a and not (np.isnan(a).all() and np.isnan(b).all()):
            found = bootstrap.difference(nan_mean, case.a, [a], [b])
            yield _row(case, InputImage.SR, name, (nan_mean(a), nan_mean(b)), found, "no pixel counts")


def _lesion_differences(case: _Case, code: str, why: str, bootstrap: Bootstrap) -> Iterator[ScoreDifference]:
    """Compare the AUPR of all pixels, from coarse counts of each photograph: within 0.01 of the value in the tables."""
    if not case.a:
        return
    systems = [ResampledCurves(case.a, code), ResampledCurves(case.b, code)]

    def aupr(system: np.ndarray, rows: np.ndarray) -> float:
        return systems[system[0]](rows).average_precision()

    numbers = np.arange(len(case.a))
    arrays = [(np.full(len(case.a), system), numbers) for system in (0, 1)]
    found = bootstrap.difference(aupr, case.a, *arrays)
    yield _row(case, code, "aupr_pooled", (aupr(*arrays[0]), aupr(*arrays[1])), found, why)


def _grade_differences(case: _Case, task: GradingTask, bootstrap: Bootstrap) -> Iterator[ScoreDifference]:
    over_sets = case.dataset == MEAN_OVER_SETS
    if not case.a or (over_sets and len({m.dataset for m in case.a}) == 1):
        return
    arrays_a, arrays_b = task.arrays(case.a), task.arrays(case.b)
    scores_a, scores_b = task.defined_scores(case.a), task.defined_scores(case.b)
    strata = [m.dataset for m in case.a] if over_sets else [case.dataset] * len(case.a)
    for name, score in task.defined_scores([*case.a, *case.b]).items():
        a = mean_over_strata(scores_a[name].function, strata, *arrays_a)
        b = mean_over_strata(scores_b[name].function, strata, *arrays_b)
        found = bootstrap.difference(score.function, case.a, arrays_a, arrays_b, over_sets=over_sets)
        values = a, b
        yield _row(case, task.subject, name, values, found, score.undefined_reason)


def _tests(case: _Case, task: GradingTask) -> Iterator[PairedTest]:
    """Do McNemar's and DeLong's test on one data set."""
    case = case.where(task.is_scored)
    if not case.a:
        return
    arrays_a, arrays_b = task.arrays(case.a), task.arrays(case.b)
    dependent = DEPENDENT if patient_count(case.a) < len(case.a) else ""
    counts = mcnemar(task.is_correct(*arrays_a), task.is_correct(*arrays_b))
    yield PairedTest(case.dataset, "mcnemar", _without_p_value(counts), counts.p_value, dependent)
    if any(m.grade_only for m in (*case.a, *case.b)):
        yield PairedTest(case.dataset, "delong", {}, float("nan"), NO_PROBABILITIES)
        return
    (scores_a, positive), (scores_b, _) = task.auc_inputs(*arrays_a), task.auc_inputs(*arrays_b)
    areas = delong(scores_a, scores_b, positive)
    why = NEEDS_BOTH_CLASSES if math.isnan(areas.difference) else TOO_FEW
    note = why if math.isnan(areas.p_value) else dependent
    yield PairedTest(case.dataset, "delong", _without_p_value(areas), areas.p_value, note)


def _without_p_value(result: AucDifference | McNemar) -> dict[str, float]:
    return {name: float(value) for name, value in result._asdict().items() if name != "p_value"}
