"""The model card of shipped weights: texts are finished, numbers are those of the evaluation and the calibration."""

from __future__ import annotations

import json
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from release.model_card import UnfinishedCardError, card_markdown, card_scores, make_card, read_texts

from deepmtdr import checkpoint
from deepmtdr.calibration import CalibrationConfig, calibrate_folder
from deepmtdr.evaluation import Bootstrap, EvaluationConfig, ReportConfig, SampleSelection, evaluate_folder
from deepmtdr.synthetic.drawings import write_drawings
from tiny_model import save_tiny_weights

CARDS = Path(__file__).parents[2] / "release" / "cards"
TEXTS: dict[str, Any] = {
    "weights": "w",
    "use": "Research only.",
    "photographs": ["drawings"],
    "licence": "free",
    "split": "by patient",
    "recipe_name": "tiny",
    "made": "in a second",
    "limits": ["few drawings"],
    "not_for": ["patients"],
    "failures": [{"what": "small lesions", "why": "few pixels", "how_often": "a third", "drawing": "examples/a.png"}],
}


def score(task: str, dataset: str, subject: str, name: str, value: float | None = 0.5) -> dict[str, Any]:
    return {
        "task": task,
        "dataset": dataset,
        "subject": subject,
        "score": name,
        "value": value,
        "low": 0.4,
        "high": 0.6,
        "photographs": 79,
        "source": "field",
        "note": "",
    }


def card(*scores: dict[str, Any], **trained: Any) -> dict[str, Any]:
    evaluated = {"protocol": {"precision": "fp32"}, "scores": list(scores)}
    return make_card(TEXTS, {"data": "0" * 64, "stage": "joint", **trained}, evaluated)


def test_every_card_has_its_texts_and_only_that_of_unshipped_weights_is_unfinished() -> None:
    assert read_texts(CARDS / "v0.toml")["weights"] == "v0"
    for path in CARDS.glob("*.toml"):
        texts = tomllib.loads(path.read_text(encoding="utf-8"))
        assert texts["weights"] == path.stem
        if "TODO" in str(texts):
            assert path.stem != checkpoint.SHIPPED_WEIGHTS
            with pytest.raises(UnfinishedCardError, match="found TODO in"):
                read_texts(path)


def test_missing_or_unknown_text_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "w.toml"
    path.write_text('weights = "w"\n')
    with pytest.raises(UnfinishedCardError, match="found no use, photographs"):
        read_texts(path)
    path.write_text((CARDS / "v0.toml").read_text() + 'colour = "red"\n')
    with pytest.raises(UnfinishedCardError, match="unknown colour"):
        read_texts(path)


def test_grades_of_several_data_sets_together_and_undefined_scores_are_left_out() -> None:
    scores = [
        score("grading", "idrid", "grade", "kappa_quadratic"),
        score("grading", "mean over sets", "grade", "kappa_quadratic"),
        score("grading", "all", "grade", "kappa_quadratic"),
        score("lesions", "all", "MA", "aupr_pooled"),
        score("lesions", "idrid", "SE", "aupr_pooled", None),
    ]
    kept = [(s["task"], s["dataset"]) for s in card_scores(scores)]
    assert kept == [("grading", "idrid"), ("grading", "mean over sets"), ("lesions", "all")]


def test_page_has_the_texts_the_scores_of_each_data_set_and_the_failures() -> None:
    page = card_markdown(
        card(
            score("grading", "idrid", "grade", "kappa_quadratic", 0.71),
            score("grading", "mean over sets", "grade", "kappa_quadratic", 0.55),
            score("flips", "idrid", "grade", "same_grade_all_turns", 0.9),
            score("evidence", "idrid", "lesions", "patch_precision_mean", 0.6),
        ),
        "abc",
    )
    for line in (
        "## What it must not be used for",
        "- patients",
        "| of | score | idrid (79) | mean over sets (79) |",
        "| grade | kappa_quadratic | 0.710 [0.400, 0.600] | 0.550 [0.400, 0.600] |",
        "### Mirrored and turned photographs",
        "| lesions | patch_precision_mean | 0.600 [0.400, 0.600] |",
        "- **small lesions** (a third). few pixels. Drawing: `examples/a.png`.",
        "SHA-256 of card and tensors: `abc`",
    ):
        assert line in page, line
    assert "## Calibration" not in page and "## Cost" not in page


def test_page_has_the_calibration_before_and_after_and_the_operating_points() -> None:
    calibration = {
        "photographs": 200,
        "patients": 150,
        "datasets": ["idrid"],
        "judged": "each half of the patients scored with the fit on the other half",
        "temperature": 1.5,
        "biases": [0.5, -0.5],
        "grade_thresholds": [0.6],
        "scores": {"debiased_ece": {"before": [0.2, 0.1, 0.3], "after": [0.03, 0.0, 0.08]}},
        "operating_points": {
            "referable": [
                {"wanted": 0.9, "threshold": 0.31, "sensitivity": [0.88, 0.8, 0.94], "specificity": [0.7, None, None]}
            ]
        },
    }
    page = card_markdown(card(calibration=calibration), "abc")
    for line in (
        "- Temperature 1.5.",
        "- Prior correction of the logits of the grades: 0.50, -0.50.",
        "| debiased_ece | 0.200 [0.100, 0.300] | 0.030 [0.000, 0.080] |",
        "| referable | 90% | 0.3100 | 0.880 [0.800, 0.940] | 0.700 |",
    ):
        assert line in page, line


def test_weights_are_shipped_with_the_numbers_of_calibration_and_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(CARDS.parent))
    import ship_weights  # pyright: ignore[reportMissingImports]

    write_drawings(tmp_path / "data" / "drawings", range(20), size=140)
    weights, selection = (
        tmp_path / "run" / "weights.safetensors",
        SampleSelection(data=tmp_path / "data", datasets=("drawings",)),
    )
    weights.parent.mkdir()
    save_tiny_weights(weights)
    few = Bootstrap(resamples=10)
    done = calibrate_folder(weights, selection, CalibrationConfig(bootstrap=few))
    config = EvaluationConfig(bootstrap=few, thorough=False, slow_metrics=False)
    evaluated = evaluate_folder(
        selection, weights, config=config, report=ReportConfig(out=tmp_path / "e", pictures=False)
    )
    loaded = checkpoint.load(weights)
    entries = {"data": "0" * 64, "stage": "joint"}
    checkpoint.update_card(weights, weights, digest=loaded.digest, **entries)
    shipped = checkpoint.load(ship_weights.ship("v0", weights.parent, tmp_path / "e", tmp_path / "shipped"))
    assert shipped.decision == done.decision and shipped.operating_point is not None
    kappa = next(s for s in evaluated.scores if s.score == "kappa_quadratic")
    (of_card,) = (s for s in shipped.card["scores"] if s["score"] == "kappa_quadratic")
    assert of_card["value"] == pytest.approx(kappa.value)
    page = (tmp_path / "shipped" / "v0.md").read_text()
    assert shipped.digest in page and "## Calibration and decision" in page
    assert json.loads((tmp_path / "shipped" / "v0.json").read_text())["weights"] == "v0"
    assert replace(loaded.recipe) == shipped.recipe
