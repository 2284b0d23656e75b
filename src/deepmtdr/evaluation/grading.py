"""The scores of the grade: those of Table I (reading R14) and the field's, by grade, and at operating points."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from deepmtdr import metrics
from deepmtdr.evaluation.measure import Measured
from deepmtdr.evaluation.scores import Bootstrap, Place, Score, by_dataset
from deepmtdr.statistics import Interval, brier, expected_calibration_error, negative_log_likelihood
from deepmtdr.terms import Grade

TASK = "grading"
BY_GRADE = "each grade"
OPERATING_POINTS = "operating points"
FROM = {"any": 1, "referable": 2, "sight-threatening": 3}
"""What is asked of a photograph, and the least grade that answers it with yes."""
SPECIFICITIES = (0.90, 0.95)
"""At which sensitivity is read."""

NO_PHOTOGRAPH_OF_BOTH = "needs photographs of both kinds, found one"
ONE_CLASS = "truth and predictions are one single grade"
NO_PROBABILITIES = "needs probabilities, found grades alone"
IMPOSSIBLE = "infinite: a true grade was given probability 0"
NOBODY = "infinite: nobody is called positive, for no probability is specific enough"
HALF = 0.5
"""The probability from which on a photograph is called positive where no other threshold is said."""

Function = Callable[[np.ndarray, np.ndarray], float]
"""Takes what was predicted and the truth."""
Functions = Mapping[str, tuple[Function, str]]
"""Beside each, why it may be undefined."""


def _auc_from(least: int) -> Function:
    """AUC for grade >= `least`, by the probability of those grades."""
    return lambda probs, truth: metrics.auc(*_asked(probs, truth, least))


def _asked(probs: np.ndarray, truth: np.ndarray, least: int) -> tuple[np.ndarray, np.ndarray]:
    """The probability of the grades from `least` on, and whether the truth is one of them."""
    return probs[:, least:].sum(axis=1), truth >= least


def _averaged(part: str, average: Literal["weighted", "macro"]) -> Function:
    """Precision, recall or F1."""
    return lambda probs, truth: getattr(metrics.precision_recall_f1(probs.argmax(1), truth, average), part)


OF_THE_GRADE: Functions = {
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

GRADING_SCORES: Functions = {
    **OF_THE_GRADE,
    "auc_any": (_auc_from(FROM["any"]), NO_PHOTOGRAPH_OF_BOTH),
    "auc_referable": (_auc_from(FROM["referable"]), NO_PHOTOGRAPH_OF_BOTH),
    "auc_sight_threatening": (_auc_from(FROM["sight-threatening"]), NO_PHOTOGRAPH_OF_BOTH),
    "expected_calibration_error": (expected_calibration_error, ""),
    "brier": (brier, ""),
    "negative_log_likelihood": (negative_log_likelihood, ""),
}
"""Each takes the probabilities "n 5" and the true grades; beside it, why it may be undefined."""


class Grading(NamedTuple):
    """What is asked of each photograph, and how the answers are scored."""

    subject: str
    functions: Functions
    of_the_grade: Container[str]
    """The names of the functions that need no probability."""
    is_scored: Callable[[Measured], bool]
    """Whether truth and prediction are both there."""
    arrays: Callable[[list[Measured]], tuple[np.ndarray, np.ndarray]]
    """Predictions and truths, as the functions take them."""
    is_right: Callable[[np.ndarray, np.ndarray], np.ndarray]
    """From the same two arrays: True where the prediction is right."""
    ranked: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
    """From the same two arrays: the scores and the truth of the AUC by which two systems are compared."""

    def defined(self, scored: Iterable[Measured]) -> Functions:
        """The functions; those that need probabilities are nan where a photograph has none."""
        if not any(m.grade_alone for m in scored):
            return self.functions
        undefined = (lambda _predicted, _truth: float("nan")), NO_PROBABILITIES
        return {name: both if name in self.of_the_grade else undefined for name, both in self.functions.items()}


def _graded_arrays(graded: list[Measured]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([m.probs for m in graded]), np.array([m.grade for m in graded], dtype=np.int64)


GRADES = Grading(
    subject="grade",
    functions=GRADING_SCORES,
    of_the_grade=OF_THE_GRADE,
    is_scored=lambda m: bool(m.probs) and m.grade is not None,
    arrays=_graded_arrays,
    is_right=lambda probs, truth: probs.argmax(1) == truth,
    ranked=lambda probs, truth: (probs[:, 2:].sum(axis=1), truth >= 2),
)
"""The five grades; two systems are compared by `auc_referable`."""


def grading_scores(measured: Sequence[Measured], bootstrap: Bootstrap, grading: Grading = GRADES) -> list[Score]:
    """The paper's scores (weighted precision and F1, quadratic kappa: reading R14) and the field's."""
    return [
        Place(TASK, dataset, grading.subject).row(name, bootstrap.of(score, scored, *arrays), scored, why, IMPOSSIBLE)
        for dataset, scored in _scored(measured, grading)
        for arrays in [grading.arrays(scored)]
        for name, (score, why) in grading.defined(scored).items()
    ]


def by_grade_scores(measured: Sequence[Measured], bootstrap: Bootstrap) -> list[Score]:
    """Sensitivity and specificity of each of the five grades against all others."""
    return [
        Place(BY_GRADE, dataset, f"{grade:d} {grade.full_name}").row(name, interval, scored, why)
        for dataset, scored in _scored(measured, GRADES)
        for grade in Grade
        for name, interval, why in _of_one_grade(grade, scored, bootstrap)
    ]


def _of_one_grade(grade: Grade, scored: list[Measured], bootstrap: Bootstrap) -> Iterator[tuple[str, Interval, str]]:
    probs, truth = GRADES.arrays(scored)
    why = {"sensitivity": "no photograph of this grade", "specificity": "no photograph of another grade"}
    for name, reason in why.items():

        def score(predicted: np.ndarray, known: np.ndarray, name: str = name) -> float:
            return float(getattr(metrics.sensitivity_specificity(predicted, known), name)[grade])

        yield name, bootstrap.of(score, scored, probs.argmax(1), truth), reason


def operating_point_scores(measured: Sequence[Measured], bootstrap: Bootstrap) -> list[Score]:
    """Sensitivity at a fixed specificity with its threshold, and both at a probability of one half.

    The thresholds are read from these photographs, so that the sensitivities are what somebody would reach who knew
    them; `deepmtdr calibrate` fixes them on others.
    """
    return [
        Place(OPERATING_POINTS, dataset, asked).row(name, interval, scored, NO_PHOTOGRAPH_OF_BOTH, NOBODY)
        for dataset, scored in _scored(measured, GRADES)
        if not any(m.grade_alone for m in scored)
        for asked, least in FROM.items()
        for name, interval in _at_points(least, scored, bootstrap)
    ]


def _at_points(least: int, scored: list[Measured], bootstrap: Bootstrap) -> Iterator[tuple[str, Interval]]:
    arrays = _asked(*GRADES.arrays(scored), least)
    for specificity in SPECIFICITIES:
        for name in ("sensitivity", "threshold"):

            def score(p: np.ndarray, yes: np.ndarray, name: str = name, specificity: float = specificity) -> float:
                return float(getattr(metrics.sensitivity_at_specificity(p, yes, specificity), name))

            yield f"{name}_at_specificity_{100 * specificity:.0f}", bootstrap.of(score, scored, *arrays)
    yield "sensitivity_at_half", bootstrap.of(lambda p, yes: _share(p[yes] >= HALF), scored, *arrays)
    yield "specificity_at_half", bootstrap.of(lambda p, yes: _share(p[~yes] < HALF), scored, *arrays)


def _share(right: np.ndarray) -> float:
    return float(right.mean()) if right.size else float("nan")


def _scored(measured: Sequence[Measured], grading: Grading) -> Iterator[tuple[str, list[Measured]]]:
    """The photographs of each data set that have truth and prediction, if there are any."""
    for dataset, group in by_dataset(measured):
        if scored := [m for m in group if grading.is_scored(m)]:
            yield dataset, scored


def confusion_matrices(measured: Sequence[Measured]) -> dict[str, list[list[int]]]:
    """By data set: photographs by true grade (row) and predicted grade (column)."""
    matrices = {}
    for dataset, graded in _scored(measured, GRADES):
        probs, truth = _graded_arrays(graded)
        matrices[dataset] = metrics.confusion_matrix(probs.argmax(1), truth).tolist()
    return matrices
