"""Predicting and scoring one photograph: input sizes, devices, label sets, systems without grading."""

from __future__ import annotations

import copy
import csv
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from deepmtdr.checkpoint import Checkpoint
from deepmtdr.datasets.sample import Sample
from deepmtdr.evaluation import Bootstrap, EvaluationConfig, evaluate, measure
from deepmtdr.evaluation.framed_photograph import load_into_frame, to_batch
from deepmtdr.evaluation.measure import measure_in_frame, predict_frame
from deepmtdr.grade_decision import GradeDecision
from deepmtdr.labels import DIABETIC_RETINOPATHY
from deepmtdr.metrics import PooledCurve
from deepmtdr.model.deepmtdr import DeepMTDR, Prediction, paper_parts
from deepmtdr.recipe import load_recipe
from deepmtdr.synthetic.drawings import write_drawings

FRAME = 256
FEW = Bootstrap(resamples=20)
CONFIG = EvaluationConfig(slow_metrics=False, bootstrap=FEW)
CODES = DIABETIC_RETINOPATHY.codes


@pytest.fixture(scope="module")
def untrained() -> Checkpoint:
    torch.manual_seed(0)
    recipe = load_recipe("smoke")
    return Checkpoint(DeepMTDR(recipe.model).eval(), recipe, {"weights": "untrained"}, "0" * 64)


@pytest.fixture(scope="module")
def drawings(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    """Both eyes of one patient, graded 3 and 0."""
    return write_drawings(tmp_path_factory.mktemp("data") / "drawings", [2, 3], size=FRAME + 20)


def test_photograph_smaller_than_the_frame_has_no_super_resolution_scores(
    untrained: Checkpoint, tmp_path: Path
) -> None:
    (small,) = write_drawings(tmp_path, [7], size=FRAME - 60)
    measured, curves = measure(untrained.model, small, frame=FRAME)
    assert (measured.image, measured.scale, measured.lr_size) == ({}, 4, FRAME // 4)
    assert set(curves) == set(CODES)
    assert measured.fov_side == pytest.approx(FRAME - 60, abs=4)


def test_without_as_lr_and_scale_the_input_size_depends_on_the_photograph(
    untrained: Checkpoint, drawings: list[Sample], tmp_path: Path
) -> None:
    own_size = EvaluationConfig(scale=None, slow_metrics=False)
    measured, _ = measure(untrained.model, drawings[0], own_size, frame=FRAME)
    assert (measured.scale, measured.lr_size) == (1, FRAME)
    (small,) = write_drawings(tmp_path, [2], size=70)
    measured, _ = measure(untrained.model, small, own_size, frame=FRAME)
    assert (measured.scale, measured.lr_size) == (4, 64)


@pytest.mark.parametrize(
    "config", [EvaluationConfig(as_lr=128, slow_metrics=False), EvaluationConfig(scale=2, slow_metrics=False)]
)
def test_input_size_is_fixed_by_as_lr_or_by_scale(
    config: EvaluationConfig, untrained: Checkpoint, drawings: list[Sample]
) -> None:
    measured, _ = measure(untrained.model, drawings[0], config, frame=FRAME)
    assert (measured.scale, measured.lr_size) == (2, 128)


def test_thorough_evaluation_of_a_system_without_grading_is_written(
    untrained: Checkpoint, drawings: list[Sample], tmp_path: Path
) -> None:
    config = untrained.recipe.model
    model = DeepMTDR(config, paper_parts(config)._replace(grading=None)).eval()
    done = evaluate(untrained._replace(model=model), drawings[:1], CONFIG)
    done.write(tmp_path)
    with (tmp_path / "predictions.csv").open(encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert (row["status"], row["predicted_grade"], row["predicted_grade_hr"]) == ("ok", "", "")
    assert row["prevalence_HE"] != ""


def test_evaluation_follows_the_label_set_of_the_model(
    untrained: Checkpoint, drawings: list[Sample], tmp_path: Path
) -> None:
    labels = replace(
        DIABETIC_RETINOPATHY,
        lesions=(DIABETIC_RETINOPATHY.lesion("EX"), DIABETIC_RETINOPATHY.lesion("HE")),
        grades=DIABETIC_RETINOPATHY.grades[:3],
        thresholds={"any": 1, "referable": 2},
    )
    samples = [
        replace(s, grade=min(s.grade or 0, 2), lesion_masks={code: s.lesion_masks[code] for code in ("HE", "EX")})
        for s in drawings[:2]
    ]
    model = DeepMTDR(untrained.recipe.model, labels=labels).eval()
    done = evaluate(untrained._replace(model=model), samples, CONFIG)
    assert len(done.results[0].probs) == 3 and np.shape(done.confusion["drawings"]) == (3, 3)
    lesions = [s.subject for s in done.scores if (s.task, s.score) == ("lesions", "aupr_pooled")]
    assert lesions == ["EX", "HE", "mean"]
    done.write(tmp_path)
    with (tmp_path / "predictions.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [column for column in rows[0] if column.startswith(("p0", "p2", "p3", "ap_"))] == [
        "p0",
        "p2",
        "ap_EX",
        "ap_HE",
    ]
    framed = load_into_frame(samples[0], CONFIG, FRAME)
    prediction = predict_frame(model, to_batch(framed.lr), framed.scale, bf16=False)
    expected = PooledCurve()
    expected.update(prediction.lesions[0, 1].numpy(), framed.lesion_masks["HE"], framed.inside)
    assert float(rows[0]["ap_HE"]) == expected.average_precision()


def test_prediction_runs_on_the_device_of_the_model_with_its_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    used = []

    class OnAnotherDevice(DeepMTDR):
        """Has its parameters on the device "meta", and returns values on the CPU."""

        def __init__(self) -> None:
            torch.nn.Module.__init__(self)
            self.weight = torch.nn.Parameter(torch.zeros(1, device="meta"))

        def super_resolve(self, lr: torch.Tensor, scale: int = 4) -> torch.Tensor:
            used.append(lr.device.type)
            return torch.zeros(1, 3, 8, 8)

        def segment_and_grade(self, frame: torch.Tensor) -> Prediction:
            return Prediction(frame, frame.new_zeros(1, 4, 8, 8), frame.new_zeros(1, 1, 8, 8), torch.ones(1, 5), ())

    def autocast(device: str, _dtype: torch.dtype, *, enabled: bool) -> nullcontext[None]:
        used.append((device, enabled))
        return nullcontext()

    monkeypatch.setattr(torch, "autocast", autocast)
    prediction = predict_frame(
        OnAnotherDevice(), torch.zeros(1, 3, 2, 2), 4, bf16=True, decision=GradeDecision(temperature=2.0)
    )
    assert used == [("meta", True), "meta"]
    assert prediction.grade_logits.tolist() == [[0.5] * 5]


def test_slow_metrics_are_ssim_and_froc(untrained: Checkpoint, drawings: list[Sample]) -> None:
    quick, thorough = (
        measure(untrained.model, drawings[0], EvaluationConfig(slow_metrics=slow), frame=FRAME)[0]
        for slow in (False, True)
    )
    images = ("sr", "bicubic", "normalised_bicubic")
    psnr_only = {f"psnr_{place}_{image}" for place in ("fov", "fov_eroded", "whole") for image in images}
    assert set(quick.image) == psnr_only
    assert quick.lesions["MA"].froc is None
    ssim = {name.replace("psnr", "ssim") for name in psnr_only} | {f"ms_ssim_fov_{image}" for image in images}
    assert set(thorough.image) == psnr_only | ssim
    assert thorough.lesions["MA"].froc is not None


def test_image_of_a_super_resolver_in_bfloat16_is_segmented_in_float32() -> None:
    class InBfloat16(DeepMTDR):
        """Super-resolves to a constant of 1.5 in bfloat16, and returns the frame that it grades."""

        def super_resolve(self, lr: torch.Tensor, scale: int = 4) -> torch.Tensor:
            return torch.full((1, 3, 8, 8), 1.5, dtype=torch.bfloat16)

        def segment_and_grade(self, frame: torch.Tensor) -> Prediction:
            return Prediction(frame, frame.new_zeros(1, 4, 8, 8), frame.new_zeros(1, 1, 8, 8), torch.ones(1, 5), ())

    frame = predict_frame(InBfloat16(), torch.zeros(1, 3, 2, 2), 4, bf16=True).sr
    assert frame.dtype == torch.float32
    assert frame.unique().tolist() == [1]  # clamped


def test_prediction_in_bfloat16_has_the_scores_of_its_values(untrained: Checkpoint, drawings: list[Sample]) -> None:
    framed = load_into_frame(drawings[0], CONFIG, FRAME)
    exact = predict_frame(untrained.model, to_batch(framed.lr), framed.scale, bf16=False)
    half = exact._replace(sr=exact.sr.bfloat16(), lesions=exact.lesions.bfloat16())
    same_values = half._replace(sr=half.sr.float(), lesions=half.lesions.float())
    found, expected = (
        measure_in_frame(untrained.model, drawings[0], framed, prediction, slow_metrics=False)[0]
        for prediction in (half, same_values)
    )
    assert found.image == expected.image
    assert [found.lesions[code][:3] for code in CODES] == [expected.lesions[code][:3] for code in CODES]


@pytest.mark.gpu
def test_evaluation_on_a_gpu_agrees_with_the_cpu(untrained: Checkpoint, drawings: list[Sample]) -> None:
    config = EvaluationConfig(removal_steps=1, bootstrap=FEW)
    on_gpu = untrained._replace(model=copy.deepcopy(untrained.model).cuda())
    (here,), (there,) = (evaluate(trained, drawings[:1], config).results for trained in (untrained, on_gpu))
    assert there.failure == ""
    assert there.probs == pytest.approx(here.probs, abs=1e-3)
    assert there.image == pytest.approx(here.image, abs=1e-2)
