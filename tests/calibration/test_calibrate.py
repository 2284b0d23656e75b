"""A temperature that is found again, judged on other patients, kept in the card, and used by whoever reads it."""

from __future__ import annotations

import importlib
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import Result
from scipy.special import log_softmax, softmax
from typer.testing import CliRunner

from deepmtdr import checkpoint
from deepmtdr.calibration import Calibration, calibrate, calibrate_folder
from deepmtdr.calibration.calibrate import TARGET_SENSITIVITIES
from deepmtdr.calibration.fit import fit_calibration, rounded_threshold, softmax_probabilities, split_patients
from deepmtdr.calibration.temperature import fit_temperature
from deepmtdr.cli import app
from deepmtdr.datasets.drawings import read_drawings
from deepmtdr.datasets.sample import Sample
from deepmtdr.datasets.split import split_by_patient, write_split
from deepmtdr.errors import CheckpointError, DataError
from deepmtdr.evaluation import Bootstrap, evaluate
from deepmtdr.evaluation.measure import PhotographResult
from deepmtdr.model.deepmtdr import DeepMTDR
from deepmtdr.synthetic.drawings import write_drawings
from deepmtdr.terms import Grade
from tiny_model import tiny_recipe

FEW = Bootstrap(resamples=50)


def read_at_one(logits: np.ndarray, truth: np.ndarray, each: int = 2) -> list[PhotographResult]:
    """Photographs as they are measured at temperature 1, so many of each patient."""
    probs = softmax(logits, axis=1)
    return [
        PhotographResult(dataset="d", name=f"{n}", patient=f"{n // each}", grade=int(g), probs=tuple(map(float, p)))
        for n, (p, g) in enumerate(zip(probs, truth, strict=True))
    ]


def overconfident(temperature: float, count: int = 3000, seed: int = 0) -> list[PhotographResult]:
    """Grades drawn by the probabilities at this temperature, said at temperature 1."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2 * temperature, (count, 5))
    honest = softmax(logits / temperature, axis=1)
    truth = (honest.cumsum(axis=1) < rng.random((count, 1))).sum(axis=1).clip(max=4)
    return read_at_one(logits, truth)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both eyes of twelve patients."""
    data = tmp_path_factory.mktemp("data")
    write_drawings(data / "drawings", range(24), size=140)
    return data


@pytest.fixture(scope="module")
def samples(folder: Path) -> list[Sample]:
    return read_drawings(folder / "drawings")


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """Shipped as float16; its grades differ from photograph to photograph."""
    torch.manual_seed(0)
    recipe = tiny_recipe()
    checkpoint.save(
        tmp_path / "w.safetensors", DeepMTDR(recipe.model), recipe, half=True, weights="tiny", data="0" * 64
    )
    return tmp_path / "w.safetensors"


def tensors_of(path: Path) -> tuple[bytes, dict[str, torch.dtype]]:
    content = path.read_bytes()
    types = {name: tensor.dtype for name, tensor in checkpoint.read(path)[0].items()}
    return content[8 + int.from_bytes(content[:8], "little") :], types


# --- The temperature ---


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_a_known_temperature_is_found_again(temperature: float) -> None:
    done = fit_calibration(overconfident(temperature), TARGET_SENSITIVITIES, FEW)
    assert done.temperature == pytest.approx(temperature, rel=0.08)
    assert done.half_temperatures == pytest.approx((temperature, temperature), rel=0.12)


def test_an_overconfident_network_is_honest_afterwards_on_patients_it_was_not_fitted_on() -> None:
    done = fit_calibration(overconfident(3.0), TARGET_SENSITIVITIES, FEW)
    by_name = {score.score: score for score in done.scores}
    error = by_name["expected_calibration_error"]
    assert error.before.value > 0.15 and error.after.value < 0.04
    assert by_name["negative_log_likelihood"].difference.high < 0 and by_name["brier"].difference.high < 0
    assert max(abs(b.confidence - b.accuracy) for b in done.reliability_after if b.photographs > 100) < 0.08
    assert max(abs(b.confidence - b.accuracy) for b in done.reliability_before if b.photographs > 100) > 0.15
    assert done.warnings == []


def test_what_is_said_of_after_is_cross_fitted_and_not_of_the_kept_temperature() -> None:
    measured = overconfident(2.0, 40, seed=3)
    done = fit_calibration(measured, TARGET_SENSITIVITIES, FEW)
    logits, truth = np.log([m.probs for m in measured]), np.array([m.grade for m in measured])
    first = split_patients(measured, FEW.seed)
    assert done.half_temperatures == (
        fit_temperature(logits[first], truth[first]),
        fit_temperature(logits[~first], truth[~first]),
    )
    crossed = np.where(first, done.half_temperatures[1], done.half_temperatures[0])[:, None]
    expected = -log_softmax(logits / crossed, axis=1)[np.arange(40), truth].mean()
    kept = -log_softmax(logits / done.temperature, axis=1)[np.arange(40), truth].mean()
    likelihood = next(score for score in done.scores if score.score == "negative_log_likelihood")
    assert likelihood.after.value == pytest.approx(expected)
    assert likelihood.after.value > kept  # the flattering number


def test_halves_keep_patients_together_and_share_each_grade() -> None:
    truth = np.repeat([0] * 7 + [2] * 4 + [4] * 3, 2)
    measured = read_at_one(np.zeros((28, 5)), truth)
    first = split_patients(measured, 0)
    assert (first[::2] == first[1::2]).all()
    for grade in (0, 2, 4):
        own = first[truth == grade]
        assert abs(int(own.sum()) - int((~own).sum())) <= 2
    assert (split_patients(measured[::-1], 0) == first[::-1]).all()
    assert any((split_patients(measured, seed) != first).any() for seed in range(1, 5))


def test_photographs_that_are_all_graded_right_give_a_bound_and_a_warning() -> None:
    truth = np.tile([0, 2], 20)
    done = fit_calibration(read_at_one(np.eye(5)[truth], truth), TARGET_SENSITIVITIES, FEW)
    assert done.temperature == pytest.approx(0.05, rel=0.01)
    assert any("end of the search" in warning for warning in done.warnings)


def test_a_temperature_that_does_not_help_others_is_called_so() -> None:
    rng = np.random.default_rng(5)
    truth = np.array([0, 3] * 10)
    found = [
        fit_calibration(read_at_one(rng.normal(0, 1, (20, 5)), truth), TARGET_SENSITIVITIES, FEW) for _ in range(3)
    ]
    worse = [d for d in found if any(s.difference.value > 0 for s in d.scores)]
    assert worse and all(any("higher after than before" in w for w in done.warnings) for done in worse)


# --- Thresholds ---


def test_a_threshold_reaches_the_wanted_sensitivity_and_is_no_longer_than_a_report_shows() -> None:
    rng = np.random.default_rng(1)
    positive = rng.random(500) < 0.3
    scores = np.clip(rng.normal(0.3 + 0.3 * positive, 0.15), 0.001, 1)
    for wanted in (0.5, 0.8, 0.95, 1.0):
        found = rounded_threshold(scores, positive, wanted)
        assert found == round(found, 6)
        assert (scores[positive] >= found).mean() >= wanted > (scores[positive] >= found + 0.02).mean()


def test_thresholds_are_read_at_the_kept_temperature_and_judged_at_the_others() -> None:
    done = fit_calibration(overconfident(2.0), [0.9, 0.8, 0.9], FEW)
    measured, truth = done.results, np.array([m.grade for m in done.results])
    kept = softmax_probabilities(np.log([m.probs for m in measured]), done.temperature)[:, 2:].sum(axis=1)
    referable = [point for point in done.thresholds if point.target == "referable"]
    assert [(point.min_grade, point.target_sensitivity) for point in referable] == [(2, 0.8), (2, 0.9)]
    for point in referable:
        assert (kept[truth >= 2] >= point.threshold).mean() == pytest.approx(point.target_sensitivity, abs=0.001)
        assert point.sensitivity.value == pytest.approx(point.target_sensitivity, abs=0.04)
        assert point.specificity.value == pytest.approx((kept[truth < 2] < point.threshold).mean(), abs=0.04)
        assert point.sensitivity.low < point.sensitivity.value < point.sensitivity.high


def test_a_threshold_without_a_positive_photograph_is_left_out_with_its_reason() -> None:
    truth = np.tile([0, 2, 0, 0], 10)
    done = fit_calibration(read_at_one(np.random.default_rng(0).normal(size=(40, 5)), truth), [0.9], FEW)
    points = {point.target: point for point in done.thresholds}
    assert math.isnan(points["sight-threatening"].threshold)
    assert "undefined: no photograph of grade 3 or worse" in str(done.tables()[-1].rows)
    assert set(done.to_card()["operating_points"]) == {"any", "referable"}


def test_a_threshold_of_one_single_patient_cannot_be_judged_and_is_said_so() -> None:
    truth = np.array([3, 3, *[0] * 28])
    done = fit_calibration(read_at_one(np.random.default_rng(0).normal(size=(30, 5)), truth), [0.9], FEW)
    (point,) = (point for point in done.thresholds if point.target == "referable")
    assert 0 < point.threshold < 1 and math.isnan(point.sensitivity.value)
    assert "needs two patients" in str(done.tables()[-1].rows)
    json.dumps(done.to_card(), allow_nan=False)


# --- From photographs to the card ---


def test_a_checkpoint_is_calibrated_in_place_and_no_tensor_changes(weights: Path, folder: Path) -> None:
    before, digest = tensors_of(weights), checkpoint.load(weights).digest
    done = calibrate_folder(weights, folder, datasets=["drawings"], bootstrap=FEW)
    assert tensors_of(weights) == before and torch.float16 in before[1].values()
    found = checkpoint.load(weights)
    assert found.temperature == done.temperature != 1
    card = found.card["calibration"]
    assert (card["photographs"], card["patients"], card["datasets"]) == (24, 12, ["drawings"])
    assert (card["weights_sha256"], card["as_lr"], card["precision"]) == (digest, None, "fp32")
    assert any("no split" in warning for warning in card["warnings"])
    assert found.card["weights"] == "tiny"
    assert json.loads(weights.with_suffix(".json").read_text())["calibration"] == card
    assert found.operating_point is not None and found.operating_point.sensitivity == 0.9
    assert sorted(path.name for path in weights.parent.iterdir()) == ["w.json", "w.safetensors"]


def test_calibrating_again_replaces_and_another_file_leaves_the_first(weights: Path, folder: Path) -> None:
    out = weights.parent / "new" / "other.safetensors"
    before = weights.read_bytes()
    first = calibrate_folder(weights, folder, datasets=["drawings"], bootstrap=FEW, out=out)
    assert weights.read_bytes() == before and checkpoint.load(weights).temperature == 1
    again = calibrate_folder(out, folder, datasets=["drawings"], bootstrap=FEW, sensitivities=[0.7])
    assert again.temperature == first.temperature == checkpoint.load(out).temperature
    assert [point["wanted"] for point in checkpoint.load(out).card["calibration"]["operating_points"]["any"]] == [0.7]


def test_an_evaluation_of_calibrated_weights_has_tempered_probabilities_and_says_so(
    weights: Path, samples: list[Sample]
) -> None:
    plain = checkpoint.load(weights)
    tempered = plain._replace(card={"calibration": {"temperature": 2.0}})
    for thorough in (False, True):
        one, other = (evaluate(w, samples[:2], bootstrap=FEW, thorough=thorough) for w in (plain, tempered))
        assert (one.protocol["temperature"], other.protocol["temperature"]) == (1.0, 2.0)
        for a, b in zip(one.results, other.results, strict=True):
            readings = [(a.probs, b.probs)] + [
                (a.other_inputs[n].probs, b.other_inputs[n].probs) for n in a.other_inputs if a.other_inputs[n].probs
            ]
            for p, q in readings:
                assert q == pytest.approx(softmax(np.log(p) / 2), abs=1e-6)


def test_a_split_is_named_and_what_makes_it_doubtful_is_said(
    weights: Path, folder: Path, samples: list[Sample]
) -> None:
    table = weights.parent / "split.csv"
    write_split(table, split_by_patient(samples, {"train": 0.99, "validation": 0.01}, seed=0))
    done = calibrate_folder(weights, folder, split=table, side="train", bootstrap=FEW)
    assert done.protocol["split"]["side"] == "train" and done.protocol["split"]["of_the_weights"] is False
    assert any("trained on these" in w for w in done.warnings) and any("another" in w for w in done.warnings)


def test_a_photograph_that_cannot_be_read_is_said_and_left_out(weights: Path, samples: list[Sample]) -> None:
    gone = replace(samples[0], name="gone", photograph=Path("gone.png"))
    done = calibrate(checkpoint.load(weights), [*samples, gone, replace(samples[1], grade=None)], bootstrap=FEW)
    assert ([m.name for m in done.failures], done.protocol["failed"], done.protocol["photographs"]) == (["gone"], 1, 24)


# --- What is refused ---


def test_too_few_photographs_grades_or_patients_are_refused(weights: Path, samples: list[Sample]) -> None:
    loaded = checkpoint.load(weights)
    healthy = [replace(sample, grade=Grade.NEGATIVE) for sample in samples]
    one = [replace(sample, patient="one") for sample in samples]
    for found, reason in (
        (samples[:19], "19 graded"),
        (healthy, r"grades \[0\]"),
        (one, "of 1 patients"),
        ([], "0 graded"),
    ):
        with pytest.raises(DataError, match=rf"{reason}.*expected at least 20"):
            calibrate(loaded, found)


def test_a_network_whose_answer_is_no_number_is_refused_with_that_reason(weights: Path, samples: list[Sample]) -> None:
    loaded = checkpoint.load(weights)
    with torch.no_grad():
        next(loaded.model.grading.parameters()).fill_(float("nan"))
    with pytest.raises(DataError, match=r"0 graded.*24 were not read, the first: the network's answer is not finite"):
        calibrate(loaded, samples)


def test_wrong_arguments_are_refused_before_anything_is_read(weights: Path, folder: Path) -> None:
    loaded = checkpoint.load(weights)
    with pytest.raises(ValueError, match=r"sensitivity 0\.0, expected"):
        calibrate(loaded, [], sensitivities=[0.0])
    with pytest.raises(ValueError, match="300"):
        calibrate(loaded, [], as_lr=300)
    with pytest.raises(CheckpointError, match=r"w\.json: expected the name of a \.safetensors"):
        calibrate_folder(weights, folder, datasets=["drawings"], out=weights.with_suffix(".json"))
    with pytest.raises(CheckpointError, match=r"gone\.safetensors: no such file"):
        calibrate_folder(folder / "gone.safetensors", folder, datasets=["drawings"])


# --- The verb ---


def deepmtdr_(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "160"})


def test_the_verb_prints_the_tables_and_keeps_the_temperature(
    weights: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module("deepmtdr.calibration.calibrate")  # the package has a function of this name
    monkeypatch.setattr(module, "Bootstrap", lambda: FEW)
    result = deepmtdr_("calibrate", weights, "drawings", "--data", folder, "--sensitivity", 0.85)
    assert result.exit_code == 0, result.output
    for words in (
        "before and after",
        "reliability after",
        "thresholds",
        "not fitted on",
        "2 or worse: referable",
        "0.85",
    ):
        assert words in result.stdout, words
    assert "doubt: no split was given" in result.stderr
    assert checkpoint.load(weights).temperature != 1
    assert "calibration.temperature" in deepmtdr_("info", "--weights", weights).stdout


def test_the_verb_refuses_an_unknown_set_in_one_line(weights: Path, folder: Path) -> None:
    result = deepmtdr_("calibrate", weights, "nowhere", "--data", folder)
    assert result.exit_code == 2 and len(result.stderr.splitlines()) == 1 and "nowhere" in result.stderr


def test_tables_fit_their_columns() -> None:
    done: Calibration = fit_calibration(overconfident(1.5, 60), TARGET_SENSITIVITIES, FEW)
    assert all(len(row) == len(table.columns) for table in done.tables() for row in table.rows)
    assert all(isinstance(cell, str) for table in done.tables() for row in table.rows for cell in row)
