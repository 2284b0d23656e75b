"""Comparison of two systems on the same photographs, and inputs that cannot be compared."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from deepmtdr.errors import DataError
from deepmtdr.evaluation import Bootstrap, Comparison, PhotographResult, compare
from deepmtdr.evaluation.comparison import PairedTest, ScoreDifference
from deepmtdr.evaluation.grading import LABEL_SCORES, grading_functions
from deepmtdr.evaluation.run import score_photographs
from deepmtdr.labels import DIABETIC_RETINOPATHY
from deepmtdr.metrics import auc, kappa_quadratic

FEW = Bootstrap(resamples=200)


def system(skill: float, seed: int, photographs: int = 100, patients: int = 100) -> list[PhotographResult]:
    """The results of a system that grades better for a higher skill."""
    rng = np.random.default_rng(seed)
    truth = np.arange(photographs) % 5
    logits = rng.normal(size=(photographs, 5)) + skill * np.eye(5)[truth]
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return [
        PhotographResult(
            dataset="x", name=f"{i}", patient=f"{i % patients}", grade=int(truth[i]), probs=tuple(map(float, probs[i]))
        )
        for i in range(photographs)
    ]


def difference(done: Comparison, score: str) -> ScoreDifference:
    return next(row for row in done.differences if row.score == score)


def outcome(done: Comparison, test: str) -> PairedTest:
    return next(row for row in done.tests if row.test == test)


def test_system_compared_with_itself_has_no_difference_and_p_1() -> None:
    a = system(1, 0)
    done = compare(a, list(reversed(a)), bootstrap=FEW)
    assert [row.score for row in done.differences] == list(grading_functions(DIABETIC_RETINOPATHY))
    for row in done.differences:
        assert (row.a, row.difference, row.low, row.high, row.p_value) == (row.b, 0, 0, 0, 1)
    assert [row.p_value for row in done.tests] == [1, 1]


def test_clearly_better_system_has_a_small_p_value() -> None:
    done = compare(system(3, 0), system(0.5, 1), bootstrap=FEW)
    for name in ("kappa_quadratic", "accuracy", "auc_referable"):
        row = difference(done, name)
        assert row.low > 0 and row.p_value < 0.02
    assert difference(done, "brier").high < 0
    assert all(row.p_value < 0.001 for row in done.tests)


def test_equally_good_systems_have_a_large_p_value() -> None:
    done = compare(system(1, 0), system(1, 1), bootstrap=FEW)
    row = difference(done, "kappa_quadratic")
    assert row.low < 0 < row.high and row.p_value > 0.05


def test_values_are_those_of_each_system_and_the_difference_is_antisymmetric() -> None:
    a, b = system(2, 0), system(1, 1)
    there, back = compare(a, b, bootstrap=FEW), compare(b, a, bootstrap=FEW)
    truth = np.array([m.grade for m in a])
    predicted_a, predicted_b = (np.array([np.argmax(m.probs) for m in s]) for s in (a, b))
    row = difference(there, "kappa_quadratic")
    assert row.a == pytest.approx(kappa_quadratic(predicted_a, truth))
    assert row.b == pytest.approx(kappa_quadratic(predicted_b, truth))
    assert row.difference == row.a - row.b == -difference(back, "kappa_quadratic").difference
    assert row.low == pytest.approx(-difference(back, "kappa_quadratic").high)
    found = outcome(there, "delong").found
    assert found["auc_a"] == pytest.approx(auc(np.array([sum(m.probs[2:]) for m in a]), truth >= 2))
    only_a = int(((predicted_a == truth) & (predicted_b != truth)).sum())
    assert outcome(there, "mcnemar").found["only_a"] == only_a


def test_bootstrap_draws_patients_and_tests_note_that_they_assume_independence() -> None:
    single = compare(system(2, 0), system(1, 1), bootstrap=FEW)
    pairs = compare(system(2, 0, patients=50), system(1, 1, patients=50), bootstrap=FEW)
    assert (difference(pairs, "kappa").patients, difference(single, "kappa").patients) == (50, 100)
    assert all("some are of the same patient" in row.note for row in pairs.tests)
    assert all(row.note == "" for row in single.tests)


def test_predicted_grades_without_probabilities_are_compared_by_label_scores() -> None:
    a = system(2, 0)
    hard = [
        replace(m, probs=tuple(float(g == np.argmax(m.probs)) for g in range(5)), grade_only=True) for m in system(1, 1)
    ]
    done = compare(a, hard, bootstrap=FEW)
    assert {row.score for row in done.differences if not math.isnan(row.difference)} == set(LABEL_SCORES)
    area = difference(done, "auc_referable")
    assert not math.isnan(area.a) and math.isnan(area.b) and "needs probabilities" in area.note
    assert "needs probabilities" in outcome(done, "delong").note and outcome(done, "mcnemar").p_value < 1


def test_one_class_or_one_patient_is_undefined_with_a_note() -> None:
    healthy = [replace(m, grade=0, patient="one") for m in system(1, 0, photographs=4)]
    done = compare(healthy, healthy, bootstrap=FEW)
    assert "needs both" in difference(done, "auc_any").note
    assert difference(done, "accuracy").difference == 0
    assert "fewer than two patients" in difference(done, "accuracy").note
    assert "needs both" in outcome(done, "delong").note


def test_photograph_without_prediction_of_one_system_is_left_out_of_both() -> None:
    a, b = system(1, 0), system(1, 1)
    a[3] = replace(a[3], probs=(), failure="torn")
    b[5] = replace(b[5], grade=None)
    a[5] = replace(a[5], grade=None)
    done = compare(a, b, bootstrap=FEW)
    assert done.left_out == [("x", "3")]
    assert difference(done, "accuracy").photographs == 98


def test_binary_predictions_are_compared() -> None:
    a, b = (
        [
            PhotographResult(
                dataset="x", name=m.name, patient=m.patient, positive=m.grade != 0, p_positive=1 - m.probs[0]
            )
            for m in system(skill, seed)
        ]
        for skill, seed in ((3, 0), (0, 1))
    )
    done = compare(a, b, bootstrap=FEW)
    assert [row.score for row in done.differences] == ["accuracy", "sensitivity", "specificity", "auc"]
    assert difference(done, "auc").p_value < 0.02 and outcome(done, "delong").p_value < 0.001
    with pytest.raises(DataError, match="one system predicts grade >= 1 only"):
        compare(a, system(1, 0))


def test_binary_system_whose_predictions_all_failed_has_the_same_task_as_another_binary_system() -> None:
    names = "abcd"
    b = [PhotographResult(dataset="x", name=n, patient=n, positive=n > "b", p_positive=0.5) for n in names]
    a = [replace(m, p_positive=None, failure="torn") for m in b]
    with pytest.raises(DataError, match="no photograph with a known label and predictions of both systems"):
        compare(a, b, bootstrap=FEW)


def test_two_data_sets_are_compared_separately_and_together() -> None:
    a, b = ([*s, *(replace(m, dataset="y") for m in s)] for s in (system(2, 0, 40), system(1, 1, 40)))
    done = compare(a, b, bootstrap=FEW)
    assert list(dict.fromkeys(row.dataset for row in done.differences)) == ["x", "y", "mean over sets"]
    assert [row.dataset for row in done.tests] == ["x", "x", "y", "y"], "no test over several cameras"
    kappa = {row.dataset: row for row in done.differences if row.score == "kappa_quadratic"}
    mean = kappa["mean over sets"]
    assert mean.difference == pytest.approx((kappa["x"].difference + kappa["y"].difference) / 2)
    assert mean.a == pytest.approx((kappa["x"].a + kappa["y"].a) / 2)
    assert mean.low < mean.difference < mean.high
    assert mean.high - mean.low < kappa["x"].high - kappa["x"].low
    assert len(done.tables()) == 6


def test_system_that_recognises_the_camera_is_not_better_over_several_data_sets() -> None:
    rng = np.random.default_rng(0)
    low, high = (0.7, 0.1, 0.1, 0.1, 0.0), (0.0, 0.1, 0.1, 0.7, 0.1)
    truth = [("x", int(g)) for g in rng.choice([0, 0, 1], 40)] + [("y", int(g)) for g in rng.choice([2, 3, 4], 40)]
    camera, constant = (
        [
            PhotographResult(dataset=d, name=f"{n}", patient=f"{n}", grade=g, probs=high if d == "y" and tells else low)
            for n, (d, g) in enumerate(truth)
        ]
        for tells in (True, False)
    )
    done = compare(camera, constant, bootstrap=FEW)
    (kappa,) = (r for r in done.differences if (r.dataset, r.score) == ("mean over sets", "kappa_quadratic"))
    assert (kappa.a, kappa.b, kappa.difference) == pytest.approx((0, 0, 0))


def test_different_photographs_or_labels_are_errors() -> None:
    a, b = system(1, 0), system(1, 1)
    with pytest.raises(DataError, match=r"system B lacks 4 photographs of the other system: 0, 1, 2, \.\.\.;"):
        compare(a, b[4:])
    with pytest.raises(DataError, match="system A lacks 1 photographs of the other system: 99;"):
        compare(a[:-1], b)
    with pytest.raises(DataError, match="x 0: true grade 0 in system A, 4 in B"):
        compare(a, [replace(b[0], grade=4), *b[1:]])
    with pytest.raises(DataError, match="x 0: true patient 0 in system A, 7 in B"):
        compare(a, [replace(b[0], patient="7"), *b[1:]])
    with pytest.raises(DataError, match="x 0: twice in system B"):
        compare(a, [*b, replace(b[0])])
    with pytest.raises(DataError, match="no photograph with a known label and predictions of both systems"):
        compare([replace(m, grade=None) for m in a], [replace(m, grade=None) for m in b])


def test_tables_and_json_contain_all_results(tmp_path: Path) -> None:
    healthy = [replace(m, grade=0) for m in system(1, 0, photographs=4)]
    done = compare(healthy, healthy, bootstrap=FEW)
    differences, tests = done.tables()
    assert len(differences.rows) == len(done.differences) and len(tests.rows) == 2
    assert all(len(row) == len(table.columns) for table in (differences, tests) for row in table.rows)
    assert any("undefined: needs both positive and negative" in cell for row in differences.rows for cell in row)
    done.write(tmp_path)
    written = json.loads((tmp_path / "comparison.json").read_text())
    rows = {row["score"]: row for row in written["differences"]}
    assert rows["auc_any"]["difference"] is None and "needs both" in rows["auc_any"]["note"]
    assert written["tests"][1]["found"]["auc_a"] is None


def test_evaluations_with_different_label_sets_are_not_compared() -> None:
    a, b = (score_photographs(system(1, seed, 20), {}, FEW, {}) for seed in (0, 1))
    other = replace(DIABETIC_RETINOPATHY, name="other", thresholds={"any": 1, "referable": 3})
    with pytest.raises(DataError, match="the systems have the label sets 'diabetic-retinopathy' and 'other'"):
        compare(a, replace(b, labels=other), bootstrap=FEW)


def test_auc_of_delong_is_that_of_the_referable_threshold_of_the_label_set() -> None:
    labels = replace(DIABETIC_RETINOPATHY, thresholds={"any": 1, "referable": 3})
    a, b = system(2, 0), system(1, 1)
    done = compare(a, b, bootstrap=FEW, labels=labels)
    truth = np.array([m.grade for m in a])
    expected = auc(np.array([sum(m.probs[3:]) for m in a]), truth >= 3)
    assert outcome(done, "delong").found["auc_a"] == pytest.approx(expected)
