"""Validation: the same scores as an evaluation, pictures of the first photographs, an unchanged network."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from deepmtdr.checkpoint import Checkpoint
from deepmtdr.datasets.frames import Frame
from deepmtdr.datasets.sample import Sample
from deepmtdr.errors import DataError
from deepmtdr.evaluation import Bootstrap, Evaluation, EvaluationConfig, evaluate
from deepmtdr.evaluation.photograph_result import PhotographResult
from deepmtdr.labels import DIABETIC_RETINOPATHY
from deepmtdr.model.deepmtdr import DeepMTDR
from deepmtdr.model.preprocessing import image_to_tensor
from deepmtdr.preparation.prepare import prepare
from deepmtdr.recipe import VALIDATION_SCORES, DataRecipe
from deepmtdr.synthetic.drawings import write_drawings
from deepmtdr.terms import Grade, Lesion
from deepmtdr.training.validation import ValidationResult, _scores, select_validation_frames, validate
from tiny_model import FRAME, tiny_recipe

RECIPE = replace(tiny_recipe(), data=DataRecipe(frame=FRAME))


@pytest.fixture(scope="module")
def drawings(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    """Graded 3, 0, 0, 2, 2 and 4, each annotated; wider than the frame."""
    root = tmp_path_factory.mktemp("data") / "drawings"
    return write_drawings(root, [2, 3, 10, 18, 19, 30], size=FRAME + 20)


def prepared(samples: list[Sample], out: Path) -> list[Frame]:
    return prepare(samples, out, out, size=FRAME, workers=1).frames()


@pytest.fixture(scope="module")
def frames(drawings: list[Sample], tmp_path_factory: pytest.TempPathFactory) -> list[Frame]:
    return prepared(drawings, tmp_path_factory.mktemp("prepared"))


@pytest.fixture(scope="module")
def model(frames: list[Frame]) -> DeepMTDR:
    """Untrained, with an ISR subnet that changes the image, and with different grades for different photographs."""
    torch.manual_seed(0)
    model = DeepMTDR(RECIPE.model).eval()
    with torch.no_grad():
        for parameter in model.isr.to_rgb.parameters():
            parameter.normal_(std=0.02)
        *_, last = (layer for layer in model.grading.modules() if isinstance(layer, torch.nn.Linear))
        last.weight *= 40
        logits = [model.segment_and_grade(image_to_tensor(frame.pixels)[None]).grade_logits[0] for frame in frames]
        last.bias -= torch.stack(logits).mean(dim=0)
    return model


@pytest.fixture(scope="module")
def validated(model: DeepMTDR, frames: list[Frame]) -> ValidationResult:
    return validate(model, frames, max_examples=2)


@pytest.fixture(scope="module")
def evaluated(model: DeepMTDR, drawings: list[Sample]) -> Evaluation:
    return evaluate(
        Checkpoint(model, RECIPE, {}, "0" * 64), drawings, EvaluationConfig(bootstrap=Bootstrap(resamples=2))
    )


def test_validation_and_evaluation_of_the_same_photographs_agree(
    validated: ValidationResult, evaluated: Evaluation
) -> None:
    tasks = ("super-resolution", "lesions", "grading")
    expected = {(score.subject, score.score): score.value for score in evaluated.scores if score.task in tasks}
    assert {name: value for name, value in validated.scores.items() if name != "live_units"} == pytest.approx(
        {
            "photographs": 6,
            "psnr_gain": expected["gain", "psnr_fov"],
            "psnr_gain_eroded": expected["gain over normalised bicubic", "psnr_fov_eroded"],
            "aupr_mean": expected["mean", "aupr_pooled"],
            "kappa_quadratic": expected["grade", "kappa_quadratic"],
            "auc_referable": expected["grade", "auc_referable"],
        }
    )
    assert abs(validated.scores["psnr_gain"]) > 0.1
    assert len({np.argmax(m.probs) for m in evaluated.results}) > 1, "one grade for all would agree by chance"


def test_first_photographs_are_returned_with_predictions_and_labels(
    validated: ValidationResult, frames: list[Frame], evaluated: Evaluation
) -> None:
    assert [seen.name for seen in validated.examples] == [f"drawings {frame.sample.name}" for frame in frames[:2]]
    for seen, frame, measured in zip(validated.examples, frames, evaluated.results, strict=False):
        assert seen.hr is not None and (seen.hr == frame.pixels).all()
        assert (seen.lr.shape, seen.sr.shape) == ((FRAME // 4, FRAME // 4, 3), (FRAME, FRAME, 3))
        assert 0 < np.abs(seen.sr.astype(int) - seen.hr).mean() < 30
        assert seen.lesion_masks is not None and (seen.lesion_masks == frame.lesion_masks).all()
        assert (seen.annotated, seen.grade) == ((True,) * 4, frame.sample.grade)
        assert seen.grade_probs == pytest.approx(measured.probs, abs=1e-4)
        assert (seen.lesions.shape, seen.evidence.shape) == ((4, FRAME, FRAME), (FRAME, FRAME))
        assert seen.evidence.min() >= 0 and 0 < seen.evidence.max() <= 1


def test_evidence_is_computed_for_the_returned_photographs_alone(
    model: DeepMTDR, frames: list[Frame], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    monkeypatch.setattr(model, "predict", lambda *args: calls.append(args) or DeepMTDR.predict(model, *args))
    assert len(validate(model, frames[:3], max_examples=1).examples) == len(calls) == 1


def test_validation_leaves_the_network_unchanged(model: DeepMTDR, frames: list[Frame]) -> None:
    model.train()
    model.segmentation.eval()
    modes, random_state = [m.training for m in model.modules()], torch.get_rng_state()
    try:
        validate(model, frames[:2], max_examples=1)
        assert [m.training for m in model.modules()] == modes
        assert all(p.grad is None and p.requires_grad for p in model.parameters())
        assert torch.equal(torch.get_rng_state(), random_state)
        missing = replace(frames[0], sample=replace(frames[0].sample, photograph=Path("gone.tif")))
        with pytest.raises(DataError, match=r"gone\.tif"):
            validate(model, [missing])
        assert [m.training for m in model.modules()] == modes
    finally:
        model.eval()


def test_validation_is_in_evaluation_mode(model: DeepMTDR, frames: list[Frame], validated: ValidationResult) -> None:
    model.train()
    try:
        assert validate(model, frames, max_examples=0).scores == pytest.approx(validated.scores, abs=1e-6)
    finally:
        model.eval()


def test_low_resolution_photograph_has_its_own_scale_and_no_hr(model: DeepMTDR, tmp_path: Path) -> None:
    small = write_drawings(tmp_path / "drawings", [2], size=FRAME // 2)
    (frame,) = prepared(small, tmp_path / "out")
    done = validate(model, [frame], scale=8)
    (example,) = done.examples
    assert frame.scale == 2
    assert (example.lr == frame.pixels).all() and example.lr.shape == (FRAME // 2, FRAME // 2, 3)
    assert example.hr is None and example.sr.shape == (FRAME, FRAME, 3)
    assert "aupr_mean" in done.scores and "psnr_gain" not in done.scores


@pytest.mark.parametrize("scale", [1, 2, 8])
def test_photograph_that_fills_the_frame_is_reduced_by_the_scale(
    model: DeepMTDR, frames: list[Frame], scale: int
) -> None:
    done = validate(model, frames[:1], scale=scale)
    assert done.examples[0].lr.shape == (FRAME // scale, FRAME // scale, 3)
    assert ("psnr_gain" in done.scores) == ("psnr_gain_eroded" in done.scores) == (scale > 1)


def test_undefined_score_is_left_out(model: DeepMTDR, frames: list[Frame]) -> None:
    bare = [replace(f, sample=replace(f.sample, grade=None, lesion_masks={})) for f in frames[:1]]
    done = validate(model, bare)
    assert set(done.scores) == {"photographs", "psnr_gain", "psnr_gain_eroded", "live_units"}
    assert (
        done.examples[0].lesion_masks is None and not any(done.examples[0].annotated) and done.examples[0].grade is None
    )
    assert validate(model, []).scores == {"photographs": 0}


def test_mean_aupr_is_over_the_types_that_are_annotated_and_occur(model: DeepMTDR, frames: list[Frame]) -> None:
    def only(*kept: Lesion, absent: tuple[Lesion, ...] = ()) -> float:
        masks = {lesion: frames[0].sample.lesion_masks[lesion] for lesion in kept} | dict.fromkeys(absent)
        return validate(model, [replace(frames[0], sample=replace(frames[0].sample, lesion_masks=masks))]).scores[
            "aupr_mean"
        ]

    assert only(Lesion.MA, Lesion.HE) == pytest.approx((only(Lesion.MA) + only(Lesion.HE)) / 2)
    assert only(Lesion.MA) != only(Lesion.HE)
    assert only(Lesion.MA, absent=(Lesion.SE,)) == only(Lesion.MA)


def test_every_pass_of_the_network_is_inside_autocast(model: DeepMTDR, frames: list[Frame]) -> None:
    entered = []

    @contextmanager
    def bf16() -> Iterator[None]:
        entered.append(1)
        with torch.autocast("cpu", torch.bfloat16):
            yield

    coarse = validate(model, frames[:3], max_examples=1, autocast=bf16)
    exact = validate(model, frames[:3], max_examples=1)
    assert len(entered) == 3
    assert set(coarse.scores) == set(exact.scores) and coarse.scores != exact.scores
    assert coarse.scores["psnr_gain"] == pytest.approx(exact.scores["psnr_gain"], abs=0.2)


@pytest.mark.gpu
def test_validation_on_a_gpu_gives_the_same_scores(
    model: DeepMTDR, frames: list[Frame], validated: ValidationResult
) -> None:
    done = validate(deepcopy(model).cuda(), frames, max_examples=1)
    assert done.scores == pytest.approx(validated.scores, rel=1e-2)
    assert done.examples[0].evidence == pytest.approx(validated.examples[0].evidence, abs=0.05)


def test_scores_have_the_names_of_stop_on(validated: ValidationResult) -> None:
    assert set(validated.scores) == {"photographs", *VALIDATION_SCORES, "live_units"}


def cohort() -> list[Frame]:
    """Forty photographs of two data sets, most of them with grade 0; every tenth is annotated."""
    found = []
    for dataset in ("a", "b"):
        for n in range(20):
            grade = None if n == 19 else Grade(max(0, n - 14) if n < 19 else 0)
            masks = {Lesion.MA: None} if n % 10 == 0 else {}
            sample = Sample(
                photograph=Path(f"{n}.tif"), name=f"{n:02d}", patient=str(n), dataset=dataset, grade=grade,
                lesion_masks=masks,
            )  # fmt: skip
            found.append(Frame(sample, 64, 1))
    return found


def test_selection_does_not_depend_on_the_order() -> None:
    frames = cohort()
    chosen = select_validation_frames(frames, 7)
    random.Random(0).shuffle(frames)
    assert select_validation_frames(frames, 7) == chosen
    assert Counter(f.sample.dataset for f in chosen) == {"a": 7, "b": 7}


def test_annotated_photographs_are_selected_first() -> None:
    assert all(f.sample.lesion_masks for f in select_validation_frames(cohort(), 2))
    assert [bool(f.sample.lesion_masks) for f in select_validation_frames(cohort(), 3)] == [True] * 4 + [False] * 2


def test_other_photographs_are_spread_over_the_grades() -> None:
    unannotated = [f for f in cohort() if not f.sample.lesion_masks and f.sample.dataset == "a"]
    assert [f.sample.grade for f in select_validation_frames(unannotated, 6)] == [4, 3, 2, 1, 0, None]
    assert Counter(f.sample.grade for f in select_validation_frames(unannotated, 8))[Grade.NEGATIVE] == 3


def test_selection_takes_data_sets_in_turn_and_zero_takes_all() -> None:
    assert [f.sample.dataset for f in select_validation_frames(cohort(), 0)[:4]] == ["a", "b", "a", "b"]
    assert len(select_validation_frames(cohort(), 0)) == 40
    assert len({(f.sample.dataset, f.sample.name) for f in select_validation_frames(cohort(), 0)}) == 40


def test_grade_scores_are_means_over_the_data_sets_so_that_recognising_the_camera_is_not_rewarded() -> None:
    truth = {"a": [2, 3, 4] * 8, "b": [0, 0, 1] * 8}
    camera = {"a": (0.0, 0.1, 0.1, 0.8, 0.0), "b": (0.8, 0.1, 0.1, 0.0, 0.0)}
    results = [
        PhotographResult(dataset=name, name=f"{n}", patient=f"{n}", grade=grade, probs=camera[name])
        for name, grades in truth.items()
        for n, grade in enumerate(grades)
    ]
    scores = _scores(results, {}, DIABETIC_RETINOPATHY)
    assert scores["kappa_quadratic"] == pytest.approx(0)
    assert "auc_referable" not in scores, "undefined within each data set"


def test_live_units_are_those_above_0_on_any_photograph(model: DeepMTDR, frames: list[Frame]) -> None:
    silent = deepcopy(model)
    with torch.no_grad():
        silent.grading.spp_fc.weight[:3] = 0
        silent.grading.spp_fc.bias[:3] = -1
        silent.grading.spp_fc.bias[3:] = 100
        # The fourth unit is above 0 on one photograph only, the one with the highest value.
        values = [silent.segment_and_grade(image_to_tensor(f.pixels)[None]).hidden[0, 4] for f in frames]  # pyright: ignore
        silent.grading.spp_fc.bias[4] -= sum(sorted(values)[-2:]) / 2
    units = silent.grading.spp_fc.out_features
    assert validate(silent, frames, scale=1).scores["live_units"] == pytest.approx(1 - 3 / units)
    lowest = frames[int(np.argmin([float(value) for value in values]))]
    assert validate(silent, [lowest], scale=1).scores["live_units"] == pytest.approx(1 - 4 / units)
