"""The training loop: time limit, validation, early stopping, signals, kills, batches that are not finite."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from deepmtdr import checkpoint
from deepmtdr.errors import TrainingError
from deepmtdr.training import loop
from deepmtdr.training.validation import ValidationResult
from tiny_runs import ONE_STAGE, equal_tensors, final_weights, read_csv, small_recipe

VALIDATED = ("data.validation=0.4", *ONE_STAGE["joint"])
EVERY_STEP = (*VALIDATED, "joint.validate_every=1")


def set_scores(monkeypatch: pytest.MonkeyPatch, scores: list[float]) -> None:
    """Replace validation by these scores, one after the other."""
    given = iter(scores)
    monkeypatch.setattr(loop, "validate", lambda *_, **__: ValidationResult({"kappa_quadratic": next(given)}, []))
    monkeypatch.setattr(loop, "draw_contact_sheet", lambda *_: None)


# Time limit


def test_time_limit_counts_the_time_of_the_training_thread_only(
    train: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    work, wall = itertools.count(), itertools.count(step=1000)
    clocks = SimpleNamespace(thread_time=lambda: float(next(work)), monotonic=lambda: float(next(wall)))
    monkeypatch.setattr(loop, "time", clocks)
    settings = (
        "restoration.minutes=0.05",
        "checkpoint_minutes=1000000",
    )  # 3 s; each step takes one second of the thread
    out = train(small_recipe(*ONE_STAGE["restoration"], *settings, steps=100))
    (stage,) = json.loads((out / "run.json").read_text(encoding="utf-8"))["stages"]
    assert (stage["steps"], stage["computing"], stage["ended"]) == (3, 3.0, "by the clock")
    assert stage["seconds"] > 1000


# Validation and early stopping


def test_stage_is_validated_at_intervals_and_at_its_end(train: Callable[..., Path]) -> None:
    out = train(small_recipe(*VALIDATED, "joint.validate_every=2", steps=3))
    scores = read_csv(out / "validation.csv")
    assert {row["step"] for row in scores} == {"2", "3"}
    assert {"psnr_gain", "aupr_mean"} <= {row["score"] for row in scores}
    assert {path.name for path in (out / "sheets").iterdir()} == {"joint_000002.png", "joint_000003.png"}
    assert (out / "report.html").read_text().count("<svg") >= 3


def test_validation_changes_no_weight(train: Callable[..., Path]) -> None:
    often = train(small_recipe(*EVERY_STEP, steps=3), out="often")
    never = train(small_recipe(*VALIDATED, "joint.validate_every=0", steps=3), out="never")
    assert equal_tensors(final_weights(often), final_weights(never))


def test_stage_stops_early_when_its_score_has_not_risen_for_patience_validations(
    train: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    stopping = (*EVERY_STEP, 'joint.stop_on="kappa_quadratic"', "joint.patience=2", "joint.ema=0.0")
    set_scores(monkeypatch, [0.1, 0.3, 0.2, 0.3, 0.9])
    out = train(small_recipe(*stopping, steps=5))
    assert [row["step"] for row in read_csv(out / "metrics.csv") if row["term"] == "image"] == ["0", "1", "2", "3"]
    (cost,) = json.loads((out / "run.json").read_text())["stages"]
    assert (cost["ended"], cost["best_step"], cost["steps"]) == ("early", 2, 4)


def test_best_weights_are_kept_not_the_last(train: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    stopping = (*EVERY_STEP, 'joint.stop_on="kappa_quadratic"', "joint.warm_up=0", 'joint.schedule="step"')
    set_scores(monkeypatch, [0.3, 0.2, 0.1])
    best = train(small_recipe(*stopping, steps=3), out="best")
    set_scores(monkeypatch, [0.3])
    first = train(small_recipe(*stopping, steps=1), out="first")
    assert equal_tensors(final_weights(best), final_weights(first))


@pytest.mark.parametrize(("scales", "expected"), [("{2 = 1}", 2), ("{1 = 0.5, 8 = 0.5}", 8), ("{1 = 1}", 4)])
def test_stage_is_validated_at_its_own_scale(
    train: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, scales: str, expected: int
) -> None:
    used: list[int] = []

    def validate(*_: Any, scale: int, **__: Any) -> ValidationResult:
        used.append(scale)
        return ValidationResult({}, [])

    monkeypatch.setattr(loop, "validate", validate)
    monkeypatch.setattr(loop, "draw_contact_sheet", lambda *_: None)
    train(small_recipe(*VALIDATED, f"joint.scales={scales}"))
    assert used == [expected]


# Batches that are not finite, TensorBoard


def test_batch_that_is_not_finite_is_written(train: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"joint step 0: a gradient is not finite.*not_finite\.safetensors"):
        train(small_recipe("joint.loss.dice=1e300", *ONE_STAGE["joint"]))
    tensors, card, _ = checkpoint.read(tmp_path / "out/not_finite.safetensors")
    assert tensors["0/hr"].shape == (2, 3, 64, 64) and {"0/lesion_masks", "0/annotated", "0/grade"} <= tensors.keys()
    assert (card["stage"], card["step"]) == ("joint", 0)


def test_losses_are_written_for_tensorboard_on_request(train: Callable[..., Path]) -> None:
    pytest.importorskip("tensorboard")
    out = train(small_recipe(*ONE_STAGE["joint"]), tensorboard=True)
    (file,) = (out / "tensorboard").iterdir()
    content = file.read_bytes()
    assert b"joint/image" in content and b"joint/cls_aware" in content


# Settings that reach the losses


def test_class_weights_reach_the_grading_loss(train: Callable[..., Path]) -> None:
    plain = train(small_recipe(*ONE_STAGE["grading"]), out="plain")
    heavy = train(small_recipe(*ONE_STAGE["grading"], "grading.loss.class_weights=[3, 3, 3, 3, 3]"), out="heavy")
    one, other = (float(read_csv(out / "metrics.csv")[0]["value"]) for out in (plain, heavy))
    assert other == pytest.approx(3 * one, rel=1e-3)
