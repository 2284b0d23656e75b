"""Scores of the grade, of each grade, at operating points, and of negative and positive."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn import metrics as reference

from deepmtdr.datasets.sample import Sample
from deepmtdr.evaluation import Bootstrap, PhotographResult
from deepmtdr.evaluation.binary import BINARY_TASK, use_binary_labels
from deepmtdr.evaluation.grading import by_grade_scores, confusion_matrices, grade_task, grading_scores
from deepmtdr.evaluation.operating_points import operating_point_scores
from deepmtdr.evaluation.scores import Score
from deepmtdr.labels import DIABETIC_RETINOPATHY, GradeLabel, LabelSet, LesionType

FEW = Bootstrap(resamples=100)
GRADES = DIABETIC_RETINOPATHY.grade_names
TASK = grade_task(DIABETIC_RETINOPATHY)


def some(count: int = 200, grades: int = 5) -> list[PhotographResult]:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, grades, count)
    logits = rng.normal(size=(count, grades)) + 1.5 * np.eye(grades)[truth]
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return [
        PhotographResult(dataset="x", name=f"{i}", patient=f"{i}", grade=int(g), probs=tuple(map(float, p)))
        for i, (g, p) in enumerate(zip(truth, probs, strict=True))
    ]


def pick(rows: list[Score], subject: str, name: str) -> Score:
    (found,) = (row for row in rows if (row.subject, row.score) == (subject, name))
    return found


def arrays(measured: list[PhotographResult]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([m.probs for m in measured]), np.array([m.grade for m in measured])


def test_grade_scores_agree_with_scikit_learn() -> None:
    probs, truth = arrays(some())
    predicted = probs.argmax(1)
    expected = {
        "accuracy": reference.accuracy_score(truth, predicted),
        "kappa": reference.cohen_kappa_score(truth, predicted),
        "kappa_linear": reference.cohen_kappa_score(truth, predicted, weights="linear"),
        "kappa_quadratic": reference.cohen_kappa_score(truth, predicted, weights="quadratic"),
        "auc_any": reference.roc_auc_score(truth >= 1, probs[:, 1:].sum(1)),
        "auc_referable": reference.roc_auc_score(truth >= 2, probs[:, 2:].sum(1)),
        "auc_sight_threatening": reference.roc_auc_score(truth >= 3, probs[:, 3:].sum(1)),
        "negative_log_likelihood": reference.log_loss(truth, probs),
    }
    for average in ("weighted", "macro"):
        scores = reference.precision_recall_fscore_support(truth, predicted, average=average)
        names = (f"{name}_{average}" for name in ("precision", "recall", "f1"))
        expected |= dict(zip(names, scores, strict=False))
    rows = grading_scores(some(), FEW, TASK)
    for name, value in expected.items():
        found = pick(rows, "grade", name)
        assert found.value == pytest.approx(value), name
        assert found.low < found.value < found.high
    assert len(rows) == len(expected) + 3  # two calibration errors and the Brier score, tested elsewhere


def test_each_grade_has_its_sensitivity_and_specificity() -> None:
    probs, truth = arrays(some())
    rows = by_grade_scores(some(), FEW, DIABETIC_RETINOPATHY)
    for grade, name in enumerate(GRADES):
        called = probs.argmax(1) == grade
        subject = f"{grade} {name}"
        assert pick(rows, subject, "sensitivity").value == pytest.approx(called[truth == grade].mean())
        assert pick(rows, subject, "specificity").value == pytest.approx(1 - called[truth != grade].mean())


def test_grade_that_does_not_occur_has_a_note_instead_of_a_sensitivity() -> None:
    rows = by_grade_scores([m for m in some() if m.grade != 4], FEW, DIABETIC_RETINOPATHY)
    missing = pick(rows, "4 proliferative", "sensitivity")
    assert math.isnan(missing.value) and missing.note == "no photograph of this grade"
    assert pick(rows, "4 proliferative", "specificity").value < 1


def test_operating_point_has_its_specificity_and_threshold() -> None:
    probs, truth = arrays(some())
    rows = operating_point_scores(some(), FEW, DIABETIC_RETINOPATHY)
    for subject, least in (("any", 1), ("referable", 2), ("sight-threatening", 3)):
        p, yes = probs[:, least:].sum(1), truth >= least
        for percent in (90, 95):
            threshold = pick(rows, subject, f"threshold_at_specificity_{percent}").value
            found = pick(rows, subject, f"sensitivity_at_specificity_{percent}").value
            assert (p[~yes] < threshold).mean() >= percent / 100
            assert found == pytest.approx((p[yes] >= threshold).mean())
            fpr, tpr, _ = reference.roc_curve(yes, p, drop_intermediate=False)
            assert found == pytest.approx(tpr[1 - fpr >= percent / 100 - 1e-12].max())
        assert pick(rows, subject, "sensitivity_at_half").value == pytest.approx((p[yes] >= 0.5).mean())
        assert pick(rows, subject, "specificity_at_half").value == pytest.approx((p[~yes] < 0.5).mean())


def test_threshold_is_infinite_with_a_note_if_none_is_specific_enough() -> None:
    alike = [replace(m, probs=(0.2,) * 5) for m in some(20)]
    rows = operating_point_scores(alike, FEW, DIABETIC_RETINOPATHY)
    found = pick(rows, "referable", "threshold_at_specificity_90")
    assert math.isinf(found.value) and found.note.startswith("infinite: no threshold is specific enough")
    assert pick(rows, "referable", "sensitivity_at_specificity_90").value == 0


def test_probability_of_exactly_one_half_is_called_positive() -> None:
    halves = [replace(m, grade=i % 2, probs=(0.5, 0.5, 0.0, 0.0, 0.0)) for i, m in enumerate(some(4))]
    sure = replace(halves[0], name="sure", patient="sure", probs=(0.75, 0.25, 0.0, 0.0, 0.0))
    rows = operating_point_scores([*halves, sure], FEW, DIABETIC_RETINOPATHY)
    assert pick(rows, "any", "sensitivity_at_half").value == 1
    assert pick(rows, "any", "specificity_at_half").value == pytest.approx(1 / 3)


def test_predicted_grades_without_probabilities_have_no_operating_point() -> None:
    assert operating_point_scores([replace(m, grade_only=True) for m in some(20)], FEW, DIABETIC_RETINOPATHY) == []


def test_true_grade_of_probability_0_makes_the_likelihood_infinite_with_a_note() -> None:
    measured = [replace(m, probs=(1.0, 0.0, 0.0, 0.0, 0.0)) for m in some(20)]
    found = pick(grading_scores(measured, FEW, TASK), "grade", "negative_log_likelihood")
    assert math.isinf(found.value) and found.note == "infinite: a true grade has probability 0"


def test_data_set_with_negative_and_positive_only_is_scored_as_binary() -> None:
    def sample(dataset: str, i: int, grade: int | None, dr_present: bool | None) -> Sample:
        name = f"{i}"
        return Sample(
            photograph=Path(name), name=name, patient=name, dataset=dataset, grade=grade, dr_present=dr_present
        )

    samples = [
        sample("real_lr", 0, 0, None),
        sample("real_lr", 1, None, True),
        sample("real_lr", 2, None, True),
        sample("ddr", 3, 0, None),
    ]
    probs = ((0.8, 0.2, 0.0, 0.0, 0.0), (0.1, 0.2, 0.3, 0.2, 0.2), (0.7, 0.1, 0.2, 0.0, 0.0), (0.6, 0.4, 0.0, 0.0, 0.0))
    measured = [
        PhotographResult(dataset=s.dataset, name=s.name, patient=s.name, grade=s.grade, probs=p)
        for s, p in zip(samples, probs, strict=True)
    ]
    measured = use_binary_labels(measured, samples)
    assert [m.positive for m in measured] == [False, True, True, None]
    assert [m.grade for m in measured] == [None, None, None, 0]
    rows = grading_scores(measured, FEW, BINARY_TASK)
    assert {row.dataset for row in rows} == {"real_lr"}
    of_set = [row for row in rows if row.dataset == "real_lr"]
    assert pick(of_set, "positive", "accuracy").value == pytest.approx(2 / 3)
    assert pick(of_set, "positive", "sensitivity").value == 0.5
    assert pick(of_set, "positive", "specificity").value == 1
    assert [row.dataset for row in grading_scores(measured, FEW, TASK) if row.score == "accuracy"] == ["ddr"]


def test_grades_and_thresholds_of_another_label_set_name_the_scores() -> None:
    labels = LabelSet(
        name="macula",
        disease="macular degeneration",
        lesions=(LesionType(code="DR", name="drusen"),),
        grades=(GradeLabel(name="none"), GradeLabel(name="early"), GradeLabel(name="late")),
        thresholds={"any": 1, "referable": 1, "needs_injection": 2},
    )
    measured = some(60, grades=3)
    probs, truth = arrays(measured)
    rows = grading_scores(measured, FEW, grade_task(labels))
    areas = [row.score for row in rows if row.score.startswith("auc_")]
    assert areas == ["auc_any", "auc_referable", "auc_needs_injection"]
    area = pick(rows, "grade", "auc_needs_injection")
    assert area.value == pytest.approx(reference.roc_auc_score(truth == 2, probs[:, 2]))
    assert [row.subject for row in by_grade_scores(measured, FEW, labels)][::2] == ["0 none", "1 early", "2 late"]
    points = operating_point_scores(measured, FEW, labels)
    assert list(dict.fromkeys(row.subject for row in points)) == ["any", "referable", "needs-injection"]
    assert np.shape(confusion_matrices(measured, labels)["x"]) == (3, 3)


def test_several_data_sets_have_a_mean_instead_of_a_score_of_all_together() -> None:
    measured = [replace(m, dataset="y" if i % 4 else "x") for i, m in enumerate(some())]
    rows = {(row.dataset, row.score): row for row in grading_scores(measured, FEW, TASK)}
    assert {dataset for dataset, _ in rows} == {"x", "y", "mean over sets"}
    for name in ("kappa_quadratic", "auc_referable", "brier", "debiased_ece"):
        mean = rows["mean over sets", name]
        assert mean.value == pytest.approx((rows["x", name].value + rows["y", name].value) / 2)
        assert mean.low <= mean.value <= mean.high and (mean.photographs, mean.note) == (200, "")
    assert set(confusion_matrices(measured, DIABETIC_RETINOPATHY)) == {"x", "y"}
    assert {row.dataset for row in operating_point_scores(measured, FEW, DIABETIC_RETINOPATHY)} == {"x", "y"}


def test_mean_over_data_sets_names_those_that_do_not_count() -> None:
    measured = [replace(m, dataset="few" if i < 5 else "x") for i, m in enumerate(some(100))]
    rows = {(row.dataset, row.score): row for row in grading_scores(measured, FEW, TASK)}
    mean = rows["mean over sets", "accuracy"]
    assert (mean.value, mean.photographs) == (rows["x", "accuracy"].value, 95)
    assert mean.note == "without few: undefined there, or fewer than 10 photographs"


def test_grades_decided_by_thresholds_are_scored_instead_of_the_most_probable_ones() -> None:
    measured = [replace(m, decided_grade=m.grade) for m in some()]
    rows = grading_scores(measured, FEW, TASK)
    plain = grading_scores(some(), FEW, TASK)
    assert pick(rows, "grade", "accuracy").value == pick(rows, "grade", "kappa_quadratic").value == 1
    for name in ("brier", "auc_referable", "debiased_ece", "expected_calibration_error"):
        assert pick(rows, "grade", name) == pick(plain, "grade", name)
    confusion = np.array(confusion_matrices(measured, DIABETIC_RETINOPATHY)["x"])
    assert confusion.trace() == confusion.sum() == 200
    each = by_grade_scores(measured, FEW, DIABETIC_RETINOPATHY)
    assert all(row.value == 1 for row in each)
