"""Runs stopped by a signal or killed continue bit for bit."""

from __future__ import annotations

import json
import math
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deepmtdr import checkpoint
from deepmtdr.errors import TrainingError
from deepmtdr.model.deepmtdr import DeepMTDR
from deepmtdr.training import loop, two_stages
from deepmtdr.training.state import RESUME_FILE, load_train_state
from deepmtdr.training.stop_signals import catch_stop_signals
from deepmtdr.training.validation import ValidationResult
from tiny_runs import ONE_STAGE, equal_tensors, final_weights, read_csv, small_recipe

STOP_ON = ("data.validation=0.4", "joint.validate_every=1", 'joint.stop_on="kappa_quadratic"')


def set_scores(monkeypatch: pytest.MonkeyPatch, scores: list[dict[str, float]]) -> None:
    """Replace validation by these scores, one after the other."""
    given = iter(scores)
    monkeypatch.setattr(loop, "validate", lambda *_, **__: ValidationResult(next(given), []))
    monkeypatch.setattr(loop, "draw_contact_sheet", lambda *_: None)


def kappas(*values: float) -> list[dict[str, float]]:
    return [{"kappa_quadratic": value} for value in values]


def stop_by_signal(monkeypatch: pytest.MonkeyPatch, step: int, begin: Callable[[], Any]) -> Any:
    """Send SIGTERM to this process within a step of the joint stage."""
    compute, calls = two_stages.joint_losses, iter(range(100))

    def signalled(*args: Any, **settings: Any) -> Any:
        if next(calls) == step - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return compute(*args, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(two_stages, "joint_losses", signalled)
        return begin()


# Signals


def test_signal_stops_the_run_after_the_step_with_a_checkpoint(
    train: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = small_recipe(*ONE_STAGE["joint"], steps=4)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(TrainingError, match="stopped by SIGTERM after 3 steps of joint; continue with --resume"):
        stop_by_signal(monkeypatch, 3, lambda: train(recipe, out="stopped"))
    assert signal.getsignal(signal.SIGTERM) == before
    resumed, whole = train(recipe, out="stopped", resume=True), train(recipe, out="whole")
    assert equal_tensors(final_weights(resumed), final_weights(whole))


def test_run_stopped_between_validations_continues_to_the_same_best_weights(
    train: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = small_recipe(*ONE_STAGE["joint"], *STOP_ON, "joint.patience=2", steps=5)
    set_scores(monkeypatch, kappas(0.3, 0.2, 0.1))
    whole = train(recipe, out="whole")
    set_scores(monkeypatch, kappas(0.3, 0.2))
    with pytest.raises(TrainingError, match="stopped by SIGTERM after 2 steps of joint"):
        stop_by_signal(monkeypatch, 2, lambda: train(recipe, out="stopped"))
    set_scores(monkeypatch, kappas(0.1))
    assert equal_tensors(final_weights(train(recipe, out="stopped", resume=True)), final_weights(whole))


def test_undefined_score_is_valid_json_in_the_checkpoint(
    train: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    recipe = small_recipe(*ONE_STAGE["joint"], *STOP_ON, steps=3)
    set_scores(monkeypatch, [{}, {}])
    with pytest.raises(TrainingError, match="stopped by SIGTERM after 2 steps of joint"):
        stop_by_signal(monkeypatch, 2, lambda: train(recipe))
    path = tmp_path / "out" / RESUME_FILE
    _, card, _ = checkpoint.read(path)
    assert card["best_score"] is None and json.dumps(card, allow_nan=False)
    state = load_train_state(path, DeepMTDR(recipe.model), recipe, card["data"])
    assert state.best_score == -math.inf and state.best and state.validations_since_best == 1


def test_run_in_another_thread_does_not_catch_signals() -> None:
    found: list[object] = []

    def inside() -> None:
        with catch_stop_signals() as signals:
            found.extend([list(signals), signal.getsignal(signal.SIGTERM)])

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert found == [[], signal.getsignal(signal.SIGTERM)]


# Kills

CHILD = """
import sys
from pathlib import Path
sys.path[:0] = sys.argv[5:]
from deepmtdr.training import run
from tiny_runs import small_recipe
if __name__ == "__main__":
    data, out, cache = map(Path, sys.argv[1:4])
    resume = (out / "resume.safetensors").exists()
    run(small_recipe(*sys.argv[4].split(";"), steps={steps}), data, out, cache=cache, resume=resume)
"""


def start_child(folder: Path, data: Path, cache: Path, settings: tuple[str, ...], steps: int) -> subprocess.Popen:
    """Begin or resume a run in another process, in the folder `killed`."""
    script = folder / "child.py"
    script.write_text(CHILD.replace("{steps}", str(steps)))
    arguments = [data, folder / "killed", cache, ";".join(settings), Path(__file__).parents[1]]
    command = [sys.executable, str(script), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def wait_for_checkpoint(process: subprocess.Popen, path: Path) -> None:
    """Wait until the process has written a new checkpoint, or has ended."""
    before = path.stat().st_mtime_ns if path.exists() else 0
    while process.poll() is None and (not path.exists() or path.stat().st_mtime_ns == before):
        time.sleep(0.01)


def test_killed_run_continues_bit_for_bit(train: Callable[..., Path], data: Path, cache: Path, tmp_path: Path) -> None:
    settings, steps = ("checkpoint_minutes=0", *ONE_STAGE["restoration"]), 8
    process = start_child(tmp_path, data, cache, settings, steps)
    wait_for_checkpoint(process, tmp_path / "killed" / RESUME_FILE)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    _, card, _ = checkpoint.read(tmp_path / "killed" / RESUME_FILE)
    assert card["stage"] == "restoration" and 0 < card["step"] < steps
    recipe = small_recipe(*settings, steps=steps)
    resumed, whole = train(recipe, out="killed", resume=True), train(recipe, out="whole")
    assert equal_tensors(final_weights(resumed), final_weights(whole))
    assert read_csv(tmp_path / "killed/metrics.csv") == read_csv(whole / "metrics.csv")


@pytest.mark.slow
def test_ten_kills_at_random_moments_change_no_bit(
    train: Callable[..., Path], data: Path, cache: Path, tmp_path: Path
) -> None:
    settings = (
        "checkpoint_minutes=0.02",
        "data.validation=0.4",
        "restoration.validate_every=4",
        "joint.validate_every=4",
    )
    whole = train(small_recipe(*settings, steps=30), out="whole")
    moments, path, kills = random.Random(0), tmp_path / "killed" / RESUME_FILE, 0
    while True:
        process = start_child(tmp_path, data, cache, settings, 30)
        if kills < 10:
            wait_for_checkpoint(process, path)
            time.sleep(moments.uniform(0, 0.5))  # some steps after a checkpoint
        else:
            process.wait()
        if process.poll() is not None:
            break
        process.kill()
        process.wait()
        kills += 1
    assert process.returncode == 0 and kills >= 3
    assert equal_tensors(final_weights(tmp_path / "killed"), final_weights(whole))
    for name in ("metrics.csv", "validation.csv"):
        assert read_csv(tmp_path / "killed" / name) == read_csv(whole / name)
