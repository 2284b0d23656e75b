"""Negative or positive, which is all that Real-LR's doctors say: the scores of grade >= 1 (Sec. V-A)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from deepmtdr import metrics
from deepmtdr.datasets.sample import Sample
from deepmtdr.evaluation.grading import DEFAULT_THRESHOLD, NEEDS_BOTH_CLASSES, GradingFunctions, GradingTask
from deepmtdr.evaluation.measure import PhotographResult


def _right(p_positive: np.ndarray, positive: np.ndarray) -> np.ndarray:
    return (p_positive >= DEFAULT_THRESHOLD) == positive


def _share_right(p_positive: np.ndarray, positive: np.ndarray) -> float:
    """Fraction of these photographs that are called what they are; nan without photographs."""
    return float(_right(p_positive, positive).mean()) if positive.size else float("nan")


BINARY_SCORES: GradingFunctions = {
    "accuracy": (_share_right, ""),
    "sensitivity": (lambda p, positive: _share_right(p[positive], positive[positive]), "no positive photograph"),
    "specificity": (lambda p, positive: _share_right(p[~positive], positive[~positive]), "no negative photograph"),
    "auc": (metrics.auc, NEEDS_BOTH_CLASSES),
}


def _arrays(scored: list[PhotographResult]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([m.p_positive for m in scored], np.float64), np.array([m.positive for m in scored], np.bool_)


BINARY_TASK = GradingTask(
    subject="positive",
    functions=BINARY_SCORES,
    label_only=frozenset({"accuracy", "sensitivity", "specificity"}),
    is_scored=lambda m: m.p_positive is not None and m.positive is not None,
    arrays=_arrays,
    is_correct=_right,
    auc_inputs=lambda p_positive, positive: (p_positive, positive),
)
"""Two systems are compared by `auc`."""


def use_binary_labels(measured: Iterable[PhotographResult], samples: Sequence[Sample]) -> list[PhotographResult]:
    """Ask for grade >= 1 alone in the data sets whose makers told only negative and positive apart.

    There a negative photograph has the grade 0 and a positive one has none: the grades alone would be a selection.

    Args:
        measured: one for each sample, in their order.
        samples: what is known of the photographs.

    Returns:
        The photographs of these sets with `positive` and `p_positive` instead of a true grade; the others as they were.
    """
    apart = {sample.dataset for sample in samples if sample.grade is None and sample.dr_present is not None}
    return [
        replace(m, grade=None, positive=sample.has_dr, p_positive=1 - m.probs[0] if m.probs else None)
        if sample.dataset in apart
        else m
        for m, sample in zip(measured, samples, strict=True)
    ]
