"""How often the grade is right, and how far off it is: accuracy to weighted kappa (Sec. V-B, reading R14)."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int

Labels = Int[np.ndarray, " n"]
NUM_GRADES = 5
"""Grades 0 to 4; every function takes another number of classes, 2 for negative and positive."""


def confusion_matrix(predicted: Labels, truth: Labels, classes: int = NUM_GRADES) -> Int[np.ndarray, "k k"]:
    """Photographs counted by true class (row) and predicted class (column).

    Raises:
        ValueError: if there are not as many predictions as truths, or a label lies outside 0 ... classes - 1.
    """
    if predicted.shape != truth.shape:
        raise ValueError(f"{predicted.size} predicted classes for {truth.size} true ones, expected as many")
    for name, labels in (("predicted", predicted), ("true", truth)):
        if labels.size and not (labels.min() >= 0 and labels.max() < classes):
            raise ValueError(f"{name} classes {labels.min()} to {labels.max()}, expected 0 to {classes - 1}")
    cell = truth.astype(np.int64) * classes + predicted
    return np.bincount(cell, minlength=classes**2).reshape(classes, classes)


def accuracy(predicted: Labels, truth: Labels) -> float:
    """Fraction of photographs whose class is right; nan without photographs."""
    return float((predicted == truth).mean()) if truth.size else float("nan")


class PrecisionRecallF1(NamedTuple):
    """Three scores of one averaging."""

    precision: float
    recall: float
    f1: float


def precision_recall_f1(
    predicted: Labels, truth: Labels, average: Literal["weighted", "macro"] = "weighted", classes: int = NUM_GRADES
) -> PrecisionRecallF1:
    """Precision, recall and F1 averaged over the classes that occur in the truth.

    A class that is never predicted enters the average with precision 0, as in scikit-learn: nothing of it was found,
    and its F1 is truly 0. A class that never occurs in the truth has no recall and stays out of the average.

    Args:
        predicted: classes predicted.
        truth: true classes.
        average: "weighted" by the photographs of each class (the paper's tables), or "macro", each class alike.
        classes: number of classes.

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
    """Two scores of each class, taken against all others."""

    sensitivity: Float[np.ndarray, " k"]
    specificity: Float[np.ndarray, " k"]


def sensitivity_specificity(predicted: Labels, truth: Labels, classes: int = NUM_GRADES) -> SensitivitySpecificity:
    """How many photographs of each class are given it, and how many of the others are not.

    Args:
        predicted: classes predicted.
        truth: true classes.
        classes: number of classes.

    Returns:
        In [0, 1], one entry per class. Sensitivity is nan for a class that never occurs in the truth, specificity for
        one that is all of the truth; both are nan throughout without photographs.

    Raises:
        ValueError: where `confusion_matrix` does.
    """
    confusion = confusion_matrix(predicted, truth, classes)
    hits, of_truth, of_predicted = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    others = truth.size - of_truth
    return SensitivitySpecificity(_share(hits, of_truth), _share(others - (of_predicted - hits), others))


def _share(part: Int[np.ndarray, " k"], whole: Int[np.ndarray, " k"]) -> Float[np.ndarray, " k"]:
    """Part / whole; nan where there is no whole."""
    return np.where(whole > 0, part / np.maximum(whole, 1), np.nan)


def kappa(predicted: Labels, truth: Labels, classes: int = NUM_GRADES) -> float:
    """Cohen's kappa, unweighted: any two grades differ alike; nan where `kappa_quadratic` is."""
    return _kappa(predicted, truth, classes, power=0)


def kappa_linear(predicted: Labels, truth: Labels, classes: int = NUM_GRADES) -> float:
    """Cohen's kappa, disagreement weighted by |i - j|; nan where `kappa_quadratic` is."""
    return _kappa(predicted, truth, classes, power=1)


def kappa_quadratic(predicted: Labels, truth: Labels, classes: int = NUM_GRADES) -> float:
    """Cohen's kappa, disagreement weighted by (i - j)^2: the kappa of Table I (reading R14).

    Returns:
        1 - observed / chance disagreement: 1 if all is right, 0 at chance. Nan without photographs, or if truth and
        predictions are one single class: chance cannot disagree then.
    """
    return _kappa(predicted, truth, classes, power=2)


def _kappa(predicted: Labels, truth: Labels, classes: int, power: int) -> float:
    """Cohen's kappa with disagreement |i - j|^power; power 0 counts any difference as 1."""
    observed = confusion_matrix(predicted, truth, classes)
    chance = np.outer(observed.sum(axis=1), observed.sum(axis=0)) / max(truth.size, 1)
    distance = np.abs(np.subtract.outer(np.arange(classes), np.arange(classes)))
    weights = (distance > 0) * distance**power
    disagreement = float((weights * chance).sum())
    return 1 - float((weights * observed).sum()) / disagreement if disagreement > 0 else float("nan")
