"""Training on a tiny IDRiD of drawings: every recipe runs, single steps, start weights, errors."""

from __future__ import annotations

import itertools
import math
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from dataset_trees import GRADING_PHOTOGRAPHS
from deepmtdr import checkpoint
from deepmtdr.datasets.catalogue import read_datasets
from deepmtdr.datasets.frames import Frame
from deepmtdr.datasets.prepared import read_prepared
from deepmtdr.errors import CheckpointError, DataError, TrainingError
from deepmtdr.labels import DIABETIC_RETINOPATHY
from deepmtdr.model.deepmtdr import DeepMTDR
from deepmtdr.model.isr import bicubic_in_field
from deepmtdr.model.preprocessing import local_contrast
from deepmtdr.model.segmentation import LesionSegmentationSubnet
from deepmtdr.preparation.prepare import prepare
from deepmtdr.recipe import STAGES, list_recipes, load_recipe
from deepmtdr.synthetic.drawings import write_drawings
from deepmtdr.training import Hardware, StartWeights, run, two_stages
from deepmtdr.training.batches import PhotographSampler
from drawings import BLACK, GRADES, SMALL, TWIN
from tiny_runs import (
    FRAME,
    ONE_STAGE,
    equal_tensors,
    final_weights,
    read_csv,
    small_recipe,
    subnet_tensors,
    untrained_weights,
)

SHARES = {"share_sa", "cosine_sa", "share_ca", "cosine_ca"}
"""Logged if the task-aware gradients are limited; not at x1, which does not train the ISR subnet."""
TERMS = {
    "restoration": {"image", "tv", "seg_aware", "dice", "cross_entropy"},
    "grading": {"grading", "accuracy"},
    "joint": {"image", "tv", "seg_aware", "cls_aware", "dice", "cross_entropy", "unsupervised", "grading", "xi"},
}
"""Eqs. (6), (7), (4), (8) and the cross-entropy beside it; (10); all of them with (5), (9) and xi."""


# Every recipe


@pytest.mark.parametrize("name", list_recipes())
def test_every_shipped_recipe_runs_a_step_of_each_stage(name: str, train: Callable[..., Path]) -> None:
    frame = ("data.frame=128",) if name == "small" else ()  # it begins on frames of a quarter of the side
    recipe = small_recipe(*frame, name=name)
    out = train(recipe)
    found = checkpoint.load(out / "weights.safetensors")
    assert found.recipe == recipe
    assert found.card["weights"] == name
    logged = read_csv(out / "metrics.csv")
    for stage in recipe.stages:
        of_stage = [row for row in logged if row["stage"] == stage.name]
        is_frozen = stage.learning_rates.get("segmentation") == 0  # then segmentation is not computed
        assert {row["term"] for row in of_stage} - SHARES == ({"image", "tv"} if is_frozen else TERMS[stage.name])
        assert all(row["step"] == "0" and math.isfinite(float(row["value"])) for row in of_stage)
    before, after = untrained_weights(recipe), final_weights(out)
    assert not any(
        equal_tensors(subnet_tensors(part, before), subnet_tensors(part, after))
        for part in ("isr", "segmentation", "grading")
    )
    assert all(torch.isfinite(tensor).all() for tensor in after.values())


@pytest.mark.slow
def test_smoke_recipe_runs_unchanged(tmp_path: Path) -> None:
    write_drawings(tmp_path / "data" / "drawings", range(12), size=200)
    recipe = load_recipe("smoke")
    out = run(recipe, tmp_path / "data", tmp_path / "out").parent
    steps = {(row["stage"], row["step"]) for row in read_csv(out / "metrics.csv")}
    assert len(steps) == sum(stage.steps for stage in recipe.stages)
    expected = {
        "failed.csv",
        "metrics.csv",
        "split.csv",
        "weights.json",
        "weights.safetensors",
        "run.json",
        "report.html",
    }
    assert expected <= {path.name for path in out.iterdir()}


def test_weights_are_those_of_the_last_checkpoint_as_float16(train: Callable[..., Path]) -> None:
    out = train(small_recipe(*ONE_STAGE["joint"]))
    shipped = checkpoint.load(out / "weights.safetensors").model.state_dict()
    for name, tensor in final_weights(out).items():
        assert torch.equal(shipped[name], tensor.half().float() if tensor.is_floating_point() else tensor)


def test_same_seed_gives_the_same_weights_and_another_seed_others(train: Callable[..., Path]) -> None:
    first = final_weights(train(small_recipe(), "first"))
    assert equal_tensors(first, final_weights(train(small_recipe(), "again")))
    assert not equal_tensors(first, final_weights(train(small_recipe("seed=1"), "other")))


def test_new_run_in_a_used_folder_keeps_nothing_of_the_former(train: Callable[..., Path]) -> None:
    train(small_recipe("seed=1", steps=2))
    out = train(small_recipe())
    fresh = train(small_recipe(), "fresh")
    assert (out / "metrics.csv").read_text() == (fresh / "metrics.csv").read_text()
    assert equal_tensors(final_weights(out), final_weights(fresh))


# Errors


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_loss_that_is_not_finite_is_an_error(
    train: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    compute, calls = two_stages.joint_losses, itertools.count()

    def broken(*args: Any, **settings: Any) -> Any:
        step = compute(*args, **settings)
        return step._replace(terms={**step.terms, "dice": value}) if next(calls) == 1 else step

    monkeypatch.setattr(two_stages, "joint_losses", broken)
    with pytest.raises(TrainingError, match=rf"joint step 1: a loss is not finite.*'dice': {value}"):
        train(small_recipe(steps=3))


@pytest.mark.parametrize("stage", ["restoration", "joint"])
def test_gradient_that_is_not_finite_never_reaches_the_weights(
    train: Callable[..., Path], stage: str, tmp_path: Path
) -> None:
    with pytest.raises(TrainingError, match=rf"{stage} step 0: a gradient is not finite"):
        train(small_recipe(f"{stage}.loss.dice=1e300", "checkpoint_minutes=0"))
    if (tmp_path / "out/resume.safetensors").exists():
        tensors, _, _ = checkpoint.read(tmp_path / "out/resume.safetensors")
        assert all(torch.isfinite(tensor).all() for tensor in tensors.values())


def test_exploding_weights_are_an_error(train: Callable[..., Path]) -> None:
    with pytest.raises(TrainingError, match=r"restoration step [1-9].*not finite"):
        train(small_recipe("restoration.lr_isr=1e30", "restoration.warm_up=0", "restoration.scales={4 = 1}", steps=4))


def test_photographs_that_cannot_be_used_are_in_failed_csv_with_the_reason(data: Path, tmp_path: Path) -> None:
    broken = tmp_path / "data"
    shutil.copytree(data, broken)
    (broken / "idrid" / GRADING_PHOTOGRAPHS / "IDRiD_003.jpg").write_bytes(b"not, a\nphotograph")
    run(small_recipe(*ONE_STAGE["grading"]), broken, tmp_path / "out")
    failed = read_csv(tmp_path / "out/failed.csv")
    assert [(row["dataset"], row["name"]) for row in failed] == [("idrid", "IDRiD_003"), ("idrid", f"IDRiD_{BLACK}")]
    assert "IDRiD_003.jpg" in failed[0]["reason"] and "field of view" in failed[1]["reason"]
    cached = {path.stem for path in (tmp_path / "out/cached_outputs").rglob("*.npy")}
    assert cached == {"IDRiD_05", "IDRiD_001", "IDRiD_002", "IDRiD_004", f"IDRiD_{SMALL}"}


def test_photograph_with_a_mask_of_another_size_is_left_out(data: Path, tmp_path: Path) -> None:
    broken = tmp_path / "data"
    shutil.copytree(data, broken)
    mask = next((broken / "idrid").rglob("IDRiD_04_MA.tif"))
    Image.new("1", (10, 10)).save(mask)
    run(small_recipe(*ONE_STAGE["joint"]), broken, tmp_path / "out")
    (black, failed) = read_csv(tmp_path / "out/failed.csv")
    assert failed["name"] == "IDRiD_04" and "IDRiD_04_MA.tif: mask of (10, 10) px" in failed["reason"]
    assert black["name"] == f"IDRiD_{BLACK}"


def test_stage_without_photographs_is_an_error(train: Callable[..., Path], data: Path) -> None:
    expected = r"stage joint: found no photograph for training that has a field of view of at least 182 px"
    with pytest.raises(DataError, match=expected):
        train(small_recipe("data.frame=256", *ONE_STAGE["joint"]))


def test_held_out_patients_are_not_used_for_training(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = record_frames(monkeypatch)
    run(small_recipe("data.held_out=0.4", *ONE_STAGE["joint"]), data, tmp_path)
    used = {frame.sample.name for frame in frames}
    rows = read_csv(tmp_path / "split.csv")
    train, test = ({row["name"] for row in rows if row["split"] == split} for split in ("train", "test"))
    assert len(test) >= 3
    assert used and used < train
    assert train - used <= {f"IDRiD_{BLACK}", f"IDRiD_{SMALL}"}  # no field of view; smaller than the frame


def record_frames(monkeypatch: pytest.MonkeyPatch) -> list[Frame]:
    """Record the frames from which a stage on images draws."""
    recorded: list[Frame] = []

    def recording(frames: Iterable[Frame]) -> PhotographSampler:
        recorded.extend(frames)
        return PhotographSampler(recorded)

    monkeypatch.setattr(two_stages, "PhotographSampler", recording)
    return recorded


def test_less_supervision_removes_masks_and_keeps_the_photographs(
    train: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = record_frames(monkeypatch)
    train(small_recipe("data.supervision=0.67", *ONE_STAGE["joint"]))
    annotated = {frame.sample.name for frame in frames if frame.sample.lesion_masks}
    assert annotated < {"IDRiD_04", "IDRiD_05", "IDRiD_09"} and len(annotated) == 2
    assert {"IDRiD_04", "IDRiD_05", "IDRiD_09"} < {frame.sample.name for frame in frames}


def test_each_fold_has_its_own_test_split(train: Callable[..., Path], tmp_path: Path) -> None:
    tested: list[str] = []
    for fold in range(3):
        train(small_recipe("data.folds=3", f"data.fold={fold}", *ONE_STAGE["joint"]), f"fold{fold}")
        tested += [row["name"] for row in read_csv(tmp_path / f"fold{fold}/split.csv") if row["split"] == "test"]
    assert len(tested) == len(set(tested)) == 3 + len(GRADES) - 1


@pytest.mark.parametrize("workers", [1, 2])
def test_any_number_of_workers_gives_the_same_weights(train: Callable[..., Path], workers: int) -> None:
    recipe = small_recipe("precision=fp32", steps=2)
    alone = final_weights(train(recipe, "alone"))
    assert equal_tensors(final_weights(train(recipe, "ahead", hardware=Hardware(workers=workers))), alone)


def test_prepared_set_is_used_without_preparing_it_again(
    data: Path, train: Callable[..., Path], tmp_path: Path
) -> None:
    raw = final_weights(train(small_recipe("precision=fp32")))
    prepare(read_datasets({"idrid": data / "idrid"}), data / "idrid", tmp_path / "sets/idrid", size=FRAME)
    run(small_recipe("precision=fp32"), tmp_path / "sets", tmp_path / "again")
    assert equal_tensors(final_weights(tmp_path / "again"), raw)
    assert not (tmp_path / "again/prepared").exists()
    with pytest.raises(DataError, match=r"prepared for a frame of 64 px, the recipe has data\.frame = 96"):
        run(small_recipe("data.frame=96"), tmp_path / "sets", tmp_path / "other")


def test_split_from_a_file_is_used(train: Callable[..., Path], tmp_path: Path) -> None:
    table = train(small_recipe(*ONE_STAGE["grading"]), "first") / "split.csv"
    moved = table.read_text().replace("IDRiD_002,idrid/002,2,train", "IDRiD_002,idrid/002,2,test")
    assert moved != table.read_text()
    (tmp_path / "own.csv").write_text(moved)
    out = train(small_recipe(f"data.split='{tmp_path / 'own.csv'}'", *ONE_STAGE["grading"]))
    assert (out / "split.csv").read_text() == moved
    assert not list(out.rglob("IDRiD_002*")) and list(out.rglob("IDRiD_001*"))


def test_init_starts_from_the_weights_of_another_run(train: Callable[..., Path]) -> None:
    first = train(small_recipe("seed=1"), "first") / "weights.safetensors"
    still = small_recipe(*(f"{stage}.steps=0" for stage in STAGES))
    begun = checkpoint.load(train(still, start=StartWeights(checkpoint=first)) / "weights.safetensors")
    assert equal_tensors(begun.model.state_dict(), checkpoint.load(first).model.state_dict())


def test_init_with_another_architecture_is_an_error(train: Callable[..., Path]) -> None:
    first = train(small_recipe(*ONE_STAGE["restoration"]), "first") / "weights.safetensors"
    with pytest.raises(
        CheckpointError, match=r"weights\.safetensors: the weights do not fit the architecture of the recipe.*isr"
    ):
        train(small_recipe("model.isr.width=6"), start=StartWeights(checkpoint=first))


def test_imagenet_weights_that_do_not_fit_are_an_error_that_names_them(
    train: Callable[..., Path], tmp_path: Path
) -> None:
    path = tmp_path / "resnet.safetensors"
    save_file({"conv1.weight": torch.ones(64, 3, 7, 7)}, path)
    with pytest.raises(CheckpointError, match=r"resnet\.safetensors: published weights: conv1\.weight"):
        train(small_recipe(), start=StartWeights(grading=path))


def test_init_grading_loads_imagenet_weights(train: Callable[..., Path], tmp_path: Path) -> None:
    recipe, path = small_recipe(*(f"{stage}.steps=0" for stage in STAGES)), tmp_path / "resnet.safetensors"
    own = {name.removeprefix("grading."): t for name, t in subnet_tensors("grading", untrained_weights(recipe)).items()}
    own = {name: torch.full_like(t, 2) for name, t in own.items() if not name.startswith(("spp_fc", "classifier"))}
    save_file(own | {"conv1.weight": torch.full((2, 3, 7, 7), 3.0)}, path)
    out = train(recipe, start=StartWeights(grading=path))
    grading = checkpoint.load(out / "weights.safetensors").model.grading
    assert (grading.conv1.weight[:, :3] == 3).all() and not (grading.conv1.weight[:, 3:] == 3).any()
    assert (grading.layer4[0].conv1.weight == 2).all()


def test_init_segmentation_loads_imagenet_weights(
    train: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = []
    monkeypatch.setattr(LesionSegmentationSubnet, "load_imagenet", lambda subnet, state: loaded.append(list(state)))
    save_file({"conv1.weight": torch.ones(1)}, tmp_path / "resnet.safetensors")
    train(
        small_recipe(*(f"{stage}.steps=0" for stage in STAGES)),
        start=StartWeights(segmentation=tmp_path / "resnet.safetensors"),
    )
    assert loaded == [["conv1.weight"]]


def test_imagenet_weights_for_a_network_that_takes_none_are_an_error(
    train: Callable[..., Path], tmp_path: Path
) -> None:
    save_file({"conv1.weight": torch.ones(1)}, tmp_path / "x")
    with pytest.raises(CheckpointError, match=r"x: LesionSegmentationSubnet has no published ImageNet weights"):
        train(small_recipe(), start=StartWeights(segmentation=tmp_path / "x"))


# Single steps


def test_result_is_the_moving_average_of_the_weights(train: Callable[..., Path]) -> None:
    def after_one_step(ema: float) -> dict[str, Tensor]:
        as_trained = ("precision=fp32", "restoration.batch_norm_batches=0")
        recipe = small_recipe(*as_trained, f"restoration.ema={ema}", *ONE_STAGE["restoration"])
        return final_weights(train(recipe, f"ema{ema}"))

    before, last, average = untrained_weights(small_recipe()), after_one_step(0.0), after_one_step(0.995)
    for name, start in before.items():
        if start.is_floating_point():  # the first step's decay is (0 + 1) / (0 + 10)
            assert torch.allclose(average[name], 0.1 * start + 0.9 * last[name], atol=1e-6), name
    assert not equal_tensors(last, before)


def test_first_step_of_adamw_is_the_learning_rate(train: Callable[..., Path]) -> None:
    sets = ("precision=fp32", "restoration.ema=0", "restoration.weight_decay=0", "restoration.warm_up=0")
    rates = ("restoration.lr_isr=0.003", "restoration.lr_segmentation=0.02")
    recipe = small_recipe(*sets, *rates, *ONE_STAGE["restoration"])
    before, after = untrained_weights(recipe), final_weights(train(recipe))
    for subnet, rate in (("isr.to_rgb", 0.003), ("segmentation.to_map", 0.02)):
        steps = torch.cat([(after[name] - before[name]).flatten().abs() for name in subnet_tensors(subnet, before)])
        assert steps.max().item() == pytest.approx(rate, rel=0.01)


@pytest.mark.parametrize("frozen", [("isr",), ("isr", "grading"), ("segmentation",)], ids="+".join)
def test_learning_rate_of_0_freezes_a_subnet(train: Callable[..., Path], frozen: tuple[str, ...]) -> None:
    rates = (f"joint.lr_{subnet}=0" for subnet in frozen)
    recipe = small_recipe(*rates, "joint.scales={4 = 1}", *ONE_STAGE["joint"])
    before, after = untrained_weights(recipe), final_weights(train(recipe))
    still = {
        part
        for part in ("isr", "segmentation", "grading")
        if equal_tensors(subnet_tensors(part, before), subnet_tensors(part, after))
    }
    assert still == set(frozen)


def test_cached_output_of_a_low_resolution_photograph_has_its_own_scale(
    train: Callable[..., Path], cache: Path
) -> None:
    out = train(small_recipe("precision=fp32", *ONE_STAGE["grading"]))
    frames = {frame.sample.name: frame for frame in read_prepared(cache / f"idrid_{FRAME}").frames()}
    lr = np.asarray(frames[f"IDRiD_{SMALL}"].pixels)
    assert lr.shape == (FRAME // 2, FRAME // 2, 3)
    image = torch.from_numpy(lr.transpose(2, 0, 1).copy())[None].float() / 255
    contrast = local_contrast(bicubic_in_field(image, 2).clamp(0, 1))[0]  # as an untrained ISR subnet
    found = np.load(out / f"cached_outputs/idrid/IDRiD_{SMALL}.npy")
    assert found.shape == (7, FRAME, FRAME) and found.dtype == np.uint8
    assert np.abs(found[:3] - (contrast.numpy() + 3) * 255 / 6).max() <= 0.51


def test_grading_begins_with_small_frames_in_larger_batches(
    train: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn, compute = [], two_stages.grading_losses

    def recording(model: DeepMTDR, batch: Any, *args: Any) -> Any:
        drawn.append(tuple(batch.image.shape))
        return compute(model, batch, *args)

    monkeypatch.setattr(two_stages, "grading_losses", recording)
    train(small_recipe("grading.small_frame_share=0.5", "data.frame=128", *ONE_STAGE["grading"], steps=4))
    assert drawn == [(8, 3, 32, 32)] * 2 + [(2, 3, 128, 128)] * 2


@pytest.mark.parametrize(("most", "expected"), [(0, 6), (1, 4)])
def test_grading_uses_at_most_max_per_grade_photographs_of_a_grade(
    train: Callable[..., Path], most: int, expected: int
) -> None:
    out = train(small_recipe(f"grading.max_per_grade={most}", *ONE_STAGE["grading"]))
    cached = {path.stem for path in (out / "cached_outputs").rglob("*.npy")}
    assert len(cached) == expected  # of the grades 0, 0, 2, 2, 3, 4
    assert ("IDRiD_003" in cached) == (most == 0)


def test_tiny_idrid_has_every_kind_of_photograph(data: Path) -> None:
    samples = {sample.name: sample for sample in read_datasets({"idrid": data / "idrid"})}
    assert len(samples) == 3 + len(GRADES) - 1  # B's twin of 05 is 05
    assert samples["IDRiD_05"].grade == GRADES[TWIN] and all(samples["IDRiD_05"].annotated(DIABETIC_RETINOPATHY))
    assert samples["IDRiD_04"].grade is None and all(samples["IDRiD_04"].annotated(DIABETIC_RETINOPATHY))
    assert samples["IDRiD_001"].grade == 0 and not any(samples["IDRiD_001"].annotated(DIABETIC_RETINOPATHY))
