"""The command `ablate`."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from deepmtdr.cli import app
from deepmtdr.experiments import ablation_study
from deepmtdr.experiments.ablation_study import AblationStudy, ArmFailure
from deepmtdr.recipe import Recipe, load_recipe
from deepmtdr.rendering.html import Table
from deepmtdr.training import StartWeights


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "160"})


def test_ablate_passes_its_options_on_and_lists_failures(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def run_ablation_study(recipe: Recipe, *folders: Path, **named: object) -> AblationStudy:
        assert recipe == load_recipe("smoke", ["joint.steps=5"]) and folders == (tmp_path, Path("o"))
        start = StartWeights(segmentation=Path("s"), grading=Path("g"))
        assert named == {"ablations": ["separate", "end-to-end"], "seeds": [0, 4], "start": start}
        return AblationStudy(
            [], [Table("grading, d", ("arm", "kappa"), [("joint", "0.5")])], [ArmFailure("a", 4, "no")]
        )

    monkeypatch.setattr(ablation_study, "run_ablation_study", run_ablation_study)
    names = ("--ablation", "separate", "--ablation", "end-to-end", "--seeds", "0,4", "--set", "joint.steps=5")
    files = ("--data", tmp_path, "--out", "o", "--init-segmentation", "s", "--init-grading", "g")
    result = run("ablate", "smoke", *names, *files)
    assert (result.exit_code, result.stderr) == (1, "a, seed 4: no\n")
    assert "grading, d" in result.stdout and "0.5" in result.stdout


def test_seeds_that_are_no_numbers_are_an_error() -> None:
    result = run("ablate", "smoke", "--seeds", "0;1")
    assert result.exit_code == 2 and "expected whole numbers such as 0,1,2" in result.stderr


def test_unknown_ablation_is_one_line_with_those_that_exist() -> None:
    result = run("ablate", "smoke", "--ablation", "seperate")
    assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1)
    assert "unknown ablation 'seperate', expected one of without-isr, " in result.stderr
