"""A stopped run continues bit for bit, and only with the same recipe and photographs."""

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
from deepmtdr import checkpoint, checkpoint_file
from deepmtdr.errors import CheckpointError, DataError, TrainingError
from deepmtdr.recipe import to_dict
from deepmtdr.recipe_keys import RENAMED_STAGE_KEYS
from deepmtdr.training import loop, run, two_stages
from deepmtdr.training.log import Log
from drawings import SMALL
from tiny_runs import equal_tensors, final_weights, read_csv, small_recipe

CLOCK = f"checkpoint_minutes={4.5 / 60}"
"""With the clock of `stop`, which a step reads three times: a checkpoint after every second step."""


class Killed(Exception):
    """Ends a run without a checkpoint, as a kill does."""


def stop(monkeypatch: pytest.MonkeyPatch, stage: str, steps: int) -> None:
    """End a run after some steps of a stage; the clock advances one second each time it is read."""
    compute, calls = getattr(two_stages, f"{stage}_losses"), itertools.count()

    def stopping(*args: Any, **settings: Any) -> Any:
        if next(calls) == steps:
            raise Killed
        return compute(*args, **settings)

    monkeypatch.setattr(two_stages, f"{stage}_losses", stopping)
    seconds = itertools.count()
    monkeypatch.setattr(
        loop, "time", SimpleNamespace(monotonic=lambda: float(next(seconds)), thread_time=time.thread_time)
    )


@pytest.fixture(scope="module")
def unstopped(data: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A run of four steps in each stage that is not stopped, by precision."""
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
def test_stopped_run_continues_bit_for_bit(
    train: Callable[..., Path],
    unstopped: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    stage: str,
    steps: int,
    precision: str,
) -> None:
    recipe, expected = small_recipe(CLOCK, f"precision={precision}", steps=4), unstopped(precision)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        stop(patch, stage, steps)
        train(recipe)
    out = train(recipe, resume=True)
    assert equal_tensors(final_weights(out), final_weights(expected))
    assert (out / "weights.safetensors").read_bytes() == (expected / "weights.safetensors").read_bytes()
    assert (out / "metrics.csv").read_text() == (expected / "metrics.csv").read_text()


def test_finished_run_is_not_trained_again(train: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    out = train(small_recipe())
    before, log = final_weights(out), (out / "metrics.csv").read_text()
    monkeypatch.setattr(loop, "backward_by_subnet", lambda *_, **__: pytest.fail("trained again"))
    train(small_recipe(), resume=True)
    assert equal_tensors(final_weights(out), before)
    assert (out / "metrics.csv").read_text() == log


def test_incomplete_last_line_of_a_log_is_removed(train: Callable[..., Path]) -> None:
    out = train(small_recipe())
    log = (out / "metrics.csv").read_text()
    (out / "metrics.csv").write_text(log + "joint,1,ima")
    train(small_recipe(), resume=True)
    assert (out / "metrics.csv").read_text() == log


def test_resume_without_a_checkpoint_is_an_error(train: Callable[..., Path]) -> None:
    with pytest.raises(CheckpointError, match=r"resume\.safetensors: found no such file"):
        train(small_recipe(), resume=True)


@pytest.fixture(scope="module")
def stopped_once(data: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run stopped in its second stage."""
    out = tmp_path_factory.mktemp("stopped") / "out"
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        stop(patch, "grading", 0)
        run(small_recipe(), data, out, cache=cache)
    return out


@pytest.fixture
def stopped(stopped_once: Path, tmp_path: Path) -> Path:
    """A copy of the stopped run."""
    shutil.copytree(stopped_once, tmp_path / "out")
    return tmp_path / "out"


@pytest.mark.parametrize(
    "override", ["restoration.loss.lambda_tv=0.5", "seed=5", "precision=fp32", "model.isr.blocks=2", "data.frame=80"]
)
def test_resume_with_another_recipe_is_an_error_that_lists_the_differences(
    train: Callable[..., Path], stopped: Path, override: str
) -> None:
    before = {path: path.read_bytes() for path in stopped.glob("*.*")}
    key, value = override.split("=")
    with pytest.raises(TrainingError, match=r"resume\.safetensors: made by another recipe") as error:
        train(small_recipe(override), resume=True)
    assert f"{key} was " in str(error.value) and value in str(error.value)
    assert {path: path.read_bytes() for path in stopped.glob("*.*")} == before


def test_stages_that_have_not_begun_may_be_changed(train: Callable[..., Path], stopped: Path) -> None:
    out = train(small_recipe("joint.steps=2", "grading.hide_image=0.5"), resume=True)
    logged = [(row["stage"], row["step"]) for row in read_csv(out / "metrics.csv")]
    assert list(dict.fromkeys(logged)) == [("restoration", "0"), ("grading", "0"), ("joint", "0"), ("joint", "1")]
    with pytest.raises(TrainingError, match=r"another recipe \(joint\.steps was 2, is 3\)"):
        train(small_recipe("joint.steps=3", "grading.hide_image=0.5"), resume=True)


def test_resume_with_other_data_is_an_error_and_keeps_the_split(data: Path, stopped: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(data, other)
    table = other / "idrid" / GRADING_TABLE
    table.write_text(table.read_text().replace("IDRiD_004,4", "IDRiD_004,3"))
    before = {path: path.read_bytes() for path in stopped.glob("*.*")}
    with pytest.raises(TrainingError, match=r"resume\.safetensors: made from other photographs.*split\.csv"):
        run(small_recipe(), other, stopped, resume=True)
    assert {path: path.read_bytes() for path in stopped.glob("*.*")} == before


def test_damaged_checkpoint_is_an_error(train: Callable[..., Path], stopped: Path) -> None:
    path = stopped / "resume.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    with pytest.raises(CheckpointError, match=r"resume\.safetensors: damaged"):
        train(small_recipe(), resume=True)


def test_changed_grading_stage_computes_its_outputs_anew(train: Callable[..., Path], stopped: Path) -> None:
    files = sorted(stopped.glob("cached_outputs/idrid/*.npy"))
    before = {path: path.read_bytes() for path in files}
    train(small_recipe("grading.scales={8 = 1}"), resume=True)
    changed = [path.stem for path, content in before.items() if path.read_bytes() != content]
    assert changed and f"IDRiD_{SMALL}" not in changed


def test_full_disk_is_an_error_and_the_former_checkpoint_is_kept(
    train: Callable[..., Path], stopped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (stopped / "resume.safetensors").read_bytes()

    def full(path: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with (
        monkeypatch.context() as patch,
        pytest.raises(TrainingError, match=r"No space left.*the earlier checkpoint is kept"),
    ):
        patch.setattr(checkpoint_file, "write_atomically", full)
        train(small_recipe(), resume=True)
    assert (stopped / "resume.safetensors").read_bytes() == before
    train(small_recipe(), resume=True)


def test_log_is_truncated_after_the_checkpoint(tmp_path: Path) -> None:
    log = Log(tmp_path)
    for step in range(6):
        log.write_losses("grading", step, {"grading": 1.0})
    for step in (2, 4, 6):
        log.write_scores("grading", step, {"accuracy": 0.5})
    log.truncate("grading", 4)
    kept = ([row["step"] for row in read_csv(tmp_path / name)] for name in ("metrics.csv", "validation.csv"))
    assert [*kept] == [["0", "1", "2", "3"], ["2", "4"]]


def test_log_with_an_unknown_stage_is_an_error_that_names_the_row(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("stage,step,term,value\njoint,0,image,1\nfinetuning,1,image,1\n")
    with pytest.raises(DataError, match=r"metrics\.csv, row 3: found 'finetuning,1,image,1', expected stage,step"):
        Log(tmp_path).truncate("joint", 1)


def test_run_of_the_first_version_continues(train: Callable[..., Path], stopped: Path) -> None:
    tensors, card, _ = checkpoint.read(stopped / "resume.safetensors")
    old_names = {new: old for old, new in RENAMED_STAGE_KEYS.items()}
    every = to_dict(small_recipe())["joint"] | to_dict(small_recipe())["grading"]
    for stage in ("restoration", "grading", "joint"):  # every stage had all keys, some with other names
        card["recipe"][stage] = {old_names.get(key, key): v for key, v in (every | card["recipe"][stage]).items()}
    del card["recipe"]["joint"]["accumulate"]  # and fewer settings
    checkpoint.write(stopped / "resume.safetensors", tensors, card)
    train(small_recipe(), resume=True)
    assert {row["stage"] for row in read_csv(stopped / "metrics.csv")} == {"restoration", "grading", "joint"}


def test_run_of_a_later_version_is_an_error(train: Callable[..., Path], stopped: Path) -> None:
    tensors, card, _ = checkpoint.read(stopped / "resume.safetensors")
    card["recipe"]["joint"]["diffusion"] = 3
    checkpoint.write(stopped / "resume.safetensors", tensors, card)
    with pytest.raises(TrainingError, match=r"made by another recipe: .*joint: unknown key diffusion"):
        train(small_recipe(), resume=True)
