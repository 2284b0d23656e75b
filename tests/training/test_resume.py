"""A stopped run goes on bit for bit, and only as the run it was."""

from __future__ import annotations

import errno
import itertools
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dataset_trees import GRADING_TABLE
from deepmtdr.errors import CheckpointError, TrainingError
from deepmtdr.training import loop, run, two_stages
from deepmtdr.training.log import Log
from drawings import SMALL
from tiny_runs import equal_tensors, final_weights, read_csv, small_recipe

CLOCK = f"checkpoint_minutes={4.5 / 60}"
"""With a clock that goes a second at each of three looks a step: a checkpoint after every second step."""


class TrainingStopped(Exception):
    """What a kill is in these tests."""


def stop(monkeypatch: pytest.MonkeyPatch, stage: str, steps: int) -> None:
    """Have a run stopped in a stage after so many steps of it, by a clock of its own."""
    compute, calls = getattr(two_stages, f"{stage}_losses"), itertools.count()

    def stopping(*args: Any) -> Any:
        if next(calls) == steps:
            raise TrainingStopped
        return compute(*args)

    monkeypatch.setattr(two_stages, f"{stage}_losses", stopping)
    seconds = itertools.count()
    monkeypatch.setattr(
        loop, "time", SimpleNamespace(monotonic=lambda: float(next(seconds)), thread_time=time.thread_time)
    )


@pytest.fixture(scope="module")
def unstopped(data: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A run of four steps a stage that nobody stops, by precision."""
    outs: dict[str, Path] = {}

    def unstopped(precision: str) -> Path:
        if precision not in outs:
            outs[precision] = tmp_path_factory.mktemp(precision)
            run(small_recipe(CLOCK, f"precision={precision}", steps=4), data, outs[precision], cache=cache)
        return outs[precision]

    return unstopped


@pytest.mark.parametrize(
    ("stage", "steps", "precision"),
    [
        ("restoration", 3, "fp32"),
        ("restoration", 2, "bf16"),
        ("grading", 1, "fp32"),
        ("grading", 3, "bf16"),
        ("joint", 0, "fp32"),
        ("joint", 3, "fp32"),
        ("joint", 3, "bf16"),
    ],
)
def test_a_stopped_run_goes_on_bit_for_bit(
    train: Callable[..., Path],
    unstopped: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    stage: str,
    steps: int,
    precision: str,
) -> None:
    recipe, expected = small_recipe(CLOCK, f"precision={precision}", steps=4), unstopped(precision)
    with monkeypatch.context() as patch, pytest.raises(TrainingStopped):
        stop(patch, stage, steps)
        train(recipe)
    out = train(recipe, resume=True)
    assert equal_tensors(final_weights(out), final_weights(expected))
    assert (out / "weights.safetensors").read_bytes() == (expected / "weights.safetensors").read_bytes()
    assert (out / "metrics.csv").read_text() == (expected / "metrics.csv").read_text()


def test_a_run_that_has_ended_is_not_trained_again(train: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    out = train(small_recipe())
    before, log = final_weights(out), (out / "metrics.csv").read_text()
    monkeypatch.setattr(loop, "backward_by_subnet", lambda *_, **__: pytest.fail("trained again"))
    train(small_recipe(), resume=True)
    assert equal_tensors(final_weights(out), before)
    assert (out / "metrics.csv").read_text() == log


def test_a_log_cut_in_the_middle_of_a_line_is_mended(train: Callable[..., Path]) -> None:
    out = train(small_recipe())
    log = (out / "metrics.csv").read_text()
    (out / "metrics.csv").write_text(log + "joint,1,ima")
    train(small_recipe(), resume=True)
    assert (out / "metrics.csv").read_text() == log


def test_there_has_to_be_a_checkpoint_to_resume(train: Callable[..., Path]) -> None:
    with pytest.raises(CheckpointError, match=r"resume\.safetensors: no such file"):
        train(small_recipe(), resume=True)


@pytest.fixture
def stopped(train: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A run stopped in its second stage."""
    with monkeypatch.context() as patch, pytest.raises(TrainingStopped):
        stop(patch, "grading", 0)
        train(small_recipe())
    return tmp_path / "out"


@pytest.mark.parametrize(
    "override", ["restoration.loss.lambda_tv=0.5", "seed=5", "precision=fp32", "model.isr.blocks=2", "data.frame=80"]
)
def test_another_recipe_is_refused_with_what_differs(train: Callable[..., Path], stopped: Path, override: str) -> None:
    before = {path: path.read_bytes() for path in stopped.glob("*.*")}
    key, value = override.split("=")
    with pytest.raises(TrainingError, match=r"resume\.safetensors: made by another recipe") as error:
        train(small_recipe(override), resume=True)
    assert f"{key} was " in str(error.value) and value in str(error.value)
    assert {path: path.read_bytes() for path in stopped.glob("*.*")} == before


def test_stages_to_come_may_be_changed(train: Callable[..., Path], stopped: Path) -> None:
    out = train(small_recipe("joint.steps=2", "grading.hide_image=0.5"), resume=True)
    logged = [(row["stage"], row["step"]) for row in read_csv(out / "metrics.csv")]
    assert list(dict.fromkeys(logged)) == [("restoration", "0"), ("grading", "0"), ("joint", "0"), ("joint", "1")]
    with pytest.raises(TrainingError, match=r"another recipe \(joint\.steps was 2, is 3\)"):
        train(small_recipe("joint.steps=3", "grading.hide_image=0.5"), resume=True)


def test_other_data_are_refused_and_the_split_on_disk_stays(data: Path, stopped: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(data, other)
    table = other / "idrid" / GRADING_TABLE
    table.write_text(table.read_text().replace("IDRiD_004,4", "IDRiD_004,3"))
    before = {path: path.read_bytes() for path in stopped.glob("*.*")}
    with pytest.raises(TrainingError, match=r"resume\.safetensors: made from other photographs.*split\.csv"):
        run(small_recipe(), other, stopped, resume=True)
    assert {path: path.read_bytes() for path in stopped.glob("*.*")} == before


def test_a_damaged_checkpoint_is_refused(train: Callable[..., Path], stopped: Path) -> None:
    path = stopped / "resume.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    with pytest.raises(CheckpointError, match=r"resume\.safetensors: damaged"):
        train(small_recipe(), resume=True)


def test_a_changed_grading_stage_reads_anew(train: Callable[..., Path], stopped: Path) -> None:
    files = sorted(stopped.glob("cached_outputs/idrid/*.npy"))
    before = {path: path.read_bytes() for path in files}
    train(small_recipe("grading.scales={8 = 1}"), resume=True)
    changed = [path.stem for path, content in before.items() if path.read_bytes() != content]
    assert changed and f"IDRiD_{SMALL}" not in changed


def test_a_full_disk_ends_the_run_and_the_checkpoint_before_is_kept(
    train: Callable[..., Path], stopped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (stopped / "resume.safetensors").read_bytes()
    write = Path.write_bytes

    def full(path: Path, content: bytes) -> int:
        if path.name.startswith("resume"):
            write(path, content[:100])
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, content)

    with monkeypatch.context() as patch, pytest.raises(TrainingError, match=r"No space left.*the one before is kept"):
        patch.setattr(Path, "write_bytes", full)
        train(small_recipe(), resume=True)
    assert (stopped / "resume.safetensors").read_bytes() == before
    train(small_recipe(), resume=True)


def test_a_look_before_the_checkpoint_stays_and_what_lies_behind_it_goes(tmp_path: Path) -> None:
    log = Log(tmp_path)
    for step in range(6):
        log.write_losses("grading", step, {"grading": 1.0})
    for step in (2, 4, 6):
        log.write_scores("grading", step, {"accuracy": 0.5})
    log.truncate("grading", 4)
    kept = ([row["step"] for row in read_csv(tmp_path / name)] for name in ("metrics.csv", "validation.csv"))
    assert [*kept] == [["0", "1", "2", "3"], ["2", "4"]]
