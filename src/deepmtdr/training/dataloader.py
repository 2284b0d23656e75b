"""The batches of each training step, made ahead by worker processes (Sec. IV-C).

A batch depends only on the recipe, the stage and the number of the batch; a photograph in a batch also depends on its
position in the batch. A resumed run, any number of workers, and any number of processes that share the batch get the
same photographs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from deepmtdr.recipe import STAGES, GradingStage, ImageStage, JointStage, Recipe
from deepmtdr.training.batches import (
    LOCAL_CONTRAST,
    Batch,
    CachedOutput,
    GradingAugmentation,
    GradingBatch,
    InputKind,
    PhotographSampler,
    make_crop_batch,
    make_grading_batch,
)

T = TypeVar("T")

SMALL_FRAME_FACTOR = 4
"""In the first steps of the grading stage, the side of the frame is divided, and the batch multiplied, by this."""


class BatchShard(NamedTuple):
    """Which photographs of each batch a process uses: numbers rank, rank + world_size, rank + 2 world_size, ..."""

    rank: int = 0
    world_size: int = 1


WHOLE_BATCH = BatchShard()


def load_batches(make: Callable[[int], T], batches: range, workers: int = 0) -> Iterator[T]:
    """Yield batches in their order.

    Args:
        make: function that makes a batch from its number.
        batches: numbers of the batches.
        workers: processes that make batches ahead, two each; 0: this process makes each batch when it is needed.
    """
    if not workers:
        yield from map(make, batches)
        return
    yield from DataLoader(_Batches(make), None, sampler=batches, num_workers=workers, collate_fn=_unchanged)


class _Batches(Dataset[T]):
    """Batches by number, for PyTorch's loader."""

    def __init__(self, make: Callable[[int], T]) -> None:
        self.make = make

    def __getitem__(self, index: int) -> T:
        return self.make(index)


def _unchanged(batch: T) -> T:
    return batch


@dataclass(frozen=True)
class ImageBatches:
    """Batches of the restoration and the joint stage: crops or whole frames, and the scale of the LR images."""

    recipe: Recipe
    stage: ImageStage
    sampler: PhotographSampler
    shard: BatchShard = WHOLE_BATCH

    def __call__(self, n: int) -> tuple[Batch, int]:
        """Make batch n."""
        stage, seed = self.stage, _seed(self.recipe, self.stage.name, n)
        rng = np.random.default_rng(seed)
        scale = draw_scale(stage.scales, rng)
        balance = stage.balance if isinstance(stage, JointStage) else 0.0
        drawn = self.sampler.draw(stage.batch, stage.annotated, rng, stage.union_share, balance)
        frames = drawn[self.shard.rank :: self.shard.world_size]
        rngs = _photograph_rngs(seed, stage.batch, self.shard)
        camera_rngs = _photograph_rngs([*seed, stage.augmentation.seed], stage.batch, self.shard)
        channels = self.sampler.channels
        return make_crop_batch(frames, stage.crop, stage.augmentation, rngs, camera_rngs, channels), scale


@dataclass(frozen=True)
class GradingBatches:
    """Batches of the grading stage: small frames in the first steps, then whole frames."""

    recipe: Recipe
    cached_outputs: Sequence[CachedOutput]
    small: Sequence[CachedOutput]
    """Cached outputs with a side that is `SMALL_FRAME_FACTOR` times smaller."""
    shard: BatchShard = WHOLE_BATCH
    kind: InputKind = LOCAL_CONTRAST
    """Kind of the network input."""
    hide_image: bool = True
    """Whether the network can learn from lesion maps without the image."""

    def __call__(self, n: int) -> tuple[GradingBatch]:
        """Make batch n."""
        stage = self.recipe.grading
        is_small = n < count_small_frame_steps(stage) * stage.accumulate
        pool, count = (self.small, SMALL_FRAME_FACTOR * stage.batch) if is_small else (self.cached_outputs, stage.batch)
        rngs = _photograph_rngs(_seed(self.recipe, stage.name, n), count, self.shard)
        hide_image = stage.hide_image if self.hide_image else 0.0
        augmentation = GradingAugmentation(hide_image, stage.rotation, stage.zoom)
        return (make_grading_batch(pool, stage.balance, rngs, augmentation, self.kind),)


def count_small_frame_steps(stage: GradingStage) -> int:
    """Count the steps at the beginning of the grading stage that use small frames."""
    return round(stage.small_frame_share * stage.steps)


def draw_scale(scales: Mapping[str, float], rng: np.random.Generator) -> int:
    """Draw one of the scales with the probability that the recipe sets."""
    odds = np.array(list(scales.values()), float)
    return int(list(scales)[rng.choice(len(odds), p=odds / odds.sum())])


def batch_rng(recipe: Recipe, stage: str, n: int) -> np.random.Generator:
    """Create the random generator of batch n."""
    return np.random.default_rng(_seed(recipe, stage, n))


def seed_torch(recipe: Recipe, stage: str, n: int, shard: BatchShard = WHOLE_BATCH) -> None:
    """Seed torch (dropout) for batch n, in each process with another seed."""
    seed = [*_seed(recipe, stage, n), *([shard.rank] if shard.rank else [])]
    torch.manual_seed(int(np.random.SeedSequence(seed).generate_state(1)[0]))


def _photograph_rngs(seed: Sequence[int], count: int, shard: BatchShard) -> list[np.random.Generator]:
    """Create a random generator for each photograph of the shard, seeded by its position in the whole batch."""
    return [np.random.default_rng([*seed, 1 + place]) for place in range(count)[shard.rank :: shard.world_size]]


def _seed(recipe: Recipe, stage: str, n: int) -> list[int]:
    return [recipe.seed, STAGES.index(stage), n]
