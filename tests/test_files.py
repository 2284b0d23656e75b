"""Atomic writing, hashes, and file names made from names."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
from pathlib import Path

import pytest

from deepmtdr.files import (
    MAX_NAME_BYTES,
    file_name,
    file_sha256,
    make_folder,
    printable_path,
    same_name_key,
    write_atomically,
    write_json,
)


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

    def watched(path: Path, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_CREAT:
            opened.append((Path(path).name, flags))
        return open_file(path, flags, mode)

    monkeypatch.setattr(os, "open", watched)
    for _ in range(2):
        write_atomically(tmp_path / "file", b"content")
    assert len({name for name, _ in opened}) == 2
    assert all(flags & os.O_EXCL and flags & os.O_NOFOLLOW for _, flags in opened)


def test_planted_link_of_the_temporary_name_is_not_written_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "victim").write_bytes(b"victim")
    (tmp_path / ".guessed.part").symlink_to(tmp_path / "victim")
    monkeypatch.setattr(secrets, "token_hex", lambda _: "guessed")
    with pytest.raises(FileExistsError):
        write_atomically(tmp_path / "file", b"content")
    assert (tmp_path / "victim").read_bytes() == b"victim"


def test_link_at_the_final_name_is_replaced_and_its_target_is_kept(tmp_path: Path) -> None:
    (tmp_path / "victim").write_bytes(b"victim")
    (tmp_path / "file").symlink_to(tmp_path / "victim")
    write_atomically(tmp_path / "file", b"content")
    assert not (tmp_path / "file").is_symlink() and (tmp_path / "victim").read_bytes() == b"victim"


@pytest.mark.parametrize("durable", [True, False])
def test_file_is_flushed_before_and_its_name_after_it_is_renamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, durable: bool
) -> None:
    events: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def watched_fsync(opened: int) -> None:
        events.append("folder" if os.path.samestat(os.fstat(opened), tmp_path.stat()) else "file")
        fsync(opened)

    def watched_replace(path: Path, target: Path) -> Path:
        events.append("rename")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(Path, "replace", watched_replace)
    write_atomically(tmp_path / "file", b"content", durable=durable)
    assert events == (["file", "rename", "folder"] if durable else ["rename"])


def test_folder_that_cannot_be_flushed_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fsync = os.fsync

    def unable(opened: int) -> None:
        if os.path.samestat(os.fstat(opened), tmp_path.stat()):
            raise OSError(errno.EINVAL, "Invalid argument")
        fsync(opened)

    monkeypatch.setattr(os, "fsync", unable)
    write_atomically(tmp_path / "file", b"content")
    assert (tmp_path / "file").read_bytes() == b"content"


def test_full_disk_names_the_file_and_not_the_temporary_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as caught:
        write_atomically(tmp_path / "file", b"content")
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(tmp_path / "file"))
    with pytest.raises(FileNotFoundError) as missing:
        write_atomically(tmp_path / "missing" / "file", b"content")
    assert missing.value.filename == str(tmp_path / "missing" / "file")
    assert list(tmp_path.iterdir()) == []


def test_private_file_and_folder_are_for_their_owner_only(tmp_path: Path) -> None:
    make_folder(tmp_path / "a" / "b", private=True)
    write_json(tmp_path / "a" / "b" / "file", 1, private=True)
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "a" / "b" / "file").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("folder", ["file", "file/a", "file/a/b"])
def test_folder_that_is_a_file_or_in_one_is_named(tmp_path: Path, folder: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match="found a file, expected a folder") as caught:
        make_folder(tmp_path / folder)
    assert caught.value.filename == str(tmp_path / "file")


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


@pytest.mark.parametrize(
    ("one", "other"), [("Eye", "eYE"), ("caf\u00e9", "cafe\u0301"), ("stra\u00dfe", "STRASSE"), ("\u212b", "\u00e5")]
)
def test_names_that_differ_in_case_or_unicode_form_only_have_one_key(one: str, other: str) -> None:
    assert one != other and same_name_key(one) == same_name_key(other)
    assert same_name_key(one) != same_name_key(f"{one}2")


def test_printable_path_is_one_line_of_utf_8() -> None:
    assert printable_path("a\nb\udcff/å") == "a\\nb\\xff/å"
    assert printable_path("a\n\ud800") == "a\\n\\ud800"
