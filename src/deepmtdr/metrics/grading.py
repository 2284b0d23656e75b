"""Scores of predicted grades: confusion matrix, accuracy, precision, recall, F1, kappas (Sec. V-B, interpretation R14).

Classes are whole numbers from 0. The number of classes is an argument only where the arrays do not determine it.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int

Labels = Int[np.ndarray, " n"]


def confusion_matrix(predicted: Labels, truth: Labels, classes: int | None = None) -> Int[np.ndarray, "k k"]:
    """Number of photographs by true class (row) and predicted class (column).

    Args:
        predicted: predicted classes.
        truth: true classes.
        classes: number of classes; None: one more than the highest class in the two arrays.

    Raises:
        ValueError: if the arrays have different lengths, or a class is outside 0 ... classes - 1.
    """
    if predicted.shape != truth.shape:
        raise ValueError(f"found {predicted.size} predicted and {truth.size} true classes, expected equal numbers")
    if classes is None:
        classes = max((int(labels.max()) for labels in (predicted, truth) if labels.size), default=0) + 1
    for name, labels in (("predicted", predicted), ("true", truth)):
        if labels.size and not (labels.min() >= 0 and labels.max() < classes):
            raise ValueError(f"found {name} classes from {labels.min()} to {labels.max()}, expected 0 to {classes - 1}")
    cell = truth.astype(np.int64) * classes + predicted
    return np.bincount(cell, minlength=classes**2).reshape(classes, classes)


def accuracy(predicted: Labels, truth: Labels) -> float:
    """Fraction of photographs whose predicted class is right; nan without photographs."""
    return float((predicted == truth).mean()) if truth.size else float("nan")


class PrecisionRecallF1(NamedTuple):
    """Precision, recall and F1, averaged over the classes."""

    precision: float
    recall: float
    f1: float


def precision_recall_f1(
    predicted: Labels, truth: Labels, average: Literal["weighted", "macro"] = "weighted", classes: int | None = None
) -> PrecisionRecallF1:
    """Precision, recall and F1 averaged over the classes that occur in the truth.

    A class that is never predicted has precision 0 and F1 0, as in scikit-learn. A class that never occurs in the truth
    has no recall and is left out.

    Args:
        predicted: predicted classes.
        truth: true classes.
        average: "weighted" by the number of photographs of each class (the paper's tables), or "macro", with equal
            weights.
        classes: as in `confusion_matrix`.

    Returns:
        In [0, 1]; all nan without photographs.
    """
    confusion = confusion_matrix(predicted, truth, classes)
    occurs = confusion.sum(axis=1) > 0
    if not occurs.any():
        return PrecisionRecallF1(float("nan"), float("nan"), float("nan"))
    hits = np.diag(confusion)[occurs]
    of_truth, of_predicted = confusion.sum(axis=1)[occurs], confusion.sum(axis=0)[occurs]
    weights = of_truth / of_truth.sum() if average == "weighted" else np.full(hits.size, 1 / hits.size)
    per_class = hits / np.maximum(of_predicted, 1), hits / of_truth, 2 * hits / (of_truth + of_predicted)
    return PrecisionRecallF1(*(float(score @ weights) for score in per_class))


class SensitivitySpecificity(NamedTuple):
    """Sensitivity and specificity of each class against all others."""

    sensitivity: Float[np.ndarray, " k"]
    specificity: Float[np.ndarray, " k"]


def sensitivity_specificity(predicted: Labels, truth: Labels, classes: int | None = None) -> SensitivitySpecificity:
    """For each class: the fraction of its photographs with this prediction, and of the other photographs without it.

    Args:
        predicted: predicted classes.
        truth: true classes.
        classes: as in `confusion_matrix`.

    Returns:
        In [0, 1], one entry per class. Sensitivity is nan for a class without photographs, specificity if all
        photographs belong to the class.

    Raises:
        ValueError: where `confusion_matrix` does.
    """
    confusion = confusion_matrix(predicted, truth, classes)
    hits, of_truth, of_predicted = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    others = truth.size - of_truth
    return SensitivitySpecificity(_share(hits, of_truth), _share(others - (of_predicted - hits), others))


def _share(part: Int[np.ndarray, " k"], whole: Int[np.ndarray, " k"]) -> Float[np.ndarray, " k"]:
    """Part / whole; nan where the whole is 0."""
    return np.where(whole > 0, part / np.maximum(whole, 1), np.nan)


def kappa(predicted: Labels, truth: Labels, classes: int | None = None) -> float:
    """Cohen's kappa, unweighted: every error counts the same; nan where `kappa_quadratic` is nan."""
    return _kappa(predicted, truth, classes, power=0)


def kappa_linear(predicted: Labels, truth: Labels, classes: int | None = None) -> float:
    """Cohen's kappa with errors weighted by |i - j|; nan where `kappa_quadratic` is nan."""
    return _kappa(predicted, truth, classes, power=1)


def kappa_quadratic(predicted: Labels, truth: Labels, classes: int | None = None) -> float:
    """Cohen's kappa with errors weighted by (i - j)^2: the kappa of Table I (interpretation R14).

    Args:
        predicted: predicted classes.
        truth: true classes.
        classes: as in `confusion_matrix`; it has no influence on the value.

    Returns:
        1 - observed / chance disagreement: 1 if all predictions are right, 0 at chance. Nan without photographs, and if
        all classes, true and predicted, are the same, because then there is no chance disagreement.
    """
    return _kappa(predicted, truth, classes, power=2)


def _kappa(predicted: Labels, truth: Labels, classes: int | None, power: int) -> float:
    """Cohen's kappa with errors weighted by |i - j|^power; power 0 weights every error by 1."""
    observed = confusion_matrix(predicted, truth, classes)
    chance = np.outer(observed.sum(axis=1), observed.sum(axis=0)) / max(truth.size, 1)
    grades = np.arange(len(observed))
    distance = np.abs(np.subtract.outer(grades, grades))
    weights = (distance > 0) * distance**power
    disagreement = float((weights * chance).sum())
    return 1 - float((weights * observed).sum()) / disagreement if disagreement > 0 else float("nan")
