"""What happens around a step: looks, an early end, signals, kills, batches that are not finite."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from deepmtdr import checkpoint
from deepmtdr.errors import TrainingError
from deepmtdr.model.deepmtdr import DeepMTDR, ModelConfig
from deepmtdr.recipe import Stage
from deepmtdr.systems import PartNames, build_system
from deepmtdr.training import loop, two_stages
from deepmtdr.training.optimiser import build_optimiser, learning_rate_factor, set_learning_rates
from deepmtdr.training.state import RESUME_FILE
from deepmtdr.training.validation import ValidationResult
from tiny_runs import ONE_STAGE, equal_tensors, final_weights, read_csv, small_recipe

LOOKING = ("data.validation=0.4", *ONE_STAGE["joint"], "joint.epoch=1")


def scored(monkeypatch: pytest.MonkeyPatch, scores: list[float]) -> None:
    """Have the looks of a run say these scores, one after the other."""
    given = iter(scores)
    monkeypatch.setattr(loop, "validate", lambda *_, **__: ValidationResult({"kappa_quadratic": next(given)}, []))
    monkeypatch.setattr(loop, "draw_contact_sheet", lambda *_: None)


# The clock


def test_a_busy_machine_takes_nothing_from_a_stage_that_the_clock_ends(
    train: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    work, wall = itertools.count(), itertools.count(step=1000)
    clocks = SimpleNamespace(thread_time=lambda: float(next(work)), monotonic=lambda: float(next(wall)))
    monkeypatch.setattr(loop, "time", clocks)
    settings = ("restoration.minutes=0.05", "checkpoint_minutes=1000000")  # 3 s: each step takes one of the thread
    out = train(small_recipe(*ONE_STAGE["restoration"], *settings, steps=100))
    (stage,) = json.loads((out / "run.json").read_text(encoding="utf-8"))["stages"]
    assert (stage["steps"], stage["computing"], stage["ended"]) == (3, 3.0, "by the clock")
    assert stage["seconds"] > 1000


# Looks at the validation side


def test_the_validation_side_is_looked_at_after_each_epoch_and_at_the_end(train: Callable[..., Path]) -> None:
    out = train(small_recipe(*LOOKING[:-1], "joint.epoch=2", steps=3))
    looks = read_csv(out / "validation.csv")
    assert {row["step"] for row in looks} == {"2", "3"}
    assert {"psnr_gain", "aupr_mean"} <= {row["score"] for row in looks}
    assert {path.name for path in (out / "sheets").iterdir()} == {"joint_000002.png", "joint_000003.png"}
    assert (out / "report.html").read_text().count("<svg") >= 3


def test_looking_changes_no_weight(train: Callable[..., Path]) -> None:
    often = train(small_recipe(*LOOKING, steps=3), out="often")
    never = train(small_recipe(*LOOKING[:-1], "joint.epoch=0", steps=3), out="never")
    assert equal_tensors(final_weights(often), final_weights(never))


def test_a_stage_ends_when_its_score_has_not_risen_for_long_enough(
    train: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    stopping = (*LOOKING, 'joint.stop_on="kappa_quadratic"', "joint.patience=2", "joint.ema=0.0")
    scored(monkeypatch, [0.1, 0.3, 0.2, 0.3, 0.9])
    out = train(small_recipe(*stopping, steps=5))
    assert [row["step"] for row in read_csv(out / "metrics.csv") if row["term"] == "image"] == ["0", "1", "2", "3"]
    (cost,) = json.loads((out / "run.json").read_text())["stages"]
    assert (cost["ended"], cost["best_step"], cost["steps"]) == ("early", 2, 4)


def test_the_best_weights_are_kept_not_the_last(train: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    stopping = (*LOOKING, 'joint.stop_on="kappa_quadratic"', "joint.warm_up=0", 'joint.schedule="step"')
    scored(monkeypatch, [0.3, 0.2, 0.1])
    best = train(small_recipe(*stopping, steps=3), out="best")
    scored(monkeypatch, [0.3])
    first = train(small_recipe(*stopping, steps=1), out="first")
    assert equal_tensors(final_weights(best), final_weights(first))


def test_a_run_stopped_between_looks_goes_on_to_the_same_best(
    train: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    stopping = small_recipe(*LOOKING, 'joint.stop_on="kappa_quadratic"', "joint.patience=2", steps=5)
    scored(monkeypatch, [0.3, 0.2, 0.1])
    whole = train(stopping, out="whole")
    scored(monkeypatch, [0.3, 0.2])
    with pytest.raises(TrainingError, match="stopped by SIGTERM after 2 steps of joint; go on with --resume"):
        stopped_by(monkeypatch, 2, lambda: train(stopping, out="stopped"))
    scored(monkeypatch, [0.1])
    assert equal_tensors(final_weights(train(stopping, out="stopped", resume=True)), final_weights(whole))


# Signals and kills


def stopped_by(monkeypatch: pytest.MonkeyPatch, step: int, begin: Callable[[], Any]) -> Any:
    """Have this process sent SIGTERM within a step."""
    compute, calls = two_stages.joint_losses, iter(range(100))

    def signalled(*args: Any) -> Any:
        if next(calls) == step - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return compute(*args)

    with monkeypatch.context() as patch:
        patch.setattr(two_stages, "joint_losses", signalled)
        return begin()


def test_a_signal_ends_the_run_after_the_step_with_everything_kept(
    train: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = small_recipe(*ONE_STAGE["joint"], steps=4)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(TrainingError, match="stopped by SIGTERM after 3 steps of joint"):
        stopped_by(monkeypatch, 3, lambda: train(recipe, out="stopped"))
    assert signal.getsignal(signal.SIGTERM) == before
    assert equal_tensors(
        final_weights(train(recipe, out="stopped", resume=True)), final_weights(train(recipe, out="whole"))
    )


def test_a_run_in_another_thread_leaves_signals_alone() -> None:
    seen: list[object] = []

    def inside() -> None:
        with loop.catch_stop_signals() as asked:
            seen.extend([list(asked), signal.getsignal(signal.SIGTERM)])

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert seen == [[], signal.getsignal(signal.SIGTERM)]


@pytest.mark.slow
def test_ten_kills_at_random_moments_change_no_bit(
    train: Callable[..., Path], data: Path, cache: Path, tmp_path: Path
) -> None:
    settings = ("checkpoint_minutes=0.02", "data.validation=0.4", "restoration.epoch=4", "joint.epoch=4")
    recipe = small_recipe(*settings, steps=30)
    whole = train(recipe, out="whole")
    child = tmp_path / "child.py"
    child.write_text(
        "import sys; from pathlib import Path; sys.path[:0] = sys.argv[5:]\n"
        "from small_runs import small_recipe; from deepmtdr.training import run\n"
        "if __name__ == '__main__':\n"
        "    data, out, cache = map(Path, sys.argv[1:4])\n"
        "    begun = (out / 'resume.safetensors').exists()\n"
        f"    run(small_recipe(*{settings!r}, steps=30), data, out, cache=cache, resume=begun)\n"
    )
    command = [
        sys.executable,
        str(child),
        str(data),
        str(tmp_path / "killed"),
        str(cache),
        "-",
        str(Path(__file__).parents[1]),
    ]
    moments, state, kills = random.Random(0), tmp_path / "killed" / RESUME_FILE, 0
    while True:
        before = state.stat().st_mtime_ns if state.exists() else 0
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and (kills == 10 or not state.exists() or state.stat().st_mtime_ns == before):
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 0.5))  # some steps behind a checkpoint
        if process.poll() is not None:
            break
        process.kill()
        process.wait()
        kills += 1
    assert process.returncode == 0 and kills >= 3
    assert equal_tensors(final_weights(tmp_path / "killed"), final_weights(whole))
    assert read_csv(tmp_path / "killed/metrics.csv") == read_csv(whole / "metrics.csv")
    assert read_csv(tmp_path / "killed/validation.csv") == read_csv(whole / "validation.csv")


# Batches


def test_the_batch_that_was_not_finite_is_on_disk(train: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"joint step 0: a gradient is not finite.*not_finite\.safetensors"):
        train(small_recipe("joint.loss.dice=nan", *ONE_STAGE["joint"]))
    tensors, card, _ = checkpoint.read(tmp_path / "out/not_finite.safetensors")
    assert tensors["0/hr"].shape == (2, 3, 64, 64) and {"0/lesion_masks", "0/annotated", "0/grade"} <= tensors.keys()
    assert (card["stage"], card["step"]) == ("joint", 0)


def test_losses_are_shown_by_tensorboard_if_asked_for(train: Callable[..., Path]) -> None:
    pytest.importorskip("tensorboard")
    out = train(small_recipe(*ONE_STAGE["joint"]), tensorboard=True)
    (file,) = (out / "tensorboard").iterdir()
    content = file.read_bytes()
    assert b"joint/image" in content and b"joint/cls_aware" in content


# Schedules


def test_a_step_schedule_falls_once_each_subnet_by_its_own() -> None:
    stage = Stage(schedule="step", warm_up=0.0, falls_at=0.75, falls_by={"isr": 5.0, "segmentation": 2.0})
    assert [learning_rate_factor(progress, "isr", stage) for progress in (0.0, 0.5, 0.74, 0.75, 1.0)] == [
        1,
        1,
        1,
        0.2,
        0.2,
    ]
    assert learning_rate_factor(0.9, "segmentation", stage) == 0.5 and learning_rate_factor(0.9, "grading", stage) == 1
    model = DeepMTDR(small_recipe().model)
    optimiser = build_optimiser(model, "joint", Stage(lr_isr=1e-3, lr_segmentation=1e-3, lr_grading=1e-3))
    set_learning_rates(optimiser, 0.8, stage)
    assert {group["subnet"]: group["lr"] for group in optimiser.param_groups} == {
        "isr": pytest.approx(2e-4), "segmentation": pytest.approx(5e-4), "grading": 1e-3, "gmsv": 1e-2,
    }  # fmt: skip


def test_a_methods_own_rate_multiplies_that_of_the_recipe() -> None:
    stage = Stage(lr_grading=2e-3)
    rates = [
        build_optimiser(build_system(name, PartNames(), ModelConfig()), "grading", stage).param_groups[0]["highest"]
        for name in ("SqueezeNet", "VGG-16")
    ]
    assert rates == [2e-3, pytest.approx(2e-4)]


def test_an_adversary_is_clipped_by_itself() -> None:
    model = build_system("Mahapatra et al.", PartNames(), ModelConfig())
    generator, adversary = build_optimiser(model, "restoration", Stage()).param_groups
    assert {id(p) for p in adversary["params"]} == {id(p) for p in model.isr.adversary.parameters()}
    assert len(generator["params"]) + len(adversary["params"]) == len(list(model.isr.parameters()))


def test_class_weights_reach_the_grading_loss(train: Callable[..., Path]) -> None:
    plain = train(small_recipe(*ONE_STAGE["grading"]), out="plain")
    heavy = train(small_recipe(*ONE_STAGE["grading"], "grading.loss.class_weights=[3, 3, 3, 3, 3]"), out="heavy")
    one, other = (float(read_csv(out / "metrics.csv")[0]["value"]) for out in (plain, heavy))
    assert other == pytest.approx(3 * one, rel=1e-3)


def test_without_segmentation_subnet_the_lesion_maps_are_empty() -> None:
    model = DeepMTDR(small_recipe("model.segments=false").model).eval()
    seen = model.segment_and_grade(torch.rand(1, 3, 64, 64))
    assert not seen.lesions.any() and not seen.lesion_region.any()
    assert seen.grade_logits.isfinite().all()
