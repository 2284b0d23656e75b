"""Scores by input image: does super-resolution help grading and segmentation? SR, bicubic and HR side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from deepmtdr.evaluation.grading import ZERO_PROBABILITY, auc_name, grade_arrays, grading_functions, is_graded
from deepmtdr.evaluation.lesions import PooledCurves, ResampledCurves, absent_note, dataset_curves
from deepmtdr.evaluation.photograph_result import InputImage, PhotographResult
from deepmtdr.evaluation.scores import Bootstrap, Score, ScoreKey, ScoreTable, group_by_dataset
from deepmtdr.evaluation.super_resolution import GAIN
from deepmtdr.labels import LabelSet
from deepmtdr.metrics.intervals import Interval

INPUTS = (InputImage.SR, InputImage.BICUBIC, InputImage.HR)
GRADE_SCORES = ("kappa_quadratic", "accuracy", auc_name("referable"))

RowScore = Callable[[np.ndarray], float]
"""Function that computes a score of the photographs with the given indexes."""


def input_scores(
    measured: Sequence[PhotographResult],
    pools: Mapping[InputImage, PooledCurves],
    bootstrap: Bootstrap,
    labels: LabelSet,
) -> list[Score]:
    """Compute grading and lesion scores of the same network on each image, and the paired gain of SR over bicubic.

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
                *_grade_rows(dataset, having, bootstrap, labels),
                *_lesion_rows(dataset, having, pools, bootstrap, labels),
            ]
            rows += [row for subject in (*INPUTS, GAIN) for row in own if row.subject == subject]
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


def _average_precision(resampled: ResampledCurves) -> RowScore:
    return lambda rows: resampled(rows).average_precision()


def _side_by_side(
    dataset: str,
    name: str,
    values: Mapping[InputImage, float],
    scores: Mapping[InputImage, RowScore],
    group: list[PhotographResult],
    bootstrap: Bootstrap,
    why: str,
) -> Iterator[Score]:
    """Compute one score on the three images, and the gain of SR over bicubic with its paired interval."""
    numbers = np.arange(len(group))
    for image in INPUTS:
        interval = bootstrap.interval(scores[image], group, numbers)._replace(value=values[image])
        yield ScoreKey(ScoreTable.BY_INPUT, dataset, image).row(name, interval, group, why, ZERO_PROBABILITY)
    sr, plain = InputImage.SR, InputImage.BICUBIC
    gain = bootstrap.interval(lambda rows: scores[sr](rows) - scores[plain](rows), group, numbers)
    gain = gain._replace(value=values[sr] - values[plain])
    yield ScoreKey(ScoreTable.BY_INPUT, dataset, GAIN).row(name, gain, group, why, ZERO_PROBABILITY)


def _grade_rows(dataset: str, group: list[PhotographResult], bootstrap: Bootstrap, labels: LabelSet) -> Iterator[Score]:
    if graded := [m for m in group if is_graded(m)]:
        arrays = {image: grade_arrays([m.for_input(image) for m in graded]) for image in INPUTS}
        everything = np.arange(len(graded))
        for name in GRADE_SCORES:
            function, why, _ = grading_functions(labels)[name]
            scores = {
                image: lambda rows, function=function, own=own: function(own[0][rows], own[1][rows])
                for image, own in arrays.items()
            }
            values = {image: scores[image](everything) for image in INPUTS}
            yield from _side_by_side(dataset, name, values, scores, graded, bootstrap, why)
    yield from _same_grade_rows(dataset, [m for m in group if m.probs], bootstrap)


def _same_grade_rows(dataset: str, predicted: list[PhotographResult], bootstrap: Bootstrap) -> Iterator[Score]:
    """Compute the fraction of photographs with the same predicted grade on SR (or bicubic) as on HR."""
    on_hr = [m.for_input(InputImage.HR).predicted_grade for m in predicted]
    for image in (InputImage.SR, InputImage.BICUBIC) if predicted else ():
        grades = [m.for_input(image).predicted_grade for m in predicted]
        same = np.array([grade == of_hr for grade, of_hr in zip(grades, on_hr, strict=True)])
        interval = bootstrap.interval(lambda rows: float(rows.mean()), predicted, same)
        yield ScoreKey(ScoreTable.BY_INPUT, dataset, image).row("same_grade_as_hr", interval, predicted, "")


def hallucination_scores(measured: Sequence[PhotographResult], bootstrap: Bootstrap, labels: LabelSet) -> list[Score]:
    """Compute the fraction of lesions on SR or bicubic that are not on HR, and of lesions on HR that were lost.

    The detections on HR are taken as the truth, so no annotation is needed.
    """
    return [
        ScoreKey(ScoreTable.NOT_ON_HR, dataset, f"{code} on {image}").row(
            name, interval, having, "no lesion was detected"
        )
        for dataset, group in group_by_dataset(measured)
        if (having := [m for m in group if m.agreement])
        for code in labels.codes
        for image in (InputImage.SR, InputImage.BICUBIC)
        for name, interval in _agreement_scores(having, image, code, bootstrap)
    ]


def _agreement_scores(
    group: list[PhotographResult], image: InputImage, code: str, bootstrap: Bootstrap
) -> Iterator[tuple[str, Interval]]:
    detected, hallucinated, on_hr, missed = np.array([m.agreement[image][code] for m in group], np.float64).T
    yield "seen_per_photograph", bootstrap.interval(lambda values: float(values.mean()), group, detected)
    yield "invented_share", bootstrap.interval(_ratio, group, hallucinated, detected)
    yield "lost_share", bootstrap.interval(_ratio, group, missed, on_hr)


def _ratio(part: np.ndarray, whole: np.ndarray) -> float:
    return float(part.sum() / whole.sum()) if whole.sum() else float("nan")
