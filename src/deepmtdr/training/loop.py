"""One loop for every stage, read from the top down: `fit` -> `_step` -> losses of `stages` -> `backward_by_subnet` (Sec. IV-C).

Every random choice of a step hangs on (seed, stage, step) alone, so a resumed run goes on exactly where it stood.
"""

from __future__ import annotations

import math
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from deepmtdr import checkpoint
from deepmtdr.datasets.frames import Frame
from deepmtdr.errors import TrainingError, TrainingStopped
from deepmtdr.files import printable_path
from deepmtdr.model.deepmtdr import DeepMTDR
from deepmtdr.progress import Progress
from deepmtdr.recipe import STAGES, Recipe, Stage
from deepmtdr.training.activation_checkpointing import checkpoint_activations
from deepmtdr.training.batch_norm import warm_start_batch_norm
from deepmtdr.training.batches import CachedOutput
from deepmtdr.training.contact_sheet import draw_contact_sheet
from deepmtdr.training.dataloader import BatchShard, seed_torch
from deepmtdr.training.distributed import average_gradients, get_processes, sync_batch_norm
from deepmtdr.training.frozen_outputs import cache_outputs
from deepmtdr.training.log import Log
from deepmtdr.training.optimiser import build_optimiser, set_learning_rates
from deepmtdr.training.state import RESUME_FILE, TrainState, copy_weights
from deepmtdr.training.step_losses import StepLosses, backward_by_subnet
from deepmtdr.training.validation import validate

if TYPE_CHECKING:
    from lightning_fabric import Fabric

StepLossFunction = Callable[..., StepLosses]
"""The losses of the model on a batch, by the stage's weights, among the processes."""

NON_FINITE_BATCH_FILE = "not_finite.safetensors"
"""The batch that ended a run."""


class Loop:
    """A run's stages, one after the other."""

    def __init__(
        self, fabric: Fabric, model: DeepMTDR, recipe: Recipe, state: TrainState, log: Log, out: Path, data: str
    ) -> None:
        self.fabric, self.model, self.recipe, self.state = fabric, model, recipe, state
        self.log, self.out, self.data = log, out, data
        self.processes = get_processes(fabric)
        self.validation_frames: Sequence[Frame] = ()
        """What is looked at after each epoch."""

    def fit(self, name: str, batches: Iterator[tuple[Any, ...]], losses: StepLossFunction) -> None:
        """Train one stage to its end; the average, or the best of the averages looked at, takes the weights' place."""
        stage: Stage = getattr(self.recipe, name)
        state, saved = self.state, time.monotonic()
        optimiser = build_optimiser(self.model, name, stage)
        state.restore_optimiser(optimiser)
        self.model.train(name != "joint")  # a batch of one has no statistics of its own
        with self._as_the_stage_says(stage), self._progress(name, stage) as progress, catch_stop_signals() as asked:
            while self._share_done(stage) < 1:
                begun, busy = time.monotonic(), self._clock()
                terms = self._step(optimiser, name, stage, list(islice(batches, stage.accumulate)), losses)
                self._count(stage, time.monotonic() - begun, self._clock() - busy)
                progress.advance(terms)
                self._write(lambda log, terms=terms: log.write_losses(name, state.step - 1, terms))
                if self._is_epoch(stage) and self._ends_early(name, stage):
                    break
                if stop := self._agreed(asked):
                    self.save(optimiser)
                    raise TrainingStopped(f"stopped by {stop} after {state.step} steps of {name}; go on with --resume")
                if time.monotonic() - saved > 60 * self.recipe.checkpoint_minutes:
                    self.save(optimiser)
                    saved = time.monotonic()
        if state.step < stage.steps and state.cost.ended == "whole":
            state.cost.ended = "by the clock"
        self.model.load_state_dict(state.best or state.average)
        state.stage, state.step = next_stage(self.recipe, name), 0
        self.save(None)

    def cache_outputs(self, frames: Sequence[Frame], stage: Stage) -> list[CachedOutput]:
        """What the standing subnets say of the photographs; the time goes off the stage's minutes."""
        folder = self.out / "cached_outputs"
        cached_outputs, seconds = cache_outputs(self.fabric, self.model, frames, stage, folder, self._clock)
        self.state.cost.read, self.state.cost.reading = len(cached_outputs), seconds
        return cached_outputs

    def _step(
        self,
        optimiser: torch.optim.Optimizer,
        name: str,
        stage: Stage,
        batches: Sequence[Any],
        losses: StepLossFunction,
    ) -> dict[str, float]:
        """One step of the optimiser on the batches of one step; the losses' mean values."""
        step = self.state.step
        set_learning_rates(optimiser, self._share_done(stage), stage)
        optimiser.zero_grad(set_to_none=True)
        terms: dict[str, float] = {}
        for n, batch in enumerate(batches, step * stage.accumulate):
            seed_torch(self.recipe, name, n, BatchShard(self.fabric.global_rank, self.fabric.world_size))
            with self.fabric.autocast():
                result = losses(self.model, *self.fabric.to_device(batch), stage.loss, self.processes)
            for term, value in result.terms.items():
                terms[term] = terms.get(term, 0.0) + value / stage.accumulate
            self._expect_finite(name, result.terms.values(), f"a loss is not finite: {result.terms}", batch)
            backward_by_subnet(result, self.model, end_to_end=stage.end_to_end)
        self._update(optimiser, name, stage, batches, terms)
        return terms

    def _update(
        self, optimiser: torch.optim.Optimizer, name: str, stage: Stage, batches: Sequence[Any], terms: dict[str, float]
    ) -> None:
        """Average the gradients, clip them by subnet, step, and follow with the running average."""
        trained = [p for group in optimiser.param_groups for p in group["params"] if p.grad is not None]
        average_gradients(trained, self.processes)
        for parameter in trained if stage.accumulate > 1 else ():
            parameter.grad.div_(stage.accumulate)  # pyright: ignore[reportOptionalMemberAccess]
        for group in optimiser.param_groups:
            norm = torch.nn.utils.clip_grad_norm_(group["params"], stage.clip)
            # The weights are still those of the step before.
            self._expect_finite(name, [float(norm)], f"a gradient is not finite; the losses are {terms}", batches[-1])
        optimiser.step()
        self.state.step += 1
        decay = min(stage.ema, self.state.step / (self.state.step + 9))
        for key, tensor in self.model.state_dict().items():
            if tensor.is_floating_point():
                self.state.average[key].lerp_(tensor, 1 - decay)
            else:
                self.state.average[key].copy_(tensor)

    def _expect_finite(self, name: str, values: Any, found: str, batch: Sequence[Any]) -> None:
        if all(math.isfinite(value) for value in values):
            return
        path = self.out / NON_FINITE_BATCH_FILE
        tensors = {f"{n}/{k}": t for n, part in enumerate(batch) for k, t in _tensors(part)}
        if self.fabric.is_global_zero:
            checkpoint.write(path, tensors, {"stage": name, "step": self.state.step, "found": found})
        raise TrainingError(f"{name} step {self.state.step}: {found}; the batch is in {printable_path(path)}")

    def _clock(self) -> float:
        """What `Stage.minutes` are counted by: on a CPU this thread's own time, whatever else the machine does."""
        return time.thread_time() if self.fabric.device.type == "cpu" else time.monotonic()

    def _share_done(self, stage: Stage) -> float:
        """Share of the stage that is done, by steps, or by the time that the slowest process took if it is capped."""
        done = self.state.step / stage.steps
        if not stage.minutes:
            return done
        cost = self.state.cost
        share = torch.tensor(cost.computing / (60 * stage.minutes - cost.reading), device=self.fabric.device)
        return max(done, float(torch.as_tensor(self.fabric.all_reduce(share, reduce_op="max"))))

    def _is_epoch(self, stage: Stage) -> bool:
        done = self.state.step
        return bool(self.validation_frames) and (
            self._share_done(stage) >= 1 or bool(stage.epoch and done % stage.epoch == 0)
        )

    def _ends_early(self, name: str, stage: Stage) -> bool:
        """Look at the validation side with the averaged weights; whether the score has not risen for long enough."""
        state, scores = self.state, {}
        if self.fabric.is_global_zero:
            scores = self._look(name)
        scores = self.fabric.broadcast(scores)
        if not stage.stop_on:
            return False
        score = scores.get(stage.stop_on, -math.inf)
        state.looks_since += 1
        if state.best_score is None or score > state.best_score:
            state.best = {key: tensor.clone() for key, tensor in state.average.items()}
            state.best_score, state.looks_since = score, 0
            state.cost.best_step = state.step
        if not 0 < stage.patience <= state.looks_since:
            return False
        state.cost.ended = "early"
        return True

    def _look(self, name: str) -> dict[str, float]:
        now = copy_weights(self.model)
        self.model.load_state_dict(self.state.average)
        seen = validate(self.model, self.validation_frames, autocast=self.fabric.autocast)
        self.model.load_state_dict(now)
        self.log.write_scores(name, self.state.step, seen.scores)
        title = f"{self.recipe.name}, {name}, step {self.state.step}"
        draw_contact_sheet(self.out / "sheets" / f"{name}_{self.state.step:06d}.png", seen.examples, title)
        return seen.scores

    def _count(self, stage: Stage, seconds: float, computing: float) -> None:
        """What the step cost."""
        cost = self.state.cost
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024  # KiB on Linux
        if self.fabric.device.type == "cuda":
            peak = torch.cuda.max_memory_allocated(self.fabric.device) >> 20
        cost.steps, cost.seconds, cost.peak_mib = cost.steps + 1, cost.seconds + seconds, max(cost.peak_mib, peak)
        cost.computing += computing
        cost.photographs += stage.batch * stage.accumulate

    def _write(self, write: Callable[[Log], None]) -> None:
        if self.fabric.is_global_zero:
            write(self.log)

    def _progress(self, name: str, stage: Stage) -> Progress:
        return Progress(name, stage.steps, self.state.step, shown=self.fabric.is_global_zero)

    @contextmanager
    def _as_the_stage_says(self, stage: Stage) -> Iterator[None]:
        shared, again = sync_batch_norm(self.model, self.processes), checkpoint_activations(self.model, stage.recompute)
        with warm_start_batch_norm(self.model), shared, again:
            yield

    def _agreed(self, asked: list[str]) -> str:
        """The signal that any process got."""
        if self.processes.world_size == 1:
            return asked[0] if asked else ""
        got = self.fabric.all_reduce(torch.tensor(float(bool(asked)), device=self.fabric.device), reduce_op="sum")
        return (asked[0] if asked else "a signal to another process") if float(torch.as_tensor(got)) else ""

    def save(self, optimiser: torch.optim.Optimizer | None) -> None:
        """Write everything needed to go on, atomically."""
        if self.fabric.is_global_zero:
            self.state.save(self.out / RESUME_FILE, self.model, optimiser, self.recipe, self.data)
        self.fabric.barrier()


def next_stage(recipe: Recipe, name: str) -> str:
    """The stage that follows; "done" behind the last."""
    to_come = STAGES[STAGES.index(name) + 1 :]
    return next((stage for stage in to_come if getattr(recipe, stage).steps), "done")


@contextmanager
def catch_stop_signals() -> Iterator[list[str]]:
    """Inside, SIGTERM and SIGINT are noted instead of ending the process; the same signal again ends it as ever."""
    asked: list[str] = []
    if threading.current_thread() is not threading.main_thread():  # only the main thread may catch signals
        yield asked
        return

    def note(number: int, frame: object) -> None:
        asked.append(signal.Signals(number).name)
        signal.signal(number, before[signal.Signals(number)])

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    for number in before:
        signal.signal(number, note)
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _tensors(part: Any) -> Iterator[tuple[str, Tensor]]:
    if isinstance(part, Tensor):
        yield "", part
    elif isinstance(part, tuple):
        names = getattr(part, "_fields", range(len(part)))
        yield from ((str(name), t) for name, t in zip(names, part, strict=True) if isinstance(t, Tensor))
