"""The number format of a run follows the machine, and the run states it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from deepmtdr.model import precision
from deepmtdr.recipe import recipe_differences
from deepmtdr.training.state import StageCost
from tiny_runs import ONE_STAGE, final_weights, small_recipe


def test_auto_trains_in_fp32_on_a_processor_without_bf16_and_says_so(
    train: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = small_recipe("precision=auto", *ONE_STAGE["restoration"], steps=2)
    monkeypatch.setattr(precision, "supports_bf16", lambda device: False)
    without = train(recipe, out="without")
    monkeypatch.setattr(precision, "supports_bf16", lambda device: True)
    having = train(recipe, out="with")
    used = {out: json.loads((out / "run.json").read_text()) for out in (without, having)}
    assert [used[out]["machine"]["precision"] for out in (without, having)] == ["fp32", "bf16"]
    assert [used[out]["stages"][0]["precision"] for out in (without, having)] == ["fp32", "bf16"]
    assert {run["recipe"]["precision"] for run in used.values()} == {"auto"}, "so that any machine can resume the run"
    exact = final_weights(train(small_recipe("precision=fp32", *ONE_STAGE["restoration"], steps=2), out="exact"))
    assert all(torch.equal(tensor, exact[name]) for name, tensor in final_weights(without).items())
    assert any(not torch.equal(tensor, exact[name]) for name, tensor in final_weights(having).items())


def test_recipe_is_the_same_on_another_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    here = small_recipe()
    monkeypatch.setattr(precision, "supports_bf16", lambda device: False)
    assert here.precision == "auto" and recipe_differences(here, small_recipe()) == []


def test_cost_of_a_stage_lists_the_formats_of_all_machines_once() -> None:
    cost = StageCost("joint")
    for used in ("bf16", "bf16", "fp32", "bf16"):
        cost.note_precision(used)
    assert cost.precision == "bf16, fp32"
    assert StageCost("joint").precision == "", "a file of an earlier version"
