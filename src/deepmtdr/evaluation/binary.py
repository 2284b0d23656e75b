"""Scores of the question "grade >= 1", for data sets that only distinguish negative and positive (Sec. V-A)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from deepmtdr import metrics
from deepmtdr.datasets.sample import Sample
from deepmtdr.evaluation.grading import DEFAULT_THRESHOLD, NEEDS_BOTH_CLASSES, GradingScore, GradingScores, GradingTask
from deepmtdr.evaluation.photograph_result import PhotographResult
from deepmtdr.metrics.intervals import mean_or_nan


def _is_right(p_positive: np.ndarray, positive: np.ndarray) -> np.ndarray:
    return (p_positive >= DEFAULT_THRESHOLD) == positive


def _accuracy(p_positive: np.ndarray, positive: np.ndarray) -> float:
    return mean_or_nan(_is_right(p_positive, positive))


BINARY_SCORES: GradingScores = {
    "accuracy": GradingScore(_accuracy, needs_probabilities=False),
    "sensitivity": GradingScore(
        lambda p, positive: _accuracy(p[positive], positive[positive]), "no positive photograph", False
    ),
    "specificity": GradingScore(
        lambda p, positive: _accuracy(p[~positive], positive[~positive]), "no negative photograph", False
    ),
    "auc": GradingScore(metrics.auc, NEEDS_BOTH_CLASSES),
}


def _arrays(scored: list[PhotographResult]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([m.p_positive for m in scored], np.float64), np.array([m.positive for m in scored], np.bool_)


BINARY_TASK = GradingTask(
    subject="positive",
    scores=BINARY_SCORES,
    is_scored=lambda m: m.p_positive is not None and m.positive is not None,
    arrays=_arrays,
    is_correct=_is_right,
    auc_inputs=lambda p_positive, positive: (p_positive, positive),
)
"""The task of predicting negative or positive. Two systems are compared by `auc`."""


def use_binary_labels(measured: Iterable[PhotographResult], samples: Sequence[Sample]) -> list[PhotographResult]:
    """Replace grades by negative and positive in data sets that only distinguish these two.

    In such a data set, negative photographs have grade 0 and positive ones have no grade. Scoring the graded ones alone
    would be a biased selection.

    Args:
        measured: one result for each sample, in their order.
        samples: the photographs with their labels.

    Returns:
        The results. In these data sets they have `positive` and `p_positive` instead of a true grade.
    """
    binary = {sample.dataset for sample in samples if sample.grade is None and sample.dr_present is not None}
    return [
        replace(m, grade=None, positive=sample.has_dr, p_positive=1 - m.probs[0] if m.probs else None)
        if sample.dataset in binary
        else m
        for m, sample in zip(measured, samples, strict=True)
    ]
