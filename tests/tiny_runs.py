"""The smallest training runs: their recipes, and how the tests read their results."""

from __future__ import annotations

import csv
from pathlib import Path

import torch
from torch import Tensor

from deepmtdr import checkpoint
from deepmtdr.model.deepmtdr import DeepMTDR
from deepmtdr.recipe import STAGES, Recipe, load_recipe

FRAME = 64
TINY = (
    'data.datasets=["idrid"]',
    'data.split=""',
    "data.held_out=0",
    f"data.frame={FRAME}",
    "restoration.crop=32",
    "model.isr.width=4",
    "model.isr.blocks=1",
    "model.segmentation.width=2",
    "model.grading.width=2",
    "model.grading.hidden=8",
)
ONE_STAGE = {stage: tuple(f"{other}.steps=0" for other in STAGES if other != stage) for stage in STAGES}


def small_recipe(*overrides: str, name: str = "smoke", steps: int = 1) -> Recipe:
    """A recipe of the smallest size, with a few steps in each stage."""
    counts = (f"{stage}.{key}={value}" for stage in STAGES for key, value in (("steps", steps), ("batch", 2)))
    return load_recipe(name, [*TINY, *counts, *overrides])


def leaves(values: dict, inside: str = "") -> dict[str, object]:
    """Every value by its dotted key; `scales` is one value."""
    flat: dict[str, object] = {}
    for key, value in values.items():
        table = isinstance(value, dict) and key != "scales"
        flat |= leaves(value, f"{inside}{key}.") if table else {f"{inside}{key}": value}
    return flat


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def final_weights(out: Path) -> dict[str, Tensor]:
    """The weights of a finished run in full precision."""
    tensors, card, _ = checkpoint.read(out / "resume.safetensors")
    assert card["stage"] == "done"
    return {name.removeprefix("model/"): t for name, t in tensors.items() if name.startswith("model/")}


def untrained_weights(recipe: Recipe) -> dict[str, Tensor]:
    torch.manual_seed(recipe.seed)
    return DeepMTDR(recipe.model).state_dict()


def equal_tensors(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def subnet_tensors(subnet: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: t for name, t in tensors.items() if name.startswith(subnet + ".")}
