"""The commands `evaluate`, `score` and `benchmark-baselines`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from deepmtdr import evaluation
from deepmtdr.cli import app
from deepmtdr.evaluation import EvaluationConfig, ReportConfig, SampleSelection
from deepmtdr.experiments import system_comparison
from deepmtdr.experiments.system_comparison import SystemComparison, SystemFailure
from deepmtdr.synthetic.drawings import write_drawings
from tiny_model import FRAME, save_tiny_weights

LABELS = """
disease = "macular degeneration"
lesions = [{ code = "DRU", name = "drusen" }]
grades = [{ name = "none" }, { name = "early" }, { name = "late" }]
"""


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "160"})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny weights and two drawings."""
    data = tmp_path_factory.mktemp("data")
    write_drawings(data / "drawings", [2, 3], size=FRAME + 20)
    save_tiny_weights(data / "tiny.safetensors")
    return data


@pytest.mark.parametrize(("option", "size"), [((), FRAME // 4), (("--as-lr", FRAME // 2), FRAME // 2)])
def test_evaluate_reduces_to_a_quarter_of_the_frame_or_to_as_lr(
    option: tuple[object, ...], size: int, folder: Path, tmp_path: Path
) -> None:
    weights = folder / "tiny.safetensors"
    arguments = ("--data", folder, "--dataset", "drawings", "--weights", weights, "--quick", "--out", tmp_path)
    result = run("evaluate", *arguments, *option)
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "evaluation.json").read_text())["protocol"]["as_lr"] == size


@pytest.mark.parametrize("command", ["evaluate", "calibrate"])
def test_size_that_does_not_fit_the_frame_is_one_line_with_those_that_fit(command: str, folder: Path) -> None:
    weights = folder / "tiny.safetensors"
    photographs = ("--dataset", "drawings", "--weights", weights) if command == "evaluate" else (weights, "drawings")
    result = run(command, *photographs, "--data", folder, "--as-lr", 256)
    assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1)
    assert "256 px, expected one of 16, 32, 64 for a frame of 128 px" in result.stderr


def test_evaluate_passes_its_options_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def evaluate_checkpoints(*arguments: object, **named: object) -> None:
        assert arguments == (
            SampleSelection(data=tmp_path, split_file=Path("s.csv"), split="validation", datasets=("a", "b")),
            [Path("w")],
        )
        assert named == {
            "other": Path("o"),
            "config": EvaluationConfig(bf16=True, removal_steps=3),
            "report": ReportConfig(out=Path("out"), pictures=False, parquet=True),
        }
        raise OSError("reached")

    monkeypatch.setattr(evaluation, "evaluate_checkpoints", evaluate_checkpoints)
    photographs = ("--data", tmp_path, "--split", "s.csv", "--side", "validation", "--dataset", "a", "--dataset", "b")
    how = ("--bf16", "--removal", 3, "--no-pictures", "--parquet", "--out", "out", "--weights", "w", "--compare", "o")
    result = run("evaluate", *photographs, *how)
    assert (result.exit_code, result.stderr) == (2, "deepmtdr: reached\n")


def test_score_takes_another_label_set(tmp_path: Path) -> None:
    (tmp_path / "labels.toml").write_text(LABELS)
    (tmp_path / "table.csv").write_text("name,grade,p0,p1,p2\na,0,0.8,0.1,0.1\nb,2,0.1,0.1,0.8\n")
    table = tmp_path / "table.csv"
    result = run("score", table, table, "--labels", tmp_path / "labels.toml")
    assert result.exit_code == 0, result.output
    assert "2 late" in result.stdout


@pytest.mark.parametrize("command", ["benchmark-baselines", "compare"])
def test_benchmark_baselines_has_its_former_name_as_an_alias(
    command: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def compare_systems(*_: object, systems: list[str], imagenet: dict[str, Path], minutes: float) -> SystemComparison:
        assert (systems, imagenet, minutes) == (["U-Net"], {"SqueezeNet 1.1": Path("a=b")}, 0.5)
        return SystemComparison([], [SystemFailure("U-Net", "no data")])

    monkeypatch.setattr(system_comparison, "compare_systems", compare_systems)
    result = run(command, "U-Net", "--imagenet", "SqueezeNet 1.1=a=b", "--minutes", 0.5, "--data", tmp_path)
    assert (result.exit_code, result.stderr) == (1, "U-Net: no data\n")


def test_imagenet_without_a_file_is_an_error() -> None:
    result = run("benchmark-baselines", "--imagenet", "ResNet-18")
    assert result.exit_code == 2 and "expected SYSTEM=FILE" in result.stderr


def test_only_the_new_name_is_listed() -> None:
    listed = run("--help").stdout
    assert "│ benchmark-baselines " in listed and "│ compare " not in listed
    assert "Renamed: use `deepmtdr benchmark-baselines`" in " ".join(run("compare", "--help").stdout.split())
