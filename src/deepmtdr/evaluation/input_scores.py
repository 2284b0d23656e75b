"""Scores by input image: does super-resolution help grading and segmentation? SR, bicubic and HR side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from deepmtdr.evaluation.grading import ZERO_PROBABILITY, auc_name, grade_arrays, grading_functions, is_graded
from deepmtdr.evaluation.lesions import ABSENT, PooledCurves, ResampledCurves, absent_note, dataset_curves
from deepmtdr.evaluation.photograph_result import Agreement, InputImage, PhotographResult
from deepmtdr.evaluation.scores import (
    ALL,
    MEAN_OVER_SETS,
    Bootstrap,
    Score,
    ScoreKey,
    ScoreTable,
    group_by_dataset,
    score_row,
)
from deepmtdr.evaluation.super_resolution import GAIN
from deepmtdr.labels import LabelSet
from deepmtdr.metrics import PooledCurve
from deepmtdr.metrics.intervals import Interval, mean_or_nan

INPUTS = (InputImage.SR, InputImage.BICUBIC, InputImage.HR)
MINUS_HR = "sr - hr"
"""Subject of the differences SR - HR: how much of HR's score is still missing."""
PAIRED = {GAIN: (InputImage.SR, InputImage.BICUBIC), MINUS_HR: (InputImage.SR, InputImage.HR)}
"""Subject of a paired difference -> the two images."""
GRADE_SCORES = ("kappa_quadratic", "accuracy", auc_name("referable"))

RowScore = Callable[[np.ndarray], float]
"""Function that computes a score of the photographs with the given indexes."""


def input_scores(
    measured: Sequence[PhotographResult],
    pools: Mapping[InputImage, PooledCurves],
    bootstrap: Bootstrap,
    labels: LabelSet,
) -> list[Score]:
    """Compute grading and lesion scores of the same network on each image, and the paired differences.

    Args:
        measured: photographs; those with predictions on all three images are used.
        pools: fine pixel counts of the photographs by image.
        bootstrap: how intervals are computed.
        labels: lesion types and grades.
    """
    rows: list[Score] = []
    for dataset, group in group_by_dataset(measured):
        if having := [m for m in group if InputImage.HR in m.other_inputs]:
            own = [
                *_grade_rows(MEAN_OVER_SETS if dataset == ALL else dataset, having, bootstrap, labels),
                *_lesion_rows(dataset, having, pools, bootstrap, labels),
            ]
            rows += [row for subject in (*INPUTS, *PAIRED) for row in own if row.subject == subject]
    return rows


def _lesion_rows(
    dataset: str,
    group: list[PhotographResult],
    pools: Mapping[InputImage, PooledCurves],
    bootstrap: Bootstrap,
    labels: LabelSet,
) -> Iterator[Score]:
    curves = {image: dataset_curves(pools.get(image, {}), dataset, labels) for image in INPUTS}
    for code in curves[InputImage.HR]:
        annotated = [m for m in group if code in m.lesions]
        values = {image: curves[image][code].average_precision() for image in INPUTS}
        scores = {
            image: _average_precision(ResampledCurves([m.for_input(image) for m in annotated], code))
            for image in INPUTS
        }
        why = absent_note(labels, code)
        yield from _side_by_side(dataset, f"aupr_{code}", values, scores, annotated, bootstrap, why)
    if annotated := [m for m in group if m.lesions]:
        yield from _mean_aupr_rows(dataset, annotated, curves, bootstrap, labels)


def _mean_aupr_rows(
    dataset: str,
    annotated: list[PhotographResult],
    curves: Mapping[InputImage, Mapping[str, PooledCurve]],
    bootstrap: Bootstrap,
    labels: LabelSet,
) -> Iterator[Score]:
    """Compute the mean AUPR over the lesion types on each image; undefined if it is undefined for a type."""
    values, scores = {}, {}
    for image in INPUTS:
        own = [m.for_input(image) for m in annotated]
        resampled = [_average_precision(ResampledCurves(own, code)) for code in labels.codes]
        of_types = [
            curves[image][code].average_precision() if code in curves[image] else np.nan for code in labels.codes
        ]
        values[image] = float(np.mean(of_types))
        scores[image] = lambda rows, resampled=resampled: float(np.mean([score(rows) for score in resampled]))
    yield from _side_by_side(dataset, "aupr_mean", values, scores, annotated, bootstrap, ABSENT)


def _average_precision(resampled: ResampledCurves) -> RowScore:
    return lambda rows: resampled(rows).average_precision()


def _side_by_side(
    dataset: str,
    name: str,
    values: Mapping[InputImage, float] | None,
    scores: Mapping[InputImage, RowScore],
    group: list[PhotographResult],
    bootstrap: Bootstrap,
    why: str,
) -> Iterator[Score]:
    """Compute one score on the three images, and the paired differences of `PAIRED`.

    Args:
        dataset: name of the data set.
        name: name of the score.
        values: the score of each image from all pixels; None: the score of all rows.
        scores: the score of each image, by image.
        group: the photographs.
        bootstrap: how intervals are computed.
        why: the note if the score is undefined.
    """
    numbers = [np.arange(len(group))]
    for image in INPUTS:
        key = ScoreKey(ScoreTable.BY_INPUT, dataset, image)
        row = score_row(key, name, scores[image], group, numbers, bootstrap, why, ZERO_PROBABILITY)
        yield row if values is None else row._replace(value=values[image])
    for subject, (one, other) in PAIRED.items():

        def difference(rows: np.ndarray, one: InputImage = one, other: InputImage = other) -> float:
            return scores[one](rows) - scores[other](rows)

        key = ScoreKey(ScoreTable.BY_INPUT, dataset, subject)
        row = score_row(key, name, difference, group, numbers, bootstrap, why, ZERO_PROBABILITY)
        yield row if values is None else row._replace(value=values[one] - values[other])


def _grade_rows(dataset: str, group: list[PhotographResult], bootstrap: Bootstrap, labels: LabelSet) -> Iterator[Score]:
    if graded := [m for m in group if is_graded(m)]:
        arrays = {image: grade_arrays([m.for_input(image) for m in graded]) for image in INPUTS}
        for name in GRADE_SCORES:
            function, why = grading_functions(labels)[name][:2]
            scores = {
                image: lambda rows, function=function, own=own: function(*(array[rows] for array in own))
                for image, own in arrays.items()
            }
            yield from _side_by_side(dataset, name, None, scores, graded, bootstrap, why)
    yield from _same_grade_rows(dataset, [m for m in group if m.probs], bootstrap)


def _same_grade_rows(dataset: str, predicted: list[PhotographResult], bootstrap: Bootstrap) -> Iterator[Score]:
    """Compute the fraction of photographs with the same predicted grade on SR (or bicubic) as on HR."""
    on_hr = [m.for_input(InputImage.HR).predicted_grade for m in predicted]
    for image in (InputImage.SR, InputImage.BICUBIC) if predicted else ():
        grades = [m.for_input(image).predicted_grade for m in predicted]
        same = np.array([grade == of_hr for grade, of_hr in zip(grades, on_hr, strict=True)])
        key = ScoreKey(ScoreTable.BY_INPUT, dataset, image)
        yield score_row(key, "same_grade_as_hr", mean_or_nan, predicted, [same], bootstrap, "")


def hallucination_scores(measured: Sequence[PhotographResult], bootstrap: Bootstrap, labels: LabelSet) -> list[Score]:
    """Compute the fraction of lesions on an image that are not in the reference, and of the reference that were lost.

    The reference is first what is detected on HR, which needs no annotation, for SR and bicubic; then the annotation,
    for HR too. Paired differences between the images follow: below 0, SR invents or loses less.
    """
    rows = []
    for dataset, group in group_by_dataset(measured):
        on_hr = [m for m in group if m.agreement]
        for code in labels.codes if on_hr else ():
            found = {image: [m.agreement[image][code] for m in on_hr] for image in (InputImage.SR, InputImage.BICUBIC)}
            rows += _agreement_rows(ScoreKey(ScoreTable.NOT_ON_HR, dataset, code), on_hr, found, bootstrap)
        for code in labels.codes:
            annotated = [m for m in group if code in m.annotated_agreement.get(InputImage.SR, {})]
            found = {image: [m.annotated_agreement[image][code] for m in annotated] for image in INPUTS}
            if annotated:
                rows += _agreement_rows(ScoreKey(ScoreTable.NOT_ANNOTATED, dataset, code), annotated, found, bootstrap)
    return rows


def _agreement_rows(
    key: ScoreKey,
    group: Sequence[PhotographResult],
    found: Mapping[InputImage, Sequence[Agreement]],
    bootstrap: Bootstrap,
) -> Iterator[Score]:
    """Compute the scores of one lesion type on each image, and their paired differences.

    Args:
        key: table and data set; the subject is the code of the type.
        group: the photographs.
        found: the agreement of each photograph, by image.
        bootstrap: how intervals are computed.
    """
    code, why = key.subject, "no lesion was detected"
    counts = {image: np.array(rows, np.float64).T for image, rows in found.items()}
    for image, (detected, hallucinated, reference, missed) in counts.items():
        own = key._replace(subject=f"{code} on {image}")
        yield own.row("seen_per_photograph", bootstrap.interval(mean_or_nan, group, detected), group, why)
        yield own.row("invented_share", bootstrap.interval(_ratio, group, hallucinated, detected), group, why)
        yield own.row("lost_share", bootstrap.interval(_ratio, group, missed, reference), group, why)
    for one, other in PAIRED.values():
        if one in counts and other in counts:
            own = key._replace(subject=f"{code} on {one} - {other}")
            for name, part, whole in (("invented_share", 1, 0), ("lost_share", 3, 2)):
                arrays = ([counts[image][part], counts[image][whole]] for image in (one, other))
                change = bootstrap.difference(_ratio, group, *arrays)
                yield own.row(name, Interval(change.value, change.low, change.high), group, why)


def _ratio(part: np.ndarray, whole: np.ndarray) -> float:
    return float(part.sum() / whole.sum()) if whole.sum() else float("nan")
