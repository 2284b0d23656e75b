"""The scripts of examples/ run, and their outputs have the names of their label set."""

from __future__ import annotations

import csv
import json
import re
import runpy
import tempfile
from pathlib import Path

import pytest

from deepmtdr.labels import load_label_set

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
SECOND_DISEASE = EXAMPLES / "second_disease"


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the scripts make their temporary folder."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def run_script(path: Path, temporary: Path) -> Path:
    """Run a script; returns its output folder."""
    runpy.run_path(str(path), run_name="__main__")
    (out,) = temporary.glob("deepmtdr-*")
    return out


def test_every_script_is_listed_in_the_readme() -> None:
    scripts = {path.relative_to(EXAMPLES).as_posix() for path in EXAMPLES.rglob("*.py")}
    assert {script for script in scripts if f"({script})" not in (EXAMPLES / "README.md").read_text("utf-8")} == set()


def test_grade_example_writes_reports(temporary: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = run_script(EXAMPLES / "grade.py", temporary)
    with (out / "results.csv").open(encoding="utf-8") as file:
        assert [row["status"] for row in csv.DictReader(file)] == ["ok"]
    assert (out / "drawing_4" / "summary.png").is_file()
    assert "microaneurysms" in capsys.readouterr().out


@pytest.mark.slow
def test_train_example_writes_weights(temporary: Path) -> None:
    out = run_script(EXAMPLES / "train.py", temporary)
    assert (out / "run" / "weights.safetensors").is_file()
    assert (out / "run" / "report.html").is_file()


@pytest.mark.slow
def test_evaluate_example_writes_scores(temporary: Path) -> None:
    out = run_script(EXAMPLES / "evaluate.py", temporary)
    scores = json.loads((out / "evaluation" / "evaluation.json").read_text(encoding="utf-8"))["scores"]
    assert {"grading", "lesions", "super-resolution"} <= {score["task"] for score in scores}


def test_dicom_example_shows_report_and_segments(temporary: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = run_script(EXAMPLES / "dicom.py", temporary)
    assert (out / "document.dcm").is_file()
    printed = capsys.readouterr().out
    assert "Retinal haemorrhage" in printed
    assert "DiagnosticReport" in printed


@pytest.mark.slow
def test_second_disease_example_has_its_names_in_every_output(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(SECOND_DISEASE)  # as when Python runs a script of that folder
    out = run_script(SECOND_DISEASE / "run.py", temporary)
    labels = load_label_set(SECOND_DISEASE / "amd.toml")
    with (out / "graded" / "results.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {f"count_{code}" for code in labels.codes} == {name for name in rows[0] if name.startswith("count_")}
    assert {"p0", "p1", "p2"} == {name for name in rows[0] if re.fullmatch(r"p\d", name)}
    assert {row["status"] for row in rows} == {"ok"}
    assert {row["grade_name"] for row in rows} <= set(labels.grade_names)
    scores = json.loads((out / "evaluation" / "evaluation.json").read_text(encoding="utf-8"))["scores"]
    assert set(labels.codes) <= {score["subject"] for score in scores}
    assert_no_word_of_diabetic_retinopathy(out)


def assert_no_word_of_diabetic_retinopathy(out: Path) -> None:
    """No text output of the second disease may name the default label set."""
    texts = [path for path in out.rglob("*") if path.suffix in {".csv", ".json", ".html"} and path.is_file()]
    assert texts
    named = re.compile(r"(?<!diabetic-)retinopathy|microaneurysm|exudate|\bMA\b|\bSE\b")  # but the default's name
    assert {path.relative_to(out) for path in texts if named.search(path.read_text("utf-8"))} == set()


def test_documented_label_set_is_the_file_of_the_example() -> None:
    page = (ROOT / "docs" / "label-sets.md").read_text(encoding="utf-8")
    assert f"```toml\n{(SECOND_DISEASE / 'amd.toml').read_text(encoding='utf-8')}```" in page
