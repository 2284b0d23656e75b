from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from deepmtdr.screening import batch
from deepmtdr.screening.batch import InputFile, find_photographs, grade_photographs, unique_folder_names
from deepmtdr.screening.engine import ScreeningEngine
from deepmtdr.screening.report import RESULT_COLUMNS
from deepmtdr.screening.report_files import PICTURE_FILES
from tiny_model import save_bad_inputs, save_photograph, save_tiny_weights


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> ScreeningEngine:
    return ScreeningEngine.load(save_tiny_weights(tmp_path_factory.mktemp("weights") / "tiny.safetensors"))


def rows_of(out: Path) -> list[dict[str, str]]:
    with (out / "results.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def names(inputs: list[InputFile]) -> list[str]:
    return [found.path.name for found in inputs]


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


# --- Finding ---


def test_folders_are_searched_through_and_hidden_files_left_out(tmp_path: Path) -> None:
    touch(*(tmp_path / name for name in ("b.JPG", "a/c.png", ".hidden.png", ".git/d.png", "._b.JPG")))
    inputs, skipped = find_photographs([tmp_path])
    assert names(inputs) == ["b.JPG", "c.png"]
    assert skipped == []


def test_a_file_in_a_folder_that_is_no_photograph_is_left_out_but_said(tmp_path: Path) -> None:
    touch(tmp_path / "eye.png", tmp_path / "labels.csv")
    inputs, skipped = find_photographs([tmp_path])
    assert names(inputs) == ["eye.png"]
    assert skipped == [tmp_path / "labels.csv"]


def test_a_photograph_without_a_photographs_name_is_found_by_its_content(tmp_path: Path) -> None:
    (tmp_path / "IM000001").write_bytes(bytes(128) + b"DICM")
    (tmp_path / "scan.dat").write_bytes(save_photograph(tmp_path / "x" / "eye.jpg").read_bytes())
    assert names(find_photographs([tmp_path]).inputs) == ["IM000001", "scan.dat", "eye.jpg"]


def test_a_file_that_is_named_is_an_input_whatever_its_name(tmp_path: Path) -> None:
    touch(tmp_path / "labels.csv", tmp_path / ".hidden.png")
    inputs, _ = find_photographs([tmp_path / "labels.csv", tmp_path / ".hidden.png"])
    assert inputs == [InputFile(tmp_path / "labels.csv"), InputFile(tmp_path / ".hidden.png")]


def test_globs_are_expanded_where_no_shell_did(tmp_path: Path) -> None:
    touch(tmp_path / "a" / "1.png", tmp_path / "a" / "b" / "2.png", tmp_path / "a" / "3.txt")
    assert names(find_photographs([f"{tmp_path}/**/*.png"]).inputs) == ["1.png", "2.png"]


def test_a_file_whose_name_looks_like_a_glob_is_itself(tmp_path: Path) -> None:
    touch(tmp_path / "eye[1].png")
    assert find_photographs([tmp_path / "eye[1].png"]).inputs == [InputFile(tmp_path / "eye[1].png")]


def test_a_loop_of_links_is_walked_once(tmp_path: Path) -> None:
    touch(tmp_path / "a" / "eye.png")
    (tmp_path / "a" / "up").symlink_to(tmp_path, target_is_directory=True)
    assert names(find_photographs([tmp_path]).inputs) == ["eye.png"]


def test_a_file_given_twice_is_one_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path / "eye.png")
    monkeypatch.chdir(tmp_path)
    assert len(find_photographs(["eye.png", tmp_path, tmp_path / "eye.png"]).inputs) == 1


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("missing.png", "no such file or folder"),
        ("empty", "no photograph in this folder"),
        ("texts", "no photograph in this folder"),
        ("*.none", "no file fits"),
        ("pipe.png", "neither a file nor a folder"),
        ("nowhere.png", "leads nowhere"),
        ("x" * 300, "name too long"),
    ],
)
def test_every_given_path_is_a_row_even_if_nothing_is_there(tmp_path: Path, given: str, reason: str) -> None:
    (tmp_path / "empty").mkdir()
    touch(tmp_path / "texts" / "notes.txt")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "nowhere.png").symlink_to("gone.png")
    inputs, _ = find_photographs([tmp_path / given])
    assert [found.path for found in inputs] == [tmp_path / given]
    assert reason in inputs[0].problem or reason in inputs[0].problem.lower()


def test_a_folder_that_may_not_be_searched_is_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path / "eye.png", tmp_path / "locked" / "eye.png")
    scandir = os.scandir

    def refuse(path: Any) -> Any:
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    inputs, _ = find_photographs([tmp_path])
    assert inputs == [InputFile(tmp_path / "eye.png"), InputFile(tmp_path / "locked", "Permission denied")]


def test_results_of_an_earlier_run_are_no_input(tmp_path: Path) -> None:
    touch(tmp_path / "eye.png", tmp_path / "out" / "eye" / "sr.png")
    assert names(find_photographs([tmp_path], tmp_path / "out").inputs) == ["eye.png"]
    (refused,) = find_photographs([tmp_path / "out"], tmp_path / "out").inputs
    assert "folder for the results" in refused.problem


def test_folders_of_photographs_do_not_collide() -> None:
    paths = [Path(p) for p in ("a/eye.png", "b/eye.png", "b/EYE.jpg", "eye-2.png", "results.csv.png", "..png", ".png")]
    given = unique_folder_names(paths)
    assert len({name.casefold() for name in given}) == len(paths)
    assert given[:2] == ["eye", "eye-2"]
    assert not {".", "..", "", "results.csv"}.intersection(given)


# --- Grading ---


def test_one_bad_batch_gives_a_row_for_each_input_and_the_others_are_done(
    engine: ScreeningEngine, tmp_path: Path
) -> None:
    expected = save_bad_inputs(tmp_path / "in" / "bad")
    good = [save_photograph(tmp_path / "in" / folder / "eye.png") for folder in ("a", "z")]
    (tmp_path / "empty").mkdir()
    inputs, _ = find_photographs([tmp_path / "in", tmp_path / "empty", tmp_path / "missing.jpg"])
    out = tmp_path / "out"
    reports = list(grade_photographs(engine, inputs, out))
    rows = {row["path"]: row for row in rows_of(out)}
    statuses = {str(tmp_path / "in" / "bad" / name): status for name, status in expected.items()}
    # whole.jpg lies beside the bad ones: it is what the truncated file was cut from.
    statuses |= {str(path): "ok" for path in (*good, tmp_path / "in" / "whole.jpg")}
    statuses |= {str(tmp_path / "empty"): "error", str(tmp_path / "missing.jpg"): "error"}
    assert {path: row["status"] for path, row in rows.items()} == statuses
    assert len(reports) == len(inputs) == len(rows_of(out)) == len(statuses)
    for path, row in rows.items():
        assert tuple(row) == RESULT_COLUMNS
        assert (row["message"] == "") == (row["status"] == "ok")
        assert row["status"] == "ok" or path in row["message"]
        assert (row["grade"] == "") == (row["status"] != "ok")


def test_each_photograph_has_its_own_folder(engine: ScreeningEngine, tmp_path: Path) -> None:
    paths = [save_photograph(tmp_path / folder / "eye.png", side) for folder, side in (("a", 200), ("b", 260))]
    list(grade_photographs(engine, [InputFile(path) for path in paths], tmp_path / "out"))
    for path, folder in zip(paths, ("eye", "eye-2"), strict=True):
        assert {file.name for file in (tmp_path / "out" / folder).iterdir()} == {*PICTURE_FILES, "report.json"}
        assert json.loads((tmp_path / "out" / folder / "report.json").read_text())["path"] == str(path)


def test_results_are_kept_up_to_date_on_the_way(
    engine: ScreeningEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(batch, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    written = []
    inputs = [InputFile(Path(f"{n}.png"), "no such file or folder") for n in range(4)]
    for _ in grade_photographs(engine, inputs, tmp_path / "out"):
        written.append(len(rows_of(tmp_path / "out")))
        clock[0] += 0.6 * batch.SAVE_INTERVAL
    assert written == [0, 0, 3, 3]  # a kill loses the rows of SAVE_INTERVAL seconds, not of the night
    assert len(rows_of(tmp_path / "out")) == 4


def test_what_was_done_before_a_stop_is_kept(engine: ScreeningEngine, tmp_path: Path) -> None:
    touch(*(inputs := [tmp_path / f"{n}.png" for n in range(3)]))
    running: Iterator[Any] = grade_photographs(engine, [InputFile(path) for path in inputs], tmp_path / "out")
    next(running)
    running.close()  # type: ignore[attr-defined]
    assert [row["path"] for row in rows_of(tmp_path / "out")] == [str(inputs[0])]


def test_rows_of_an_earlier_run_do_not_stay(engine: ScreeningEngine, tmp_path: Path) -> None:
    for given in (["a.png", "b.png"], ["c.png"]):
        list(
            grade_photographs(
                engine, [InputFile(Path(name), "no such file or folder") for name in given], tmp_path / "out"
            )
        )
    assert [row["path"] for row in rows_of(tmp_path / "out")] == ["c.png"]


def test_without_a_folder_nothing_is_written_and_no_pictures_are_kept(engine: ScreeningEngine, tmp_path: Path) -> None:
    path = save_photograph(tmp_path / "eye.png")
    (report,) = grade_photographs(engine, [InputFile(path)])
    assert report.status == "ok" and report.pictures is None
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_written_is_known_at_once(engine: ScreeningEngine, tmp_path: Path) -> None:
    touch(tmp_path / "file")
    with pytest.raises(OSError, match="file"):
        next(iter(grade_photographs(engine, [InputFile(Path("a.png"))], tmp_path / "file" / "out")))
