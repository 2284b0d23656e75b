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

from deepmtdr.recipe import STAGES, Recipe, Stage
from deepmtdr.training.batches import (
    Batch,
    CachedOutput,
    GradingBatch,
    IntensityScaling,
    PhotographSampler,
    make_crop_batch,
    make_grading_batch,
    scale_contrast,
)

T = TypeVar("T")

SMALL_FRAME_FACTOR = 4
"""The first steps of the grading stage see frames so many times smaller, in batches so many times larger."""


class BatchShard(NamedTuple):
    """Which photographs of each batch a process takes: every `of`-th from `first` on."""

    rank: int = 0
    world_size: int = 1


WHOLE_BATCH = BatchShard()


def load_batches(make: Callable[[int], T], batches: range, workers: int = 0) -> Iterator[T]:
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
class ImageBatches:
    """Batches of the restoration and the joint stage: crops or whole frames, and the scale they come in by."""

    recipe: Recipe
    name: str
    """Of the stage."""
    mixture: PhotographSampler
    shard: BatchShard = WHOLE_BATCH

    def __call__(self, n: int) -> tuple[Batch, int]:
        """Batch n."""
        stage: Stage = getattr(self.recipe, self.name)
        geometry = {name: value for name, value in asdict(stage.augmentation).items() if name in _GEOMETRY}
        cameras = {name: value for name, value in asdict(stage.augmentation).items() if name not in _GEOMETRY}
        rng = batch_rng(self.recipe, self.name, n)
        scale = draw_scale(stage.scales, rng)
        drawn = self.mixture.draw(stage.batch, stage.annotated, rng)[self.shard.rank :: self.shard.world_size]
        rngs = _own_rngs(_seed(self.recipe, self.name, n), stage.batch, self.shard)
        lenses = _own_rngs([*_seed(self.recipe, self.name, n), geometry["seed"]], stage.batch, self.shard)
        return make_crop_batch(
            *(drawn, stage.crop, geometry["zoom"], cameras, rngs), rotation=geometry["rotation"], camera_rngs=lenses
        ), scale


_GEOMETRY = ("zoom", "rotation", "seed")


@dataclass(frozen=True)
class GradingBatches:
    """Batches of the grading stage: small frames first, whole ones then."""

    recipe: Recipe
    cached_outputs: Sequence[CachedOutput]
    small: Sequence[CachedOutput]
    """The same, `SMALL_FRAME_FACTOR` times smaller."""
    shard: BatchShard = WHOLE_BATCH
    scale_intensity: IntensityScaling = scale_contrast
    """How their light varies."""
    hide_image: bool = True
    """Whether there is a network that learns anything from lesion maps without the image."""

    def __call__(self, n: int) -> tuple[GradingBatch]:
        """Batch n."""
        stage = self.recipe.grading
        first = n < count_small_frame_steps(stage) * stage.accumulate
        pool, count = (self.small, SMALL_FRAME_FACTOR * stage.batch) if first else (self.cached_outputs, stage.batch)
        rngs = _own_rngs(_seed(self.recipe, "grading", n), count, self.shard)
        return (
            make_grading_batch(
                pool, stage.balance, stage.hide_image if self.hide_image else 0.0, rngs, self.scale_intensity
            ),
        )


def count_small_frame_steps(stage: Stage) -> int:
    """How many of the grading stage's steps, the first ones, are on small frames."""
    return round(stage.small * stage.steps)


def draw_scale(scales: Mapping[str, float], rng: np.random.Generator) -> int:
    """One of the scales, as often as the recipe says."""
    odds = np.array(list(scales.values()), float)
    return int(list(scales)[rng.choice(len(odds), p=odds / odds.sum())])


def batch_rng(recipe: Recipe, stage: str, n: int) -> np.random.Generator:
    """A batch's own source of randomness."""
    return np.random.default_rng(_seed(recipe, stage, n))


def seed_torch(recipe: Recipe, stage: str, n: int, shard: BatchShard | None = None) -> None:
    """Set torch's randomness (dropout) to the own one of batch n, and of a process's share in it."""
    own = [*_seed(recipe, stage, n), *([shard.rank] if shard and shard.rank else [])]
    torch.manual_seed(int(np.random.SeedSequence(own).generate_state(1)[0]))


def _own_rngs(seed: Sequence[int], count: int, shard: BatchShard) -> list[np.random.Generator]:
    """Of each photograph of a share, by its place in the whole batch."""
    return [np.random.default_rng([*seed, 1 + place]) for place in range(count)[shard.rank :: shard.world_size]]


def _seed(recipe: Recipe, stage: str, n: int) -> list[int]:
    return [recipe.seed, STAGES.index(stage), n]
