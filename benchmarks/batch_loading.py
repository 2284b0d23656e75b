"""Time to load a batch of the restoration stage (Sec. IV-C, stage 1a), compared with the time of a training step.

Prepared drawings in the full frame, with the crops and the network of the recipe `small`. The share is the time that a
step waits for its batch if no worker process loads batches ahead.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

import torch

from deepmtdr.model.deepmtdr import DeepMTDR
from deepmtdr.model.precision import resolve_precision
from deepmtdr.preparation.prepare import prepare
from deepmtdr.recipe import load_recipe
from deepmtdr.synthetic.drawings import write_drawings
from deepmtdr.training.backward import backward_by_subnet
from deepmtdr.training.batches import Batch, PhotographSampler
from deepmtdr.training.dataloader import ImageBatches, load_batches
from deepmtdr.training.step_losses import restoration_losses

RECIPE = "small"
DRAWINGS, BATCHES, STEPS = 12, 40, 3


def measure() -> dict[str, object]:
    with tempfile.TemporaryDirectory() as folder:
        samples = write_drawings(Path(folder) / "drawings", range(DRAWINGS))
        frames = prepare(samples, Path(folder), Path(folder) / "prepared").frames()
        recipe = load_recipe(RECIPE)
        batches = ImageBatches(recipe, recipe.restoration, PhotographSampler(frames))
        batch = {workers: _seconds_per_batch(batches, workers) for workers in (0, 1, 2)}
        step, isr_step = (_seconds_per_step(batches, segmentation=both) for both in (True, False))
    return {
        "seconds per batch, by workers": {workers: round(seconds, 4) for workers, seconds in batch.items()},
        "seconds per step": {"ISR and segmentation": round(step, 3), "ISR alone": round(isr_step, 3)},
        "a batch without workers, share of a step": {
            "ISR and segmentation": round(batch[0] / step, 3),
            "ISR alone": round(batch[0] / isr_step, 3),
        },
    }


def _seconds_per_batch(batches: ImageBatches, workers: int) -> float:
    """Mean over the later batches; the workers start during the first ones."""
    loaded = load_batches(batches, range(2 * BATCHES), workers)
    for _ in range(BATCHES):
        next(loaded)
    begun = time.perf_counter()
    for _ in range(BATCHES):
        next(loaded)
    return (time.perf_counter() - begun) / BATCHES


def _seconds_per_step(batches: ImageBatches, *, segmentation: bool) -> float:
    """Median at x4, after one step to warm up."""
    torch.manual_seed(0)
    recipe = batches.recipe
    model = DeepMTDR(recipe.model).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    model.segmentation.requires_grad_(segmentation)
    weights = replace(recipe.restoration.loss, lambda_sa=0.0)
    seconds = []
    for n in range(1 + STEPS):
        batch: Batch = batches(n)[0]
        begun = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=resolve_precision(recipe.precision) == "bf16"):
            losses = restoration_losses(model, batch, 4, weights)
        backward_by_subnet(losses, model, end_to_end=True)
        seconds.append(time.perf_counter() - begun)
        model.zero_grad(set_to_none=True)
    return median(seconds[1:])
