"""Batch normalisation at the end of a stage: new statistics of the trained subnets only (interpretation R29)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from deepmtdr.training.dataloader import GradingBatches
from tiny_runs import ONE_STAGE, final_weights, small_recipe

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
TRAINED = {"restoration": "segmentation", "grading": "grading"}


@pytest.mark.parametrize("stage", ["restoration", "grading"])
def test_only_the_statistics_of_the_trained_subnet_are_estimated_anew(train: Callable[..., Path], stage: str) -> None:
    settings = ("precision=fp32", "data.frame=128", *ONE_STAGE[stage])
    kept, new = (
        final_weights(train(small_recipe(*settings, f"{stage}.batch_norm_batches={count}", steps=2), f"{count}"))
        for count in (0, 3)
    )
    changed = {name for name, tensor in new.items() if not torch.equal(tensor, kept[name])}
    assert changed and all(name.startswith(TRAINED[stage]) and name.endswith(STATISTICS) for name in changed)
    assert {name for name in kept if name.startswith(TRAINED[stage]) and name.endswith("running_var")} <= changed


def test_statistics_of_the_grading_subnet_are_those_of_whole_frames_after_the_last_step(
    train: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[tuple[int, int]] = []
    make = GradingBatches.__call__

    def recording(self: GradingBatches, n: int) -> tuple:
        batch = make(self, n)
        made.append((n, batch[0].image.shape[-1]))
        return batch

    monkeypatch.setattr(GradingBatches, "__call__", recording)
    settings = ("data.frame=128", "grading.small_frame_share=1", "grading.batch_norm_batches=2", "grading.accumulate=2")
    train(small_recipe(*settings, *ONE_STAGE["grading"]))
    assert made == [(0, 32), (1, 32), (2, 128), (3, 128)]
