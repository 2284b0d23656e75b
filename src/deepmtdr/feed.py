"""What each training step is fed, made ahead by worker processes (Sec. IV-C).

A step's batch is a function of (recipe, stage, number of the step) and nothing else: a resumed run, and any number of
workers, see the same batches in the same order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TypeVar

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from deepmtdr.data.batches import Batch, GradingBatch, Mixture, Reading, crop_batch, grading_batch
from deepmtdr.recipe import STAGES, Recipe, Stage

T = TypeVar("T")

SMALLER = 4
"""The first steps of the grading stage see frames so many times smaller, in batches so many times larger."""


def feed(make: Callable[[int], T], steps: range, workers: int = 0) -> Iterator[T]:
    """Batches of the steps in their order.

    Args:
        make: the batch of a step by its number alone.
        steps: numbers of the steps.
        workers: processes that make batches ahead, two each; 0: this one makes them when they are asked for.
    """
    if not workers:
        yield from map(make, steps)
        return
    yield from DataLoader(_Steps(make), None, sampler=steps, num_workers=workers, collate_fn=_as_it_is)


class _Steps(Dataset[T]):
    def __init__(self, make: Callable[[int], T]) -> None:
        self.make = make

    def __getitem__(self, index: int) -> T:
        return self.make(index)


def _as_it_is(batch: T) -> T:
    return batch


@dataclass(frozen=True)
class ImageSteps:
    """Batches of the restoration and the joint stage: crops or whole frames, and the scale they come in by."""

    recipe: Recipe
    name: str
    """Of the stage."""
    mixture: Mixture

    def __call__(self, n: int) -> tuple[Batch, int]:
        """The batch of step n."""
        stage: Stage = getattr(self.recipe, self.name)
        geometry = {name: value for name, value in asdict(stage.augmentation).items() if name in _GEOMETRY}
        cameras = {name: value for name, value in asdict(stage.augmentation).items() if name not in _GEOMETRY}
        rng = step_rng(self.recipe, self.name, n)
        scale = draw_scale(stage.scales, rng)
        drawn = self.mixture.draw(stage.batch, stage.annotated, rng)
        lens = np.random.default_rng([geometry["seed"], *_seed(self.recipe, self.name, n)])
        batch = crop_batch(
            *(drawn, stage.crop, geometry["zoom"], cameras, rng), rotation=geometry["rotation"], camera_rng=lens
        )
        return batch, scale


_GEOMETRY = ("zoom", "rotation", "seed")


@dataclass(frozen=True)
class GradingSteps:
    """Batches of the grading stage: small frames first, whole ones then."""

    recipe: Recipe
    readings: Sequence[Reading]
    small: Sequence[Reading]
    """The same, `SMALLER` times smaller."""

    def __call__(self, n: int) -> tuple[GradingBatch]:
        """The batch of step n."""
        stage = self.recipe.grading
        first = n < small_steps(stage)
        pool, count = (self.small, SMALLER * stage.batch) if first else (self.readings, stage.batch)
        rng = step_rng(self.recipe, "grading", n)
        return (grading_batch(pool, count, stage.balance, stage.hide_image, rng),)


def small_steps(stage: Stage) -> int:
    """How many of the grading stage's steps, the first ones, are on small frames."""
    return round(stage.small * stage.steps)


def draw_scale(scales: Mapping[str, float], rng: np.random.Generator) -> int:
    """One of the scales, as often as the recipe says."""
    odds = np.array(list(scales.values()), float)
    return int(list(scales)[rng.choice(len(odds), p=odds / odds.sum())])


def step_rng(recipe: Recipe, stage: str, n: int) -> np.random.Generator:
    """The step's own source of randomness."""
    return np.random.default_rng(_seed(recipe, stage, n))


def seed_torch(recipe: Recipe, stage: str, n: int) -> None:
    """Set torch's randomness (dropout) to the step's own."""
    torch.manual_seed(int(np.random.SeedSequence(_seed(recipe, stage, n)).generate_state(1)[0]))


def _seed(recipe: Recipe, stage: str, n: int) -> list[int]:
    return [recipe.seed, STAGES.index(stage), n]
