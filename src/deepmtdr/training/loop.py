"""The training loop of all three stages: `fit` -> `_step` -> step losses -> `backward_by_subnet` (Sec. IV-C).

Every random choice of a step depends on (seed, stage, step) only, so a resumed run continues exactly.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from deepmtdr import checkpoint
from deepmtdr.datasets.frames import Frame
from deepmtdr.errors import TrainingError, TrainingStopped
from deepmtdr.files import printable_path
from deepmtdr.model.deepmtdr import DeepMTDR
from deepmtdr.model.precision import resolve_precision
from deepmtdr.progress import Progress
from deepmtdr.recipe import STAGES, GradingStage, ImageStage, Recipe, TrainingStage
from deepmtdr.training.activation_checkpointing import checkpoint_activations
from deepmtdr.training.backward import StepLosses, backward_by_subnet
from deepmtdr.training.batch_norm import warm_start_batch_norm
from deepmtdr.training.batches import Batch, CachedOutput, GradingBatch
from deepmtdr.training.contact_sheet import draw_contact_sheet
from deepmtdr.training.dataloader import BatchShard, seed_torch
from deepmtdr.training.distributed import average_gradients, get_processes, sync_batch_norm
from deepmtdr.training.frozen_outputs import cache_outputs
from deepmtdr.training.log import Log
from deepmtdr.training.optimiser import build_optimiser, set_learning_rates
from deepmtdr.training.peak_memory import read_peak_memory, reset_peak_memory
from deepmtdr.training.state import RESUME_FILE, TrainState, copy_weights
from deepmtdr.training.stop_signals import catch_stop_signals
from deepmtdr.training.validation import validate

if TYPE_CHECKING:
    from lightning_fabric import Fabric

StageBatch = tuple[Batch, int] | tuple[GradingBatch]
"""Batch of a step: images and the scale of their LR images, or cached outputs with grades."""

StepLossFunction = Callable[..., StepLosses]
"""(model, *StageBatch, LossWeights, Processes) -> losses: `restoration_losses`, `grading_losses`, `joint_losses`."""

NON_FINITE_BATCH_FILE = "not_finite.safetensors"
"""The batch at which a run ended because of a loss or gradient that is not finite."""


class Loop:
    """Trains the stages of a run, one after the other."""

    def __init__(
        self, fabric: Fabric, model: DeepMTDR, recipe: Recipe, state: TrainState, log: Log, out: Path, data: str
    ) -> None:
        self.fabric, self.model, self.recipe, self.state = fabric, model, recipe, state
        self.log, self.out, self.data = log, out, data
        self.processes = get_processes(fabric)
        self.precision = resolve_precision(recipe.precision, fabric.device)
        self.validation_frames: Sequence[Frame] = ()

    def fit(
        self,
        stage: TrainingStage,
        batches: Iterator[StageBatch],
        losses: StepLossFunction,
        finish: Callable[[], None] = lambda: None,
    ) -> None:
        """Train one stage to its end. Its result is the average of the weights, or the best of the averages.

        Args:
            stage: the stage.
            batches: its batches, from the first that is not done.
            losses: function that computes the losses of a batch.
            finish: called with the resulting weights loaded, before they are saved.
        """
        state, saved = self.state, time.monotonic()
        optimiser = build_optimiser(self.model, stage)
        state.restore_optimiser(optimiser)
        self.model.train(stage.name != "joint")  # a batch of one has no batch statistics
        state.cost.note_precision(self.precision)
        reset_peak_memory(self.fabric.device)
        with self._settings_of(stage), self._progress(stage) as progress, catch_stop_signals() as signals:
            while self._share_done(stage) < 1:
                begun, busy = time.monotonic(), self._clock()
                terms = self._step(optimiser, stage, list(islice(batches, stage.accumulate)), losses)
                self._count(stage, time.monotonic() - begun, self._clock() - busy)
                progress.advance(terms)
                self._write(lambda log, terms=terms: log.write_losses(stage.name, state.step - 1, terms))
                if self._is_validated_now(stage) and self._stops_early(stage):
                    break
                if stop := self._any_signal(signals):
                    self.save(optimiser)
                    done = f"stopped by {stop} after {state.step} steps of {stage.name}"
                    raise TrainingStopped(f"{done}; continue with --resume")
                if time.monotonic() - saved > 60 * self.recipe.checkpoint_minutes:
                    self.save(optimiser)
                    saved = time.monotonic()
        if state.step < stage.steps and state.cost.ended == "whole":
            state.cost.ended = "by the clock"
        self.model.load_state_dict(state.best or state.average)
        finish()
        state.stage, state.step = next_stage(self.recipe, stage), 0
        self.save(None)

    def cache_outputs(self, frames: Sequence[Frame], stage: GradingStage) -> list[CachedOutput]:
        """Compute the outputs of the frozen subnets; their time counts for the stage's `minutes`."""
        folder = self.out / "cached_outputs"
        cached_outputs, seconds = cache_outputs(self.fabric, self.model, frames, stage, folder, self._clock)
        self.state.cost.read, self.state.cost.reading = len(cached_outputs), seconds
        return cached_outputs

    def _step(
        self,
        optimiser: torch.optim.Optimizer,
        stage: TrainingStage,
        batches: Sequence[StageBatch],
        losses: StepLossFunction,
    ) -> dict[str, float]:
        """Do one optimiser step on `accumulate` batches; returns the mean of each loss."""
        step = self.state.step
        end_to_end = isinstance(stage, ImageStage) and stage.end_to_end
        set_learning_rates(optimiser, self._share_done(stage), stage)
        optimiser.zero_grad(set_to_none=True)
        terms: dict[str, float] = {}
        for n, batch in enumerate(batches, step * stage.accumulate):
            seed_torch(self.recipe, stage.name, n, BatchShard(self.fabric.global_rank, self.fabric.world_size))
            with self.fabric.autocast():
                result = losses(self.model, *self.fabric.to_device(batch), stage.loss, self.processes)
            self._expect_finite(stage, result.terms.values(), f"a loss is not finite: {result.terms}", batch)
            shares = backward_by_subnet(result, self.model, end_to_end=end_to_end)
            for term, value in {**result.terms, **shares}.items():
                terms[term] = terms.get(term, 0.0) + value / stage.accumulate
        self._update(optimiser, stage, batches[-1], terms)
        return terms

    def _update(
        self, optimiser: torch.optim.Optimizer, stage: TrainingStage, batch: StageBatch, terms: dict[str, float]
    ) -> None:
        """Average the gradients over processes and batches, clip them by subnet, step, and update the average."""
        trained = [p for group in optimiser.param_groups for p in group["params"] if p.grad is not None]
        average_gradients(trained, self.processes)
        for parameter in trained if stage.accumulate > 1 else ():
            parameter.grad.div_(stage.accumulate)  # pyright: ignore[reportOptionalMemberAccess]
        for group in optimiser.param_groups:
            norm = torch.nn.utils.clip_grad_norm_(group["params"], stage.clip)
            # Before the step, so that the weights stay finite.
            self._expect_finite(stage, [float(norm)], f"a gradient is not finite; the losses are {terms}", batch)
        optimiser.step()
        self.state.step += 1
        decay = min(stage.ema, self.state.step / (self.state.step + 9))
        for key, tensor in self.model.state_dict().items():
            if tensor.is_floating_point():
                self.state.average[key].lerp_(tensor, 1 - decay)
            else:
                self.state.average[key].copy_(tensor)

    def _expect_finite(self, stage: TrainingStage, values: Iterable[float], found: str, batch: StageBatch) -> None:
        if all(math.isfinite(value) for value in values):
            return
        path = self.out / NON_FINITE_BATCH_FILE
        tensors = {f"0/{name}": tensor for name, tensor in batch[0]._asdict().items() if tensor is not None}
        if self.fabric.is_global_zero:
            checkpoint.write(path, tensors, {"stage": stage.name, "step": self.state.step, "found": found})
        raise TrainingError(f"{stage.name} step {self.state.step}: {found}; the batch is in {printable_path(path)}")

    def _clock(self) -> float:
        """Seconds that count for a stage's `minutes`; on a CPU those of this thread only, not of other programs."""
        return time.thread_time() if self.fabric.device.type == "cpu" else time.monotonic()

    def _share_done(self, stage: TrainingStage) -> float:
        """Return the share of the stage that is done: by steps, or by the time of the slowest process."""
        done = self.state.step / stage.steps
        if not stage.minutes:
            return done
        cost = self.state.cost
        left = 60 * stage.minutes - cost.reading
        share = torch.tensor(cost.computing / left if left > 0 else 1.0, device=self.fabric.device)
        return max(done, float(torch.as_tensor(self.fabric.all_reduce(share, reduce_op="max"))))

    def _is_validated_now(self, stage: TrainingStage) -> bool:
        is_due = bool(stage.validate_every) and self.state.step % stage.validate_every == 0
        return bool(self.validation_frames) and (is_due or self._share_done(stage) >= 1)

    def _stops_early(self, stage: TrainingStage) -> bool:
        """Validate the averaged weights, and keep the best. Returns True if there was no better score for too long."""
        state, scores = self.state, {}
        if self.fabric.is_global_zero:
            scores = self._validate(stage)
        scores = self.fabric.broadcast(scores)
        if not stage.stop_on:
            return False
        score = scores.get(stage.stop_on, -math.inf)
        state.validations_since_best += 1
        if state.best_score is None or score > state.best_score:
            state.best = {key: tensor.clone() for key, tensor in state.average.items()}
            state.best_score, state.validations_since_best = score, 0
            state.cost.best_step = state.step
        if not 0 < stage.patience <= state.validations_since_best:
            return False
        state.cost.ended = "early"
        return True

    def _validate(self, stage: TrainingStage) -> dict[str, float]:
        weights = copy_weights(self.model)
        self.model.load_state_dict(self.state.average)
        scale = stage.validation_scale
        result = validate(self.model, self.validation_frames, scale=scale, autocast=self.fabric.autocast)
        self.model.load_state_dict(weights)
        self.log.write_scores(stage.name, self.state.step, result.scores)
        title = f"{self.recipe.name}, {stage.name}, step {self.state.step}"
        path = self.out / "sheets" / f"{stage.name}_{self.state.step:06d}.png"
        draw_contact_sheet(path, result.examples, self.recipe.labels, title)
        return result.scores

    def _count(self, stage: TrainingStage, seconds: float, computing: float) -> None:
        """Add the cost of a step."""
        cost = self.state.cost
        cost.steps, cost.seconds, cost.computing = cost.steps + 1, cost.seconds + seconds, cost.computing + computing
        cost.peak_mib = max(cost.peak_mib, read_peak_memory(self.fabric.device))
        cost.photographs += stage.batch * stage.accumulate

    def _write(self, write: Callable[[Log], None]) -> None:
        if self.fabric.is_global_zero:
            write(self.log)

    def _progress(self, stage: TrainingStage) -> Progress:
        return Progress(stage.name, stage.steps, self.state.step, shown=self.fabric.is_global_zero)

    @contextmanager
    def _settings_of(self, stage: TrainingStage) -> Iterator[None]:
        """Context manager with the batch normalisation and activation checkpointing of a stage."""
        synced = sync_batch_norm(self.model, self.processes)
        checkpointed = checkpoint_activations(self.model, stage.activation_checkpointing)
        with warm_start_batch_norm(self.model), synced, checkpointed:
            yield

    def _any_signal(self, signals: list[str]) -> str:
        """Return the signal that any of the processes received; "" if there is none."""
        own = signals[0] if signals else ""
        if self.processes.world_size == 1:
            return own
        count = self.fabric.all_reduce(torch.tensor(float(bool(own)), device=self.fabric.device), reduce_op="sum")
        return (own or "a signal to another process") if float(torch.as_tensor(count)) else ""

    def save(self, optimiser: torch.optim.Optimizer | None) -> None:
        """Write the checkpoint to resume from."""
        if self.fabric.is_global_zero:
            self.state.save(self.out / RESUME_FILE, self.model, optimiser, self.recipe, self.data)
        self.fabric.barrier()


def next_stage(recipe: Recipe, stage: TrainingStage) -> str:
    """Return the name of the next stage with steps; "done" after the last stage."""
    to_come = recipe.stages[STAGES.index(stage.name) + 1 :]
    return next((later.name for later in to_come if later.steps), "done")
