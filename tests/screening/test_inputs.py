"""Find photographs in files, folders and glob patterns."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from deepmtdr.screening.inputs import InputFile, find_photographs, write_skipped
from tiny_model import save_photograph


def names(inputs: list[InputFile]) -> list[str]:
    return [found.path.name for found in inputs]


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_folders_are_searched_and_hidden_files_ignored(tmp_path: Path) -> None:
    touch(*(tmp_path / name for name in ("b.JPG", "a/c.png", ".hidden.png", ".git/d.png", "._b.JPG")))
    inputs, skipped = find_photographs([tmp_path])
    assert names(inputs) == ["b.JPG", "c.png"]
    assert skipped == []


def test_other_files_in_a_folder_are_skipped_and_listed(tmp_path: Path) -> None:
    touch(tmp_path / "eye.png", tmp_path / "labels.csv")
    inputs, skipped = find_photographs([tmp_path])
    assert names(inputs) == ["eye.png"]
    assert skipped == [tmp_path / "labels.csv"]


def test_a_photograph_with_another_file_name_is_found_by_its_content(tmp_path: Path) -> None:
    (tmp_path / "IM000001").write_bytes(bytes(128) + b"DICM")
    (tmp_path / "scan.dat").write_bytes(save_photograph(tmp_path / "x" / "eye.jpg").read_bytes())
    assert names(find_photographs([tmp_path]).inputs) == ["IM000001", "scan.dat", "eye.jpg"]


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("a.HEIC", b""),
        ("a.jxl", b""),
        ("a.gif", b""),
        ("a.webp", b""),
        ("a.avif", b""),
        ("a.jp2", b""),
        ("a.nef", b""),
        ("export1", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"),
        ("export2", b"\0\0\0\x18ftypmif1\0\0\0\0miafavif"),
        ("export3", b"GIF89a"),
        ("export4", b"\xff\x0a\xfa"),
        ("export5", b"RIFF\0\0\0\0WEBPVP8 "),
        ("export6", b"\0\0\0\x0cjP  \r\n\x87\n"),
        ("export7", b"MM\0+\0\x08"),
        ("export8", b"8BPS\0\x01"),
    ],
)
def test_no_picture_in_a_folder_is_dropped_whatever_its_format(tmp_path: Path, name: str, start: bytes) -> None:
    (tmp_path / name).write_bytes(start)
    inputs, skipped = find_photographs([tmp_path])
    assert (names(inputs), skipped) == ([name], [])


@pytest.mark.parametrize(
    "start", [b"", b"id,grade\n", b"%PDF-1.7", b"\0\0\0\x18ftypisom\0\0\0\0mp42", b"RIFF\0\0\0\0WAVE"]
)
def test_files_that_are_no_pictures_are_listed_in_a_file(tmp_path: Path, start: bytes) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "export").write_bytes(start)
    _, skipped = find_photographs([tmp_path / "in"])
    write_skipped(skipped, tmp_path)
    assert (tmp_path / "skipped.txt").read_text() == f"{tmp_path / 'in' / 'export'}\n"
    write_skipped([], tmp_path)
    assert not (tmp_path / "skipped.txt").exists()


def test_a_given_file_is_an_input_under_any_name(tmp_path: Path) -> None:
    touch(tmp_path / "labels.csv", tmp_path / ".hidden.png")
    inputs, _ = find_photographs([tmp_path / "labels.csv", tmp_path / ".hidden.png"])
    assert inputs == [InputFile(tmp_path / "labels.csv"), InputFile(tmp_path / ".hidden.png")]


def test_glob_patterns_are_expanded(tmp_path: Path) -> None:
    touch(tmp_path / "a" / "1.png", tmp_path / "a" / "b" / "2.png", tmp_path / "a" / "3.txt")
    assert names(find_photographs([f"{tmp_path}/**/*.png"]).inputs) == ["1.png", "2.png"]


def test_an_existing_file_whose_name_looks_like_a_pattern_is_that_file(tmp_path: Path) -> None:
    touch(tmp_path / "eye[1].png")
    assert find_photographs([tmp_path / "eye[1].png"]).inputs == [InputFile(tmp_path / "eye[1].png")]


def test_a_loop_of_links_is_searched_once(tmp_path: Path) -> None:
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
        ("*.none", "no file matches"),
        ("pipe.png", "neither a file nor a folder"),
        ("nowhere.png", "does not exist"),
        ("x" * 300, "name too long"),
    ],
)
def test_each_given_path_is_an_input_even_if_nothing_is_there(tmp_path: Path, given: str, reason: str) -> None:
    (tmp_path / "empty").mkdir()
    touch(tmp_path / "texts" / "notes.txt")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "nowhere.png").symlink_to("gone.png")
    inputs, _ = find_photographs([tmp_path / given])
    assert [found.path for found in inputs] == [tmp_path / given]
    assert reason in inputs[0].problem or reason in inputs[0].problem.lower()


def test_a_folder_without_permission_is_an_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path / "eye.png", tmp_path / "locked" / "eye.png")
    scandir = os.scandir

    def refuse(path: Any) -> Any:
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    inputs, _ = find_photographs([tmp_path])
    assert inputs == [InputFile(tmp_path / "eye.png"), InputFile(tmp_path / "locked", "Permission denied")]


def test_results_of_an_earlier_run_are_no_inputs(tmp_path: Path) -> None:
    touch(tmp_path / "eye.png", tmp_path / "out" / "eye" / "sr.png")
    assert names(find_photographs([tmp_path], tmp_path / "out").inputs) == ["eye.png"]
    (refused,) = find_photographs([tmp_path / "out"], tmp_path / "out").inputs
    assert "folder for the results" in refused.problem
