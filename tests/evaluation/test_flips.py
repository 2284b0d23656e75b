"""Flip consistency: scores by hand, and predictions of the turned photograph."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from deepmtdr import checkpoint
from deepmtdr.evaluation import Bootstrap, EvaluationConfig, PhotographResult, evaluate
from deepmtdr.evaluation.flips import flip_scores, predict_turns
from deepmtdr.evaluation.photograph_result import FlipResult
from deepmtdr.grade_decision import GradeDecision
from deepmtdr.photographs.turns import turn
from deepmtdr.synthetic.drawings import write_drawings
from tiny_model import save_tiny_weights

FEW = Bootstrap(resamples=20)


def result(name: str, flips: FlipResult | None, dataset: str = "x") -> PhotographResult:
    return PhotographResult(dataset=dataset, name=name, patient=name, flips=flips)


def test_scores_by_hand() -> None:
    steady = FlipResult((2,) * 8, (0.5,) * 8)
    once = FlipResult((1, 0, *[1] * 6), (0.4, 0.05, *[0.4] * 6))
    upright_differs = FlipResult((3, *[2] * 7), (0.9, *[0.8] * 7))
    rows = flip_scores([result("a", steady), result("b", once), result("c", upright_differs), result("d", None)], FEW)
    values = {row.score: row.value for row in rows}
    assert values["same_grade_all_turns"] == pytest.approx(1 / 3)
    assert values["agrees_with_upright"] == pytest.approx((1 + 6 / 7 + 0) / 3)
    assert values["p_referable_difference"] == pytest.approx((0 + 0.35 / 7 + 0.1) / 3)
    assert {(row.task, row.subject, row.photographs) for row in rows} == {("flips", "grade", 3)}


def test_several_data_sets_have_a_mean_over_them() -> None:
    steady, other = FlipResult((2,) * 8, (0.5,) * 8), FlipResult((2, *[1] * 7), (0.5,) * 8)
    measured = [result(f"{n}", steady) for n in range(10)] + [result(f"{n}", other, "y") for n in range(30)]
    rows = {(row.dataset, row.score): row.value for row in flip_scores(measured, FEW)}
    assert rows["mean over sets", "same_grade_all_turns"] == 0.5
    assert ("all", "same_grade_all_turns") not in rows


def test_every_turn_of_the_photograph_is_predicted_with_the_calibrated_decision(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    model = checkpoint.load(save_tiny_weights(tmp_path / "w.safetensors")).model
    lr = rng.integers(0, 256, (32, 32, 3), np.uint8)
    decision = GradeDecision(temperature=0.2, thresholds=(0.1, 0.2, 0.3, 0.4))
    found = predict_turns(model, lr, 4, decision=decision)
    assert found.grades == (4,) * 8
    for number in (0, 1, 5):
        image = torch.from_numpy(turn(lr, number)).permute(2, 0, 1)[None].float() / 255
        with torch.inference_mode():
            logits = model.segment_and_grade(model.super_resolve(image, 4).clamp(0, 1)).grade_logits[0].double()
        expected = float((logits / 0.2).softmax(dim=0)[2:].sum())
        assert found.p_referable[number] == pytest.approx(expected, abs=1e-4)
    assert len(set(found.p_referable)) > 1


def test_flips_are_measured_only_on_request(tmp_path: Path) -> None:
    trained = checkpoint.load(save_tiny_weights(tmp_path / "w.safetensors"))
    samples = write_drawings(tmp_path / "drawings", [2, 3], size=140)
    config = EvaluationConfig(bootstrap=FEW, thorough=False, slow_metrics=False)
    without, done = (evaluate(trained, samples, replace(config, flips=flips)) for flips in (False, True))
    assert not any(row.task == "flips" for row in without.scores)
    assert {row.score for row in done.scores if row.task == "flips"} == {
        "same_grade_all_turns",
        "agrees_with_upright",
        "p_referable_difference",
    }
    for m in done.results:
        assert m.flips is not None and m.flips.grades[0] == m.predicted_grade
        assert m.flips.p_referable[0] == pytest.approx(sum(m.probs[2:]), abs=1e-6)
