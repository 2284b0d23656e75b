"""What each training step is fed, made ahead by worker processes (Sec. IV-C).

A batch is a function of (recipe, stage, its number), and each photograph in it of its place in the batch beside: a
resumed run, any number of workers, and any number of processes that share the batch see the same photographs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from deepmtdr.data.batches import (
    Batch,
    GradingBatch,
    Mixture,
    Reading,
    Tone,
    crop_batch,
    grading_batch,
    tone_contrast,
)
from deepmtdr.recipe import STAGES, Recipe, Stage

T = TypeVar("T")

SMALLER = 4
"""The first steps of the grading stage see frames so many times smaller, in batches so many times larger."""


class Share(NamedTuple):
    """Which photographs of each batch a process takes: every `of`-th from `first` on."""

    first: int = 0
    of: int = 1


WHOLE = Share()


def feed(make: Callable[[int], T], batches: range, workers: int = 0) -> Iterator[T]:
    """Batches in their order.

    Args:
        make: a batch by its number alone.
        batches: numbers of the batches.
        workers: processes that make batches ahead, two each; 0: this one makes them when they are asked for.
    """
    if not workers:
        yield from map(make, batches)
        return
    yield from DataLoader(_Steps(make), None, sampler=batches, num_workers=workers, collate_fn=_as_it_is)


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
    share: Share = WHOLE

    def __call__(self, n: int) -> tuple[Batch, int]:
        """Batch n."""
        stage: Stage = getattr(self.recipe, self.name)
        geometry = {name: value for name, value in asdict(stage.augmentation).items() if name in _GEOMETRY}
        cameras = {name: value for name, value in asdict(stage.augmentation).items() if name not in _GEOMETRY}
        rng = step_rng(self.recipe, self.name, n)
        scale = draw_scale(stage.scales, rng)
        drawn = self.mixture.draw(stage.batch, stage.annotated, rng)[self.share.first :: self.share.of]
        rngs = _own_rngs(_seed(self.recipe, self.name, n), stage.batch, self.share)
        lenses = _own_rngs([*_seed(self.recipe, self.name, n), geometry["seed"]], stage.batch, self.share)
        return crop_batch(
            *(drawn, stage.crop, geometry["zoom"], cameras, rngs), rotation=geometry["rotation"], camera_rngs=lenses
        ), scale


_GEOMETRY = ("zoom", "rotation", "seed")


@dataclass(frozen=True)
class GradingSteps:
    """Batches of the grading stage: small frames first, whole ones then."""

    recipe: Recipe
    readings: Sequence[Reading]
    small: Sequence[Reading]
    """The same, `SMALLER` times smaller."""
    share: Share = WHOLE
    tone: Tone = tone_contrast
    """How their light varies."""
    hides: bool = True
    """Whether there is a network that learns anything from lesion maps without the image."""

    def __call__(self, n: int) -> tuple[GradingBatch]:
        """Batch n."""
        stage = self.recipe.grading
        first = n < small_steps(stage) * stage.accumulate
        pool, count = (self.small, SMALLER * stage.batch) if first else (self.readings, stage.batch)
        rngs = _own_rngs(_seed(self.recipe, "grading", n), count, self.share)
        return (grading_batch(pool, stage.balance, stage.hide_image if self.hides else 0.0, rngs, self.tone),)


def small_steps(stage: Stage) -> int:
    """How many of the grading stage's steps, the first ones, are on small frames."""
    return round(stage.small * stage.steps)


def draw_scale(scales: Mapping[str, float], rng: np.random.Generator) -> int:
    """One of the scales, as often as the recipe says."""
    odds = np.array(list(scales.values()), float)
    return int(list(scales)[rng.choice(len(odds), p=odds / odds.sum())])


def step_rng(recipe: Recipe, stage: str, n: int) -> np.random.Generator:
    """A batch's own source of randomness."""
    return np.random.default_rng(_seed(recipe, stage, n))


def seed_torch(recipe: Recipe, stage: str, n: int, share: Share | None = None) -> None:
    """Set torch's randomness (dropout) to the own one of batch n, and of a process's share in it."""
    own = [*_seed(recipe, stage, n), *([share.first] if share and share.first else [])]
    torch.manual_seed(int(np.random.SeedSequence(own).generate_state(1)[0]))


def _own_rngs(seed: Sequence[int], count: int, share: Share) -> list[np.random.Generator]:
    """Of each photograph of a share, by its place in the whole batch."""
    return [np.random.default_rng([*seed, 1 + place]) for place in range(count)[share.first :: share.of]]


def _seed(recipe: Recipe, stage: str, n: int) -> list[int]:
    return [recipe.seed, STAGES.index(stage), n]
