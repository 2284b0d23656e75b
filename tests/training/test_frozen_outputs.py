"""Cached outputs of the frozen subnets: which photographs, and how many within a time limit."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from array_frame import ArrayFrame
from deepmtdr.datasets.frames import Frame
from deepmtdr.datasets.sample import Sample
from deepmtdr.errors import TrainingError
from deepmtdr.model.deepmtdr import DeepMTDR
from deepmtdr.recipe import GradingStage
from deepmtdr.systems import build_system
from deepmtdr.terms import Grade
from deepmtdr.training import frozen_outputs, two_stages
from deepmtdr.training.batches import LOCAL_CONTRAST, SCALED_RGB, InputKind
from deepmtdr.training.frozen_outputs import SECONDS_FILE, cache_outputs
from deepmtdr.training.loop import Loop
from deepmtdr.training.optimiser import one_cycle
from deepmtdr.training.state import StageCost, TrainState
from tiny_runs import small_recipe

FABRIC: Any = SimpleNamespace(barrier=lambda: None, global_rank=0, world_size=1, is_global_zero=True)
LIMITED = GradingStage(steps=100_000, minutes=1.0)
MODEL = DeepMTDR(small_recipe().model)


def frames(*grades: int) -> list[Frame]:
    samples = (
        Sample(photograph=Path(f"{n}.png"), name=f"{n}", patient=f"{n}", dataset="d", grade=Grade(grade))
        for n, grade in enumerate(grades)
    )
    return [ArrayFrame(sample, np.zeros((16, 16, 3), np.uint8)) for sample in samples]


class Clock:
    """Ten seconds for each cached output."""

    def __init__(self) -> None:
        self.now = 0.0
        self.computed: list[str] = []

    def __call__(self) -> float:
        return self.now

    def compute(self, fabric: Any, model: Any, frame: Any, stage: GradingStage, n: int) -> np.ndarray:
        self.now += 10
        self.computed.append(frame.sample.name)
        return np.zeros((7, 4, 4), np.uint8)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(frozen_outputs, "_compute", clock.compute)
    return clock


def cache_all(stage: GradingStage, folder: Path, clock: Clock, *grades: int) -> tuple[list[str], float]:
    found, seconds = cache_outputs(FABRIC, MODEL, frames(*grades), stage, folder, clock)
    return [output.frame.sample.name for output in found], seconds


def test_without_a_limit_every_output_is_computed_once(clock: Clock, tmp_path: Path) -> None:
    assert cache_all(GradingStage(), tmp_path, clock, 0, 0, 1) == (["0", "1", "2"], 30.0)
    assert cache_all(GradingStage(), tmp_path, clock, 0, 0, 1) == (["0", "1", "2"], 30.0)
    assert len(clock.computed) == 3


def test_with_a_limit_grades_take_turns_for_half_of_the_minutes(clock: Clock, tmp_path: Path) -> None:
    assert cache_all(LIMITED, tmp_path, clock, 0, 0, 0, 0, 1, 1) == (["0", "1", "4"], 30.0)
    assert clock.computed == ["0", "4", "1"]


def test_resumed_run_has_the_rest_of_that_half(clock: Clock, tmp_path: Path) -> None:
    (tmp_path / SECONDS_FILE).write_text("15")  # of an earlier run
    assert cache_all(LIMITED, tmp_path, clock, 0, 0, 0, 0)[1] == 35.0
    assert cache_all(LIMITED, tmp_path, clock, 0, 0, 0, 0) == (["0", "1"], 35.0)


def test_limit_without_time_for_any_output_is_an_error(clock: Clock, tmp_path: Path) -> None:
    (tmp_path / SECONDS_FILE).write_text("31")
    with pytest.raises(
        TrainingError, match=r"no cached output could be computed in half of 1 minutes; set grading\.minutes higher"
    ):
        cache_all(LIMITED, tmp_path, clock, 0)


def share_done(**cost: float) -> float:
    """Share of the limited stage that is done."""
    state = TrainState(stage="grading", costs=[StageCost("grading", **cost)])
    fabric = SimpleNamespace(device=torch.device("cpu"), all_reduce=lambda share, reduce_op: share)
    here: Any = SimpleNamespace(state=state, fabric=fabric)
    return Loop._share_done(here, LIMITED)


def test_time_of_cached_outputs_shortens_the_stage_and_not_its_schedule() -> None:
    assert share_done(reading=30.0) == 0
    assert share_done(reading=30.0, computing=3.0) == pytest.approx(0.1)
    assert one_cycle(share_done(reading=30.0, computing=3.0), 0.1) == pytest.approx(1.0)
    assert share_done(reading=30.0, computing=30.0) == pytest.approx(1.0)


@pytest.mark.parametrize("reading", [60.0, 70.0])
def test_stage_is_done_if_cached_outputs_took_all_its_minutes(reading: float) -> None:
    assert share_done(reading=reading) == share_done(reading=reading, computing=1.0) == 1


@pytest.mark.parametrize(
    ("system", "kind", "hides"),
    [
        ("DeepMT-DR", LOCAL_CONTRAST, True),
        ("Lin et al.", SCALED_RGB, True),
        ("SqueezeNet", SCALED_RGB, False),
    ],
)
def test_grading_batches_fit_the_input_of_the_grader(system: str, kind: InputKind, hides: bool) -> None:
    recipe = small_recipe(f'system="{system}"')
    here: Any = object.__new__(Loop)
    here.recipe, here.fabric, here.cache_outputs = recipe, FABRIC, lambda graded, stage: []
    with torch.device("meta"):
        here.model = build_system(recipe.system, recipe.parts, recipe.model)
    batches: Any = two_stages._prepare_stage(recipe.grading, here, frames(0, 1))[0]
    assert (batches.kind, batches.hide_image) == (kind, hides)


def test_loop_records_number_and_time_of_cached_outputs(clock: Clock, tmp_path: Path) -> None:
    state = TrainState(stage="grading", costs=[StageCost("grading")])
    here: Any = SimpleNamespace(state=state, out=tmp_path, fabric=FABRIC, model=MODEL, _clock=clock)
    Loop.cache_outputs(here, frames(0, 1, 2, 3), LIMITED)
    assert (state.cost.read, state.cost.reading) == (3, 30.0)
