"""Atomic writing, hashes, and file names made from names."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from deepmtdr.files import MAX_NAME_BYTES, file_name, file_sha256, printable_path, write_atomically, write_json


def test_write_that_fails_leaves_the_former_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_atomically(tmp_path / "file", b"old")

    def full(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="disk full"):
        write_atomically(tmp_path / "file", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["file"] and (tmp_path / "file").read_bytes() == b"old"


def test_temporary_file_is_new_and_of_a_random_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[tuple[str, int]] = []
    open_file = os.open

    def watched(path: Path, flags: int, mode: int) -> int:
        opened.append((Path(path).name, flags))
        return open_file(path, flags, mode)

    monkeypatch.setattr(os, "open", watched)
    for _ in range(2):
        write_atomically(tmp_path / "file", b"content")
    assert len({name for name, _ in opened}) == 2 and all(flags & os.O_EXCL for _, flags in opened)


def test_written_file_has_the_permissions_of_the_umask(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    write_atomically(tmp_path / "file", b"content")
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_json_is_indented_and_ends_with_a_line_break(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"a": [1, None]})
    assert (tmp_path / "a.json").read_text() == '{\n  "a": [\n    1,\n    null\n  ]\n}\n'


def test_hash_is_sha256_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"bytes")
    assert file_sha256(tmp_path / "a") == hashlib.sha256(b"bytes").hexdigest()


@pytest.mark.parametrize("name", ["a", "IDRiD_01", "å glass", "a.1", "(1) + 2", "x" * MAX_NAME_BYTES])
def test_safe_name_is_its_own_file_name(name: str) -> None:
    assert file_name(name) == name


def test_other_names_get_different_safe_short_file_names() -> None:
    names = ["a/b", "a:b", "a_b", "a\nb", "x" * 300, "x" * 301, "網膜" * 90, "\udcff"]
    files = [file_name(name) for name in names]
    assert len(set(files)) == len(names)
    assert all(len(file.encode()) <= MAX_NAME_BYTES and "/" not in file and file.isprintable() for file in files)


def test_printable_path_is_one_line_of_utf_8() -> None:
    assert printable_path("a\nb\udcff/å") == "a\\nb\\xff/å"
