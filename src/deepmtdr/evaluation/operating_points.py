"""Sensitivity and specificity at fixed operating points, for each threshold of the label set."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from deepmtdr import metrics
from deepmtdr.evaluation.grading import (
    DEFAULT_THRESHOLD,
    NEEDS_BOTH_CLASSES,
    at_least,
    grade_arrays,
    grade_task,
    threshold_title,
)
from deepmtdr.evaluation.photograph_result import PhotographResult
from deepmtdr.evaluation.scores import MEAN_OVER_SETS, Bootstrap, Score, ScoreKey, ScoreTable
from deepmtdr.labels import LabelSet
from deepmtdr.metrics import OperatingPoint
from deepmtdr.metrics.intervals import Interval, mean_or_nan

SPECIFICITIES = (0.90, 0.95)
"""Specificities at which the sensitivity is reported."""
NO_POSITIVE_CALL = "infinite: no threshold is specific enough, so no photograph is called positive"


def operating_point_scores(measured: Sequence[PhotographResult], bootstrap: Bootstrap, labels: LabelSet) -> list[Score]:
    """Compute the sensitivity and the threshold at fixed specificities, and both rates at a threshold of one half.

    There is no mean over the data sets: each has its own thresholds.

    The thresholds are chosen on the same photographs, so the sensitivities are optimistic. `deepmtdr calibrate` chooses
    thresholds on other photographs.
    """
    return [
        ScoreKey(ScoreTable.OPERATING_POINTS, dataset, threshold_title(threshold)).row(
            name, interval, scored, NEEDS_BOTH_CLASSES, NO_POSITIVE_CALL
        )
        for dataset, scored in grade_task(labels).by_dataset(measured)
        if dataset != MEAN_OVER_SETS and not any(m.grade_only for m in scored)
        for threshold, least in labels.thresholds.items()
        for name, interval in _operating_points(least, scored, bootstrap)
    ]


def _operating_points(
    least: int, scored: list[PhotographResult], bootstrap: Bootstrap
) -> Iterator[tuple[str, Interval]]:
    _, probs, truth = grade_arrays(scored)
    arrays = at_least(probs, truth, least)
    picks: dict[str, Callable[[OperatingPoint], float]] = {
        "sensitivity": lambda point: point.sensitivity,
        "threshold": lambda point: point.threshold,
    }
    for specificity in SPECIFICITIES:
        for name, pick in picks.items():

            def score(
                p: np.ndarray,
                yes: np.ndarray,
                pick: Callable[[OperatingPoint], float] = pick,
                specificity: float = specificity,
            ) -> float:
                return pick(metrics.sensitivity_at_specificity(p, yes, specificity))

            yield f"{name}_at_specificity_{100 * specificity:.0f}", bootstrap.interval(score, scored, *arrays)
    yield "sensitivity_at_half", bootstrap.interval(_sensitivity_at_half, scored, *arrays)
    yield "specificity_at_half", bootstrap.interval(_specificity_at_half, scored, *arrays)


def _sensitivity_at_half(p: np.ndarray, positive: np.ndarray) -> float:
    return mean_or_nan(p[positive] >= DEFAULT_THRESHOLD)


def _specificity_at_half(p: np.ndarray, positive: np.ndarray) -> float:
    return mean_or_nan(p[~positive] < DEFAULT_THRESHOLD)
