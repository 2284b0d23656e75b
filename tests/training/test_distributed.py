"""A batch shared by several processes trains as in one process; activation checkpointing changes no weight."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from deepmtdr.baselines.srcnn import SRCNN
from deepmtdr.errors import RecipeError, TrainingError
from deepmtdr.model.deepmtdr import DeepMTDR
from deepmtdr.recipe import STAGES, Recipe, to_dict
from deepmtdr.training import Hardware
from deepmtdr.training.activation_checkpointing import checkpoint_activations
from tiny_runs import ONE_STAGE, final_weights, read_csv, small_recipe

EXACT = ("precision=fp32", "model.grading.dropout=0.0")
"""Dropout and half precision differ between processes."""

CHILD = """
import json, sys
from pathlib import Path
from deepmtdr.recipe import recipe_from_dict
from deepmtdr.training import Hardware, run
if __name__ == "__main__":  # worker processes import this file again
    run(recipe_from_dict(json.loads(Path(sys.argv[1]).read_text()), "child"), Path(sys.argv[2]), Path(sys.argv[3]),
        cache=Path(sys.argv[4]), hardware=Hardware(accelerator="cpu", devices=2))
"""


def run_as_two(recipe: Recipe, data: Path, out: Path, cache: Path) -> None:
    """Train in two processes, with the environment that torchrun would give them."""
    out.mkdir()
    settings, script = out / "recipe.json", out / "child.py"
    settings.write_text(json.dumps(to_dict(recipe)))
    script.write_text(CHILD)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    group |= {"TORCHELASTIC_RUN_ID": "test", "GROUP_RANK": "0", "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, str(script), str(settings), str(data), str(out), str(cache)],
            env={**os.environ, **group, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    errors = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors


def largest_difference(one: Path, other: Path) -> float:
    a, b = final_weights(one), final_weights(other)
    return max(float((a[name].double() - b[name].double()).abs().max()) for name in a)


@pytest.mark.parametrize(
    "stage",
    [
        "joint",  # has every loss and subnet of the other stages
        pytest.param("restoration", marks=pytest.mark.slow),
        pytest.param("grading", marks=pytest.mark.slow),
    ],
)
def test_two_processes_train_as_one_does(
    stage: str, train: Callable[..., Path], data: Path, cache: Path, tmp_path: Path
) -> None:
    annotated = () if stage == "grading" else (f"{stage}.annotated=0.5",)
    recipe = small_recipe(*EXACT, *ONE_STAGE[stage], f"{stage}.batch=4", *annotated, steps=3)
    alone, two = train(recipe), tmp_path / "two"
    run_as_two(recipe, data, two, cache)
    # Where the gradient is almost 0, Adam enlarges rounding errors: in few weights, by less than three steps of 2e-3.
    a, b = final_weights(alone), final_weights(two)
    differing = torch.cat([(a[name].double() - b[name].double()).abs().flatten() for name in a])
    assert differing.max() < 1e-3 and (differing > 1e-4).double().mean() < 1e-3
    for one, other in zip(read_csv(alone / "metrics.csv"), read_csv(two / "metrics.csv"), strict=True):
        assert (one["step"], one["term"]) == (other["step"], other["term"])
        assert float(one["value"]) == pytest.approx(float(other["value"]), rel=2e-3, abs=1e-5)


def test_batch_that_cannot_be_divided_is_an_error(train: Callable[..., Path]) -> None:
    with pytest.raises(TrainingError, match=r"joint\.batch = 3, expected a multiple of 2"):
        train(small_recipe("joint.batch=3"), hardware=Hardware(accelerator="cpu", devices=2))


def test_accumulated_passes_make_one_step(train: Callable[..., Path]) -> None:
    settings = (*EXACT, *ONE_STAGE["joint"], "joint.batch=1", "joint.loss.lambda_ca=0")
    out = train(small_recipe(*settings, "joint.accumulate=2"))
    assert [row["step"] for row in read_csv(out / "metrics.csv") if row["term"] == "image"] == ["0"]
    single = train(small_recipe(*settings), out="single")
    assert largest_difference(out, single) > 0


def test_activation_checkpointing_of_a_network_without_its_blocks_is_an_error() -> None:
    match = "found activation_checkpointing = true in a system without the paper's subnets"
    with pytest.raises(RecipeError, match=match), checkpoint_activations(SRCNN()):
        pass


@pytest.mark.parametrize("stage", STAGES)
def test_activation_checkpointing_gives_the_same_weights(stage: str, train: Callable[..., Path]) -> None:
    kept = train(small_recipe(*EXACT, *ONE_STAGE[stage], steps=2), out="kept")
    again = train(
        small_recipe(*EXACT, *ONE_STAGE[stage], f"{stage}.activation_checkpointing=true", steps=2), out="again"
    )
    assert largest_difference(kept, again) < 1e-6


def test_activation_checkpointing_keeps_fewer_features_and_is_undone_afterwards() -> None:
    model = DeepMTDR(small_recipe().model).train()
    frame = torch.rand(1, 3, 64, 64)

    def kept() -> int:
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
            model.segment_and_grade(frame)
        return sum(sizes)

    before = kept()
    with checkpoint_activations(model):
        assert kept() < 0.7 * before
    assert kept() == before
    assert not any("forward" in vars(module) for module in model.modules() if isinstance(module, nn.Module))
