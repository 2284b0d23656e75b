"""Scores of predicted grades: worked by hand and against scikit-learn; the argument of interpretation R14."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy.optimize import linprog
from sklearn import metrics as reference

from deepmtdr.metrics import (
    accuracy,
    confusion_matrix,
    kappa,
    kappa_linear,
    kappa_quadratic,
    precision_recall_f1,
    sensitivity_specificity,
)

BY_HAND = np.array([[2, 1, 0], [0, 1, 1], [0, 0, 1]])
"""Six photographs by true class (row) and predicted class (column); chance: 1 1 1, 2/3 2/3 2/3, 1/3 1/3 1/3."""

DDR_TEST = np.array([1880, 189, 1344, 71, 275])


def labels(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Predicted and true classes with this confusion matrix."""
    truth, predicted = (np.repeat(side.ravel(), matrix.ravel()) for side in np.indices(matrix.shape))
    return predicted, truth


def random_grades(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    truth = rng.choice(5, 300, p=[0.5, 0.05, 0.3, 0.05, 0.1])
    return np.where(rng.random(300) < 0.6, truth, rng.integers(0, 5, 300)), truth


def test_confusion_matrix_has_true_classes_in_rows() -> None:
    assert (confusion_matrix(*labels(BY_HAND), classes=3) == BY_HAND).all()


def test_kappas_worked_by_hand() -> None:
    predicted, truth = labels(BY_HAND)
    assert kappa(predicted, truth, 3) == pytest.approx((4 / 6 - 2 / 6) / (1 - 2 / 6))
    assert kappa_linear(predicted, truth, 3) == pytest.approx(1 - 2 / (3 + 4 / 3 + 1))
    assert kappa_quadratic(predicted, truth, 3) == pytest.approx(1 - 2 / (5 + 4 / 3 + 5 / 3))


def test_kappas_of_errors_by_two_grades_worked_by_hand() -> None:
    """Ten photographs, two of them wrong by two grades: the more such errors weigh, the lower is kappa."""
    predicted, truth = labels(np.array([[4, 1, 1], [0, 2, 0], [1, 0, 1]]))
    # Rows hold 6, 2, 2 and columns 5, 3, 2; chance, row x column / 10, expects
    #     3  1.8 1.2      one grade apart:  1.8 + 1 + 0.4 + 0.6 = 3.8, observed 1
    #     1  0.6 0.4      two grades apart: 1.2 + 1             = 2.2, observed 2
    #     1  0.6 0.4
    assert kappa(predicted, truth, 3) == pytest.approx(1 - (1 + 2) / (3.8 + 2.2))  # 1/2
    assert kappa_linear(predicted, truth, 3) == pytest.approx(1 - (1 + 2 * 2) / (3.8 + 2 * 2.2))  # 16/41
    assert kappa_quadratic(predicted, truth, 3) == pytest.approx(1 - (1 + 4 * 2) / (3.8 + 4 * 2.2))  # 2/7


@pytest.mark.parametrize("seed", range(5))
def test_grading_scores_agree_with_scikit_learn(seed: int) -> None:
    predicted, truth = random_grades(np.random.default_rng(seed))
    assert (confusion_matrix(predicted, truth) == reference.confusion_matrix(truth, predicted)).all()
    assert accuracy(predicted, truth) == reference.accuracy_score(truth, predicted)
    for ours, weights in ((kappa, None), (kappa_linear, "linear"), (kappa_quadratic, "quadratic")):
        assert ours(predicted, truth) == pytest.approx(reference.cohen_kappa_score(truth, predicted, weights=weights))
    for average in ("weighted", "macro"):
        theirs = reference.precision_recall_fscore_support(truth, predicted, average=average)[:3]
        assert precision_recall_f1(predicted, truth, average) == pytest.approx(theirs)


def test_sensitivity_and_specificity_worked_by_hand() -> None:
    sensitivity, specificity = sensitivity_specificity(*labels(BY_HAND), classes=3)
    assert sensitivity == pytest.approx([2 / 3, 1 / 2, 1])
    assert specificity == pytest.approx([1, 3 / 4, 4 / 5])


@pytest.mark.parametrize("seed", range(5))
def test_sensitivity_and_specificity_agree_with_scikit_learn(seed: int) -> None:
    predicted, truth = random_grades(np.random.default_rng(seed))
    for grade, (sensitivity, specificity) in enumerate(zip(*sensitivity_specificity(predicted, truth), strict=True)):
        assert sensitivity == pytest.approx(reference.recall_score(truth == grade, predicted == grade))
        assert specificity == pytest.approx(reference.recall_score(truth != grade, predicted != grade))


def test_with_two_classes_sensitivity_of_one_is_specificity_of_the_other() -> None:
    predicted, truth = np.array([0, 1, 1, 0, 1]), np.array([0, 0, 1, 1, 1])
    sensitivity, specificity = sensitivity_specificity(predicted, truth, classes=2)
    assert sensitivity.tolist() == specificity[::-1].tolist()


def test_sensitivity_needs_photographs_of_the_grade_and_specificity_needs_others() -> None:
    sensitivity, specificity = sensitivity_specificity(np.array([0, 1, 0, 0]), np.zeros(4, int), classes=3)
    assert sensitivity == pytest.approx([3 / 4, math.nan, math.nan], nan_ok=True)
    assert specificity == pytest.approx([math.nan, 3 / 4, 1], nan_ok=True)
    assert np.isnan(sensitivity_specificity(np.zeros(0, int), np.zeros(0, int))).all()


def test_grade_never_predicted_has_precision_0_and_absent_grade_is_left_out() -> None:
    truth, predicted = np.array([0, 0, 1, 1]), np.array([0, 0, 0, 3])
    for average in ("weighted", "macro"):
        theirs = reference.precision_recall_fscore_support(
            truth, predicted, labels=[0, 1], average=average, zero_division=0
        )
        assert precision_recall_f1(predicted, truth, average) == pytest.approx(theirs[:3])


def test_undefined_grading_scores_are_nan() -> None:
    nobody, same = np.zeros(0, int), np.zeros(4, int)
    assert math.isnan(accuracy(nobody, nobody))
    assert all(math.isnan(score) for score in precision_recall_f1(nobody, nobody))
    for score in (kappa, kappa_linear, kappa_quadratic):
        assert math.isnan(score(nobody, nobody))
        assert math.isnan(score(same, same))
        assert score(np.arange(4), same) == 0  # one true grade, several predicted: no better than chance


def test_class_out_of_range_is_an_error() -> None:
    with pytest.raises(ValueError, match="true classes from 0 to 5, expected 0 to 4"):
        kappa(np.array([0, 1]), np.array([0, 5]), classes=5)
    with pytest.raises(ValueError, match="predicted classes from -1 to 1, expected 0 to 5"):
        kappa(np.array([-1, 1]), np.array([0, 5]))


def test_without_a_number_of_classes_it_is_taken_from_the_arrays() -> None:
    predicted, truth = np.array([0, 1, 3]), np.array([0, 2, 1])
    assert confusion_matrix(predicted, truth).shape == (4, 4)
    assert (confusion_matrix(predicted, truth, 6)[:4, :4] == confusion_matrix(predicted, truth)).all()
    assert kappa_quadratic(predicted, truth) == pytest.approx(kappa_quadratic(predicted, truth, 6))
    assert sensitivity_specificity(predicted, truth).sensitivity.shape == (4,)


def test_r14_kappa_of_table_1_cannot_be_unweighted() -> None:
    """Accuracy .836 on the DDR test set: the predictions with the lowest chance agreement do not reach kappa .802."""
    share = DDR_TEST / DDR_TEST.sum()
    chance_needed = (0.836 - 0.802) / (1 - 0.802)
    # Cells x[i, j] >= 0 with the true row sums and this accuracy; chance agreement sum_j share_j * sum_i x[i, j].
    rows = [np.eye(5)[i][:, None].repeat(5, 1).ravel() for i in range(5)]
    constraints, values = np.array([*rows, np.eye(5).ravel()]), np.append(share, 0.836)
    least = linprog(np.tile(share, 5), A_eq=constraints, b_eq=values)
    assert chance_needed == pytest.approx(0.172, abs=1e-3)
    assert least.fun > 0.304
    matrix = np.rint(least.x.reshape(5, 5) * DDR_TEST.sum()).astype(int)
    predicted, truth = labels(matrix)
    assert accuracy(predicted, truth) == pytest.approx(0.836, abs=1e-3)
    assert kappa(predicted, truth) < 0.77


def test_r14_errors_by_one_grade_reach_the_kappa_of_table_1_with_quadratic_weights() -> None:
    matrix = np.diag(DDR_TEST)
    for grade, wrong in enumerate([160, 160, 200, 35]):  # errors by one grade: 16.4 % of all, with the last two lines
        matrix[grade, grade] -= wrong
        matrix[grade, grade + 1] += wrong
    matrix[4, 4] -= 61
    matrix[4, 3] += 61
    predicted, truth = labels(matrix)
    assert accuracy(predicted, truth) == pytest.approx(0.836, abs=1e-3)
    assert kappa(predicted, truth) < 0.802 < kappa_quadratic(predicted, truth)


@pytest.mark.parametrize(
    ("weighted", "swaps"),
    [
        (kappa_linear, {(0, 2): 175, (0, 1): 100, (1, 2): 33}),
        (kappa_quadratic, {(0, 2): 289, (0, 1): 19}),
    ],
)
def test_r14_linear_and_quadratic_kappa_can_both_be_that_of_table_1(
    weighted: Callable[..., float], swaps: dict[tuple[int, int], int]
) -> None:
    """R14 excludes the unweighted kappa only; the numbers do not decide between linear and quadratic weights."""
    matrix = np.diag(DDR_TEST)
    for (one, other), photographs in swaps.items():  # equal numbers of errors in both directions
        matrix[[one, other], [one, other]] -= photographs
        matrix[[one, other], [other, one]] += photographs
    predicted, truth = labels(matrix)
    assert accuracy(predicted, truth) == pytest.approx(0.836, abs=1e-3)
    assert weighted(predicted, truth) == pytest.approx(0.802, abs=1e-3)
    assert kappa(predicted, truth) < 0.77
