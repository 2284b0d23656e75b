"""The two-stage training (Sec. IV-C): 1a ISR and segmentation on crops, 1b grading, 2 all three on whole frames."""

from __future__ import annotations

import csv
import hashlib
import json
import logging
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from deepmtdr import checkpoint
from deepmtdr.datasets.catalogue import read_datasets
from deepmtdr.datasets.frames import Frame
from deepmtdr.datasets.prepared import PreparedSet, is_prepared, read_prepared
from deepmtdr.datasets.sample import Sample
from deepmtdr.datasets.split import (
    apply_split,
    cross_validation_folds,
    read_split,
    reduce_supervision,
    split_by_patient,
    write_split,
)
from deepmtdr.errors import CheckpointError, DataError, TrainingError
from deepmtdr.files import write_atomically
from deepmtdr.model.cost import count_parameters
from deepmtdr.model.deepmtdr import DeepMTDR
from deepmtdr.model.interfaces import rgb_to_input
from deepmtdr.preparation.prepare import prepare
from deepmtdr.recipe import STAGES, Recipe, Stage, find_split_file, to_dict
from deepmtdr.systems import build_system
from deepmtdr.training.batches import PhotographSampler, scale_brightness, scale_contrast
from deepmtdr.training.dataloader import (
    SMALL_FRAME_FACTOR,
    BatchShard,
    GradingBatches,
    ImageBatches,
    count_small_frame_steps,
    load_batches,
)
from deepmtdr.training.frozen_outputs import limit_per_grade
from deepmtdr.training.log import Log
from deepmtdr.training.loop import Loop, StepLossFunction
from deepmtdr.training.optimiser import has_trainable_parameters
from deepmtdr.training.report import write_report
from deepmtdr.training.state import RESUME_FILE, TrainState, grading_stage_changed, load_train_state
from deepmtdr.training.step_losses import SUBNETS, grading_losses, joint_losses, restoration_losses
from deepmtdr.training.validation import select_validation_frames

if TYPE_CHECKING:
    from lightning_fabric import Fabric

Make = Callable[[int], tuple[Any, ...]]
"""A batch by its number alone."""


def run(
    recipe: Recipe,
    data: Path,
    out: Path,
    *,
    resume: bool = False,
    init: Path | None = None,
    init_segmentation: Path | None = None,
    init_grading: Path | None = None,
    cache: Path | None = None,
    workers: int = 0,
    accelerator: str = "auto",
    devices: int = 1,
    nodes: int = 1,
    tensorboard: bool = False,
) -> Path:
    """Train by a recipe, all stages.

    Args:
        recipe: what to do.
        data: folder that holds a folder for each data set of the recipe, under its name.
        out: folder for `split.csv`, `metrics.csv`, `validation.csv`, `sheets/`, `failed.csv`, the checkpoint to go on from,
            `weights.safetensors`, `run.json` and `report.html`.
        resume: go on from the last checkpoint in `out`.
        init: a checkpoint of deepmtdr, of the same architecture, whose weights the run starts from.
        init_segmentation: safetensors file of published ImageNet weights, for a segmentation network that takes them
            (CE-Net: ResNet-34).
        init_grading: the same for the grading network (the paper's grading subnet: ResNet-18).
        cache: folder of prepared sets, which several runs may share; `out / "prepared"` if None.
        workers: processes that make batches ahead; any number gives the same weights.
        accelerator: as Lightning Fabric has it: auto, cpu, cuda, ...
        devices: how many of them on each node; the batch is divided among them.
        nodes: machines; start the same command on each by torchrun.
        tensorboard: write `out / "tensorboard"` too.

    Returns:
        Path of the weights.

    Raises:
        TrainingError: if a loss or gradient is not finite, a signal ends the run, a batch cannot be divided among the
            processes, or `out` is to be resumed with another recipe or other data.
        DataError: if a data set is not as its reader expects, or has no photograph that a stage could learn from.
        CheckpointError: if there is nothing to resume, or one of the files to start from is no such file.
    """
    fabric = _launched(recipe, accelerator, devices, nodes)
    torch.manual_seed(recipe.seed)
    sides = _sides(recipe, data)
    fingerprint = _fingerprint(sides)
    model = build_system(recipe.system, recipe.parts, recipe.model).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    model.to(fabric.device)
    if init is not None:
        _init(model, init)
    for name, path in {"segmentation": init_segmentation, "grading": init_grading}.items():
        if path is not None:
            _init_part(model, name, path)
    state = _resumed(model, recipe, out, fingerprint) if resume else TrainState()
    if fabric.is_global_zero:
        _make_folder(out, sides, state, keep=resume)
    fabric.barrier()
    loop = Loop(fabric, model, recipe, state, Log(out, tensorboard=tensorboard), out, fingerprint)
    _learn(loop, data, cache or out / "prepared", sides, workers)
    weights = out / "weights.safetensors"
    if fabric.is_global_zero:
        checkpoint.save(weights, model, recipe, half=True, stage="joint", data=fingerprint, weights=recipe.name)
        _report(loop, weights)
    fabric.barrier()
    return weights


def _learn(loop: Loop, data: Path, cache: Path, sides: Mapping[str, Sequence[Sample]], workers: int) -> None:
    """The stages that are still to be done, one after the other."""
    recipe, state, fabric = loop.recipe, loop.state, loop.fabric
    learned_from = reduce_supervision(sides["train"], recipe.data.supervision, recipe.data.split_seed)
    used = {"train": learned_from, "validation": sides.get("validation", ())}
    with fabric.rank_zero_first():
        sets = [_prepared(recipe, data / name, name, cache) for name in recipe.data.datasets]
    if fabric.is_global_zero:
        _write_failures(loop.out / "failed.csv", sets, [sample for side in used.values() for sample in side])
    frames, validation = (_frames(sets, side) for side in used.values())
    loop.validation_frames = select_validation_frames(validation, recipe.data.looked_at)
    for name in STAGES[STAGES.index(state.stage) if state.stage in STAGES else len(STAGES) :]:
        stage: Stage = getattr(recipe, name)
        if not stage.steps or not has_trainable_parameters(loop.model, name, stage):
            continue
        if name != state.stage or not state.step:
            state.start_stage(name, loop.model)
        make, losses = _stage(name, loop, frames)
        batches = range(state.step * stage.accumulate, stage.steps * stage.accumulate)
        loop.fit(name, load_batches(make, batches, workers), losses)


def _launched(recipe: Recipe, accelerator: str, devices: int, nodes: int) -> Fabric:
    """Fabric, with a process for each device; the recipe's batches must be divisible among them."""
    try:
        from lightning_fabric import Fabric  # sets variables of the environment when it is imported
    except ImportError as error:
        raise TrainingError(
            f"expected lightning-fabric, found none ({error}); pip install 'deepmtdr[train]'"
        ) from error
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it greets every run
    precision = {"bf16": "bf16-mixed", "fp32": "32-true"}[recipe.precision]
    strategy = "ddp" if devices * nodes > 1 else "auto"
    fabric = Fabric(
        accelerator=accelerator,
        devices=devices,
        num_nodes=nodes,
        strategy=strategy,
        precision=precision,  # pyright: ignore[reportArgumentType]
    )
    for name in STAGES:
        stage: Stage = getattr(recipe, name)
        if stage.steps and stage.batch % (devices * nodes):
            raise TrainingError(
                f"{name}.batch = {stage.batch}, expected a multiple of {devices * nodes}, one share for each process"
            )
    fabric.launch()
    return fabric


def _resumed(model: DeepMTDR, recipe: Recipe, out: Path, fingerprint: str) -> TrainState:
    other_readings = (out / RESUME_FILE).exists() and grading_stage_changed(out / RESUME_FILE, recipe)
    state = load_train_state(out / RESUME_FILE, model, recipe, fingerprint)
    if other_readings:  # of a stage to come: what has been read for it already was read otherwise
        shutil.rmtree(out / "cached_outputs", ignore_errors=True)
    return state


def _make_folder(out: Path, sides: Mapping[str, Sequence[Sample]], state: TrainState, *, keep: bool) -> None:
    """The folder of the run: what another run left there would not be of this one."""
    out.mkdir(parents=True, exist_ok=True)
    log = Log(out)
    if keep:
        log.truncate(state.stage, state.step)
    else:
        log.clear()
        for folder in ("cached_outputs", "sheets"):
            shutil.rmtree(out / folder, ignore_errors=True)
    write_split(out / "split.csv", sides)


def _sides(recipe: Recipe, data: Path) -> dict[str, list[Sample]]:
    """Read the data sets, and hold the patients of the other sides out."""
    samples = read_datasets({name: data / name for name in recipe.data.datasets})
    if recipe.data.split:
        return {"train": [], **apply_split(samples, read_split(find_split_file(recipe.data.split)))}
    if recipe.data.folds:
        return cross_validation_folds(samples, recipe.data.folds, recipe.data.split_seed)[recipe.data.fold]
    held = {"validation": recipe.data.validation} if recipe.data.validation else {}
    shares = {"train": 1 - recipe.data.held_out - recipe.data.validation, **held, "test": recipe.data.held_out}
    return split_by_patient(samples, shares, recipe.data.split_seed)


def _fingerprint(sides: Mapping[str, Sequence[Sample]]) -> str:
    """SHA-256 of the split as it is written down."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "split.csv"
        write_split(path, sides)
        return hashlib.sha256(path.read_bytes()).hexdigest()


def _init(model: DeepMTDR, path: Path) -> None:
    try:
        model.load_state_dict(checkpoint.load(path).model.state_dict())
    except RuntimeError as error:
        raise CheckpointError(f"{path}: not the architecture of the recipe: {' '.join(str(error).split())}") from error


def _init_part(model: DeepMTDR, name: str, path: Path) -> None:
    load = getattr(getattr(model, name), "load_imagenet", None)
    if load is None:
        raise CheckpointError(f"{path}: the {name} network of this system takes no ImageNet weights")
    try:
        load(checkpoint.read_tensors(path))
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error


def _write_failures(path: Path, sets: Sequence[PreparedSet], samples: Iterable[Sample]) -> None:
    """A photograph that cannot be used is written down with the reason, not skipped silently."""
    rows = {(row.dataset, row.name): row for prepared in sets for row in prepared.rows}
    failed = [(s.dataset, s.name, rows[s.dataset, s.name].problem) for s in samples]
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerows([("dataset", "name", "reason"), *(row for row in failed if row[2])])


def _frames(sets: Sequence[PreparedSet], samples: Iterable[Sample]) -> list[Frame]:
    """The frames of the samples that could be prepared."""
    frames = {(frame.sample.dataset, frame.sample.name): frame for prepared in sets for frame in prepared.frames()}
    used = ((sample, frames.get((sample.dataset, sample.name))) for sample in samples)
    return [frame if s.lesion_masks else frame.without_masks() for s, frame in used if frame is not None]


def _prepared(recipe: Recipe, root: Path, name: str, cache: Path) -> PreparedSet:
    """A data set in the recipe's frame: as it lies there, or prepared now."""
    if not is_prepared(root):
        out = cache / f"{name}_{recipe.data.frame}"
        return prepare(read_datasets({name: root}), root, out, size=recipe.data.frame)
    prepared = read_prepared(root)
    if prepared.size != recipe.data.frame:
        raise DataError(f"{root}: prepared for a frame of {prepared.size} px, the recipe has {recipe.data.frame}")
    return prepared


def _stage(name: str, loop: Loop, frames: list[Frame]) -> tuple[Make, StepLossFunction]:
    """What makes a stage's batches, and what computes the losses of one."""
    recipe, share = loop.recipe, BatchShard(loop.fabric.global_rank, loop.fabric.world_size)
    stage: Stage = getattr(recipe, name)
    if name == "grading":
        graded = limit_per_grade(
            stage.per_grade, _some((f for f in frames if f.sample.grade is not None), "has a grade", name)
        )
        cached_outputs = loop.cache_outputs(graded, stage)
        small = (
            [reading.downsampled(SMALL_FRAME_FACTOR) for reading in cached_outputs]
            if count_small_frame_steps(stage)
            else []
        )
        grader = loop.model.grading
        scale_intensity = scale_brightness if getattr(grader, "preprocess", None) is rgb_to_input else scale_contrast
        hides = loop.model.has_segmentation and getattr(grader, "uses_lesion_maps", True)
        return GradingBatches(recipe, cached_outputs, small, share, scale_intensity, hides), grading_losses
    sharp = _some((f for f in frames if f.scale == 1), f"fills the frame of {recipe.data.frame} px", name)
    losses = restoration_losses if name == "restoration" else joint_losses
    return ImageBatches(recipe, name, PhotographSampler(sharp), share), losses


def _some(frames: Iterable[Frame], claim: str, stage: str) -> list[Frame]:
    if not (found := list(frames)):
        raise DataError(f"{stage}: none of the photographs for training {claim}; expected at least one")
    return found


def _report(loop: Loop, weights: Path) -> None:
    """`run.json`, and the page made from it and the logs."""
    loop.log.close()
    fabric, model = loop.fabric, loop.model
    machine = {
        "device": str(fabric.device), "processes": fabric.world_size, "threads": torch.get_num_threads(),
        "system": platform.platform(), "torch": torch.__version__,
    }  # fmt: skip
    facts = {
        "recipe": to_dict(loop.recipe),
        "data": loop.data,
        "machine": machine,
        "parameters": {name: count_parameters(getattr(model, name)) for name in SUBNETS},
        "stages": [asdict(cost) for cost in loop.state.costs],
        "weights": checkpoint.read(weights)[2],
    }
    write_atomically(loop.out / "run.json", (json.dumps(facts, indent=2) + "\n").encode())
    write_report(loop.out)
