"""What the standing subnets say before the grading stage: who reads what, and for how long under a cap."""

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
from deepmtdr.recipe import Stage
from deepmtdr.systems import build_system
from deepmtdr.terms import Grade
from deepmtdr.training import frozen_outputs, two_stages
from deepmtdr.training.batches import scale_brightness, scale_contrast
from deepmtdr.training.frozen_outputs import SECONDS_FILE, cache_outputs
from deepmtdr.training.loop import Loop
from deepmtdr.training.optimiser import one_cycle
from deepmtdr.training.state import StageCost, TrainState
from tiny_runs import small_recipe

FABRIC: Any = SimpleNamespace(barrier=lambda: None, global_rank=0, world_size=1, is_global_zero=True)
CAPPED = Stage(steps=100_000, minutes=1.0)
MODEL = DeepMTDR(small_recipe().model)


def frames(*grades: int) -> list[Frame]:
    samples = (
        Sample(photograph=Path(f"{n}.png"), name=f"{n}", patient=f"{n}", dataset="d", grade=Grade(grade))
        for n, grade in enumerate(grades)
    )
    return [ArrayFrame(sample, np.zeros((16, 16, 3), np.uint8)) for sample in samples]


class Clock:
    """Ten seconds a reading."""

    def __init__(self) -> None:
        self.now = 0.0
        self.read: list[str] = []

    def __call__(self) -> float:
        return self.now

    def reading(self, fabric: Any, model: Any, frame: Any, stage: Stage, n: int) -> np.ndarray:
        self.now += 10
        self.read.append(frame.sample.name)
        return np.zeros((7, 4, 4), np.uint8)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(frozen_outputs, "_compute", clock.reading)
    return clock


def read(stage: Stage, folder: Path, clock: Clock, *grades: int) -> tuple[list[str], float]:
    found, seconds = cache_outputs(FABRIC, MODEL, frames(*grades), stage, folder, clock)
    return [reading.frame.sample.name for reading in found], seconds


def test_without_a_cap_every_photograph_is_read_once(clock: Clock, tmp_path: Path) -> None:
    assert read(Stage(), tmp_path, clock, 0, 0, 1) == (["0", "1", "2"], 30.0)
    assert read(Stage(), tmp_path, clock, 0, 0, 1) == (["0", "1", "2"], 30.0)
    assert len(clock.read) == 3


def test_under_a_cap_the_grades_are_read_in_turn_for_half_of_the_minutes(clock: Clock, tmp_path: Path) -> None:
    assert read(CAPPED, tmp_path, clock, 0, 0, 0, 0, 1, 1) == (["0", "1", "4"], 30.0)
    assert clock.read == ["0", "4", "1"]


def test_a_run_that_goes_on_has_the_rest_of_that_half(clock: Clock, tmp_path: Path) -> None:
    (tmp_path / SECONDS_FILE).write_text("15")  # and a photograph that was read in it
    assert read(CAPPED, tmp_path, clock, 0, 0, 0, 0)[1] == 35.0
    assert read(CAPPED, tmp_path, clock, 0, 0, 0, 0) == (["0", "1"], 35.0)


def test_no_time_for_any_is_an_error(clock: Clock, tmp_path: Path) -> None:
    (tmp_path / SECONDS_FILE).write_text("31")
    with pytest.raises(TrainingError, match="no photograph could be read in half of 1 minutes"):
        read(CAPPED, tmp_path, clock, 0)


def test_reading_shortens_the_stage_and_not_its_schedule() -> None:
    state = TrainState(stage="grading", costs=[StageCost("grading", reading=30.0)])
    fabric = SimpleNamespace(device=torch.device("cpu"), all_reduce=lambda share, reduce_op: share)
    here: Any = SimpleNamespace(state=state, fabric=fabric)
    assert Loop._share_done(here, CAPPED) == 0
    state.cost.computing = 3.0
    assert Loop._share_done(here, CAPPED) == pytest.approx(0.1)
    assert one_cycle(Loop._share_done(here, CAPPED), 0.1) == pytest.approx(1.0)
    state.cost.computing = 30.0
    assert Loop._share_done(here, CAPPED) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("system", "scale_intensity", "hides"),
    [
        ("DeepMT-DR", scale_contrast, True),
        ("Lin et al.", scale_brightness, True),
        ("SqueezeNet", scale_brightness, False),
    ],
)
def test_a_grader_is_fed_what_it_sees(system: str, scale_intensity: object, hides: bool) -> None:
    recipe = small_recipe(f'system="{system}"')
    here: Any = object.__new__(Loop)
    here.recipe, here.fabric, here.cache_outputs = recipe, FABRIC, lambda graded, stage: []
    here.model = build_system(recipe.system, recipe.parts, recipe.model)
    steps: Any = two_stages._stage("grading", here, frames(0, 1))[0]
    assert (steps.scale_intensity, steps.hide_image) == (scale_intensity, hides)


def test_the_loop_writes_down_what_was_read(clock: Clock, tmp_path: Path) -> None:
    state = TrainState(stage="grading", costs=[StageCost("grading")])
    here: Any = SimpleNamespace(state=state, out=tmp_path, fabric=FABRIC, model=MODEL, _clock=clock)
    Loop.cache_outputs(here, frames(0, 1, 2, 3), CAPPED)
    assert (state.cost.read, state.cost.reading) == (3, 30.0)
