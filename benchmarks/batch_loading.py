"""Making the batches of the restoration stage (Sec. IV-C, stage 1a) beside the training steps that they feed.

Prepared drawings in the full frame; the `small` recipe's crops and network. The share is what a step waits for its
batch where no worker makes it ahead.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

import torch

from deepmtdr.model.deepmtdr import DeepMTDR
from deepmtdr.preparation.prepare import prepare
from deepmtdr.recipe import load_recipe
from deepmtdr.synthetic.drawings import write_drawings
from deepmtdr.training.batches import Batch, PhotographSampler
from deepmtdr.training.dataloader import ImageBatches, load_batches
from deepmtdr.training.step_losses import backward_by_subnet, restoration_losses

RECIPE = "small"
DRAWINGS, BATCHES, STEPS = 12, 40, 3


def measure() -> dict[str, object]:
    with tempfile.TemporaryDirectory() as folder:
        samples = write_drawings(Path(folder) / "drawings", range(DRAWINGS))
        frames = prepare(samples, Path(folder), Path(folder) / "prepared").frames()
        steps = ImageBatches(load_recipe(RECIPE), "restoration", PhotographSampler(frames))
        batch = {workers: _seconds_a_batch(steps, workers) for workers in (0, 1, 2)}
        step, alone = (_seconds_a_step(steps, segmentation=both) for both in (True, False))
    return {
        "seconds a batch, by workers": {workers: round(seconds, 4) for workers, seconds in batch.items()},
        "seconds a step": {"ISR and segmentation": round(step, 3), "ISR alone": round(alone, 3)},
        "a batch without workers, share of a step": {
            "ISR and segmentation": round(batch[0] / step, 3),
            "ISR alone": round(batch[0] / alone, 3),
        },
    }


def _seconds_a_batch(steps: ImageBatches, workers: int) -> float:
    """In the long run: the first batches, for which the workers start, are left out."""
    batches = load_batches(steps, range(2 * BATCHES), workers)
    for _ in range(BATCHES):
        next(batches)
    begun = time.perf_counter()
    for _ in range(BATCHES):
        next(batches)
    return (time.perf_counter() - begun) / BATCHES


def _seconds_a_step(steps: ImageBatches, *, segmentation: bool) -> float:
    """Median after one step to warm up, at x4."""
    torch.manual_seed(0)
    recipe = steps.recipe
    model = DeepMTDR(recipe.model).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    model.segmentation.requires_grad_(segmentation)
    weights = replace(recipe.restoration.loss, lambda_sa=0.0)
    taken = []
    for n in range(1 + STEPS):
        batch: Batch = steps(n)[0]
        begun = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe.precision == "bf16"):
            losses = restoration_losses(model, batch, 4, weights)
        backward_by_subnet(losses, model, end_to_end=True)
        taken.append(time.perf_counter() - begun)
        model.zero_grad(set_to_none=True)
    return median(taken[1:])
