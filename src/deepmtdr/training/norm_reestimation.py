"""New running statistics of batch normalisation at the end of the first two stages (interpretation R29).

The batches are those that would come next in the training. All processes compute the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from deepmtdr.model.deepmtdr import DeepMTDR
from deepmtdr.recipe import GradingStage, RestorationStage, TrainingStage
from deepmtdr.training.batch_norm import reestimate_batch_norm
from deepmtdr.training.batches import Batch, GradingBatch
from deepmtdr.training.dataloader import WHOLE_BATCH, GradingBatches, ImageBatches
from deepmtdr.training.step_losses import super_resolve

if TYPE_CHECKING:
    from lightning_fabric import Fabric

T = TypeVar("T")


def reestimate_after_restoration(
    fabric: Fabric, model: DeepMTDR, stage: RestorationStage, batches: ImageBatches
) -> None:
    """Estimate the statistics of the ISR and segmentation subnets anew, on crops like those of the training.

    Not on whole frames: the convolutions see the same surroundings in a crop, and were trained with its statistics.
    """

    def run(batch: tuple[Batch, int]) -> None:
        images, scale = fabric.to_device(batch)
        with fabric.autocast():
            model.segment(model.preprocess(super_resolve(model, images, scale), images.local_mean)[0])

    _reestimate(model, stage, stage.batch_norm_batches, replace(batches, shard=WHOLE_BATCH), run)


def reestimate_after_grading(fabric: Fabric, model: DeepMTDR, stage: GradingStage, batches: GradingBatches) -> None:
    """Estimate the statistics of the grading subnet anew, on whole frames."""

    def run(batch: tuple[GradingBatch]) -> None:
        (cached,) = fabric.to_device(batch)
        with fabric.autocast():
            model.grading(cached.image, cached.lesions)

    _reestimate(model, stage, stage.batch_norm_batches, replace(batches, shard=WHOLE_BATCH), run)


def _reestimate(
    model: DeepMTDR, stage: TrainingStage, count: int, make: Callable[[int], T], run: Callable[[T], None]
) -> None:
    """Estimate the statistics of the subnets that the stage trains."""
    model.eval()
    first = stage.steps * stage.accumulate
    for name, rate in stage.learning_rates.items():
        if rate:
            reestimate_batch_norm(model.subnets[name], run, map(make, range(first, first + count)))
