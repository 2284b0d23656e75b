"""The two-stage training (Sec. IV-C): 1a ISR and segmentation on crops, 1b grading, 2 all three on whole frames.

One loop, read from the top down: `run` -> `_Run.fit` -> one step of `stages` -> `route`. Every random choice of a step
hangs on (seed, stage, step) alone, so a resumed run goes on exactly where it stood.
"""

from __future__ import annotations

import csv
import hashlib
import math
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deepmtdr import checkpoint
from deepmtdr.data.batches import CONTRAST_LIMIT, CONTRAST_STEPS, Mixture, Reading
from deepmtdr.data.datasets import read_datasets
from deepmtdr.data.frames import Frame
from deepmtdr.data.prepare import prepare
from deepmtdr.data.prepared import PreparedSet, is_prepared, read_prepared
from deepmtdr.data.sample import Sample
from deepmtdr.data.split import apply_split, folds, read_split, split, supervise, write_split
from deepmtdr.data.transforms import to_image
from deepmtdr.errors import CheckpointError, DataError, TrainingError
from deepmtdr.feed import SMALLER, GradingSteps, ImageSteps, draw_scale, feed, seed_torch, small_steps
from deepmtdr.model.contrast import local_contrast
from deepmtdr.model.deepmtdr import DeepMTDR
from deepmtdr.model.isr import bicubic
from deepmtdr.optimiser import build_optimiser, load_moments, moments, one_cycle
from deepmtdr.progress import Progress
from deepmtdr.recipe import STAGES, Recipe, Stage, differences, split_file, to_dict
from deepmtdr.stages import StepLosses, grading_losses, joint_losses, restoration_losses, route

Make = Callable[[int], tuple[Any, ...]]
"""The batch of a step by its number alone."""

Losses = Callable[..., StepLosses]
"""The losses of the model on what `Make` made, by the stage's weights."""


def run(
    recipe: Recipe,
    data: Path,
    out: Path,
    *,
    resume: bool = False,
    init: Path | None = None,
    init_grading: Path | None = None,
    cache: Path | None = None,
    workers: int = 0,
) -> Path:
    """Train by a recipe, all stages.

    Args:
        recipe: what to do.
        data: folder that holds a folder for each data set of the recipe, under its name.
        out: folder for `split.csv`, `metrics.csv`, `failed.csv`, the checkpoints and `weights.safetensors`.
        resume: go on from the last checkpoint in `out`.
        init: a checkpoint of deepmtdr, of the same architecture, whose weights the run starts from.
        init_grading: safetensors file of a published ImageNet ResNet-18 for the grading subnet.
        cache: folder of prepared sets, which several runs may share; `out / "prepared"` if None.

        workers: processes that make batches ahead; any number gives the same weights.

    Returns:
        Path of the weights.

    Raises:
        TrainingError: if a loss or gradient is not finite, or `out` is to be resumed with another recipe or other data.
        DataError: if a data set is not as its reader expects, or has no photograph that a stage could learn from.
        CheckpointError: if there is nothing to resume, or `init` or `init_grading` is no such file.
    """
    torch.manual_seed(recipe.seed)
    sides = _sides(recipe, data)
    fingerprint = _fingerprint(sides)
    model = DeepMTDR(recipe.model).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    if init is not None:
        _init(model, init)
    if init_grading is not None:
        _init_grading(model, init_grading)
    run_ = _Run(model, recipe, out, fingerprint)
    at, step_at = run_.restore() if resume else run_.start()
    write_split(out / "split.csv", sides)
    learned_from = supervise(sides["train"], recipe.data.supervision, recipe.data.split_seed)
    frames = _frames(recipe, data, cache or out / "prepared", learned_from, out / "failed.csv")
    for name in STAGES[STAGES.index(at) if at in STAGES else len(STAGES) :]:
        stage: Stage = getattr(recipe, name)
        if not stage.steps:
            continue
        first = step_at if name == at else 0
        make, losses = _stage(name, model, recipe, frames, out)
        run_.fit(name, stage, feed(make, range(first, stage.steps), workers), losses, first)
    weights = out / "weights.safetensors"
    checkpoint.save(weights, model, recipe, half=True, stage="joint", data=fingerprint, weights=recipe.name)
    return weights


def _sides(recipe: Recipe, data: Path) -> dict[str, list[Sample]]:
    """Read the data sets, and hold the patients of the other sides out."""
    samples = read_datasets({name: data / name for name in recipe.data.datasets})
    if recipe.data.split:
        return {"train": [], **apply_split(samples, read_split(split_file(recipe.data.split)))}
    if recipe.data.folds:
        return folds(samples, recipe.data.folds, recipe.data.split_seed)[recipe.data.fold]
    shares = {"train": 1 - recipe.data.held_out, "test": recipe.data.held_out}
    return split(samples, shares, recipe.data.split_seed)


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


def _init_grading(model: DeepMTDR, path: Path) -> None:
    try:
        model.grading.load_imagenet(checkpoint.read_plain(path))
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error


def _frames(recipe: Recipe, data: Path, cache: Path, samples: Sequence[Sample], failures: Path) -> list[Frame]:
    """The samples' frames; one that cannot be used is written down with the reason, not skipped silently."""
    sets = [_prepared(recipe, data / name, name, cache) for name in recipe.data.datasets]
    rows = {(row.dataset, row.name): row for prepared in sets for row in prepared.rows}
    failed = [(s.dataset, s.name, rows[s.dataset, s.name].problem) for s in samples]
    with failures.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerows([("dataset", "name", "reason"), *(row for row in failed if row[2])])
    frames = {(frame.sample.dataset, frame.sample.name): frame for prepared in sets for frame in prepared.frames()}
    used = ((sample, frames.get((sample.dataset, sample.name))) for sample in samples)
    return [frame if s.lesion_masks else frame.unannotated() for s, frame in used if frame is not None]


def _prepared(recipe: Recipe, root: Path, name: str, cache: Path) -> PreparedSet:
    """A data set in the recipe's frame: as it lies there, or prepared now."""
    if not is_prepared(root):
        out = cache / f"{name}_{recipe.data.frame}"
        return prepare(read_datasets({name: root}), root, out, size=recipe.data.frame)
    prepared = read_prepared(root)
    if prepared.size != recipe.data.frame:
        raise DataError(f"{root}: prepared for a frame of {prepared.size} px, the recipe has {recipe.data.frame}")
    return prepared


def _stage(name: str, model: DeepMTDR, recipe: Recipe, frames: list[Frame], out: Path) -> tuple[Make, Losses]:
    """What makes a stage's batches, and what computes the losses of one."""
    stage: Stage = getattr(recipe, name)
    if name == "grading":
        graded = _some((f for f in frames if f.sample.grade is not None), "has a grade", name)
        readings = read_frames(model, _at_most(stage.per_grade, graded), stage, out / "readings", recipe)
        small = [reading.reduced(SMALLER) for reading in readings] if small_steps(stage) else []
        return GradingSteps(recipe, readings, small), grading_losses
    sharp = _some((f for f in frames if f.scale == 1), f"fills the frame of {recipe.data.frame} px", name)
    losses = restoration_losses if name == "restoration" else joint_losses
    return ImageSteps(recipe, name, Mixture(sharp)), losses


def _some(frames: Iterable[Frame], claim: str, stage: str) -> list[Frame]:
    if not (found := list(frames)):
        raise DataError(f"{stage}: none of the photographs for training {claim}; expected at least one")
    return found


def _at_most(count: int, graded: list[Frame]) -> list[Frame]:
    """The first `count` photographs of each grade and data set; all if 0."""
    seen: Counter[tuple[str, int | None]] = Counter()
    kept = []
    for frame in graded:
        key = (frame.sample.dataset, frame.sample.grade)
        seen[key] += 1
        if not count or seen[key] <= count:
            kept.append(frame)
    return kept


def read_frames(model: DeepMTDR, frames: Sequence[Frame], stage: Stage, folder: Path, recipe: Recipe) -> list[Reading]:
    """Let the standing ISR and segmentation subnets read each photograph once, and keep what they say on disk.

    A photograph that fills the frame comes in by one of the stage's scales, drawn once; a low-resolution one by its
    own.
    """
    model.eval()
    readings = []
    with Progress("readings", len(frames)) as progress:
        for n, frame in enumerate(frames):
            file = folder / frame.sample.dataset / f"{frame.sample.name}.npy"
            if not file.exists():
                scale = frame.scale if frame.scale > 1 else draw_scale(stage.scales, np.random.default_rng([n, 7]))
                lr = to_image(frame.pixels)[None]
                if frame.scale == 1:
                    lr = bicubic(lr, 1 / scale).clamp(0, 1)
                with torch.no_grad(), _autocast(recipe):
                    seen = local_contrast(model.super_resolve(lr, scale).float().clamp(0, 1))
                    lesions = model.segmentation(seen)[:, :4]
                both = torch.cat([(seen + CONTRAST_LIMIT) * CONTRAST_STEPS, 255 * lesions.float()], dim=1)[0]
                file.parent.mkdir(parents=True, exist_ok=True)
                np.save(file.with_suffix(".part.npy"), both.round().byte().numpy())
                file.with_suffix(".part.npy").replace(file)
            both = np.load(file, mmap_mode="r")
            readings.append(Reading(frame, both[:3], both[3:]))
            progress.advance()
    return readings


def _autocast(recipe: Recipe) -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16, enabled=recipe.precision == "bf16")


class _Run:
    """What changes while training: the weights, their average, the optimiser, the log and the last checkpoint."""

    def __init__(self, model: DeepMTDR, recipe: Recipe, out: Path, fingerprint: str) -> None:
        self.model, self.recipe, self.out, self.fingerprint = model, recipe, out, fingerprint
        self.log = out / "metrics.csv"
        self.state = out / "resume.safetensors"
        self.average = {name: t.detach().clone() for name, t in model.state_dict().items()}
        self.moments: dict[str, Tensor] = {}

    def fit(self, name: str, stage: Stage, batches: Iterator[tuple[Any, ...]], losses: Losses, first: int) -> None:
        """Train one stage from step `first` on; the averaged weights take the place of the last ones at its end."""
        optimiser = build_optimiser(self.model, name, stage)
        if first == 0:
            self.average = {key: t.detach().clone() for key, t in self.model.state_dict().items()}
        else:
            load_moments(optimiser, self.moments)
        self.model.train(name != "joint")  # a batch of one has no statistics of its own
        saved = time.monotonic()
        with Progress(name, stage.steps, first) as progress:
            for n, batch in enumerate(batches, first):
                terms = self._step(optimiser, name, stage, partial(losses, self.model, *batch, stage.loss), n)
                progress.advance(terms)
                self._write_terms(name, n, terms)
                if time.monotonic() - saved > 60 * self.recipe.checkpoint_minutes:
                    self.save(name, n + 1, optimiser)
                    saved = time.monotonic()
        self.model.load_state_dict(self.average)
        self.save(_next_stage(self.recipe, name), 0, None)

    def _step(
        self, optimiser: torch.optim.Optimizer, name: str, stage: Stage, losses: Callable[[], StepLosses], n: int
    ) -> dict[str, float]:
        for group in optimiser.param_groups:
            group["lr"] = group["highest"] * one_cycle(n / stage.steps, stage.warm_up)
        optimiser.zero_grad(set_to_none=True)
        seed_torch(self.recipe, name, n)
        with _autocast(self.recipe):
            result = losses()
        if not all(math.isfinite(value) for value in result.terms.values()):
            raise TrainingError(f"{name} step {n}: a loss is not finite: {result.terms}")
        route(result, self.model, end_to_end=stage.end_to_end)
        for group in optimiser.param_groups:
            norm = torch.nn.utils.clip_grad_norm_(group["params"], stage.clip)
            if not norm.isfinite():  # the weights are still those of the step before
                raise TrainingError(f"{name} step {n}: a gradient is not finite; the losses are {result.terms}")
        optimiser.step()
        decay = min(stage.ema, (n + 1) / (n + 10))
        for key, tensor in self.model.state_dict().items():
            if tensor.is_floating_point():
                self.average[key].lerp_(tensor, 1 - decay)
        return result.terms

    def _write_terms(self, name: str, n: int, terms: dict[str, float]) -> None:
        new = not self.log.exists()
        with self.log.open("a") as file:
            if new:
                file.write("stage,step,term,value\n")
            file.writelines(f"{name},{n},{term},{value:.6g}\n" for term, value in terms.items())

    def save(self, stage: str, step: int, optimiser: torch.optim.Optimizer | None) -> None:
        """Write everything needed to go on, atomically."""
        tensors = {f"model/{key}": t for key, t in self.model.state_dict().items()}
        tensors |= {f"average/{key}": t for key, t in self.average.items()}
        tensors |= {f"moments/{key}": t for key, t in moments(optimiser)}
        card = {"stage": stage, "step": step, "data": self.fingerprint, "recipe": to_dict(self.recipe)}
        checkpoint.write(self.state, tensors, card)

    def start(self) -> tuple[str, int]:
        """Begin anew: what an earlier run left in the folder would not be of this one."""
        self.out.mkdir(parents=True, exist_ok=True)
        self.log.unlink(missing_ok=True)
        shutil.rmtree(self.out / "readings", ignore_errors=True)
        return STAGES[0], 0

    def restore(self) -> tuple[str, int]:
        """Take up what `save` wrote.

        Raises:
            TrainingError: if the data are not those of the run.
            CheckpointError: if there is no checkpoint, or a damaged one.
        """
        tensors, card, _ = checkpoint.read(self.state)
        was, now = card["recipe"], to_dict(self.recipe)
        if differing := list(differences(_begun(was, card), _begun(now, card))):
            raise TrainingError(
                f"{self.state}: made by another recipe ({'; '.join(differing)}); resume with the same one, "
                "or start anew in another folder"
            )
        if card["data"] != self.fingerprint:
            raise TrainingError(
                f"{self.state}: made from other photographs, labels or sides than those found now; "
                f"expected those of {self.out / 'split.csv'}"
            )
        parts = {p: {k[len(p) + 1 :]: t for k, t in tensors.items() if k.startswith(p + "/")} for p in _PARTS}
        self.model.load_state_dict(parts["model"])
        self.average, self.moments = parts["average"], parts["moments"]
        self._forget_from(card["stage"], card["step"])
        if was["grading"] != now["grading"]:  # a stage to come: what has been read for it already was read otherwise
            shutil.rmtree(self.out / "readings", ignore_errors=True)
        return card["stage"], card["step"]

    def _forget_from(self, stage: str, step: int) -> None:
        """Steps behind the checkpoint are done again: their rows leave the log."""
        if not self.log.exists():
            return
        stages = (*STAGES, "done")
        first = stages.index(stage), step
        header, *rows = self.log.read_text().splitlines(keepends=True)
        whole = [row.split(",") for row in rows if row.endswith("\n")]
        kept = [",".join(cells) for cells in whole if (stages.index(cells[0]), int(cells[1])) < first]
        self.log.write_text("".join([header, *kept]))


_PARTS = ("model", "average", "moments")


def _begun(recipe: dict[str, Any], card: Mapping[str, Any]) -> dict[str, Any]:
    """What of a recipe has had an effect already: all but the stages that are still to begin, which may be changed."""
    at = STAGES.index(card["stage"]) if card["stage"] in STAGES else len(STAGES)
    to_come = STAGES[at + (card["step"] > 0) :]
    return {key: value for key, value in recipe.items() if key not in to_come}


def _next_stage(recipe: Recipe, name: str) -> str:
    to_come = STAGES[STAGES.index(name) + 1 :]
    return next((stage for stage in to_come if getattr(recipe, stage).steps), "done")
