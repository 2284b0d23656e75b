"""A calibrated checkpoint: temperature and operating point of its card are used in reports."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from scipy.special import softmax

from deepmtdr import checkpoint
from deepmtdr.errors import CheckpointError
from deepmtdr.grade_decision import GradeDecision
from deepmtdr.screening.batch import grade_photographs
from deepmtdr.screening.engine import ScreeningEngine
from deepmtdr.screening.inputs import find_photographs
from deepmtdr.screening.report import ScreeningReport, result_columns
from deepmtdr.screening.results_folder import ExistingResults
from deepmtdr.screening.torch_predictor import TorchPredictor
from deepmtdr.terms import ReferralThreshold
from tiny_model import save_photograph, save_tiny_weights


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> checkpoint.Checkpoint:
    return checkpoint.load(save_tiny_weights(tmp_path_factory.mktemp("weights") / "tiny.safetensors"))


@pytest.fixture(scope="module")
def photograph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_photograph(tmp_path_factory.mktemp("photographs") / "eye.png")


def calibrated(
    loaded: checkpoint.Checkpoint, temperature: object = 1.0, threshold: object = 0.5
) -> checkpoint.Checkpoint:
    points = {"referable": [{"wanted": 0.9, "threshold": threshold}]}
    return loaded._replace(card={"calibration": {"temperature": temperature, "operating_points": points}})


def engine_of(weights: checkpoint.Checkpoint) -> ScreeningEngine:
    return ScreeningEngine(TorchPredictor(weights, "fp32"))


def grade(weights: checkpoint.Checkpoint, photograph: Path) -> ScreeningReport:
    return engine_of(weights).predict(photograph)


@pytest.mark.parametrize("temperature", [0.3, 4.0])
def test_the_temperature_changes_probabilities_only(
    loaded: checkpoint.Checkpoint, photograph: Path, temperature: float
) -> None:
    plain, tempered = grade(loaded, photograph), grade(calibrated(loaded, temperature), photograph)
    assert plain.probabilities is not None and tempered.probabilities is not None
    expected = softmax(np.log(np.array(plain.probabilities, np.float64)) / temperature)
    assert tempered.probabilities == pytest.approx(expected, abs=1e-5)
    assert tempered.probabilities != pytest.approx(plain.probabilities, abs=1e-3)
    assert (tempered.grade, tempered.counts, tempered.areas) == (plain.grade, plain.counts, plain.areas)
    assert plain.pictures is not None and tempered.pictures is not None
    np.testing.assert_array_equal(plain.pictures.evidence, tempered.pictures.evidence)


def test_biases_are_added_to_the_logits_and_thresholds_of_the_expected_grade_decide(
    loaded: checkpoint.Checkpoint, photograph: Path, tmp_path: Path
) -> None:
    biases, thresholds = [0.7, 0.0, 0.0, 0.0, -0.7], [0.5, 1.0, 1.1, 3.9]
    calibration = {"temperature": 2.0, "biases": biases, "grade_thresholds": thresholds}
    plain, decided = grade(loaded, photograph), grade(loaded._replace(card={"calibration": calibration}), photograph)
    assert plain.probabilities is not None and decided.probabilities is not None
    expected = softmax(np.log(np.array(plain.probabilities, np.float64)) / 2 + biases)
    assert decided.probabilities == pytest.approx(expected, abs=1e-5)
    mean = float(expected @ np.arange(5))
    assert decided.grade == sum(mean >= threshold for threshold in thresholds) != np.argmax(expected)
    written = decided.to_json()
    assert (written["expected_grade"], written["grade_thresholds"]) == (pytest.approx(mean, abs=1e-5), thresholds)
    assert "expected_grade" not in plain.to_json() and plain.decision_text == ""
    assert decided.row()["grade"] == decided.grade
    assert decided.decision_text.startswith(f"The grade was decided by the expected grade {mean:.2f}")


def test_a_photograph_is_referable_from_the_threshold_on(loaded: checkpoint.Checkpoint, photograph: Path) -> None:
    p = round(grade(loaded, photograph).p_referable or 0, 6)
    for threshold, referable in ((p, True), (p + 1e-6, False)):
        report = grade(calibrated(loaded, 1.0, round(threshold, 6)), photograph)
        assert report.referable is referable
        written = report.to_json()
        assert written["referable"] is referable and written["p_referable"] == p
        assert written["operating_point"] == {"sensitivity": 0.9, "threshold": round(threshold, 6)}


def test_without_calibration_no_photograph_is_called_referable(loaded: checkpoint.Checkpoint, photograph: Path) -> None:
    report = grade(loaded, photograph)
    assert report.referable is None and report.to_json()["operating_point"] is None
    assert tuple(report.row()) == result_columns(loaded.labels)


def test_referable_is_the_last_column_of_results(
    loaded: checkpoint.Checkpoint, photograph: Path, tmp_path: Path
) -> None:
    inputs = find_photographs([photograph, tmp_path / "gone.png"]).inputs
    for weights, column in ((loaded, ()), (calibrated(loaded, 1.0, 1e-6), ("referable",))):
        list(grade_photographs(engine_of(weights), inputs, tmp_path / "out", existing=ExistingResults.OVERWRITE))
        with (tmp_path / "out" / "results.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        path, *others = result_columns(loaded.labels)
        assert tuple(rows[0]) == (path, "folder", *others, *column)
    assert [row["referable"] for row in rows] == ["True", ""]
    assert json.loads((tmp_path / "out" / "eye" / "report.json").read_text())["referable"] is True


def test_the_operating_point_nearest_to_90_per_cent_sensitivity_is_used(loaded: checkpoint.Checkpoint) -> None:
    points = [{"wanted": 0.7, "threshold": 0.6}, {"wanted": 0.95, "threshold": 0.2}]
    card = {"calibration": {"temperature": 1.5, "operating_points": {"referable": points}}}
    info = TorchPredictor(loaded._replace(card=card), "fp32").info
    assert (info.operating_point, info.decision) == (ReferralThreshold(0.95, 0.2), GradeDecision(temperature=1.5))
    card = {"calibration": {"temperature": 1.5}}
    assert TorchPredictor(loaded._replace(card=card), "fp32").info.operating_point is None


@pytest.mark.parametrize("wrong", [0, -1.0, float("nan"), float("inf"), "1.5", None, True, [1.0]])
def test_a_temperature_that_is_no_number_above_0_is_refused(loaded: checkpoint.Checkpoint, wrong: object) -> None:
    with pytest.raises(CheckpointError, match=r"calibration has temperature .*, expected a finite number above 0"):
        TorchPredictor(calibrated(loaded, wrong))


@pytest.mark.parametrize(
    ("entry", "wrong", "reason"),
    [
        ("biases", [0.1, 0.2], r"found 2 biases, expected 5 for 5 grades"),
        ("grade_thresholds", [1, 2, 3, 4, 5], "found 5 thresholds, expected 4"),
        ("grade_thresholds", [1, 1, 2, 3], "expected increasing"),
        ("biases", "high", "biases 'high', expected a list of finite numbers"),
        ("grade_thresholds", [1, None, 2, 3], "expected a list of finite numbers"),
        ("biases", [0, 0, 0, 0, float("inf")], "expected a list of finite numbers"),
    ],
)
def test_biases_and_grade_thresholds_that_do_not_fit_are_refused(
    loaded: checkpoint.Checkpoint, entry: str, wrong: object, reason: str
) -> None:
    with pytest.raises(CheckpointError, match=f"card: calibration.*{reason}"):
        TorchPredictor(loaded._replace(card={"calibration": {entry: wrong}}))


@pytest.mark.parametrize("wrong", [-0.1, 1.5, "high", None])
def test_a_threshold_that_is_no_probability_is_refused(loaded: checkpoint.Checkpoint, wrong: object) -> None:
    with pytest.raises(
        CheckpointError, match=r"calibration has threshold .*, expected a finite number above 0, at most 1"
    ):
        TorchPredictor(calibrated(loaded, 1.0, wrong))


@pytest.mark.parametrize(
    "wrong", [3, ["temperature"], {"operating_points": {"referable": [{}]}}, {"operating_points": 1}]
)
def test_another_structure_of_calibration_is_refused(loaded: checkpoint.Checkpoint, wrong: object) -> None:
    with pytest.raises(CheckpointError, match=r"card: .*expected"):
        TorchPredictor(loaded._replace(card={"calibration": wrong}))
