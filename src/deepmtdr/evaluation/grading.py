"""Scores of the grade: the scores of Table I (interpretation R14), others, and scores of each grade."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from deepmtdr import metrics
from deepmtdr.evaluation.photograph_result import PhotographResult
from deepmtdr.evaluation.scores import (
    MEAN_OVER_SETS,
    Bootstrap,
    Score,
    ScoreKey,
    ScoreTable,
    group_for_grades,
    score_row,
)
from deepmtdr.labels import LabelSet
from deepmtdr.metrics import PrecisionRecallF1
from deepmtdr.metrics.calibration import brier, debiased_ece, expected_calibration_error, negative_log_likelihood

NEEDS_BOTH_CLASSES = "needs both positive and negative photographs, found one kind only"
ONE_CLASS = "all true and predicted grades are the same"
NO_PROBABILITIES = "needs probabilities, found predicted grades only"
ZERO_PROBABILITY = "infinite: a true grade has probability 0"
DEFAULT_THRESHOLD = 0.5
"""Probability from which a photograph is called positive without another threshold."""

GradingFunction = Callable[..., float]
"""Function that computes a score from the arrays of a task: `GradeArrays`, or P(positive) and truth."""


class GradeArrays(NamedTuple):
    """Predictions and truth of graded photographs: the arguments of the scores of the grade."""

    predicted: Int[np.ndarray, " n"]
    """Predicted grades."""
    probs: Float[np.ndarray, "n c"]
    """Probability of each grade."""
    truth: Int[np.ndarray, " n"]
    """True grades."""


class GradingScore(NamedTuple):
    """A score of predicted grades."""

    function: GradingFunction
    undefined_reason: str = ""
    """Why the score may be undefined."""
    needs_probabilities: bool = True
    """Whether the score needs probabilities. False: predicted grades are enough."""
    recentred: bool = False
    """Whether resampled photographs have a systematically higher score: see `bootstrap_interval`."""


GradingScores = Mapping[str, GradingScore]


def _of_labels(function: Callable[[np.ndarray, np.ndarray, int], float], undefined_reason: str = "") -> GradingScore:
    """Make a score of predicted grades; `function` takes predicted grades, true grades and the number of grades."""
    return GradingScore(lambda predicted, p, truth: function(predicted, truth, p.shape[1]), undefined_reason, False)


def _of_probabilities(function: Callable[[np.ndarray, np.ndarray], float], recentred: bool = False) -> GradingScore:
    """Make a score of probabilities; `function` takes probabilities and true grades."""
    return GradingScore(lambda _predicted, p, truth: function(p, truth), recentred=recentred)


def _averaged(pick: Callable[[PrecisionRecallF1], float], average: Literal["weighted", "macro"]) -> GradingScore:
    """A score for precision, recall or F1 (chosen by `pick`), averaged over the grades by `average`."""
    return _of_labels(
        lambda predicted, truth, classes: pick(metrics.precision_recall_f1(predicted, truth, average, classes))
    )


LABEL_SCORES: GradingScores = {
    "accuracy": _of_labels(lambda predicted, truth, _classes: metrics.accuracy(predicted, truth)),
    "precision_weighted": _averaged(lambda scores: scores.precision, "weighted"),
    "recall_weighted": _averaged(lambda scores: scores.recall, "weighted"),
    "f1_weighted": _averaged(lambda scores: scores.f1, "weighted"),
    "precision_macro": _averaged(lambda scores: scores.precision, "macro"),
    "recall_macro": _averaged(lambda scores: scores.recall, "macro"),
    "f1_macro": _averaged(lambda scores: scores.f1, "macro"),
    "kappa_quadratic": _of_labels(metrics.kappa_quadratic, ONE_CLASS),
    "kappa_linear": _of_labels(metrics.kappa_linear, ONE_CLASS),
    "kappa": _of_labels(metrics.kappa, ONE_CLASS),
}
"""Scores that need predicted grades only."""

CALIBRATION_SCORES: GradingScores = {
    "expected_calibration_error": _of_probabilities(expected_calibration_error),
    "debiased_ece": _of_probabilities(debiased_ece, recentred=True),
    "brier": _of_probabilities(brier),
    "negative_log_likelihood": _of_probabilities(negative_log_likelihood),
}
"""Scores of the probabilities."""


def auc_name(threshold: str) -> str:
    """Name of the score "area under the ROC curve" for a threshold of the label set, such as `auc_referable`."""
    return f"auc_{threshold}"


def threshold_title(threshold: str) -> str:
    """Name of a threshold in tables and cards: `sight_threatening` is written `sight-threatening`."""
    return threshold.replace("_", "-")


def grading_functions(labels: LabelSet) -> GradingScores:
    """All scores of the grade; the functions take the fields of `GradeArrays`."""
    return {
        **LABEL_SCORES,
        **{
            auc_name(name): GradingScore(_auc_from(least), NEEDS_BOTH_CLASSES)
            for name, least in labels.thresholds.items()
        },
        **CALIBRATION_SCORES,
    }


def _auc_from(least: int) -> GradingFunction:
    return lambda _predicted, probs, truth: metrics.auc(*at_least(probs, truth, least))


def at_least(probs: np.ndarray, truth: np.ndarray, grade: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the probability that the grade is at least `grade`, and whether the true grade is at least `grade`."""
    return probs[:, grade:].sum(axis=1), truth >= grade


@dataclass(frozen=True, kw_only=True)
class GradingTask:
    """A prediction task on photographs: all grades, or negative and positive."""

    subject: str
    """What is scored, as in `Score.subject`."""
    scores: GradingScores
    is_scored: Callable[[PhotographResult], bool]
    """Function that returns whether truth and prediction of a photograph are known."""
    arrays: Callable[[list[PhotographResult]], tuple[np.ndarray, ...]]
    """Function that returns predictions and truth, the arguments of the scores."""
    is_correct: Callable[..., np.ndarray]
    """Function of the `arrays`: True for each photograph whose prediction is right."""
    auc_inputs: Callable[..., tuple[np.ndarray, np.ndarray]]
    """Function of the `arrays`: probability and truth of the AUC that DeLong's test compares."""

    def defined_scores(self, scored: Iterable[PhotographResult]) -> GradingScores:
        """Return the scores. Scores that need probabilities are undefined if a photograph has no probabilities."""
        if not any(m.grade_only for m in scored):
            return self.scores
        undefined = GradingScore(lambda *_arrays: float("nan"), NO_PROBABILITIES)
        return {name: undefined if score.needs_probabilities else score for name, score in self.scores.items()}

    def by_dataset(self, measured: Sequence[PhotographResult]) -> Iterator[tuple[str, list[PhotographResult]]]:
        """Group the scored photographs by data set, and all of them as `MEAN_OVER_SETS` if there are several."""
        yield from group_for_grades([m for m in measured if self.is_scored(m)])


def is_graded(measured: PhotographResult) -> bool:
    """Whether both the true grade and a prediction are known."""
    return bool(measured.probs) and measured.grade is not None


def grade_arrays(graded: Sequence[PhotographResult]) -> GradeArrays:
    """Return predicted grades, probabilities and true grades of graded photographs."""
    predicted, truth = ([m.predicted_grade for m in graded], [m.grade for m in graded])
    return GradeArrays(np.array(predicted, np.int64), np.array([m.probs for m in graded]), np.array(truth, np.int64))


def grade_task(labels: LabelSet) -> GradingTask:
    """Make the task of predicting the grade. Two systems are compared by the AUC of the threshold `referable`."""
    return GradingTask(
        subject="grade",
        scores=grading_functions(labels),
        is_scored=is_graded,
        arrays=grade_arrays,
        is_correct=lambda predicted, _probs, truth: predicted == truth,
        auc_inputs=lambda _predicted, probs, truth: at_least(probs, truth, labels.referable_from),
    )


def grading_scores(measured: Sequence[PhotographResult], bootstrap: Bootstrap, task: GradingTask) -> list[Score]:
    """Compute the scores of a task for each data set, and their means: the paper's (interpretation R14) and others."""
    return [
        score_row(
            ScoreKey(ScoreTable.GRADING, dataset, task.subject),
            name,
            score.function,
            scored,
            arrays,
            bootstrap,
            score.undefined_reason,
            ZERO_PROBABILITY,
            recentred=score.recentred,
        )
        for dataset, scored in task.by_dataset(measured)
        for arrays in [task.arrays(scored)]
        for name, score in task.defined_scores(scored).items()
    ]


def by_grade_scores(measured: Sequence[PhotographResult], bootstrap: Bootstrap, labels: LabelSet) -> list[Score]:
    """Compute the sensitivity and specificity of each grade against all other grades."""
    return [
        row
        for dataset, scored in grade_task(labels).by_dataset(measured)
        for grade, name in enumerate(labels.grade_names)
        for row in _one_grade_scores(
            ScoreKey(ScoreTable.EACH_GRADE, dataset, f"{grade} {name}"), grade, scored, bootstrap
        )
    ]


def _one_grade_scores(
    key: ScoreKey, grade: int, scored: list[PhotographResult], bootstrap: Bootstrap
) -> Iterator[Score]:
    predictions, probs, truth = grade_arrays(scored)
    classes = probs.shape[1]

    def sensitivity(predicted: np.ndarray, known: np.ndarray) -> float:
        return float(metrics.sensitivity_specificity(predicted, known, classes).sensitivity[grade])

    def specificity(predicted: np.ndarray, known: np.ndarray) -> float:
        return float(metrics.sensitivity_specificity(predicted, known, classes).specificity[grade])

    arrays = predictions, truth
    yield score_row(key, "sensitivity", sensitivity, scored, arrays, bootstrap, "no photograph of this grade")
    yield score_row(key, "specificity", specificity, scored, arrays, bootstrap, "no photograph of another grade")


def confusion_matrices(measured: Sequence[PhotographResult], labels: LabelSet) -> dict[str, list[list[int]]]:
    """Count the photographs by true grade (row) and predicted grade (column), for each data set."""
    matrices = {}
    for dataset, graded in grade_task(labels).by_dataset(measured):
        if dataset == MEAN_OVER_SETS:
            continue
        predicted, probs, truth = grade_arrays(graded)
        matrices[dataset] = metrics.confusion_matrix(predicted, truth, probs.shape[1]).tolist()
    return matrices
