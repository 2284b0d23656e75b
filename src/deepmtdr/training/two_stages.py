"""Two-stage training (Sec. IV-C): 1a super-resolution and segmentation, 1b grading, 2 all three subnets jointly."""

from __future__ import annotations

import logging
import math
import platform
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch

from deepmtdr import checkpoint
from deepmtdr.datasets.frames import Frame
from deepmtdr.datasets.split import write_split
from deepmtdr.errors import CheckpointError, DataError, TrainingError
from deepmtdr.files import make_folder, write_json
from deepmtdr.model.cost import count_parameters
from deepmtdr.model.deepmtdr import DeepMTDR
from deepmtdr.model.precision import expected_device, resolve_precision
from deepmtdr.model.preprocessing import rgb_to_input
from deepmtdr.recipe import (
    STAGES,
    GradingStage,
    ImageStage,
    JointStage,
    Recipe,
    RestorationStage,
    TrainingStage,
    to_dict,
)
from deepmtdr.systems import build_system
from deepmtdr.training.batches import LOCAL_CONTRAST, SCALED_RGB, PhotographSampler
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
from deepmtdr.training.loop import Loop, StageBatch, StepLossFunction
from deepmtdr.training.norm_reestimation import reestimate_after_grading, reestimate_after_restoration
from deepmtdr.training.optimiser import has_trainable_parameters
from deepmtdr.training.report import RUN_FILE, write_report
from deepmtdr.training.state import RESUME_FILE, TrainState, grading_stage_changed, load_train_state
from deepmtdr.training.step_losses import grading_losses, joint_losses, restoration_losses
from deepmtdr.training.training_data import (
    Splits,
    fingerprint,
    load_prepared,
    read_splits,
    select_frames,
    training_samples,
    write_failures,
)
from deepmtdr.training.validation import select_validation_frames

if TYPE_CHECKING:
    from lightning_fabric import Fabric


@dataclass(frozen=True, kw_only=True)
class StartWeights:
    """Files with the weights that a run starts from; None: random weights."""

    checkpoint: Path | None = None
    """A checkpoint of the same architecture."""
    segmentation: Path | None = None
    """ImageNet weights (safetensors) for the segmentation network (CE-Net: ResNet-34)."""
    grading: Path | None = None
    """ImageNet weights (safetensors) for the grading network (the paper's grading subnet: ResNet-18)."""


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """Devices and processes of a run. With fp32 and without dropout they change the result only by rounding."""

    accelerator: str = "auto"
    """Kind of device: auto, cpu, cuda, ..., as in Lightning Fabric."""
    devices: int = 1
    """Number of devices on each node, which share each batch."""
    nodes: int = 1
    """Number of machines; start the same command on each with torchrun."""
    workers: int = 0
    """Number of processes that load batches ahead; the weights do not depend on it."""


MakeBatch = Callable[[int], StageBatch]
"""Function that makes a batch from its number."""


def run(
    recipe: Recipe,
    data: Path,
    out: Path,
    *,
    resume: bool = False,
    start: StartWeights = StartWeights(),
    hardware: Hardware = Hardware(),
    cache: Path | None = None,
    tensorboard: bool = False,
) -> Path:
    """Train all stages of a recipe.

    Args:
        recipe: the settings.
        data: folder with a folder for each data set of the recipe, under its name.
        out: folder for `split.csv`, `metrics.csv`, `validation.csv`, `sheets/`, `failed.csv`, the checkpoint to resume
            from, `weights.safetensors`, `run.json` and `report.html`.
        resume: continue from the last checkpoint in `out`.
        start: weights that the run starts from.
        hardware: devices and worker processes.
        cache: folder of prepared sets, which several runs can share; `out / "prepared"` if None.
        tensorboard: also write `out / "tensorboard"`.

    Returns:
        Path of the weights.

    Raises:
        TrainingError: if a loss or gradient is not finite, a signal stops the run, a batch cannot be divided among the
            processes, or `out` is resumed with another recipe or other data.
        DataError: if a data set has errors, or has no photograph that a stage can be trained on.
        CheckpointError: if there is nothing to resume, or a file to start from does not fit.
    """
    fabric = _launch(recipe, hardware)
    torch.manual_seed(recipe.seed)
    splits = read_splits(recipe, data)
    digest = fingerprint(splits)
    model = build_system(recipe.system, recipe.parts, recipe.model, labels=recipe.labels)
    model.to(memory_format=torch.channels_last).to(fabric.device)  # pyright: ignore[reportCallIssue]
    _load_start_weights(model, start)
    state = _load_state(model, recipe, out, digest) if resume else TrainState()
    if fabric.is_global_zero:
        _make_folder(out, splits, state, keep=resume)
    fabric.barrier()
    loop = Loop(fabric, model, recipe, state, Log(out, tensorboard=tensorboard), out, digest)
    _train_stages(loop, data, cache or out / "prepared", splits, hardware.workers)
    weights = out / "weights.safetensors"
    if fabric.is_global_zero:
        checkpoint.save(weights, model, recipe, half=True, stage="joint", data=digest, weights=recipe.name)
        _write_run(loop, weights)
    fabric.barrier()
    return weights


def _train_stages(loop: Loop, data: Path, cache: Path, splits: Splits, workers: int) -> None:
    """Train the stages that are not done yet."""
    recipe, state, fabric = loop.recipe, loop.state, loop.fabric
    samples = training_samples(recipe, splits)
    with fabric.rank_zero_first():
        sets = [load_prepared(recipe, data / name, name, cache) for name in recipe.data.datasets]
    if fabric.is_global_zero:
        write_failures(loop.out / "failed.csv", sets, [sample for split in samples.values() for sample in split])
    frames, validation = (select_frames(sets, samples[split]) for split in ("train", "validation"))
    loop.validation_frames = select_validation_frames(validation, recipe.data.validation_photographs)
    first = STAGES.index(state.stage) if state.stage in STAGES else len(STAGES)
    for stage in recipe.stages[first:]:
        if not stage.steps or not has_trainable_parameters(loop.model, stage):
            continue
        if stage.name != state.stage or not state.step:
            state.start_stage(stage.name, loop.model)
        make, losses, finish = _prepare_stage(stage, loop, frames)
        batches = range(state.step * stage.accumulate, stage.steps * stage.accumulate)
        loop.fit(stage, load_batches(make, batches, workers), losses, finish)


class StagePlan(NamedTuple):
    """The functions that make a stage."""

    make_batch: MakeBatch
    losses: StepLossFunction
    finish: Callable[[], None] = lambda: None
    """Called at the end, with the resulting weights loaded."""


def _prepare_stage(stage: TrainingStage, loop: Loop, frames: Sequence[Frame]) -> StagePlan:
    if isinstance(stage, GradingStage):
        batches = _grading_batches(stage, loop, frames)
        return StagePlan(
            batches, grading_losses, partial(reestimate_after_grading, loop.fabric, loop.model, stage, batches)
        )
    assert isinstance(stage, ImageStage)
    size = loop.recipe.data.frame
    needed = f"has a field of view of at least {math.ceil(size / math.sqrt(2))} px (scale 1 in a frame of {size} px)"
    filling = _require((frame for frame in frames if frame.scale == 1), needed, stage)
    batches = ImageBatches(loop.recipe, stage, PhotographSampler(filling), _shard(loop.fabric))
    if isinstance(stage, RestorationStage):
        return StagePlan(
            batches, restoration_losses, partial(reestimate_after_restoration, loop.fabric, loop.model, stage, batches)
        )
    assert isinstance(stage, JointStage)
    return StagePlan(batches, partial(joint_losses, evidence=stage.evidence, dropout=stage.dropout))


def _grading_batches(stage: GradingStage, loop: Loop, frames: Sequence[Frame]) -> GradingBatches:
    graded = _require((frame for frame in frames if frame.sample.grade is not None), "has a grade", stage)
    cached_outputs = loop.cache_outputs(limit_per_grade(stage.max_per_grade, graded), stage)
    small = []
    if count_small_frame_steps(stage):
        small = [output.downsampled(SMALL_FRAME_FACTOR) for output in cached_outputs]
    grader = loop.model.grading
    kind = SCALED_RGB if grader.preprocess is rgb_to_input else LOCAL_CONTRAST
    hide_image = loop.model.has_segmentation and grader.uses_lesion_maps
    return GradingBatches(loop.recipe, cached_outputs, small, _shard(loop.fabric), kind, hide_image)


def _require(frames: Iterable[Frame], property_: str, stage: TrainingStage) -> list[Frame]:
    if not (found := list(frames)):
        raise DataError(f"stage {stage.name}: found no photograph for training that {property_}, expected at least one")
    return found


def _shard(fabric: Fabric) -> BatchShard:
    return BatchShard(fabric.global_rank, fabric.world_size)


def _launch(recipe: Recipe, hardware: Hardware) -> Fabric:
    """Start Fabric with a process for each device; each batch must be divisible among the processes."""
    try:
        from lightning_fabric import Fabric  # its import sets environment variables
    except ImportError as error:
        raise TrainingError(f"lightning-fabric is missing ({error}); run pip install 'deepmtdr[train]'") from error
    logging.getLogger("lightning_fabric").setLevel(
        logging.WARNING
    )  # otherwise Fabric prints the seed and the precision
    processes = hardware.devices * hardware.nodes
    precision = resolve_precision(recipe.precision, expected_device(hardware.accelerator))
    fabric = Fabric(
        accelerator=hardware.accelerator,
        devices=hardware.devices,
        num_nodes=hardware.nodes,
        strategy="ddp" if processes > 1 else "auto",
        precision="bf16-mixed" if precision == "bf16" else "32-true",
    )
    for stage in recipe.stages:
        if stage.steps and stage.batch % processes:
            expected = f"expected a multiple of {processes}, the number of processes"
            raise TrainingError(f"{stage.name}.batch = {stage.batch}, {expected}")
    fabric.launch()
    return fabric


def _load_state(model: DeepMTDR, recipe: Recipe, out: Path, digest: str) -> TrainState:
    is_changed = (out / RESUME_FILE).exists() and grading_stage_changed(out / RESUME_FILE, recipe)
    state = load_train_state(out / RESUME_FILE, model, recipe, digest)
    if is_changed:  # the grading stage is still to come, with other settings than those of the cached outputs
        shutil.rmtree(out / "cached_outputs", ignore_errors=True)
    return state


def _make_folder(out: Path, splits: Splits, state: TrainState, *, keep: bool) -> None:
    """Make the folder of the run, without the logs and outputs of an earlier run."""
    make_folder(out)
    log = Log(out)
    if keep:
        log.truncate(state.stage, state.step)
    else:
        log.clear()
        for folder in ("cached_outputs", "sheets"):
            shutil.rmtree(out / folder, ignore_errors=True)
    write_split(out / "split.csv", splits)


def _load_start_weights(model: DeepMTDR, start: StartWeights) -> None:
    if start.checkpoint is not None:
        try:
            model.load_state_dict(checkpoint.load(start.checkpoint).model.state_dict())
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise CheckpointError(
                f"{start.checkpoint}: the weights do not fit the architecture of the recipe: {reason}"
            ) from error
    for subnet, path in ((model.segmentation, start.segmentation), (model.grading, start.grading)):
        if path is None:
            continue
        try:
            subnet.load_imagenet(checkpoint.read_tensors(path))
        except ValueError as error:
            raise CheckpointError(f"{path}: {error}") from error


def _write_run(loop: Loop, weights: Path) -> None:
    """Write `run.json`, and the report from it and the logs."""
    loop.log.close()
    machine = {
        "device": str(loop.fabric.device),
        "precision": loop.precision,
        "processes": loop.fabric.world_size,
        "threads": torch.get_num_threads(),
        "system": platform.platform(),
        "torch": torch.__version__,
    }
    run = {
        "recipe": to_dict(loop.recipe),
        "data": loop.data,
        "machine": machine,
        "parameters": {name: count_parameters(subnet) for name, subnet in loop.model.subnets.items()},
        "stages": [asdict(cost) for cost in loop.state.costs],
        "weights": checkpoint.read(weights)[2],
    }
    write_json(loop.out / RUN_FILE, run)
    write_report(loop.out)
