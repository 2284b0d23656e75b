"""What the standing subnets say before the grading stage: who reads what, and for how long under a cap."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from deepmtdr.baselines import build
from deepmtdr.data.batches import tone_contrast, tone_rgb
from deepmtdr.data.frames import Frame
from deepmtdr.data.sample import Sample
from deepmtdr.errors import TrainingError
from deepmtdr.model.deepmtdr import DeepMTDR
from deepmtdr.optimiser import one_cycle
from deepmtdr.recipe import Stage
from deepmtdr.terms import Grade
from deepmtdr.training import readings, two_stages
from deepmtdr.training.course import Cost, Course
from deepmtdr.training.loop import Loop
from deepmtdr.training.readings import SECONDS, read_frames
from framed import Framed
from small_runs import tiny

FABRIC: Any = SimpleNamespace(barrier=lambda: None, global_rank=0, world_size=1, is_global_zero=True)
CAPPED = Stage(steps=100_000, minutes=1.0)
MODEL = DeepMTDR(tiny().model)


def frames(*grades: int) -> list[Frame]:
    samples = (
        Sample(photograph=Path(f"{n}.png"), name=f"{n}", patient=f"{n}", dataset="d", grade=Grade(grade))
        for n, grade in enumerate(grades)
    )
    return [Framed(sample, np.zeros((16, 16, 3), np.uint8)) for sample in samples]


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
    monkeypatch.setattr(readings, "_read", clock.reading)
    return clock


def read(stage: Stage, folder: Path, clock: Clock, *grades: int) -> tuple[list[str], float]:
    found, seconds = read_frames(FABRIC, MODEL, frames(*grades), stage, folder, clock)
    return [reading.frame.sample.name for reading in found], seconds


def test_without_a_cap_every_photograph_is_read_once(clock: Clock, tmp_path: Path) -> None:
    assert read(Stage(), tmp_path, clock, 0, 0, 1) == (["0", "1", "2"], 30.0)
    assert read(Stage(), tmp_path, clock, 0, 0, 1) == (["0", "1", "2"], 30.0)
    assert len(clock.read) == 3


def test_under_a_cap_the_grades_are_read_in_turn_for_half_of_the_minutes(clock: Clock, tmp_path: Path) -> None:
    assert read(CAPPED, tmp_path, clock, 0, 0, 0, 0, 1, 1) == (["0", "1", "4"], 30.0)
    assert clock.read == ["0", "4", "1"]


def test_a_run_that_goes_on_has_the_rest_of_that_half(clock: Clock, tmp_path: Path) -> None:
    (tmp_path / SECONDS).write_text("15")  # and a photograph that was read in it
    assert read(CAPPED, tmp_path, clock, 0, 0, 0, 0)[1] == 35.0
    assert read(CAPPED, tmp_path, clock, 0, 0, 0, 0) == (["0", "1"], 35.0)


def test_no_time_for_any_is_an_error(clock: Clock, tmp_path: Path) -> None:
    (tmp_path / SECONDS).write_text("31")
    with pytest.raises(TrainingError, match="no photograph could be read in half of 1 minutes"):
        read(CAPPED, tmp_path, clock, 0)


def test_reading_shortens_the_stage_and_not_its_schedule() -> None:
    course = Course(stage="grading", costs=[Cost("grading", reading=30.0)])
    fabric = SimpleNamespace(device=torch.device("cpu"), all_reduce=lambda share, reduce_op: share)
    here: Any = SimpleNamespace(course=course, fabric=fabric)
    assert Loop._share_done(here, CAPPED) == 0
    course.cost.computing = 3.0
    assert Loop._share_done(here, CAPPED) == pytest.approx(0.1)
    assert one_cycle(Loop._share_done(here, CAPPED), 0.1) == pytest.approx(1.0)
    course.cost.computing = 30.0
    assert Loop._share_done(here, CAPPED) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("system", "tone", "hides"),
    [("DeepMT-DR", tone_contrast, True), ("Lin et al.", tone_rgb, True), ("SqueezeNet", tone_rgb, False)],
)
def test_a_grader_is_fed_what_it_sees(system: str, tone: object, hides: bool) -> None:
    recipe = tiny(f'system="{system}"')
    here: Any = object.__new__(Loop)
    here.recipe, here.fabric, here.read = recipe, FABRIC, lambda graded, stage: []
    here.model = build(recipe.system, recipe.parts, recipe.model)
    steps: Any = two_stages._stage("grading", here, frames(0, 1))[0]
    assert (steps.tone, steps.hides) == (tone, hides)


def test_the_loop_writes_down_what_was_read(clock: Clock, tmp_path: Path) -> None:
    course = Course(stage="grading", costs=[Cost("grading")])
    here: Any = SimpleNamespace(course=course, out=tmp_path, fabric=FABRIC, model=MODEL, _clock=clock)
    Loop.read(here, frames(0, 1, 2, 3), CAPPED)
    assert (course.cost.read, course.cost.reading) == (3, 30.0)
