"""Grade many photographs: a folder for each one, and results.csv."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from deepmtdr.labels import DIABETIC_RETINOPATHY, LabelSet
from deepmtdr.screening import results_folder
from deepmtdr.screening.batch import grade_photographs
from deepmtdr.screening.engine import ScreeningEngine
from deepmtdr.screening.inputs import InputFile, find_photographs
from deepmtdr.screening.report import result_columns
from deepmtdr.screening.report_files import picture_files
from deepmtdr.screening.results_folder import FOLDER_COLUMN, SAVE_INTERVAL
from fake_predictor import MACULAR_DEGENERATION, FakePredictor
from tiny_model import save_bad_inputs, save_photograph


@pytest.fixture(scope="module")
def engine() -> ScreeningEngine:
    return ScreeningEngine(FakePredictor())


def rows_of(out: Path) -> list[dict[str, str]]:
    with (out / "results.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def table_columns(labels: LabelSet) -> tuple[str, ...]:
    path, *others = result_columns(labels)
    return (path, FOLDER_COLUMN, *others)


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_each_input_has_a_row_and_bad_ones_do_not_stop_the_others(engine: ScreeningEngine, tmp_path: Path) -> None:
    expected = save_bad_inputs(tmp_path / "in" / "bad")
    good = [save_photograph(tmp_path / "in" / folder / "eye.png") for folder in ("a", "z")]
    (tmp_path / "empty").mkdir()
    inputs, _ = find_photographs([tmp_path / "in", tmp_path / "empty", tmp_path / "missing.jpg"])
    out = tmp_path / "out"
    reports = list(grade_photographs(engine, inputs, out))
    rows = {row["path"]: row for row in rows_of(out)}
    statuses = {str(tmp_path / "in" / "bad" / name): status for name, status in expected.items()}
    # The truncated file is the beginning of whole.jpg.
    statuses |= {str(path): "ok" for path in (*good, tmp_path / "in" / "whole.jpg")}
    statuses |= {str(tmp_path / "empty"): "error", str(tmp_path / "missing.jpg"): "error"}
    assert {path: row["status"] for path, row in rows.items()} == statuses
    assert len(reports) == len(inputs) == len(rows_of(out)) == len(statuses)
    for path, row in rows.items():
        assert tuple(row) == table_columns(DIABETIC_RETINOPATHY)
        assert (out / row[FOLDER_COLUMN] / "report.json").exists()
        assert (row["message"] == "") == (row["status"] == "ok")
        assert row["status"] == "ok" or path in row["message"]
        assert (row["grade"] == "") == (row["status"] != "ok")


def test_each_photograph_has_its_own_folder(engine: ScreeningEngine, tmp_path: Path) -> None:
    paths = [save_photograph(tmp_path / folder / "eye.png", side) for folder, side in (("a", 200), ("b", 260))]
    list(grade_photographs(engine, [InputFile(path) for path in paths], tmp_path / "out"))
    for path, folder in zip(paths, ("eye", "eye-2"), strict=True):
        assert {file.name for file in (tmp_path / "out" / folder).iterdir()} == {
            *picture_files(DIABETIC_RETINOPATHY),
            "report.json",
        }
        assert json.loads((tmp_path / "out" / folder / "report.json").read_text())["path"] == str(path)


def test_results_are_saved_during_the_run(
    engine: ScreeningEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(results_folder, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    written = []
    inputs = [InputFile(Path(f"{n}.png"), "no such file or folder") for n in range(4)]
    for _ in grade_photographs(engine, inputs, tmp_path / "out"):
        written.append(len(rows_of(tmp_path / "out")))
        clock[0] += 0.6 * SAVE_INTERVAL
    assert written == [0, 0, 3, 3]  # a killed run loses the rows of SAVE_INTERVAL seconds
    assert len(rows_of(tmp_path / "out")) == 4


def test_results_before_a_stop_are_kept(engine: ScreeningEngine, tmp_path: Path) -> None:
    touch(*(inputs := [tmp_path / f"{n}.png" for n in range(3)]))
    running: Iterator[Any] = grade_photographs(engine, [InputFile(path) for path in inputs], tmp_path / "out")
    next(running)
    running.close()  # type: ignore[attr-defined]
    assert [row["path"] for row in rows_of(tmp_path / "out")] == [str(inputs[0])]


def test_without_a_results_folder_nothing_is_written(engine: ScreeningEngine, tmp_path: Path) -> None:
    path = save_photograph(tmp_path / "eye.png")
    (report,) = grade_photographs(engine, [InputFile(path)])
    assert report.status == "ok" and report.pictures is None
    assert list(tmp_path.iterdir()) == [path]


def test_a_results_folder_that_cannot_be_written_is_an_early_error(engine: ScreeningEngine, tmp_path: Path) -> None:
    touch(tmp_path / "file")
    with pytest.raises(OSError, match="file"):
        next(iter(grade_photographs(engine, [InputFile(Path("a.png"))], tmp_path / "file" / "out")))


def test_columns_are_those_of_the_engines_labels(tmp_path: Path) -> None:
    engine, path = ScreeningEngine(FakePredictor(MACULAR_DEGENERATION)), save_photograph(tmp_path / "eye.png")
    list(grade_photographs(engine, [InputFile(path)], tmp_path / "out"))
    (row,) = rows_of(tmp_path / "out")
    assert tuple(row) == table_columns(MACULAR_DEGENERATION)
    assert (row["grade_name"], row["count_DR"], row["count_GA"]) == ("late", "1", "0")
    assert (tmp_path / "out" / "eye" / "lesion_GA.png").exists()
