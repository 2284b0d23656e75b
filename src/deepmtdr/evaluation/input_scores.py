"""Whether super-resolution helps what comes after it: grades and lesions read from SR, bicubic and HR, side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from deepmtdr.evaluation.grading import GRADE_TASK, GRADING_SCORES, ZERO_PROBABILITY
from deepmtdr.evaluation.lesions import PooledCurves, ResampledCurves, dataset_curves
from deepmtdr.evaluation.measure import BICUBIC, HR, SR, PhotographResult
from deepmtdr.evaluation.scores import Bootstrap, Score, ScoreKey, group_by_dataset
from deepmtdr.metrics import PooledCurve
from deepmtdr.metrics.intervals import Interval
from deepmtdr.terms import Lesion

TASK = "by input"
"""Task-driven evaluation: one network, three images."""
HALLUCINATIONS = "lesions not on HR"
GAIN = "gain"
INPUTS = (SR, BICUBIC, HR)
GRADE_SCORES = ("kappa_quadratic", "accuracy", "auc_referable")

RowScore = Callable[[np.ndarray], float]
"""A score of photographs given by their numbers."""


def input_scores(
    measured: Sequence[PhotographResult], pools: Mapping[str, PooledCurves], bootstrap: Bootstrap
) -> list[Score]:
    """Grading and lesion scores by image, and the paired gain of SR over bicubic.

    Args:
        measured: photographs; those that were read from all three images count.
        pools: their pixels by reading.
        bootstrap: how the intervals are made.
    """
    rows: list[Score] = []
    for dataset, group in group_by_dataset(measured):
        if having := [m for m in group if HR in m.other_inputs]:
            own = list(_rows(dataset, having, pools, bootstrap))
            rows += [row for subject in (*INPUTS, GAIN) for row in own if row.subject == subject]
    return rows


def _rows(
    dataset: str, group: list[PhotographResult], pools: Mapping[str, PooledCurves], bootstrap: Bootstrap
) -> Iterator[Score]:
    yield from _grade_rows(dataset, group, bootstrap)
    curves = {name: dataset_curves(pools.get(name, {}), dataset) for name in INPUTS}
    for lesion in curves[HR]:
        annotated = [m for m in group if lesion in m.lesions]
        values = {name: curves[name][lesion].average_precision() for name in INPUTS}
        drawn = {name: ResampledCurves([m.for_input(name) for m in annotated], lesion) for name in INPUTS}
        sums = {name: _average_precision(drawn[name]) for name in INPUTS}
        why = f"no {lesion.full_name} on these photographs"
        yield from _side_by_side(dataset, f"aupr_{lesion.name}", values, sums, annotated, bootstrap, why)


def _average_precision(drawn: Callable[[np.ndarray], PooledCurve]) -> RowScore:
    return lambda rows: drawn(rows).average_precision()


def _side_by_side(
    dataset: str,
    name: str,
    values: Mapping[str, float],
    sums: Mapping[str, RowScore],
    group: list[PhotographResult],
    bootstrap: Bootstrap,
    why: str,
) -> Iterator[Score]:
    """One score of the three images and of the gain, whose interval is paired."""
    numbers = np.arange(len(group))
    for image in INPUTS:
        interval = bootstrap.interval(sums[image], group, numbers)._replace(value=values[image])
        yield ScoreKey(TASK, dataset, image).row(name, interval, group, why, ZERO_PROBABILITY)
    gain = bootstrap.interval(lambda rows: sums[SR](rows) - sums[BICUBIC](rows), group, numbers)
    gain = gain._replace(value=values[SR] - values[BICUBIC])
    yield ScoreKey(TASK, dataset, GAIN).row(name, gain, group, why, ZERO_PROBABILITY)


def _grade_rows(dataset: str, group: list[PhotographResult], bootstrap: Bootstrap) -> Iterator[Score]:
    graded = [m for m in group if GRADE_TASK.is_scored(m)]
    if graded:
        arrays = {name: GRADE_TASK.arrays([m.for_input(name) for m in graded]) for name in INPUTS}
        everybody = np.arange(len(graded))
        for name in GRADE_SCORES:
            score, why = GRADING_SCORES[name]
            sums = {
                image: lambda rows, score=score, own=own: score(own[0][rows], own[1][rows])
                for image, own in arrays.items()
            }
            values = {image: sums[image](everybody) for image in INPUTS}
            yield from _side_by_side(dataset, name, values, sums, graded, bootstrap, why)
    read = [m for m in group if m.probs]
    of_hr = np.array([np.argmax(m.other_inputs[HR].probs) for m in read])
    for image in (SR, BICUBIC) if read else ():
        same = np.array([np.argmax(m.for_input(image).probs) for m in read]) == of_hr
        interval = bootstrap.interval(lambda rows: float(rows.mean()), read, same)
        yield ScoreKey(TASK, dataset, image).row("same_grade_as_hr", interval, read, "")


def hallucination_scores(measured: Sequence[PhotographResult], bootstrap: Bootstrap) -> list[Score]:
    """Of the lesions that the network sees on SR or bicubic, the share that it does not see on HR, and the share lost.

    What it sees on HR stands for the truth: no annotation is needed.
    """
    return [
        ScoreKey(HALLUCINATIONS, dataset, f"{lesion.name} on {image}").row(name, interval, having, "no lesion was seen")
        for dataset, group in group_by_dataset(measured)
        if (having := [m for m in group if m.agreement])
        for lesion in Lesion
        for image in (SR, BICUBIC)
        for name, interval in _agreement_scores(having, image, lesion, bootstrap)
    ]


def _agreement_scores(
    group: list[PhotographResult], image: str, lesion: Lesion, bootstrap: Bootstrap
) -> Iterator[tuple[str, Interval]]:
    seen, invented, on_hr, lost = np.array([m.agreement[image][lesion] for m in group], np.float64).T
    yield "seen_per_photograph", bootstrap.interval(lambda values: float(values.mean()), group, seen)
    yield "invented_share", bootstrap.interval(_ratio, group, invented, seen)
    yield "lost_share", bootstrap.interval(_ratio, group, lost, on_hr)


def _ratio(part: np.ndarray, whole: np.ndarray) -> float:
    return float(part.sum() / whole.sum()) if whole.sum() else float("nan")
