"""Evaluation of a small untrained network on drawings, with everything that may be missing."""

from __future__ import annotations

import copy
import csv
import hashlib
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pyarrow.parquet import read_table as read_parquet
from sklearn import metrics as reference

from deepmtdr import checkpoint
from deepmtdr.checkpoint import Checkpoint
from deepmtdr.datasets.frames import read_masks
from deepmtdr.datasets.sample import Sample
from deepmtdr.datasets.split import split_by_patient, write_split
from deepmtdr.errors import DataError, InputSizeError
from deepmtdr.evaluation import (
    Bootstrap,
    Evaluation,
    EvaluationConfig,
    ReportConfig,
    SampleSelection,
    Score,
    evaluate,
    evaluate_folder,
    score_predictions,
)
from deepmtdr.labels import DIABETIC_RETINOPATHY
from deepmtdr.metrics import kappa_quadratic
from deepmtdr.model.deepmtdr import DeepMTDR
from deepmtdr.photographs.decode import read_photograph
from deepmtdr.photographs.field_of_view import crop_to_frame, find_fov
from deepmtdr.photographs.geometry import crop_mask, fov_mask
from deepmtdr.recipe import load_recipe
from deepmtdr.synthetic.drawings import write_drawings

FRAME = 256
FEW = Bootstrap(resamples=100)
CONFIG = EvaluationConfig(bootstrap=FEW)
QUICK = EvaluationConfig(thorough=False, bootstrap=FEW)
CODES = DIABETIC_RETINOPATHY.codes


@pytest.fixture(scope="module")
def untrained() -> Checkpoint:
    torch.manual_seed(0)
    recipe = load_recipe("smoke")
    return Checkpoint(DeepMTDR(recipe.model).eval(), recipe, {"weights": "untrained"}, "0" * 64)


@pytest.fixture(scope="module")
def drawings(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    """Both eyes of three patients, graded 3 and 0, 0 and 0, 2 and 2."""
    return write_drawings(tmp_path_factory.mktemp("data") / "drawings", [2, 3, 10, 11, 18, 19], size=FRAME + 20)


@pytest.fixture(scope="module")
def done(untrained: Checkpoint, drawings: list[Sample], tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    """Six drawings, one of another data set with neither grade nor annotation, and an unreadable file."""
    broken = tmp_path_factory.mktemp("broken") / "text.jpg"
    broken.write_text("not a photograph")
    more = [
        replace(drawings[0], dataset="plain", grade=None, lesion_masks={}),
        replace(drawings[0], dataset="plain", name="text", photograph=broken),
    ]
    return evaluate(untrained, [*drawings, *more], CONFIG)


def pick(scores: list[Score], dataset: str, subject: str, name: str, task: str | None = None) -> Score:
    """One score, of the paper's three tasks or of the given table."""
    tasks = ("super-resolution", "lesions", "grading") if task is None else (task,)
    (found,) = (s for s in scores if s.task in tasks and (s.dataset, s.subject, s.score) == (dataset, subject, name))
    return found


@pytest.mark.parametrize("name", ["psnr_fov", "psnr_fov_eroded", "psnr_whole"])
def test_untrained_network_equals_normalised_bicubic(done: Evaluation, name: str) -> None:
    gain = pick(done.scores, "drawings", "gain over normalised bicubic", name)
    assert (gain.value, gain.low, gain.high, gain.photographs, gain.patients) == (0, 0, 0, 6, 3)
    images = ("sr", "normalised_bicubic", "bicubic")
    sr, normalised, plain = (pick(done.scores, "drawings", image, name).value for image in images)
    assert 15 < plain < 60 and sr == normalised
    assert pick(done.scores, "drawings", "gain", name).value == pytest.approx(sr - plain)


def test_lesion_scores_use_all_pixels_inside_the_field_of_view(
    done: Evaluation, untrained: Checkpoint, drawings: list[Sample]
) -> None:
    truths, probabilities = [], []
    for sample in drawings:
        pixels = read_photograph(sample.photograph).pixels
        fov = find_fov(pixels)
        frame = crop_to_frame(pixels, fov, FRAME)
        lr = Image.fromarray(frame).resize((FRAME // 4, FRAME // 4), Image.Resampling.BICUBIC)
        tensor = torch.from_numpy(np.asarray(lr, np.float32) / 255).permute(2, 0, 1)[None]
        with torch.no_grad():
            lesions = untrained.model.segment_and_grade(untrained.model.super_resolve(tensor, 4).clamp(0, 1)).lesions
        mask = read_masks(sample, pixels.shape[:2]).lesions["HE"]
        inside = fov_mask(frame)
        truths.append((crop_mask(mask, fov, FRAME) >= 0.5)[inside])
        probabilities.append(lesions[0, CODES.index("HE")].numpy()[inside])
    truth, probability = np.concatenate(truths), np.concatenate(probabilities)
    aupr = pick(done.scores, "drawings", "HE", "aupr_pooled")
    assert aupr.value == pytest.approx(reference.average_precision_score(truth, probability), abs=1e-4)
    assert pick(done.scores, "drawings", "HE", "prevalence").value == pytest.approx(truth.mean())
    assert pick(done.scores, "drawings", "HE", "auc_pooled").value == pytest.approx(
        reference.roc_auc_score(truth, probability), abs=1e-4
    )
    having = [(t, p) for t, p in zip(truths, probabilities, strict=True) if t.any()]
    per_image = np.mean([reference.average_precision_score(t, p) for t, p in having])
    assert pick(done.scores, "drawings", "HE", "ap_per_image").value == pytest.approx(per_image, abs=1e-4)
    assert aupr.low <= aupr.value <= aupr.high


@pytest.mark.parametrize("score", ["aupr_pooled", "ap_per_image", "auc_per_image"])
def test_mean_score_is_the_mean_over_the_lesion_types(done: Evaluation, score: str) -> None:
    of_types = [pick(done.scores, "drawings", code, score).value for code in CODES]
    mean = pick(done.scores, "drawings", "mean", score)
    assert mean.value == pytest.approx(np.mean(of_types))
    assert mean.photographs == 6


def test_grading_scores_are_computed_from_the_predictions(done: Evaluation) -> None:
    graded = [m for m in done.results if m.dataset == "drawings"]
    predicted, truth = np.array([np.argmax(m.probs) for m in graded]), np.array([m.grade for m in graded])
    score = pick(done.scores, "drawings", "grade", "kappa_quadratic")
    assert score.value == pytest.approx(kappa_quadratic(predicted, truth), nan_ok=True)
    assert np.sum(done.confusion["drawings"], axis=1).tolist() == [3, 0, 2, 1, 0]
    referable = pick(done.scores, "drawings", "grade", "auc_referable")
    assert referable.value == pytest.approx(reference.roc_auc_score(truth >= 2, [sum(m.probs[2:]) for m in graded]))


def test_unreadable_photograph_is_a_result_with_the_reason(done: Evaluation) -> None:
    (failure,) = done.failures
    assert (failure.dataset, failure.name, failure.probs) == ("plain", "text", ())
    assert "text.jpg" in failure.failure
    assert done.protocol["failed"] == 1
    assert done.protocol["photographs"] == len(done.results) == 8


def test_photograph_without_grade_or_annotation_is_not_scored_for_it(done: Evaluation) -> None:
    of_plain = {score.task for score in done.scores if score.dataset == "plain"}
    assert of_plain == {"super-resolution", "by input", "lesions not on HR"}
    by_input = {score.score for score in done.scores if (score.task, score.dataset) == ("by input", "plain")}
    assert by_input == {"same_grade_as_hr"}
    assert pick(done.scores, "drawings", "grade", "accuracy").photographs == 6
    assert pick(done.scores, "all", "MA", "prevalence").photographs == 6
    assert pick(done.scores, "all", "sr", "psnr_fov").photographs == 7
    assert (
        pick(done.scores, "all", "sr", "psnr_fov").patients == 4
    )  # the same number in another data set is another patient


def test_empty_annotation_counts_and_missing_annotation_does_not(untrained: Checkpoint, drawings: list[Sample]) -> None:
    with_exudates = next(s for s in drawings if s.lesion_masks["EX"] is not None)
    without = replace(with_exudates, name="other", patient="other", lesion_masks={"EX": None})
    one = evaluate(untrained, [with_exudates], CONFIG).scores
    both = evaluate(untrained, [with_exudates, without], CONFIG).scores
    prevalence = pick(one, "drawings", "EX", "prevalence").value
    assert pick(both, "drawings", "EX", "prevalence").value == pytest.approx(prevalence / 2)
    assert pick(both, "drawings", "EX", "ap_per_image").value == pick(one, "drawings", "EX", "ap_per_image").value
    haemorrhages = pick(both, "drawings", "HE", "prevalence")
    assert haemorrhages.value == pick(one, "drawings", "HE", "prevalence").value
    assert haemorrhages.photographs == 1


def test_undefined_scores_have_a_note_in_every_output(
    untrained: Checkpoint, drawings: list[Sample], tmp_path: Path
) -> None:
    healthy = [s for s in drawings if s.grade == 0][1:]  # both eyes of one patient
    done = evaluate(untrained, healthy, CONFIG)
    aupr, referable = (
        pick(done.scores, "drawings", *what) for what in (("SE", "aupr_pooled"), ("grade", "auc_referable"))
    )
    assert math.isnan(aupr.value)
    assert aupr.note == "no soft exudates on these photographs"
    assert math.isnan(referable.value)
    assert referable.note.startswith("needs both positive and negative")
    assert "no interval: fewer than two patients" in pick(done.scores, "drawings", "grade", "accuracy").note
    assert any("undefined: no soft exudates" in cell for table in done.tables() for row in table.rows for cell in row)
    done.write(tmp_path)
    written = json.loads((tmp_path / "evaluation.json").read_text(encoding="utf-8"))
    rows = {(s["subject"], s["score"]): s for s in written["scores"]}
    assert rows["SE", "aupr_pooled"]["value"] is None
    assert rows["SE", "aupr_pooled"]["note"] == aupr.note


def test_written_files_contain_all_results(done: Evaluation, tmp_path: Path) -> None:
    done.write(tmp_path / "new")
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["evaluation.json", "predictions.csv"]
    written = json.loads((tmp_path / "new" / "evaluation.json").read_text(encoding="utf-8"))
    assert written["failures"][0]["name"] == "text"
    assert written["protocol"]["bootstrap"] == {"unit": "patient", "resamples": 100, "seed": 0, "level": 0.95}
    assert len(written["scores"]) == len(done.scores)
    with (tmp_path / "new" / "predictions.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["status"] for row in rows] == ["ok"] * 7 + ["error"]
    first, plain, broken = rows[0], rows[6], rows[7]
    assert sum(float(first[f"p{g}"]) for g in range(5)) == pytest.approx(1, abs=1e-5)
    assert first["grade"] == "3"
    assert (plain["grade"], plain["ap_EX"], plain["lr_size"], plain["scale"]) == ("", "", "64", "4")
    assert (broken["p0"], broken["predicted_grade"]) == ("", "")
    assert "text.jpg" in broken["message"]


def test_folder_that_cannot_be_written_is_named(done: Evaluation, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"file/evaluation\.json: cannot be written"):
        done.write(tmp_path / "file")


def test_tables_contain_every_score_once(done: Evaluation) -> None:
    tables = done.tables()
    cells = [
        cell for table in tables if not table.title.startswith("confusion") for row in table.rows for cell in row[1:]
    ]
    assert sum(bool(cell) for cell in cells) == len(done.scores)
    assert all(len(row) == len(table.columns) for table in tables for row in table.rows)


def test_bfloat16_changes_little_and_is_in_the_protocol(untrained: Checkpoint, drawings: list[Sample]) -> None:
    exact, fast = (
        evaluate(untrained, drawings[:1], EvaluationConfig(bf16=bf16, bootstrap=FEW)) for bf16 in (False, True)
    )
    assert (exact.protocol["precision"], fast.protocol["precision"]) == ("fp32", "bf16")
    assert fast.results[0].probs == pytest.approx(exact.results[0].probs, abs=0.05)
    assert fast.results[0].image["psnr_fov_sr"] == pytest.approx(exact.results[0].image["psnr_fov_sr"], abs=0.1)


def test_wrong_settings_and_no_photographs_are_errors(untrained: Checkpoint, drawings: list[Sample]) -> None:
    with pytest.raises(InputSizeError, match="size 256 px, expected one of 32, 64, 128 for a frame of 256 px"):
        evaluate(untrained, drawings, EvaluationConfig(as_lr=256))
    with pytest.raises(ValueError, match="scale 3, expected 2, 4, 8 or None"):
        EvaluationConfig(scale=3)
    with pytest.raises(ValueError, match="removal_steps -1, expected at least 0"):
        EvaluationConfig(removal_steps=-1)
    with pytest.raises(DataError, match="no photograph to evaluate"):
        evaluate(untrained, [])


def test_size_that_does_not_fit_is_an_error_before_any_photograph_is_read(
    untrained: Checkpoint, drawings: list[Sample]
) -> None:
    read: list[None] = []
    with pytest.raises(InputSizeError, match="size 100 px"):
        evaluate(untrained, drawings, EvaluationConfig(as_lr=100), advance=lambda: read.append(None))
    assert read == []


def test_photographs_of_a_split_file_are_evaluated(
    untrained: Checkpoint, drawings: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, table = drawings[0].photograph.parents[2], tmp_path / "split.csv"
    sides = split_by_patient(drawings, {"train": 0.67, "test": 0.33}, seed=0)
    write_split(table, sides)
    digest = hashlib.sha256(table.read_bytes()).hexdigest()
    weights = tmp_path / "weights.safetensors"
    checkpoint.save(weights, untrained.model, untrained.recipe, weights="own", data=digest)
    selection = SampleSelection(data=data, split_file=table)
    done = evaluate_folder(selection, weights, config=CONFIG, report=ReportConfig(out=tmp_path / "out"))
    assert [m.name for m in done.results] == [s.name for s in sides["test"]]
    assert done.protocol["weights"] == "own"
    assert done.protocol["split"] == {"side": "test", "sha256": digest, "of_the_weights": True}
    assert (tmp_path / "out" / "predictions.csv").exists()
    with pytest.raises(DataError, match="found no split 'validation' in this file, expected one of test, train"):
        evaluate_folder(replace(selection, split="validation"), weights)
    with pytest.raises(DataError, match="expected a split file or the name of a data set"):
        evaluate_folder(SampleSelection(data=data), weights)


def test_parquet_holds_the_same_table_with_numbers_as_numbers(done: Evaluation, tmp_path: Path) -> None:
    done.write(tmp_path, parquet=True)
    table = read_parquet(tmp_path / "predictions.parquet").to_pydict()
    with (tmp_path / "predictions.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(table) == list(rows[0])
    assert table["p3"] == [float(row["p3"]) if row["p3"] else None for row in rows]
    assert table["grade"] == [int(row["grade"]) if row["grade"] else None for row in rows]
    again = [
        score_predictions(tmp_path / f"predictions.{kind}", tmp_path / "predictions.csv", bootstrap=FEW)
        for kind in ("parquet", "csv")
    ]
    assert repr(again[0].scores) == repr(again[1].scores)


def test_damaged_parquet_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "table.parquet").write_bytes(b"name,grade")
    with pytest.raises(DataError, match=r"table\.parquet: not a Parquet table"):
        score_predictions(tmp_path / "table.parquet", tmp_path / "table.parquet")


def test_quick_evaluation_has_scores_on_sr_only(untrained: Checkpoint, drawings: list[Sample]) -> None:
    done = evaluate(untrained, drawings[:2], QUICK)
    assert {s.task for s in done.scores} == {"super-resolution", "lesions", "grading", "each grade", "operating points"}


@pytest.mark.parametrize("thorough", [True, False])
def test_output_that_is_not_finite_is_a_failure_of_each_photograph(
    untrained: Checkpoint, drawings: list[Sample], thorough: bool
) -> None:
    broken = copy.deepcopy(untrained.model)
    with torch.no_grad():
        next(broken.grading.parameters()).fill_(math.nan)
    done = evaluate(untrained._replace(model=broken), drawings[:2], replace(CONFIG, thorough=thorough))
    assert [m.failure[:47] for m in done.failures] == ["the network returned a value that is not finite"] * 2
    assert done.scores == []
