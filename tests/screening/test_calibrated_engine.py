"""What a calibrated checkpoint says of a photograph: tempered probabilities, and a call at an operating point."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from scipy.special import softmax

from deepmtdr import checkpoint
from deepmtdr.errors import CheckpointError
from deepmtdr.screening.batch import find_photographs, grade_photographs
from deepmtdr.screening.engine import ScreeningEngine
from deepmtdr.screening.report import RESULT_COLUMNS, ScreeningReport
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


def read(weights: checkpoint.Checkpoint, photograph: Path) -> ScreeningReport:
    return ScreeningEngine(weights, "fp32").predict(photograph)


@pytest.mark.parametrize("temperature", [0.3, 4.0])
def test_probabilities_are_softmax_of_the_logits_over_the_temperature_and_the_grade_stays(
    loaded: checkpoint.Checkpoint, photograph: Path, temperature: float
) -> None:
    plain, tempered = read(loaded, photograph), read(calibrated(loaded, temperature), photograph)
    assert plain.probabilities is not None and tempered.probabilities is not None
    expected = softmax(np.log(np.array(plain.probabilities, np.float64)) / temperature)
    assert tempered.probabilities == pytest.approx(expected, abs=1e-5)
    assert tempered.probabilities != pytest.approx(plain.probabilities, abs=1e-3)
    assert (tempered.grade, tempered.counts, tempered.areas) == (plain.grade, plain.counts, plain.areas)
    assert plain.pictures is not None and tempered.pictures is not None
    np.testing.assert_array_equal(plain.pictures.evidence, tempered.pictures.evidence)


def test_a_photograph_is_called_referable_from_the_threshold_on(
    loaded: checkpoint.Checkpoint, photograph: Path
) -> None:
    p = round(read(loaded, photograph).p_referable or 0, 6)
    for threshold, called in ((p, True), (p + 1e-6, False)):
        report = read(calibrated(loaded, 1.0, round(threshold, 6)), photograph)
        assert report.referable is called
        said = report.to_json()
        assert said["referable"] is called and said["p_referable"] == p
        assert said["operating_point"] == {"sensitivity": 0.9, "threshold": round(threshold, 6)}


def test_without_calibration_nothing_is_called(loaded: checkpoint.Checkpoint, photograph: Path) -> None:
    report = read(loaded, photograph)
    assert report.referable is None and report.to_json()["operating_point"] is None
    assert tuple(report.row()) == RESULT_COLUMNS


def test_results_have_the_call_as_their_last_column(
    loaded: checkpoint.Checkpoint, photograph: Path, tmp_path: Path
) -> None:
    inputs = find_photographs([photograph, tmp_path / "gone.png"]).inputs
    for weights, column in ((loaded, ()), (calibrated(loaded, 1.0, 1e-6), ("referable",))):
        list(grade_photographs(ScreeningEngine(weights, "fp32"), inputs, tmp_path / "out"))
        with (tmp_path / "out" / "results.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert tuple(rows[0]) == (*RESULT_COLUMNS, *column)
    assert [row["referable"] for row in rows] == ["True", ""]
    assert json.loads((tmp_path / "out" / "eye" / "report.json").read_text())["referable"] is True


def test_the_operating_point_nearest_to_ninety_per_cent_is_taken(loaded: checkpoint.Checkpoint) -> None:
    points = [{"wanted": 0.7, "threshold": 0.6}, {"wanted": 0.95, "threshold": 0.2}]
    card = {"calibration": {"temperature": 1.5, "operating_points": {"referable": points}}}
    assert loaded._replace(card=card).operating_point == ReferralThreshold(0.95, 0.2)
    assert loaded._replace(card={"calibration": {"temperature": 1.5}}).operating_point is None


@pytest.mark.parametrize("wrong", [0, -1.0, float("nan"), float("inf"), "1.5", None, True, [1.0]])
def test_a_temperature_that_is_no_number_above_0_is_refused(loaded: checkpoint.Checkpoint, wrong: object) -> None:
    with pytest.raises(CheckpointError, match=r"calibration has temperature .*, expected a finite number above 0"):
        ScreeningEngine(calibrated(loaded, wrong))


@pytest.mark.parametrize("wrong", [-0.1, 1.5, "high", None])
def test_a_threshold_that_is_no_probability_is_refused(loaded: checkpoint.Checkpoint, wrong: object) -> None:
    with pytest.raises(
        CheckpointError, match=r"calibration has threshold .*, expected a finite number above 0, at most 1"
    ):
        ScreeningEngine(calibrated(loaded, 1.0, wrong))


@pytest.mark.parametrize(
    "wrong", [3, ["temperature"], {"operating_points": {"referable": [{}]}}, {"operating_points": 1}]
)
def test_another_kind_of_calibration_is_refused(loaded: checkpoint.Checkpoint, wrong: object) -> None:
    with pytest.raises(CheckpointError, match=r"card: .*expected"):
        ScreeningEngine(loaded._replace(card={"calibration": wrong}))
