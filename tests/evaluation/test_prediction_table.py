"""The table of predictions: binary labels, and the folder of the file."""

from __future__ import annotations

from pathlib import Path

from deepmtdr.evaluation import Bootstrap, PhotographResult, score_predictions
from deepmtdr.evaluation.prediction_table import write_prediction_csv
from deepmtdr.labels import DIABETIC_RETINOPATHY

BINARY = [
    PhotographResult(dataset="x", name="a", patient="p", positive=True, p_positive=0.75),
    PhotographResult(dataset="x", name="b", patient="q", positive=False, p_positive=0.125),
]


def test_written_binary_labels_and_probabilities_are_read_again_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "predictions.csv"
    write_prediction_csv(path, BINARY, DIABETIC_RETINOPATHY)
    again = score_predictions(path, path, binary=True, bootstrap=Bootstrap(resamples=20))
    assert again.results == BINARY


def test_missing_folders_of_the_file_are_made(tmp_path: Path) -> None:
    path = tmp_path / "of a study" / "of a day" / "predictions.csv"
    write_prediction_csv(path, BINARY, DIABETIC_RETINOPATHY)
    assert len(path.read_text(encoding="utf-8").splitlines()) == 3


def test_grade_that_thresholds_decided_is_read_again_although_another_one_is_more_probable(tmp_path: Path) -> None:
    probs, path = (0.5, 0.125, 0.375, 0.0, 0.0), tmp_path / "predictions.csv"
    decided = PhotographResult(dataset="x", name="a", patient="p", grade=1, probs=probs, decided_grade=1)
    plain = PhotographResult(dataset="x", name="b", patient="q", grade=0, probs=probs)
    write_prediction_csv(path, [decided, plain], DIABETIC_RETINOPATHY)
    again = score_predictions(path, path, bootstrap=Bootstrap(resamples=20))
    assert again.results == [decided, plain]
    assert next(score.value for score in again.scores if score.score == "accuracy") == 1
