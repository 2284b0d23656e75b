"""Scoring a table of predictions: against scikit-learn, against `evaluate`, and wrong input."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn import metrics as reference

from deepmtdr.checkpoint import Checkpoint
from deepmtdr.errors import DataError
from deepmtdr.evaluation import Bootstrap, Evaluation, EvaluationConfig, Score, evaluate, score_predictions
from deepmtdr.evaluation.grading import LABEL_SCORES
from deepmtdr.labels import DIABETIC_RETINOPATHY, GradeLabel
from deepmtdr.model.deepmtdr import DeepMTDR
from deepmtdr.recipe import load_recipe
from deepmtdr.synthetic.drawings import write_drawings

FEW = Bootstrap(resamples=100)
PROBS = [f"p{grade}" for grade in range(5)]


def write_table(path: Path, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, *rows])
    return path


def some(seed: int = 0, photographs: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities that are better than chance, and true grades; every grade occurs."""
    rng = np.random.default_rng(seed)
    truth = np.arange(photographs) % 5
    logits = rng.normal(size=(photographs, 5)) + 1.5 * np.eye(5)[truth]
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), truth


def tables(folder: Path, probs: np.ndarray, truth: np.ndarray, patients: int = 30) -> tuple[Path, Path]:
    predictions = write_table(
        folder / "predicted.csv", ["name", *PROBS], [(f"eye{i}", *row) for i, row in enumerate(probs)]
    )
    known = [(f"eye{i}", grade, f"patient{i % patients}") for i, grade in enumerate(truth)]
    return predictions, write_table(folder / "truth.csv", ["name", "grade", "patient"], known)


def by_name(done: Evaluation, dataset: str = "truth") -> dict[str, Score]:
    """The scores of the table "grading" for a data set."""
    return {score.score: score for score in done.scores if (score.dataset, score.task) == (dataset, "grading")}


def scored(folder: Path, predictions: str, truth: str, **options: bool) -> Evaluation:
    """Score two tables that are given as text, with a space for each new line."""
    for name, text in (("predicted.csv", predictions), ("truth.csv", truth)):
        (folder / name).write_text(text.replace(" ", "\n"), encoding="utf-8")
    return score_predictions(folder / "predicted.csv", folder / "truth.csv", bootstrap=FEW, **options)


def test_scores_agree_with_scikit_learn(tmp_path: Path) -> None:
    probs, truth = some()
    scores = by_name(score_predictions(*tables(tmp_path, probs, truth), bootstrap=FEW))
    predicted = probs.argmax(axis=1)
    expected = {
        "kappa_quadratic": reference.cohen_kappa_score(truth, predicted, weights="quadratic"),
        "kappa_linear": reference.cohen_kappa_score(truth, predicted, weights="linear"),
        "kappa": reference.cohen_kappa_score(truth, predicted),
        "accuracy": reference.accuracy_score(truth, predicted),
        "f1_macro": reference.f1_score(truth, predicted, average="macro"),
        "auc_any": reference.roc_auc_score(truth >= 1, probs[:, 1:].sum(axis=1)),
        "auc_referable": reference.roc_auc_score(truth >= 2, probs[:, 2:].sum(axis=1)),
        "auc_sight_threatening": reference.roc_auc_score(truth >= 3, probs[:, 3:].sum(axis=1)),
        "brier": np.square(probs - np.eye(5)[truth]).sum(axis=1).mean(),
    }
    assert {name: scores[name].value for name in expected} == pytest.approx(expected)
    assert (scores["accuracy"].photographs, scores["accuracy"].patients) == (60, 30)
    assert all(score.low <= score.value <= score.high for name, score in scores.items() if name.startswith("auc"))


def test_the_order_of_the_predictions_does_not_matter(tmp_path: Path) -> None:
    predictions, truth = tables(tmp_path, *some())
    first = score_predictions(predictions, truth, bootstrap=FEW)
    head, *rows = predictions.read_text().splitlines()
    predictions.write_text("\n".join([head, *reversed(rows)]))
    assert score_predictions(predictions, truth, bootstrap=FEW).scores == first.scores


def test_photograph_without_patient_counts_as_its_own_patient(tmp_path: Path) -> None:
    done = scored(tmp_path, "name,predicted_grade a,0 b,1 c,1", "name,grade a,0 b,1 c,0")
    assert by_name(done)["accuracy"].patients == 3
    done = scored(tmp_path, "name,predicted_grade a,0 b,1 c,1", "name,grade,patient a,0,one b,1,one c,0,")
    assert by_name(done)["accuracy"].patients == 2


# --- predictions.csv of an evaluation ---


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> tuple[Evaluation, Path]:
    """An evaluation with one photograph without grade and one unreadable file, and its predictions.csv."""
    folder = tmp_path_factory.mktemp("own")
    torch.manual_seed(0)
    recipe = load_recipe("smoke")
    untrained = Checkpoint(DeepMTDR(recipe.model).eval(), recipe, {"weights": "untrained"}, "0" * 64)
    drawings = write_drawings(folder / "drawings", [2, 3, 10, 11, 18, 19], size=276)
    (folder / "text.jpg").write_text("not a photograph")
    more = [
        *(replace(sample, dataset="other") for sample in drawings[:3]),
        replace(drawings[3], dataset="other", grade=None),
        replace(drawings[0], dataset="other", name="text", photograph=folder / "text.jpg"),
    ]
    done = evaluate(untrained, [*drawings, *more], EvaluationConfig(thorough=False, slow_metrics=False, bootstrap=FEW))
    done.write(folder)
    return done, folder / "predictions.csv"


def test_own_predictions_csv_gives_exactly_the_scores_of_the_evaluation(own: tuple[Evaluation, Path]) -> None:
    done, path = own
    again = score_predictions(path, path, bootstrap=FEW)
    of_grades = ("grading", "each grade", "operating points")
    assert repr(again.scores) == repr(
        [score for score in done.scores if score.task in of_grades]
    )  # as text, because nan != nan
    assert again.confusion == done.confusion
    assert [(m.name, m.failure) for m in again.failures] == [(m.name, m.failure) for m in done.failures]
    assert (again.protocol["without_grade"], again.protocol["failed"]) == (1, 1)


def test_written_predictions_can_be_scored_again(tmp_path: Path) -> None:
    done = scored(tmp_path, "name,predicted_grade a,0 b,1 c,1", "name,grade a,0 b,1 c,0")
    done.write(tmp_path)
    written = tmp_path / "predictions.csv"
    assert repr(score_predictions(written, written, bootstrap=FEW).scores) == repr(done.scores)


# --- Grades alone ---


def test_predicted_grades_without_probabilities_leave_other_scores_undefined(tmp_path: Path) -> None:
    probs, truth = some()
    predicted = probs.argmax(axis=1)
    predictions = write_table(
        tmp_path / "hard.csv", ["name", "predicted_grade"], [(f"eye{i}", g) for i, g in enumerate(predicted)]
    )
    hard = by_name(score_predictions(predictions, tables(tmp_path, probs, truth)[1], bootstrap=FEW))
    soft = by_name(score_predictions(*tables(tmp_path, probs, truth), bootstrap=FEW))
    assert {name for name, score in hard.items() if not math.isnan(score.value)} == set(LABEL_SCORES)
    assert {name: hard[name] for name in LABEL_SCORES} == {name: soft[name] for name in LABEL_SCORES}
    assert hard["auc_referable"].note == hard["brier"].note == "needs probabilities, found predicted grades only"


def test_label_scores_do_not_depend_on_the_probabilities() -> None:
    probs, truth = some()
    predicted = probs.argmax(axis=1)
    hard = np.eye(5)[predicted]
    for score in LABEL_SCORES.values():
        assert score.function(predicted, hard, truth) == score.function(predicted, probs, truth)


# --- Undefined, and why ---


def test_one_class_or_one_patient_is_undefined_with_a_note(tmp_path: Path) -> None:
    predictions = "name,p0,p1,p2,p3,p4 a,1,0,0,0,0 b,0.4,0.6,0,0,0"
    scores = by_name(scored(tmp_path, predictions, "name,grade,patient a,0,x b,0,x"))
    assert math.isnan(scores["auc_any"].value) and "needs both" in scores["auc_any"].note
    assert scores["accuracy"].value == 0.5
    assert math.isnan(scores["accuracy"].low) and "fewer than two patients" in scores["accuracy"].note
    all_right = by_name(scored(tmp_path, "name,predicted_grade a,0 b,0", "name,grade a,0 b,0"))
    assert math.isnan(all_right["kappa"].value) and "are the same" in all_right["kappa"].note


def test_row_with_status_error_is_a_failure_with_its_message(tmp_path: Path) -> None:
    predictions = "name,status,message,predicted_grade a,ok,,0 b,error,torn, c,ungradable,,"
    done = scored(tmp_path, predictions, "name,grade a,0 b,1 c,0")
    assert [(m.name, m.failure) for m in done.failures] == [
        ("b", "torn"),
        ("c", f"{tmp_path}/predicted.csv, row 4: status ungradable, without a message"),
    ]
    assert by_name(done)["accuracy"].photographs == 1


def test_missing_predictions_are_an_error_or_failures(tmp_path: Path) -> None:
    predictions, truth = "name,predicted_grade a,0", "name,grade a,0 b,1 c,0 d,0 e,1"
    with pytest.raises(DataError, match=r"no row for 4 of the 5 photographs .*truth\.csv: b, c, d, \.\.\.;.*--allow-m"):
        scored(tmp_path, predictions, truth)
    done = scored(tmp_path, predictions, truth, allow_missing=True)
    assert [(m.name, m.failure) for m in done.failures] == [(n, f"no row in {tmp_path}/predicted.csv") for n in "bcde"]
    assert done.protocol["failed"] == len(done.as_dict()["failures"]) == 4


# --- Two data sets ---


def test_same_name_in_two_data_sets_needs_the_data_set_in_both_tables(tmp_path: Path) -> None:
    predictions = "name,dataset,predicted_grade a,one,0 a,two,1"
    done = scored(tmp_path, predictions, "name,dataset,grade a,one,0 a,two,0")
    assert by_name(done, "one")["accuracy"].value == 1
    assert by_name(done, "two")["accuracy"].value == 0
    assert by_name(done, "mean over sets")["accuracy"].value == 0.5
    with pytest.raises(
        DataError, match=r"predicted\.csv, row 3: found a for the second time; .* the other table does not have it"
    ):
        scored(tmp_path, predictions, "name,grade a,0 b,0")


def test_data_set_is_taken_from_the_truth(tmp_path: Path) -> None:
    done = scored(tmp_path, "name,predicted_grade a,0 b,1", "name,dataset,grade a,one,0 b,two,0")
    assert {score.dataset for score in done.scores} == {"one", "two", "mean over sets"}


# --- Bad input ---


BAD = {
    "twice predicted": (
        "name,predicted_grade a,0 a,1",
        "name,grade a,0",
        r"predicted\.csv, row 3: found a for the second time",
    ),
    "twice known": (
        "name,predicted_grade a,0",
        "name,grade a,0 a,0",
        r"truth\.csv, row 3: found a for the second time",
    ),
    "unknown": (
        "name,predicted_grade a,0 b,1",
        "name,grade a,0",
        r"row 3: 1 photographs not in .*truth\.csv: b; expected its photographs: a",
    ),
    "nan": ("name,p0,p1,p2,p3,p4 a,nan,0,0,0,1", "name,grade a,0", r"row 2: p0 is '', expected a probability"),
    "below 0": ("name,p0,p1,p2,p3,p4 a,0,-0.1,0,0,1.1", "name,grade a,0", r"row 2: p1 is '-0\.1', expected"),
    "above 1": ("name,p0,p1,p2,p3,p4 a,1.5,0,0,0,0", "name,grade a,0", r"row 2: p0 is '1\.5', expected"),
    "no number": ("name,p0,p1,p2,p3,p4 a,x,0,0,0,1", "name,grade a,0", r"row 2: p0 is 'x', expected"),
    "empty cell": ("name,p0,p1,p2,p3,p4 a,1,,0,0,0", "name,grade a,0", r"row 2: p1 is '', expected"),
    "no p4": ("name,p0,p1,p2,p3 a,1,0,0,0", "name,grade a,0", r"row 2: p4 is '', expected"),
    "no p0": ("name,p1,p2,p3,p4 a,1,0,0,0", "name,grade a,0", r"row 2: p0 is '', expected"),
    "sum": (
        "name,p0,p1,p2,p3,p4 a,0.5,0.4,0,0,0",
        "name,grade a,0",
        r"row 2: the sum of p0 \.\.\. p4 is 0\.9, expected 1",
    ),
    "neither": ("name a", "name,grade a,0", r"row 2: found no prediction, expected p0 \.\.\. p4 or predicted_grade"),
    "contradiction": (
        "name,predicted_grade,p0,p1,p2,p3,p4 a,3,0.9,0.1,0,0,0",
        "name,grade a,0",
        r"row 2: predicted_grade 3, but the highest probability is that of grade 0 and the expected grade is 0\.10",
    ),
    "predicted 5": (
        "name,predicted_grade a,5",
        "name,grade a,0",
        r"predicted\.csv, row 2: expected a grade 0-4, found '5'",
    ),
    "true -1": ("name,predicted_grade a,0", "name,grade a,-1", r"truth\.csv, row 2: expected a grade 0-4, found '-1'"),
    "positive": ("name,predicted_grade a,0", "name,grade a,positive", r"row 2: expected a grade 0-4, found 'positive'"),
    "no grade at all": (
        "name,predicted_grade a,0",
        "name,grade a,",
        r"truth\.csv: found no photograph with a grade",
    ),
    "no name": ("name,predicted_grade ,0", "name,grade a,0", r"predicted\.csv, row 2: the cell `name` is empty"),
    "no data set": (
        "name,predicted_grade a,0",
        "name,dataset,grade a,,0",
        r"truth\.csv, row 2: found dataset '', expected the name of a data set",
    ),
    "all": (
        "name,predicted_grade a,0",
        "name,dataset,grade a,all,0",
        r"truth\.csv, row 2: found dataset 'all', expected the name of a data set",
    ),
    "no column": ("image,predicted_grade a,0", "name,grade a,0", r"predicted\.csv, row 1: expected the columns name"),
    "no truth": ("name,predicted_grade a,0", "name,label a,0", r"truth\.csv, row 1: .* grade not found"),
    "column twice": ("name,p0,p0 a,0,0", "name,grade a,0", r"predicted\.csv, row 1: found two columns p0"),
    "no rows": ("name,predicted_grade", "name,grade a,0", r"predicted\.csv: found no rows, expected one for each"),
}


@pytest.mark.parametrize("kind", BAD)
def test_wrong_input_is_an_error_with_file_and_row(tmp_path: Path, kind: str) -> None:
    predictions, truth, message = BAD[kind]
    with pytest.raises(DataError, match=message):
        scored(tmp_path, predictions, truth)


def test_missing_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.csv: cannot be read"):
        score_predictions(tmp_path / "gone.csv", tmp_path / "gone.csv")


# --- Negative or positive ---


def test_binary_scores_agree_with_scikit_learn_for_every_form_of_prediction(tmp_path: Path) -> None:
    probs, grades = some()
    p, truth = probs[:, 1:].sum(axis=1), grades >= 1
    predictions, known = tables(tmp_path, probs, grades)
    alone = write_table(
        tmp_path / "p.csv", ["name", "p_positive"], [(f"eye{i}", repr(float(x))) for i, x in enumerate(p)]
    )
    no_p0 = write_table(
        tmp_path / "no.csv", ["name", *PROBS[1:]], [(f"eye{i}", *row[1:]) for i, row in enumerate(probs)]
    )
    words = [(f"eye{i}", "positive" if x else "negative", f"patient{i % 30}") for i, x in enumerate(truth)]
    in_words = write_table(tmp_path / "words.csv", ["name", "grade", "patient"], words)
    expected = {
        "accuracy": reference.accuracy_score(truth, p >= 0.5),
        "sensitivity": reference.recall_score(truth, p >= 0.5),
        "specificity": reference.recall_score(~truth, p < 0.5),
        "auc": reference.roc_auc_score(truth, p),
    }
    for form, table in ((predictions, known), (alone, known), (no_p0, in_words)):
        done = score_predictions(form, table, binary=True, bootstrap=FEW)
        assert {s.score: s.value for s in done.scores} == pytest.approx(expected)
        assert all(s.low <= s.value <= s.high and s.subject == "positive" for s in done.scores)


def test_binary_scores_without_probabilities_or_with_one_class_are_undefined(tmp_path: Path) -> None:
    predictions = "name,predicted_grade a,negative b,positive c,2"
    scores = by_name(scored(tmp_path, predictions, "name,grade a,0 b,1 c,negative", binary=True))
    assert (scores["sensitivity"].value, scores["specificity"].value) == (1, 0.5)
    assert math.isnan(scores["auc"].value) and "needs probabilities" in scores["auc"].note
    scores = by_name(scored(tmp_path, "name,p_positive a,0.2 b,0.9", "name,grade a,0 b,0", binary=True))
    assert math.isnan(scores["sensitivity"].value) and scores["sensitivity"].note == "no positive photograph"
    assert math.isnan(scores["auc"].value) and scores["specificity"].value == 0.5


@pytest.mark.parametrize(
    ("predictions", "truth", "message"),
    [
        ("name,p_positive a,1.2", "name,grade a,0", r"row 2: p_positive is '1\.2', expected"),
        ("name,p1,p2,p3,p4 a,0.9,0.9,0,0", "name,grade a,0", r"row 2: the sum of p0 \.\.\. p4 is 1\.8"),
        (
            "name,predicted_grade a,yes",
            "name,grade a,0",
            r"predicted\.csv, row 2: grade is 'yes', expected negative, positive or",
        ),
        (
            "name,predicted_grade a,0",
            "name,grade a,yes",
            r"truth\.csv, row 2: grade is 'yes', expected negative, positive or",
        ),
        (
            "name a",
            "name,grade a,0",
            r"row 2: found no prediction, expected p_positive, p1 \.\.\. p4 or predicted_grade",
        ),
    ],
)
def test_wrong_binary_input_is_an_error(tmp_path: Path, predictions: str, truth: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        scored(tmp_path, predictions, truth, binary=True)


def test_protocol_identifies_both_tables(tmp_path: Path) -> None:
    done = scored(tmp_path, "name,predicted_grade a,0 b,1", "name,grade a,0 b,1")
    done.write_scores(tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["evaluation.json"]
    written = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert (
        written["protocol"]["predictions"]["file"] == "predicted.csv"
        and len(written["protocol"]["truth"]["sha256"]) == 64
    )


def test_binary_p0_is_the_rest_of_the_others_if_its_cell_is_empty(tmp_path: Path) -> None:
    predictions = "name,p0,p1,p2,p3,p4 a,,0.1,0.1,0,0 b,,0.5,0.3,0.1,0"
    done = scored(tmp_path, predictions, "name,grade a,0 b,2", binary=True)
    assert [m.p_positive for m in done.results] == pytest.approx([0.2, 0.9])


def test_another_label_set_has_its_own_columns_and_grades(tmp_path: Path) -> None:
    labels = replace(
        DIABETIC_RETINOPATHY,
        grades=(GradeLabel(name="none"), GradeLabel(name="early"), GradeLabel(name="late")),
        thresholds={"any": 1, "referable": 2},
    )
    predictions = write_table(
        tmp_path / "predicted.csv", ["name", "p0", "p1", "p2"], [("a", 0.7, 0.2, 0.1), ("b", 0.1, 0.3, 0.6)]
    )
    truth = write_table(tmp_path / "truth.csv", ["name", "grade"], [("a", 0), ("b", 2)])
    done = score_predictions(predictions, truth, labels=labels, bootstrap=FEW)
    assert done.confusion == {"truth": [[1, 0, 0], [0, 0, 0], [0, 0, 1]]}
    assert done.protocol["asked"] == "grade 0-2"
    done.write(tmp_path)
    header = (tmp_path / "predictions.csv").read_text().splitlines()[0].split(",")
    assert [column for column in header if column[0] == "p" and column[1:].isdecimal()] == ["p0", "p1", "p2"]
    with pytest.raises(DataError, match="row 2: expected a grade 0-2, found '3'"):
        score_predictions(
            predictions, write_table(tmp_path / "four.csv", ["name", "grade"], [("a", 3), ("b", 0)]), labels=labels
        )
