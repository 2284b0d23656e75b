"""Leave-one-data-set-out runs: recipes, photographs that are scored, tables, resuming, and the command."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from deepmtdr import training
from deepmtdr.cli import app
from deepmtdr.errors import RecipeError, TrainingError
from deepmtdr.evaluation import EvaluationConfig, ReportConfig, SampleSelection
from deepmtdr.experiments import leave_one_out as module
from deepmtdr.experiments.leave_one_out import LeaveOneOut, RunFailure, leave_out, run_leave_one_out
from deepmtdr.recipe import Recipe, load_recipe, to_dict
from deepmtdr.rendering.html import Table


def score(task: str, dataset: str, subject: str, name: str, value: float | None) -> dict[str, object]:
    bounds = {"low": None if value is None else value - 0.1, "high": None if value is None else value + 0.1}
    return {"task": task, "dataset": dataset, "subject": subject, "score": name, "value": value, **bounds}


SCORES = [
    score("grading", "b", "grade", "kappa_quadratic", 0.5),
    score("grading", "mean over sets", "grade", "kappa_quadratic", 0.9),
    score("grading", "b", "grade", "accuracy", 0.8),
    score("lesions", "b", "MA", "aupr_pooled", 0.25),
    score("lesions", "b", "HE", "aupr_pooled", None),
    score("super-resolution", "b", "sr", "psnr_fov", 40.0),
    score("super-resolution", "b", "gain over normalised bicubic", "psnr_fov", 1.5),
]


class FakeRuns:
    """Writes the files of trainings and evaluations."""

    def __init__(self) -> None:
        self.trained: dict[str, tuple[tuple[str, ...], bool]] = {}
        self.evaluated: dict[str, tuple[str, ...]] = {}
        self.failures: list[dict[str, str]] = []
        self.error: Exception | None = None

    def run(self, recipe: Recipe, data: Path, out: Path, *, resume: bool, start: object, cache: Path) -> Path:
        assert cache == out.parent / "prepared" and start == training.StartWeights()
        if self.error and "a" not in recipe.data.datasets:
            raise self.error
        self.trained[out.name] = (recipe.data.datasets, resume)
        out.mkdir(parents=True, exist_ok=True)
        (out / "run.json").write_text(json.dumps({"recipe": to_dict(recipe)}), encoding="utf-8")
        return out / "weights.safetensors"

    def evaluate(
        self, selection: SampleSelection, weights: Path, *, config: EvaluationConfig, report: ReportConfig
    ) -> SimpleNamespace:
        assert report.out == weights.parent and selection.split_file is None and config.scale == 4
        self.evaluated[weights.parent.name] = selection.datasets
        text = json.dumps({"scores": SCORES, "failures": self.failures})
        (weights.parent / "evaluation.json").write_text(text, encoding="utf-8")
        return SimpleNamespace()


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> FakeRuns:
    fake = FakeRuns()
    monkeypatch.setattr(training, "run", fake.run)
    monkeypatch.setattr(module, "evaluate_folder", fake.evaluate)
    monkeypatch.setattr(module, "read_datasets", lambda roots, labels: [])
    return fake


@pytest.fixture
def recipe() -> Recipe:
    return load_recipe("smoke", ['data.datasets=["a", "b", "c"]'])


def test_each_run_is_trained_without_its_data_sets_and_scored_on_them(
    runs: FakeRuns, recipe: Recipe, tmp_path: Path
) -> None:
    done = run_leave_one_out(recipe, tmp_path, tmp_path, left_out=[["b"], ["a", "c"]])
    assert runs.trained == {"b": (("a", "c"), False), "a+c": (("b",), False)}
    assert runs.evaluated == {"b": ("b",), "a+c": ("a", "c")} and not done.failed


def test_tables_have_the_scores_within_each_data_set(runs: FakeRuns, recipe: Recipe, tmp_path: Path) -> None:
    grading, lesions, images = run_leave_one_out(recipe, tmp_path, tmp_path, left_out=[["b"], ["a", "c"]]).tables
    assert grading == Table(
        "grading",
        ("left out", "kappa_quadratic"),
        [("b", "0.5 [0.4, 0.6]"), ("a+c: b", "0.5 [0.4, 0.6]")],
    )
    assert lesions.rows[0] == ("b", "0.25 [0.15, 0.35]") and lesions.columns == ("left out", "MA, aupr_pooled")
    assert images.rows[0] == ("b", "1.5 [1.4, 1.6]")
    written = (tmp_path / "leave-one-out.md").read_text(encoding="utf-8")
    assert "Each row is a run of smoke" in written and "0.25 [0.15, 0.35]" in written


def test_finished_runs_are_neither_trained_nor_scored_again(runs: FakeRuns, recipe: Recipe, tmp_path: Path) -> None:
    first = run_leave_one_out(recipe, tmp_path, tmp_path, left_out=[["b"]])
    runs.trained.clear()
    runs.evaluated.clear()
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "resume.safetensors").touch()
    again = run_leave_one_out(recipe, tmp_path, tmp_path, left_out=[["b"], ["a"]])
    assert again.tables[0].rows[0] == first.tables[0].rows[0]
    assert runs.trained == {"a": (("b", "c"), True)} and [*runs.evaluated] == ["a"]


def test_run_with_another_recipe_is_an_error(runs: FakeRuns, recipe: Recipe, tmp_path: Path) -> None:
    run_leave_one_out(recipe, tmp_path, tmp_path, left_out=[["b"]])
    other = load_recipe("smoke", ['data.datasets=["a", "b", "c"]', "seed=3"])
    with pytest.raises(RecipeError, match="trained with another recipe"):
        run_leave_one_out(other, tmp_path, tmp_path, left_out=[["b"]])


def test_failures_do_not_stop_the_other_runs(runs: FakeRuns, recipe: Recipe, tmp_path: Path) -> None:
    runs.error, runs.failures = TrainingError("a loss is not finite"), [{"name": "x"}]
    done = run_leave_one_out(recipe, tmp_path, tmp_path, left_out=[["a"], ["b"]])
    assert done.failed == [
        RunFailure("a", "a loss is not finite"),
        RunFailure("b", "photographs that were not scored: 1"),
    ]
    assert [row[0] for row in done.tables[0].rows] == ["b"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["d"], "found the data set 'd' to leave out, expected one of a, b, c"),
        (["a", "b", "c"], "found 3 data sets to leave out, expected 1 to 2"),
        ([], "found 0 data sets to leave out, expected 1 to 2"),
    ],
)
def test_wrong_data_sets_are_an_error(recipe: Recipe, names: list[str], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        leave_out(recipe, names)


def test_command_passes_its_options_on_and_lists_failures(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def run(recipe: Recipe, *folders: Path, **named: object) -> LeaveOneOut:
        assert recipe == load_recipe("smoke", ["joint.steps=5"]) and folders == (tmp_path, Path("o"))
        start = training.StartWeights(segmentation=Path("s"), grading=Path("g"))
        assert named == {"left_out": [["idrid"], ["drive", "heimed"]], "start": start}
        return LeaveOneOut([Table("grading", ("left out", "kappa"), [("idrid", "0.5")])], [RunFailure("idrid", "no")])

    monkeypatch.setattr(module, "run_leave_one_out", run)
    options = ("--dataset", "idrid", "--dataset", "drive+heimed", "--data", tmp_path, "--out", "o")
    start = ("--init-segmentation", "s", "--init-grading", "g", "--set", "joint.steps=5")
    result = CliRunner().invoke(app, ["leave-one-out", "smoke", *map(str, (*options, *start))])
    assert (result.exit_code, result.stderr) == (1, "without idrid: no\n")
    assert "0.5" in result.stdout
