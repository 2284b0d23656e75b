"""Several seeds of one recipe, and one checkpoint against another."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from deepmtdr import checkpoint
from deepmtdr.errors import DataError
from deepmtdr.evaluation import (
    Bootstrap,
    Evaluation,
    EvaluationConfig,
    PhotographResult,
    ReportConfig,
    SampleSelection,
    aggregate_seeds,
    evaluate_checkpoints,
    score_prediction_files,
)
from deepmtdr.evaluation.multiple_runs import seed_tables
from deepmtdr.evaluation.run import score_photographs
from deepmtdr.model.deepmtdr import DeepMTDR
from deepmtdr.recipe import load_recipe
from deepmtdr.synthetic.drawings import write_drawings

FEW = Bootstrap(resamples=20, seed=3, level=0.9)
QUICK = EvaluationConfig(thorough=False, bootstrap=FEW)


def evaluation(seed: int, names: str = "abcdefgh") -> Evaluation:
    rng = np.random.default_rng(seed)
    probs = rng.dirichlet(np.ones(5), len(names))
    measured = [
        PhotographResult(dataset="x", name=name, patient=name, grade=i % 5, probs=tuple(map(float, p)))
        for i, (name, p) in enumerate(zip(names, probs, strict=True))
    ]
    return score_photographs(measured, {}, FEW, {})


def test_seeds_have_their_mean_and_standard_deviation() -> None:
    runs = [evaluation(seed) for seed in range(3)]
    rows = {(row.task, row.subject, row.score): row for row in aggregate_seeds(runs)}
    kappas = [next(s.value for s in run.scores if s.score == "kappa_quadratic") for run in runs]
    found = rows["grading", "grade", "kappa_quadratic"]
    assert found.values == tuple(kappas)
    assert found.found.mean == pytest.approx(np.mean(kappas))
    assert found.found.sd == pytest.approx(np.std(kappas, ddof=1))
    (grading, *_) = (t for t in seed_tables(aggregate_seeds(runs)) if t.title.startswith("grading"))
    assert grading.title == "grading, x: mean (standard deviation) of 3 seeds"
    assert ("kappa_quadratic *", f"{np.mean(kappas):.3g} ({np.std(kappas, ddof=1):.2g})") in grading.rows


def test_score_that_is_undefined_for_one_seed_has_no_mean() -> None:
    healthy = evaluation(0, "abcde")
    one_kind = score_photographs([replace(m, grade=0) for m in healthy.results], {}, FEW, {})
    rows = {row.score: row for row in aggregate_seeds([healthy, one_kind]) if row.subject == "grade"}
    assert math.isnan(rows["auc_any"].found.mean)
    cells = [row for table in seed_tables(list(rows.values())) for row in table.rows]
    assert ("auc_any", "undefined for a seed") in cells


def test_seeds_on_different_photographs_are_an_error() -> None:
    with pytest.raises(DataError, match="evaluations of 8, 3 photographs, expected the same photographs"):
        aggregate_seeds([evaluation(0), evaluation(1, "abc")])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two untrained checkpoints and a folder of drawings."""
    folder = tmp_path_factory.mktemp("data")
    write_drawings(folder / "drawings", [2, 3, 10, 11], size=260)
    recipe = load_recipe("smoke")
    for seed in (0, 1):
        torch.manual_seed(seed)
        model = DeepMTDR(recipe.model).eval()
        torch.nn.init.normal_(next(model.isr.to_rgb.parameters()), std=0.02)
        checkpoint.save(folder / f"{seed}.safetensors", model, recipe, weights=f"seed {seed}")
    return folder


def drawings(data: Path) -> SampleSelection:
    return SampleSelection(data=data, datasets=("drawings",))


def test_seeds_have_one_folder_each_and_a_common_table(data: Path, tmp_path: Path) -> None:
    weights = [data / "0.safetensors", data / "1.safetensors"]
    done = evaluate_checkpoints(drawings(data), weights, config=QUICK, report=ReportConfig(out=tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["seed-1", "seed-2", "seeds.json"]
    assert (tmp_path / "seed-2" / "report.html").exists()
    rows = json.loads((tmp_path / "seeds.json").read_text())["scores"]
    gain = next(row for row in rows if (row["subject"], row["score"]) == ("sr", "psnr_fov"))
    values = [next(s.value for s in e.scores if (s.subject, s.score) == ("sr", "psnr_fov")) for e in done.evaluations]
    assert gain["values"] == pytest.approx(values) and gain["mean"] == pytest.approx(np.mean(values))
    assert all("seeds" in table.title for table in done.tables())


def test_two_checkpoints_are_compared_by_images_lesions_and_grades(data: Path, tmp_path: Path) -> None:
    first, second = data / "0.safetensors", data / "1.safetensors"
    report = ReportConfig(out=tmp_path)
    done = evaluate_checkpoints(drawings(data), [first], other=second, config=QUICK, report=report)
    assert {"comparison.json", "evaluation.json", "other", "predictions.csv", "report.html"} == {
        path.name for path in tmp_path.iterdir()
    }
    written = json.loads((tmp_path / "comparison.json").read_text())
    assert written["protocol"]["bootstrap"] == {"unit": "patient", "resamples": 20, "seed": 3, "level": 0.9}
    rows = {(row["subject"], row["score"]): row for row in written["differences"]}
    a, b = (
        {(s.subject, s.score): s.value for s in evaluation.scores}
        for evaluation in (
            done.evaluations[0],
            evaluate_checkpoints(drawings(data), [second], config=QUICK).evaluations[0],
        )
    )
    for key in (("sr", "psnr_fov"), ("sr", "ssim_whole"), ("grade", "accuracy")):
        assert rows[key]["difference"] == pytest.approx(a[key] - b[key])
    # Lesions are compared by the coarse pixel counts of each photograph.
    assert rows["HE", "aupr_pooled"]["a"] == pytest.approx(a["HE", "aupr_pooled"], abs=0.01)
    assert rows["HE", "aupr_pooled"]["b"] == pytest.approx(b["HE", "aupr_pooled"], abs=0.01)
    assert done.tables()[-1].title.startswith("tests of no difference")
    with pytest.raises(DataError, match=r"2 checkpoints to be compared with .* expected one"):
        evaluate_checkpoints(drawings(data), [None, None], other=second)


def test_comparison_of_prediction_files_uses_the_given_bootstrap(tmp_path: Path) -> None:
    for name, grades in (("a", "010120"), ("b", "000120"), ("truth", "011120")):
        column = "grade" if name == "truth" else "predicted_grade"
        rows = [f"{number},{grade}" for number, grade in enumerate(grades)]
        (tmp_path / f"{name}.csv").write_text("\n".join([f"name,{column}", *rows]))
    tables = (tmp_path / f"{name}.csv" for name in ("a", "truth", "b"))
    predictions, truth, other = tables
    done = score_prediction_files(predictions, truth, other=other, bootstrap=FEW)
    assert done.comparison is not None
    assert done.comparison.protocol["bootstrap"] == FEW.to_protocol() == done.evaluations[0].protocol["bootstrap"]


def write_grades(path: Path, column: str, *grades: int) -> Path:
    path.write_text("\n".join([f"name,{column}", *(f"eye{i},{grade}" for i, grade in enumerate(grades))]))
    return path


def test_prediction_files_are_scored_by_grade_unless_binary_is_chosen(tmp_path: Path) -> None:
    predictions = write_grades(tmp_path / "a.csv", "predicted_grade", 1, 0, 3, 0)
    truth = write_grades(tmp_path / "truth.csv", "grade", 2, 0, 3, 1)
    (by_grade,), (binary,) = (
        score_prediction_files(predictions, truth, bootstrap=FEW, **chosen).evaluations
        for chosen in ({}, {"binary": True})
    )
    of_grade, of_positive = (
        {s.subject: s.value for s in done.scores if s.score == "accuracy"} for done in (by_grade, binary)
    )
    assert of_grade == {"grade": 0.5}
    assert of_positive == {"positive": 0.75}


def test_scores_and_page_of_the_first_prediction_file_are_written(tmp_path: Path) -> None:
    truth = write_grades(tmp_path / "truth.csv", "grade", 0, 1, 2, 3)
    first = write_grades(tmp_path / "a.csv", "predicted_grade", 0, 1, 2, 4)
    other = write_grades(tmp_path / "b.csv", "predicted_grade", 1, 1, 3, 4)
    score_prediction_files(first, truth, out=tmp_path / "alone", bootstrap=FEW)
    assert {path.name for path in (tmp_path / "alone").iterdir()} == {"evaluation.json", "report.html"}
    score_prediction_files(first, truth, other=other, out=tmp_path / "both", bootstrap=FEW)
    assert {path.name for path in (tmp_path / "both").iterdir()} == {
        "comparison.json",
        "evaluation.json",
        "report.html",
    }
    for folder in ("alone", "both"):
        written = json.loads((tmp_path / folder / "evaluation.json").read_text())["scores"]
        assert [row["value"] for row in written if row["score"] == "accuracy"] == [0.75]
