"""Negative or positive, which is all that Real-LR's doctors say: the scores of grade >= 1 (Sec. V-A)."""

from __future__ import annotations

import numpy as np

from deepmtdr import metrics
from deepmtdr.evaluation.measure import Measured
from deepmtdr.evaluation.scores import NO_PHOTOGRAPH_OF_BOTH, Functions, Grading

POSITIVE = 0.5
"""A photograph is called positive from this probability on."""


def _right(p_positive: np.ndarray, positive: np.ndarray) -> np.ndarray:
    return (p_positive >= POSITIVE) == positive


def _share_right(p_positive: np.ndarray, positive: np.ndarray) -> float:
    """Fraction of these photographs that are called what they are; nan without photographs."""
    return float(_right(p_positive, positive).mean()) if positive.size else float("nan")


BINARY_SCORES: Functions = {
    "accuracy": (_share_right, ""),
    "sensitivity": (lambda p, positive: _share_right(p[positive], positive[positive]), "no positive photograph"),
    "specificity": (lambda p, positive: _share_right(p[~positive], positive[~positive]), "no negative photograph"),
    "auc": (metrics.auc, NO_PHOTOGRAPH_OF_BOTH),
}


def _arrays(scored: list[Measured]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([m.p_positive for m in scored], np.float64), np.array([m.positive for m in scored], np.bool_)


BINARY = Grading(
    subject="positive",
    functions=BINARY_SCORES,
    of_the_grade=frozenset({"accuracy", "sensitivity", "specificity"}),
    is_scored=lambda m: m.p_positive is not None and m.positive is not None,
    arrays=_arrays,
    is_right=_right,
    ranked=lambda p_positive, positive: (p_positive, positive),
)
"""Two systems are compared by `auc`."""
