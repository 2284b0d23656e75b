"""Calibration: the fit, cross-fitting, thresholds, and the entry in the checkpoint's card."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import Result
from scipy.special import softmax
from typer.testing import CliRunner

from deepmtdr import checkpoint
from deepmtdr.calibration import (
    TARGET_SENSITIVITIES,
    Calibration,
    CalibrationConfig,
    calibrate,
    calibrate_folder,
)
from deepmtdr.calibration.fit import (
    EVERYTHING,
    FittedParts,
    fit_calibration,
    fit_decision,
    rounded_threshold,
    split_patients,
)
from deepmtdr.calibration.temperature import fit_temperature
from deepmtdr.cli import app
from deepmtdr.datasets.drawings import read_drawings
from deepmtdr.datasets.sample import Sample
from deepmtdr.datasets.split import split_by_patient, write_split
from deepmtdr.errors import CheckpointError, DataError, InputSizeError
from deepmtdr.evaluation import Bootstrap, EvaluationConfig, PhotographResult, SampleSelection, evaluate
from deepmtdr.grade_decision import GradeDecision
from deepmtdr.metrics import kappa_quadratic
from deepmtdr.model.deepmtdr import DeepMTDR
from deepmtdr.synthetic.drawings import write_drawings
from tiny_model import tiny_recipe

FEW = Bootstrap(resamples=50)
CONFIG = CalibrationConfig(bootstrap=FEW)


def at_temperature_1(logits: np.ndarray, truth: np.ndarray, each: int = 2) -> list[PhotographResult]:
    """Photographs predicted at temperature 1; each patient has `each` of them."""
    probs = softmax(logits, axis=1)
    return [
        PhotographResult(dataset="d", name=f"{n}", patient=f"{n // each}", grade=int(g), probs=tuple(map(float, p)))
        for n, (p, g) in enumerate(zip(probs, truth, strict=True))
    ]


def overconfident(temperature: float, count: int = 3000, seed: int = 0) -> list[PhotographResult]:
    """Grades drawn from the probabilities at this temperature; the predictions are those at temperature 1."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2 * temperature, (count, 5))
    honest = softmax(logits / temperature, axis=1)
    truth = (honest.cumsum(axis=1) < rng.random((count, 1))).sum(axis=1).clip(max=4)
    return at_temperature_1(logits, truth)


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
    """An untrained checkpoint in float16."""
    torch.manual_seed(0)
    recipe = tiny_recipe()
    checkpoint.save(
        tmp_path / "w.safetensors", DeepMTDR(recipe.model), recipe, half=True, weights="tiny", data="0" * 64
    )
    return tmp_path / "w.safetensors"


def drawings(folder: Path) -> SampleSelection:
    return SampleSelection(data=folder, datasets=("drawings",))


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


def test_overconfident_network_is_calibrated_on_other_patients_than_those_of_the_fit() -> None:
    done = fit_calibration(overconfident(3.0), TARGET_SENSITIVITIES, FEW)
    by_name = {score.score: score for score in done.scores}
    error = by_name["expected_calibration_error"]
    assert error.before.value > 0.15 and error.after.value < 0.04
    assert by_name["negative_log_likelihood"].difference.high < 0 and by_name["brier"].difference.high < 0
    assert max(abs(b.confidence - b.accuracy) for b in done.reliability_after if b.photographs > 100) < 0.08
    assert max(abs(b.confidence - b.accuracy) for b in done.reliability_before if b.photographs > 100) > 0.15
    assert done.warnings == []


def test_scores_after_calibration_are_cross_fitted() -> None:
    measured = overconfident(2.0, 40, seed=3)
    done = fit_calibration(measured, TARGET_SENSITIVITIES, FEW)
    logits, truth = np.log([m.probs for m in measured]), np.array([m.grade for m in measured])
    first = split_patients(measured, FEW.seed)
    for half, decision in zip((first, ~first), done.half_decisions, strict=True):
        alone = [m for m, own in zip(measured, half, strict=True) if own]
        assert decision == fit_decision(alone, logits[half], truth[half], EVERYTHING)
    crossed = np.empty((40, 5))
    for half, decision in zip((~first, first), done.half_decisions, strict=True):
        crossed[half] = decision.probabilities(logits[half])
    grades = np.where(first, *(done.half_decisions[n].grades(crossed) for n in (1, 0)))
    found = {score.score: score.after.value for score in done.scores}
    expected = -np.log(crossed[np.arange(40), truth]).mean()
    kept = -np.log(done.decision.probabilities(logits)[np.arange(40), truth]).mean()
    assert found["negative_log_likelihood"] == pytest.approx(expected)
    assert found["negative_log_likelihood"] > kept  # the fit on the same photographs looks better
    assert found["kappa_quadratic"] == pytest.approx(kappa_quadratic(grades, truth))
    assert found["accuracy"] == pytest.approx((grades == truth).mean())


def test_only_the_temperature_is_fitted_if_nothing_else_is_wanted() -> None:
    measured = overconfident(2.0, 60)
    done = fit_calibration(measured, [0.9], FEW, parts=FittedParts(prior_correction=False, grade_thresholds=False))
    logits, truth = np.log([m.probs for m in measured]), np.array([m.grade for m in measured])
    assert done.decision == GradeDecision(temperature=fit_temperature(logits, truth))


def test_frequent_grades_get_higher_biases_and_rare_grades_lower_ones() -> None:
    rng = np.random.default_rng(0)
    truth = rng.choice(5, 400, p=[0.7, 0.05, 0.15, 0.05, 0.05])
    balanced = rng.normal(0, 1, (400, 5)) + 1.5 * np.eye(5)[truth]
    biases = fit_calibration(at_temperature_1(balanced, truth), [0.9], FEW).decision.biases
    assert biases[0] > biases[2] > max(biases[1], biases[3], biases[4])


def test_scores_of_several_data_sets_are_means_over_them_and_each_has_its_own() -> None:
    one, two = overconfident(2.0, 60, seed=1), [replace(m, dataset="e") for m in overconfident(3.0, 100, seed=2)]
    done = fit_calibration([*one, *two], [0.9], FEW)
    assert [(row.dataset, row.photographs) for row in done.by_dataset] == [("d", 60), ("e", 100)]
    logits, truth = np.log([m.probs for m in one]), np.array([m.grade for m in one])
    assert done.by_dataset[0].temperature == fit_temperature(logits, truth)
    for score in done.scores:
        means = np.mean([row.scores[score.score] for row in done.by_dataset], axis=0)
        assert (score.before.value, score.after.value) == pytest.approx(tuple(means))


def test_halves_keep_patients_together_and_have_equal_numbers_of_each_grade() -> None:
    truth = np.repeat([0] * 7 + [2] * 4 + [4] * 3, 2)
    measured = at_temperature_1(np.zeros((28, 5)), truth)
    first = split_patients(measured, 0)
    assert (first[::2] == first[1::2]).all()
    for grade in (0, 2, 4):
        own = first[truth == grade]
        assert abs(int(own.sum()) - int((~own).sum())) <= 2
    assert (split_patients(measured[::-1], 0) == first[::-1]).all()
    assert any((split_patients(measured, seed) != first).any() for seed in range(1, 5))


def test_temperature_of_right_grades_only_is_a_bound_with_a_warning() -> None:
    truth = np.tile([0, 2], 20)
    done = fit_calibration(at_temperature_1(np.eye(5)[truth], truth), TARGET_SENSITIVITIES, FEW)
    assert done.temperature == pytest.approx(0.05, rel=0.01)
    assert any("end of the search range" in warning for warning in done.warnings)


def test_temperature_that_makes_other_patients_worse_has_a_warning() -> None:
    rng = np.random.default_rng(5)
    truth = np.array([0, 3] * 10)
    found = [
        fit_calibration(at_temperature_1(rng.normal(0, 1, (20, 5)), truth), TARGET_SENSITIVITIES, FEW) for _ in range(3)
    ]
    losses = ("brier", "negative_log_likelihood", "expected_calibration_error", "debiased_ece")
    worse = [d for d in found if any(s.difference.value > 0 for s in d.scores if s.score in losses)]
    assert worse and all(any("higher after the calibration than before" in w for w in done.warnings) for done in worse)


# --- Thresholds ---


def test_threshold_reaches_the_target_sensitivity_with_six_decimals() -> None:
    rng = np.random.default_rng(1)
    positive = rng.random(500) < 0.3
    scores = np.clip(rng.normal(0.3 + 0.3 * positive, 0.15), 0.001, 1)
    for wanted in (0.5, 0.8, 0.95, 1.0):
        found = rounded_threshold(scores, positive, wanted)
        assert found == round(found, 6)
        assert (scores[positive] >= found).mean() >= wanted > (scores[positive] >= found + 0.02).mean()


def test_thresholds_use_the_stored_temperature_and_their_scores_are_cross_fitted() -> None:
    done = fit_calibration(overconfident(2.0), [0.9, 0.8, 0.9], FEW)
    measured, truth = done.results, np.array([m.grade for m in done.results])
    kept = done.decision.probabilities(np.log([m.probs for m in measured]))[:, 2:].sum(axis=1)
    referable = [point for point in done.thresholds if point.target == "referable"]
    assert [(point.min_grade, point.target_sensitivity) for point in referable] == [(2, 0.8), (2, 0.9)]
    for point in referable:
        assert (kept[truth >= 2] >= point.threshold).mean() == pytest.approx(point.target_sensitivity, abs=0.001)
        assert point.sensitivity.value == pytest.approx(point.target_sensitivity, abs=0.04)
        assert point.specificity.value == pytest.approx((kept[truth < 2] < point.threshold).mean(), abs=0.04)
        assert point.sensitivity.low < point.sensitivity.value < point.sensitivity.high


def test_threshold_without_positive_photographs_is_undefined_with_a_note() -> None:
    truth = np.tile([0, 2, 0, 0], 10)
    done = fit_calibration(at_temperature_1(np.random.default_rng(0).normal(size=(40, 5)), truth), [0.9], FEW)
    points = {point.target: point for point in done.thresholds}
    assert math.isnan(points["sight-threatening"].threshold)
    assert "undefined: no photograph of grade 3 or worse" in str(done.tables()[-1].rows)
    assert set(done.to_card()["operating_points"]) == {"any", "referable"}


def test_sensitivity_of_a_threshold_from_one_patient_is_undefined_with_a_note() -> None:
    truth = np.array([3, 3, *[0] * 28])
    done = fit_calibration(at_temperature_1(np.random.default_rng(0).normal(size=(30, 5)), truth), [0.9], FEW)
    (point,) = (point for point in done.thresholds if point.target == "referable")
    assert 0 < point.threshold < 1 and math.isnan(point.sensitivity.value)
    assert "needs two patients" in str(done.tables()[-1].rows)
    json.dumps(done.to_card(), allow_nan=False)


# --- From photographs to the card ---


def test_checkpoint_is_calibrated_in_place_without_changing_tensors(weights: Path, folder: Path) -> None:
    before, digest = tensors_of(weights), checkpoint.load(weights).digest
    done = calibrate_folder(weights, drawings(folder), CONFIG)
    assert tensors_of(weights) == before and torch.float16 in before[1].values()
    found = checkpoint.load(weights)
    assert found.temperature == done.temperature != 1
    assert found.decision == done.decision and len(done.decision.biases) == 5 and len(done.decision.thresholds) == 4
    card = found.card["calibration"]
    assert (card["photographs"], card["patients"], card["datasets"]) == (24, 12, ["drawings"])
    assert (card["weights_sha256"], card["as_lr"], card["precision"]) == (digest, None, "fp32")
    assert any("no split file" in warning for warning in card["warnings"])
    assert found.card["weights"] == "tiny"
    assert json.loads(weights.with_suffix(".json").read_text())["calibration"] == card
    assert found.operating_point is not None and found.operating_point.sensitivity == 0.9
    assert sorted(path.name for path in weights.parent.iterdir()) == ["w.json", "w.safetensors"]


def test_second_calibration_replaces_the_first_and_out_leaves_the_checkpoint_unchanged(
    weights: Path, folder: Path
) -> None:
    out = weights.parent / "new" / "other.safetensors"
    before = weights.read_bytes()
    first = calibrate_folder(weights, drawings(folder), CONFIG, out=out)
    assert weights.read_bytes() == before and checkpoint.load(weights).temperature == 1
    again = calibrate_folder(out, drawings(folder), replace(CONFIG, sensitivities=(0.7,)))
    assert again.temperature == first.temperature == checkpoint.load(out).temperature
    assert [point["wanted"] for point in checkpoint.load(out).card["calibration"]["operating_points"]["any"]] == [0.7]


def test_evaluation_uses_the_temperature_of_the_checkpoint(weights: Path, samples: list[Sample]) -> None:
    plain = checkpoint.load(weights)
    tempered = plain._replace(card={"calibration": {"temperature": 2.0}})
    for thorough in (False, True):
        one, other = (
            evaluate(w, samples[:2], EvaluationConfig(bootstrap=FEW, thorough=thorough)) for w in (plain, tempered)
        )
        assert (one.protocol["temperature"], other.protocol["temperature"]) == (1.0, 2.0)
        for a, b in zip(one.results, other.results, strict=True):
            readings = [(a.probs, b.probs)] + [
                (a.other_inputs[n].probs, b.other_inputs[n].probs) for n in a.other_inputs if a.other_inputs[n].probs
            ]
            for p, q in readings:
                assert q == pytest.approx(softmax(np.log(p) / 2), abs=1e-6)


def test_evaluation_uses_biases_and_grade_thresholds_of_the_checkpoint(weights: Path, samples: list[Sample]) -> None:
    plain = checkpoint.load(weights)
    biases, thresholds = [0.5, 0.0, 0.0, 0.0, -0.5], [0.1, 0.2, 0.3, 0.4]
    decided = plain._replace(card={"calibration": {"biases": biases, "grade_thresholds": thresholds}})
    for thorough in (False, True):
        one, other = (
            evaluate(w, samples[:2], EvaluationConfig(bootstrap=FEW, thorough=thorough)) for w in (plain, decided)
        )
        assert "biases" not in one.protocol and other.protocol["grade_thresholds"] == thresholds
        for a, b in zip(one.results, other.results, strict=True):
            assert a.predicted_grade == np.argmax(a.probs) and b.predicted_grade == 4
            assert b.probs == pytest.approx(softmax(np.log(a.probs) + biases), abs=1e-6)
            assert all(b.other_inputs[n].predicted_grade == 4 for n in b.other_inputs if b.other_inputs[n].probs)
        assert np.array(list(other.confusion.values()))[0, :, :4].sum() == 0


def test_split_file_is_in_the_protocol_with_warnings(weights: Path, folder: Path, samples: list[Sample]) -> None:
    table = weights.parent / "split.csv"
    write_split(table, split_by_patient(samples, {"train": 0.99, "validation": 0.01}, seed=0))
    selection = SampleSelection(data=folder, split_file=table, split="train")
    done = calibrate_folder(weights, selection, CONFIG)
    assert done.protocol["split"]["side"] == "train" and done.protocol["split"]["of_the_weights"] is False
    assert any("training photographs" in w for w in done.warnings)
    assert any("not the one that the weights were trained with" in w for w in done.warnings)


def test_unreadable_photograph_is_a_failure_and_left_out(weights: Path, samples: list[Sample]) -> None:
    gone = replace(samples[0], name="gone", photograph=Path("gone.png"))
    done = calibrate(checkpoint.load(weights), [*samples, gone, replace(samples[1], grade=None)], CONFIG)
    assert ([m.name for m in done.failures], done.protocol["failed"], done.protocol["photographs"]) == (["gone"], 1, 24)


# --- What is refused ---


def test_too_few_photographs_grades_or_patients_are_an_error(weights: Path, samples: list[Sample]) -> None:
    loaded = checkpoint.load(weights)
    healthy = [replace(sample, grade=0) for sample in samples]
    one = [replace(sample, patient="one") for sample in samples]
    for found, reason in (
        (samples[:19], "19 graded"),
        (healthy, r"grades \[0\]"),
        (one, "of 1 patients"),
        ([], "0 graded"),
    ):
        with pytest.raises(DataError, match=rf"{reason}.*expected at least 20"):
            calibrate(loaded, found)


def test_output_that_is_not_finite_is_an_error_with_that_reason(weights: Path, samples: list[Sample]) -> None:
    loaded = checkpoint.load(weights)
    with torch.no_grad():
        next(loaded.model.grading.parameters()).fill_(float("nan"))
    with pytest.raises(
        DataError, match=r"0 graded.*24 could not be read, the first: the network returned a value that is not"
    ):
        calibrate(loaded, samples)


def test_wrong_arguments_are_errors_before_photographs_are_read(weights: Path, folder: Path) -> None:
    loaded = checkpoint.load(weights)
    with pytest.raises(ValueError, match=r"sensitivity of 0\.0, expected"):
        CalibrationConfig(sensitivities=(0.0,))
    with pytest.raises(InputSizeError, match="size 300 px, expected one of 16, 32, 64 for a frame of 128 px"):
        calibrate(loaded, [], CalibrationConfig(as_lr=300))
    with pytest.raises(CheckpointError, match=r"w\.json: .*expected a name that ends in \.safetensors"):
        calibrate_folder(weights, drawings(folder), out=weights.with_suffix(".json"))
    with pytest.raises(CheckpointError, match=r"gone\.safetensors: .*no such file"):
        calibrate_folder(folder / "gone.safetensors", drawings(folder))


# --- The command ---


def deepmtdr_(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "160"})


def test_command_prints_the_tables_and_stores_the_temperature(
    weights: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deepmtdr.calibration.CalibrationConfig", partial(CalibrationConfig, bootstrap=FEW))
    result = deepmtdr_("calibrate", weights, "drawings", "--data", folder, "--sensitivity", 0.85)
    assert result.exit_code == 0, result.output
    for words in (
        "before and after",
        "reliability after",
        "thresholds",
        "the fit on the other half",
        "2 or worse: referable",
        "0.85",
    ):
        assert words in result.stdout, words
    assert "warning: no split file was given" in result.stderr
    assert checkpoint.load(weights).temperature != 1
    assert "calibration.temperature" in deepmtdr_("info", "--weights", weights).stdout


def test_command_reports_an_unknown_data_set_in_one_line(weights: Path, folder: Path) -> None:
    result = deepmtdr_("calibrate", weights, "nowhere", "--data", folder)
    assert result.exit_code == 2 and len(result.stderr.splitlines()) == 1 and "nowhere" in result.stderr


def test_tables_have_one_cell_for_each_column() -> None:
    done: Calibration = fit_calibration(overconfident(1.5, 60), TARGET_SENSITIVITIES, FEW)
    assert all(len(row) == len(table.columns) for table in done.tables() for row in table.rows)
    assert all(isinstance(cell, str) for table in done.tables() for row in table.rows for cell in row)
