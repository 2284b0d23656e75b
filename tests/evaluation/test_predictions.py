"""Predictions of any system, from a table: against scikit-learn, against `evaluate`, and every kind of bad input."""

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
from sklearn import metrics as judge

from deepmtdr.checkpoint import Checkpoint
from deepmtdr.errors import DataError
from deepmtdr.evaluation import Bootstrap, Evaluation, Score, evaluate, score_predictions
from deepmtdr.evaluation.grading import GRADING_SCORES, LABEL_SCORES
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
    """Probabilities that know something, and true grades; every grade occurs."""
    rng = np.random.default_rng(seed)
    truth = np.arange(photographs) % 5
    logits = rng.normal(size=(photographs, 5)) + 1.5 * np.eye(5)[truth]
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), truth


def tables(folder: Path, probs: np.ndarray, truth: np.ndarray, patients: int = 30) -> tuple[Path, Path]:
    said = write_table(folder / "said.csv", ["name", *PROBS], [(f"eye{i}", *row) for i, row in enumerate(probs)])
    known = [(f"eye{i}", grade, f"patient{i % patients}") for i, grade in enumerate(truth)]
    return said, write_table(folder / "truth.csv", ["name", "grade", "patient"], known)


def by_name(done: Evaluation, dataset: str = "truth") -> dict[str, Score]:
    """The scores of the grade, or of positive and negative."""
    return {score.score: score for score in done.scores if (score.dataset, score.task) == (dataset, "grading")}


def scored(folder: Path, said: str, truth: str, **options: bool) -> Evaluation:
    """Two tables as they would be typed."""
    for name, text in (("said.csv", said), ("truth.csv", truth)):
        (folder / name).write_text(text.replace(" ", "\n"), encoding="utf-8")
    return score_predictions(folder / "said.csv", folder / "truth.csv", bootstrap=FEW, **options)


def test_scores_are_those_of_scikit_learn(tmp_path: Path) -> None:
    probs, truth = some()
    scores = by_name(score_predictions(*tables(tmp_path, probs, truth), bootstrap=FEW))
    predicted = probs.argmax(axis=1)
    expected = {
        "kappa_quadratic": judge.cohen_kappa_score(truth, predicted, weights="quadratic"),
        "kappa_linear": judge.cohen_kappa_score(truth, predicted, weights="linear"),
        "kappa": judge.cohen_kappa_score(truth, predicted),
        "accuracy": judge.accuracy_score(truth, predicted),
        "f1_macro": judge.f1_score(truth, predicted, average="macro"),
        "auc_any": judge.roc_auc_score(truth >= 1, probs[:, 1:].sum(axis=1)),
        "auc_referable": judge.roc_auc_score(truth >= 2, probs[:, 2:].sum(axis=1)),
        "auc_sight_threatening": judge.roc_auc_score(truth >= 3, probs[:, 3:].sum(axis=1)),
        "brier": np.square(probs - np.eye(5)[truth]).sum(axis=1).mean(),
    }
    assert {name: scores[name].value for name in expected} == pytest.approx(expected)
    assert (scores["accuracy"].photographs, scores["accuracy"].patients) == (60, 30)
    assert all(score.low <= score.value <= score.high for name, score in scores.items() if name.startswith("auc"))


def test_the_order_of_the_predictions_does_not_matter(tmp_path: Path) -> None:
    said, truth = tables(tmp_path, *some())
    first = score_predictions(said, truth, bootstrap=FEW)
    head, *rows = said.read_text().splitlines()
    said.write_text("\n".join([head, *reversed(rows)]))
    assert score_predictions(said, truth, bootstrap=FEW).scores == first.scores


def test_without_patients_each_photograph_is_its_own(tmp_path: Path) -> None:
    done = scored(tmp_path, "name,predicted_grade a,0 b,1 c,1", "name,grade a,0 b,1 c,0")
    assert by_name(done)["accuracy"].patients == 3
    done = scored(tmp_path, "name,predicted_grade a,0 b,1 c,1", "name,grade,patient a,0,one b,1,one c,0,")
    assert by_name(done)["accuracy"].patients == 2


# --- Our own predictions.csv ---


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> tuple[Evaluation, Path]:
    """An evaluation of two data sets, one photograph without grade and one that is none, and its folder."""
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
    done = evaluate(untrained, [*drawings, *more], bootstrap=FEW)
    done.write(folder)
    return done, folder / "predictions.csv"


def test_own_predictions_give_exactly_what_the_evaluation_gave(own: tuple[Evaluation, Path]) -> None:
    done, path = own
    again = score_predictions(path, path, bootstrap=FEW)
    of_grades = ("grading", "each grade", "operating points")
    assert repr(again.scores) == repr([score for score in done.scores if score.task in of_grades])  # nan is nan
    assert again.confusion == done.confusion
    assert [(m.name, m.failure) for m in again.failures] == [(m.name, m.failure) for m in done.failures]
    assert (again.protocol["without_grade"], again.protocol["failed"]) == (1, 1)


def test_what_was_scored_can_be_written_and_scored_again(tmp_path: Path) -> None:
    done = scored(tmp_path, "name,predicted_grade a,0 b,1 c,1", "name,grade a,0 b,1 c,0")
    done.write(tmp_path)
    written = tmp_path / "predictions.csv"
    assert repr(score_predictions(written, written, bootstrap=FEW).scores) == repr(done.scores)


# --- Grades alone ---


def test_grades_alone_leave_scores_of_probabilities_undefined_with_the_reason(tmp_path: Path) -> None:
    probs, truth = some()
    predicted = probs.argmax(axis=1)
    said = write_table(
        tmp_path / "hard.csv", ["name", "predicted_grade"], [(f"eye{i}", g) for i, g in enumerate(predicted)]
    )
    hard = by_name(score_predictions(said, tables(tmp_path, probs, truth)[1], bootstrap=FEW))
    soft = by_name(score_predictions(*tables(tmp_path, probs, truth), bootstrap=FEW))
    assert {name for name, score in hard.items() if not math.isnan(score.value)} == set(LABEL_SCORES)
    assert {name: hard[name] for name in LABEL_SCORES} == {name: soft[name] for name in LABEL_SCORES}
    assert hard["auc_referable"].note == hard["brier"].note == "needs probabilities, found grades alone"


def test_the_scores_of_the_grade_are_grading_scores_and_need_no_probability() -> None:
    probs, truth = some()
    hard = np.eye(5)[probs.argmax(axis=1)]
    for name in LABEL_SCORES:
        score = GRADING_SCORES[name][0]
        assert score(hard, truth) == score(probs, truth)


# --- Undefined, and why ---


def test_one_class_or_one_patient_is_undefined_with_the_reason(tmp_path: Path) -> None:
    said = "name,p0,p1,p2,p3,p4 a,1,0,0,0,0 b,0.4,0.6,0,0,0"
    scores = by_name(scored(tmp_path, said, "name,grade,patient a,0,x b,0,x"))
    assert math.isnan(scores["auc_any"].value) and "both kinds" in scores["auc_any"].note
    assert scores["accuracy"].value == 0.5
    assert math.isnan(scores["accuracy"].low) and "fewer than two patients" in scores["accuracy"].note
    all_right = by_name(scored(tmp_path, "name,predicted_grade a,0 b,0", "name,grade a,0 b,0"))
    assert math.isnan(all_right["kappa"].value) and "one single grade" in all_right["kappa"].note


def test_an_error_row_is_a_failure_with_its_message(tmp_path: Path) -> None:
    said = "name,status,message,predicted_grade a,ok,,0 b,error,torn, c,ungradable,,"
    done = scored(tmp_path, said, "name,grade a,0 b,1 c,0")
    assert [(m.name, m.failure) for m in done.failures] == [
        ("b", "torn"),
        ("c", f"{tmp_path}/said.csv, row 4: status ungradable, without a message"),
    ]
    assert by_name(done)["accuracy"].photographs == 1


def test_missing_predictions_are_refused_or_listed(tmp_path: Path) -> None:
    said, truth = "name,predicted_grade a,0", "name,grade a,0 b,1 c,0 d,0 e,1"
    with pytest.raises(DataError, match=r"no row for 4 of the 5 photographs .*truth\.csv: b, c, d, \.\.\.;.*--allow-m"):
        scored(tmp_path, said, truth)
    done = scored(tmp_path, said, truth, allow_missing=True)
    assert [(m.name, m.failure) for m in done.failures] == [(n, f"no row in {tmp_path}/said.csv") for n in "bcde"]
    assert done.protocol["failed"] == len(done.as_dict()["failures"]) == 4


# --- Two data sets ---


def test_a_name_may_stand_in_two_data_sets_if_both_tables_tell_them_apart(tmp_path: Path) -> None:
    said = "name,dataset,predicted_grade a,one,0 a,two,1"
    done = scored(tmp_path, said, "name,dataset,grade a,one,0 a,two,0")
    assert by_name(done, "one")["accuracy"].value == 1
    assert by_name(done, "two")["accuracy"].value == 0
    assert by_name(done, "all")["accuracy"].value == 0.5
    with pytest.raises(
        DataError, match=r"said\.csv, row 3: a for the second time, .*row 2;.*its data set tells nothing"
    ):
        scored(tmp_path, said, "name,grade a,0 b,0")


def test_the_data_set_is_that_of_the_truth(tmp_path: Path) -> None:
    done = scored(tmp_path, "name,predicted_grade a,0 b,1", "name,dataset,grade a,one,0 b,two,0")
    assert {score.dataset for score in done.scores} == {"one", "two", "all"}


# --- Bad input ---


BAD = {
    "twice predicted": ("name,predicted_grade a,0 a,1", "name,grade a,0", r"said\.csv, row 3: a for the second time"),
    "twice known": ("name,predicted_grade a,0", "name,grade a,0 a,0", r"truth\.csv, row 3: a for the second time"),
    "unknown": ("name,predicted_grade a,0 b,1", "name,grade a,0", r"row 3: 1 photographs not in .*truth\.csv: b; it"),
    "nan": ("name,p0,p1,p2,p3,p4 a,nan,0,0,0,1", "name,grade a,0", r"row 2: expected a probability .* p0, found 'nan'"),
    "below 0": ("name,p0,p1,p2,p3,p4 a,0,-0.1,0,0,1.1", "name,grade a,0", r"row 2: .* in p1, found '-0\.1'"),
    "above 1": ("name,p0,p1,p2,p3,p4 a,1.5,0,0,0,0", "name,grade a,0", r"row 2: .* in p0, found '1\.5'"),
    "no number": ("name,p0,p1,p2,p3,p4 a,x,0,0,0,1", "name,grade a,0", r"row 2: .* in p0, found 'x'"),
    "empty cell": ("name,p0,p1,p2,p3,p4 a,1,,0,0,0", "name,grade a,0", r"row 2: .* in p1, found ''"),
    "no p4": ("name,p0,p1,p2,p3 a,1,0,0,0", "name,grade a,0", r"row 2: .* in p4, found ''"),
    "no p0": ("name,p1,p2,p3,p4 a,1,0,0,0", "name,grade a,0", r"row 2: .* in p0, found ''"),
    "sum": ("name,p0,p1,p2,p3,p4 a,0.5,0.4,0,0,0", "name,grade a,0", r"row 2: p0 \.\.\. p4 sum to 0\.9, expected 1"),
    "neither": ("name a", "name,grade a,0", r"row 2: expected p0 \.\.\. p4 or predicted_grade, found neither"),
    "contradiction": (
        "name,predicted_grade,p0,p1,p2,p3,p4 a,2,0.9,0.1,0,0,0",
        "name,grade a,0",
        r"row 2: predicted_grade 2, but p0 is the highest",
    ),
    "predicted 5": ("name,predicted_grade a,5", "name,grade a,0", r"said\.csv, row 2: expected a grade 0-4, found '5'"),
    "true -1": ("name,predicted_grade a,0", "name,grade a,-1", r"truth\.csv, row 2: expected a grade 0-4, found '-1'"),
    "positive": ("name,predicted_grade a,0", "name,grade a,positive", r"row 2: expected a grade 0-4, found 'positive'"),
    "no grade at all": (
        "name,predicted_grade a,0",
        "name,grade a,",
        r"truth\.csv: expected grades, found no photograph",
    ),
    "no name": ("name,predicted_grade ,0", "name,grade a,0", r"said\.csv, row 2: expected the name of a photograph"),
    "no data set": ("name,predicted_grade a,0", "name,dataset,grade a,,0", r"truth\.csv, row 2: .* data set .*''"),
    "all": ("name,predicted_grade a,0", "name,dataset,grade a,all,0", r"truth\.csv, row 2: .* data set .*'all'"),
    "no column": ("image,predicted_grade a,0", "name,grade a,0", r"said\.csv, row 1: expected the columns name"),
    "no truth": ("name,predicted_grade a,0", "name,label a,0", r"truth\.csv, row 1: .* grade not found"),
    "column twice": ("name,p0,p0 a,0,0", "name,grade a,0", r"said\.csv, row 1: the column p0 stands there twice"),
    "no rows": ("name,predicted_grade", "name,grade a,0", r"said\.csv: expected a row for each photograph, found none"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_input_is_refused_with_file_and_row(tmp_path: Path, kind: str) -> None:
    said, truth, message = BAD[kind]
    with pytest.raises(DataError, match=message):
        scored(tmp_path, said, truth)


def test_a_table_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.csv: expected a label table"):
        score_predictions(tmp_path / "gone.csv", tmp_path / "gone.csv")


# --- Negative or positive ---


def test_binary_scores_are_those_of_scikit_learn_whatever_says_positive(tmp_path: Path) -> None:
    probs, grades = some()
    p, truth = probs[:, 1:].sum(axis=1), grades >= 1
    said, known = tables(tmp_path, probs, grades)
    alone = write_table(
        tmp_path / "p.csv", ["name", "p_positive"], [(f"eye{i}", repr(float(x))) for i, x in enumerate(p)]
    )
    no_p0 = write_table(
        tmp_path / "no.csv", ["name", *PROBS[1:]], [(f"eye{i}", *row[1:]) for i, row in enumerate(probs)]
    )
    words = [(f"eye{i}", "positive" if x else "negative", f"patient{i % 30}") for i, x in enumerate(truth)]
    in_words = write_table(tmp_path / "words.csv", ["name", "grade", "patient"], words)
    expected = {
        "accuracy": judge.accuracy_score(truth, p >= 0.5),
        "sensitivity": judge.recall_score(truth, p >= 0.5),
        "specificity": judge.recall_score(~truth, p < 0.5),
        "auc": judge.roc_auc_score(truth, p),
    }
    for predictions, table in ((said, known), (alone, known), (no_p0, in_words)):
        done = score_predictions(predictions, table, binary=True, bootstrap=FEW)
        assert {s.score: s.value for s in done.scores} == pytest.approx(expected)
        assert all(s.low <= s.value <= s.high and s.subject == "positive" for s in done.scores)


def test_binary_grades_alone_have_no_auc_and_one_kind_has_no_other_score(tmp_path: Path) -> None:
    said = "name,predicted_grade a,negative b,positive c,2"
    scores = by_name(scored(tmp_path, said, "name,grade a,0 b,1 c,negative", binary=True))
    assert (scores["sensitivity"].value, scores["specificity"].value) == (1, 0.5)
    assert math.isnan(scores["auc"].value) and "grades alone" in scores["auc"].note
    scores = by_name(scored(tmp_path, "name,p_positive a,0.2 b,0.9", "name,grade a,0 b,0", binary=True))
    assert math.isnan(scores["sensitivity"].value) and scores["sensitivity"].note == "no positive photograph"
    assert math.isnan(scores["auc"].value) and scores["specificity"].value == 0.5


@pytest.mark.parametrize(
    ("said", "truth", "message"),
    [
        ("name,p_positive a,1.2", "name,grade a,0", r"row 2: .* in p_positive, found '1\.2'"),
        ("name,p1,p2,p3,p4 a,0.9,0.9,0,0", "name,grade a,0", r"row 2: p0 \.\.\. p4 sum to 1\.8"),
        ("name,predicted_grade a,yes", "name,grade a,0", r"said\.csv, row 2: expected negative, positive or a grade"),
        ("name,predicted_grade a,0", "name,grade a,yes", r"truth\.csv, row 2: expected negative, positive or a grade"),
        ("name a", "name,grade a,0", r"row 2: expected p_positive, p1 \.\.\. p4 or predicted_grade, found none"),
    ],
)
def test_bad_binary_input_is_refused(tmp_path: Path, said: str, truth: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        scored(tmp_path, said, truth, binary=True)


def test_written_scores_say_which_tables_they_are_of(tmp_path: Path) -> None:
    done = scored(tmp_path, "name,predicted_grade a,0 b,1", "name,grade a,0 b,1")
    done.write_scores(tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["evaluation.json"]
    written = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert (
        written["protocol"]["predictions"]["file"] == "said.csv" and len(written["protocol"]["truth"]["sha256"]) == 64
    )
