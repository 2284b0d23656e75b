"""The scores of the grade: those of Table I (reading R14) and the field's, by grade, and at operating points."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from deepmtdr import metrics
from deepmtdr.evaluation.measure import PhotographResult
from deepmtdr.evaluation.scores import Bootstrap, Score, ScoreKey, group_by_dataset
from deepmtdr.metrics.calibration import brier, expected_calibration_error, negative_log_likelihood
from deepmtdr.metrics.intervals import Interval
from deepmtdr.terms import Grade

TASK = "grading"
BY_GRADE = "each grade"
OPERATING_POINTS = "operating points"
GRADE_THRESHOLDS = {"any": 1, "referable": 2, "sight-threatening": 3}
"""What is asked of a photograph, and the least grade that answers it with yes."""
SPECIFICITIES = (0.90, 0.95)
"""At which sensitivity is read."""

NEEDS_BOTH_CLASSES = "needs photographs of both kinds, found one"
ONE_CLASS = "truth and predictions are one single grade"
NO_PROBABILITIES = "needs probabilities, found grades alone"
ZERO_PROBABILITY = "infinite: a true grade was given probability 0"
NO_POSITIVE_CALL = "infinite: nobody is called positive, for no probability is specific enough"
DEFAULT_THRESHOLD = 0.5
"""The probability from which on a photograph is called positive where no other threshold is said."""

GradingFunction = Callable[[np.ndarray, np.ndarray], float]
"""Takes what was predicted and the truth."""
GradingFunctions = Mapping[str, tuple[GradingFunction, str]]
"""Beside each, why it may be undefined."""


def _auc_from(least: int) -> GradingFunction:
    """AUC for grade >= `least`, by the probability of those grades."""
    return lambda probs, truth: metrics.auc(*_asked(probs, truth, least))


def _asked(probs: np.ndarray, truth: np.ndarray, least: int) -> tuple[np.ndarray, np.ndarray]:
    """The probability of the grades from `least` on, and whether the truth is one of them."""
    return probs[:, least:].sum(axis=1), truth >= least


def _averaged(part: str, average: Literal["weighted", "macro"]) -> GradingFunction:
    """Precision, recall or F1."""
    return lambda probs, truth: getattr(metrics.precision_recall_f1(probs.argmax(1), truth, average), part)


LABEL_SCORES: GradingFunctions = {
    "accuracy": (lambda probs, truth: metrics.accuracy(probs.argmax(1), truth), ""),
    "precision_weighted": (_averaged("precision", "weighted"), ""),
    "recall_weighted": (_averaged("recall", "weighted"), ""),
    "f1_weighted": (_averaged("f1", "weighted"), ""),
    "precision_macro": (_averaged("precision", "macro"), ""),
    "recall_macro": (_averaged("recall", "macro"), ""),
    "f1_macro": (_averaged("f1", "macro"), ""),
    "kappa_quadratic": (lambda probs, truth: metrics.kappa_quadratic(probs.argmax(1), truth), ONE_CLASS),
    "kappa_linear": (lambda probs, truth: metrics.kappa_linear(probs.argmax(1), truth), ONE_CLASS),
    "kappa": (lambda probs, truth: metrics.kappa(probs.argmax(1), truth), ONE_CLASS),
}
"""The scores that a predicted grade without probabilities has too."""

GRADING_SCORES: GradingFunctions = {
    **LABEL_SCORES,
    "auc_any": (_auc_from(GRADE_THRESHOLDS["any"]), NEEDS_BOTH_CLASSES),
    "auc_referable": (_auc_from(GRADE_THRESHOLDS["referable"]), NEEDS_BOTH_CLASSES),
    "auc_sight_threatening": (_auc_from(GRADE_THRESHOLDS["sight-threatening"]), NEEDS_BOTH_CLASSES),
    "expected_calibration_error": (expected_calibration_error, ""),
    "brier": (brier, ""),
    "negative_log_likelihood": (negative_log_likelihood, ""),
}
"""Each takes the probabilities "n 5" and the true grades; beside it, why it may be undefined."""


class GradingTask(NamedTuple):
    """What is asked of each photograph, and how the answers are scored."""

    subject: str
    functions: GradingFunctions
    label_only: Container[str]
    """The names of the functions that need no probability."""
    is_scored: Callable[[PhotographResult], bool]
    """Whether truth and prediction are both there."""
    arrays: Callable[[list[PhotographResult]], tuple[np.ndarray, np.ndarray]]
    """Predictions and truths, as the functions take them."""
    is_correct: Callable[[np.ndarray, np.ndarray], np.ndarray]
    """From the same two arrays: True where the prediction is right."""
    auc_inputs: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
    """From the same two arrays: the scores and the truth of the AUC by which two systems are compared."""

    def defined_scores(self, scored: Iterable[PhotographResult]) -> GradingFunctions:
        """The functions; those that need probabilities are nan where a photograph has none."""
        if not any(m.grade_only for m in scored):
            return self.functions
        undefined = (lambda _predicted, _truth: float("nan")), NO_PROBABILITIES
        return {name: both if name in self.label_only else undefined for name, both in self.functions.items()}


def _graded_arrays(graded: list[PhotographResult]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([m.probs for m in graded]), np.array([m.grade for m in graded], dtype=np.int64)


GRADE_TASK = GradingTask(
    subject="grade",
    functions=GRADING_SCORES,
    label_only=LABEL_SCORES,
    is_scored=lambda m: bool(m.probs) and m.grade is not None,
    arrays=_graded_arrays,
    is_correct=lambda probs, truth: probs.argmax(1) == truth,
    auc_inputs=lambda probs, truth: (probs[:, 2:].sum(axis=1), truth >= 2),
)
"""The five grades; two systems are compared by `auc_referable`."""


def grading_scores(
    measured: Sequence[PhotographResult], bootstrap: Bootstrap, grading: GradingTask = GRADE_TASK
) -> list[Score]:
    """The paper's scores (weighted precision and F1, quadratic kappa: reading R14) and the field's."""
    return [
        ScoreKey(TASK, dataset, grading.subject).row(
            name, bootstrap.interval(score, scored, *arrays), scored, why, ZERO_PROBABILITY
        )
        for dataset, scored in _scored(measured, grading)
        for arrays in [grading.arrays(scored)]
        for name, (score, why) in grading.defined_scores(scored).items()
    ]


def by_grade_scores(measured: Sequence[PhotographResult], bootstrap: Bootstrap) -> list[Score]:
    """Sensitivity and specificity of each of the five grades against all others."""
    return [
        ScoreKey(BY_GRADE, dataset, f"{grade:d} {grade.full_name}").row(name, interval, scored, why)
        for dataset, scored in _scored(measured, GRADE_TASK)
        for grade in Grade
        for name, interval, why in _of_one_grade(grade, scored, bootstrap)
    ]


def _of_one_grade(
    grade: Grade, scored: list[PhotographResult], bootstrap: Bootstrap
) -> Iterator[tuple[str, Interval, str]]:
    probs, truth = GRADE_TASK.arrays(scored)
    why = {"sensitivity": "no photograph of this grade", "specificity": "no photograph of another grade"}
    for name, reason in why.items():

        def score(predicted: np.ndarray, known: np.ndarray, name: str = name) -> float:
            return float(getattr(metrics.sensitivity_specificity(predicted, known), name)[grade])

        yield name, bootstrap.interval(score, scored, probs.argmax(1), truth), reason


def operating_point_scores(measured: Sequence[PhotographResult], bootstrap: Bootstrap) -> list[Score]:
    """Sensitivity at a fixed specificity with its threshold, and both at a probability of one half.

    The thresholds are read from these photographs, so that the sensitivities are what somebody would reach who knew
    them; `deepmtdr calibrate` fixes them on others.
    """
    return [
        ScoreKey(OPERATING_POINTS, dataset, asked).row(name, interval, scored, NEEDS_BOTH_CLASSES, NO_POSITIVE_CALL)
        for dataset, scored in _scored(measured, GRADE_TASK)
        if not any(m.grade_only for m in scored)
        for asked, least in GRADE_THRESHOLDS.items()
        for name, interval in _at_points(least, scored, bootstrap)
    ]


def _at_points(least: int, scored: list[PhotographResult], bootstrap: Bootstrap) -> Iterator[tuple[str, Interval]]:
    arrays = _asked(*GRADE_TASK.arrays(scored), least)
    for specificity in SPECIFICITIES:
        for name in ("sensitivity", "threshold"):

            def score(p: np.ndarray, yes: np.ndarray, name: str = name, specificity: float = specificity) -> float:
                return float(getattr(metrics.sensitivity_at_specificity(p, yes, specificity), name))

            yield f"{name}_at_specificity_{100 * specificity:.0f}", bootstrap.interval(score, scored, *arrays)
    yield "sensitivity_at_half", bootstrap.interval(lambda p, yes: _share(p[yes] >= DEFAULT_THRESHOLD), scored, *arrays)
    yield "specificity_at_half", bootstrap.interval(lambda p, yes: _share(p[~yes] < DEFAULT_THRESHOLD), scored, *arrays)


def _share(right: np.ndarray) -> float:
    return float(right.mean()) if right.size else float("nan")


def _scored(measured: Sequence[PhotographResult], grading: GradingTask) -> Iterator[tuple[str, list[PhotographResult]]]:
    """The photographs of each data set that have truth and prediction, if there are any."""
    for dataset, group in group_by_dataset(measured):
        if scored := [m for m in group if grading.is_scored(m)]:
            yield dataset, scored


def confusion_matrices(measured: Sequence[PhotographResult]) -> dict[str, list[list[int]]]:
    """By data set: photographs by true grade (row) and predicted grade (column)."""
    matrices = {}
    for dataset, graded in _scored(measured, GRADE_TASK):
        probs, truth = _graded_arrays(graded)
        matrices[dataset] = metrics.confusion_matrix(probs.argmax(1), truth).tolist()
    return matrices
