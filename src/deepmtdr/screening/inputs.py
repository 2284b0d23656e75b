"""Find the photographs in files, folders and glob patterns."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from deepmtdr.files import printable_path, write_atomically
from deepmtdr.photographs.formats import READABLE_SUFFIXES, SIGNATURE_BYTES, UNREADABLE_SUFFIXES, name_format


class InputFile(NamedTuple):
    """A file to be graded, or the reason why it cannot be."""

    path: Path
    problem: str = ""


class FoundInputs(NamedTuple):
    """What was found under the given paths."""

    inputs: list[InputFile]
    """The inputs: a row of `results.csv` for each; at least one input for each given path."""
    skipped: list[Path]
    """Files in given folders that are no pictures by name and content, without hidden files."""


NOT_A_PHOTOGRAPH = "no photograph by name or content"
"""The problem of a file in a folder that is skipped."""
SKIPPED_FILE = "skipped.txt"
"""File in the results folder: the skipped files, one a line."""


def find_photographs(paths: Iterable[Path | str], out: Path | None = None) -> FoundInputs:
    """Find the photographs in files, folders (with their subfolders) and glob patterns.

    Args:
        paths: a file given here is always an input, whatever its name. A pattern may use `**`.
        out: the results folder; files in it are no inputs, so that a run can be repeated from the same folder.

    Returns:
        The inputs in the order of the paths, sorted within a folder, each file once.
    """
    found_inputs, known = FoundInputs([], []), set()
    for path in (part for given in paths for part in _expand_pattern(Path(given))):
        files = list(_files_of(path, out))
        found_inputs.skipped.extend(file.path for file in files if file.problem == NOT_A_PHOTOGRAPH)
        inputs = [file for file in files if file.problem != NOT_A_PHOTOGRAPH]
        for file in inputs or [InputFile(path, "no photograph in this folder")]:
            place = file.path.absolute()  # links are not resolved: two links to one file are two inputs
            if place not in known:
                known.add(place)
                found_inputs.inputs.append(file)
    return found_inputs


def write_skipped(skipped: Sequence[Path], out: Path) -> None:
    """Write the list of skipped files, `SKIPPED_FILE`; without such files an earlier list is removed.

    Args:
        skipped: from `find_photographs`.
        out: the results folder.

    Raises:
        OSError: if it cannot be written.
    """
    if skipped:
        lines = (f"{printable_path(path)}\n" for path in skipped)
        write_atomically(out / SKIPPED_FILE, "".join(lines).encode())
    else:
        (out / SKIPPED_FILE).unlink(missing_ok=True)


def _expand_pattern(path: Path) -> list[Path]:
    """The path itself, or the matches of a glob pattern that the shell has not expanded."""
    text = os.fspath(path)
    if os.path.lexists(path) or not glob.has_magic(text):
        return [path]
    # Not Path.glob, which takes no absolute patterns and whose `**` matches folders only.
    return [Path(match) for match in sorted(glob.glob(text, recursive=True))] or [path]  # noqa: PTH207


def _files_of(path: Path, out: Path | None) -> Iterator[InputFile]:
    """The file itself, or the files in a folder; anything else is an input with a problem."""
    try:
        if path.is_dir():
            yield from _walk(path, out)
        elif path.is_file():
            yield InputFile(path)
        elif path.exists():
            yield InputFile(path, "neither a file nor a folder")
        elif path.is_symlink():
            yield InputFile(path, "a link to a file that does not exist")
        elif glob.has_magic(os.fspath(path)):
            yield InputFile(path, "no such file, and no file matches it as a pattern")
        else:
            yield InputFile(path, "no such file or folder")
    except OSError as error:  # a parent folder without permission, a name that is too long
        yield InputFile(path, error.strerror or type(error).__name__)


def _walk(folder: Path, out: Path | None) -> Iterator[InputFile]:
    """The files in a folder and its subfolders. Symbolic links are followed, but no folder is entered twice."""
    problems: list[OSError] = []
    entered = {_identity(out)} if out is not None and out.exists() else set()
    if _identity(folder) in entered:
        yield InputFile(folder, "this is the folder for the results")
    for root, folders, files in os.walk(folder, onerror=problems.append, followlinks=True):
        identity = _identity(Path(root))
        if identity in entered:
            folders.clear()
            continue
        entered.add(identity)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for path in (Path(root, name) for name in sorted(files) if not name.startswith(".")):
            if path.suffix.lower() in READABLE_SUFFIXES | UNREADABLE_SUFFIXES or _begins_like_a_picture(path):
                yield from _files_of(path, out)
            else:
                yield InputFile(path, NOT_A_PHOTOGRAPH)
    for problem in problems:  # an unreadable folder may contain photographs: it gets a row, too
        yield InputFile(Path(problem.filename), problem.strerror or "cannot be searched")


def _identity(path: Path) -> tuple[int, int]:
    """Device and inode number: the same for every path to one folder."""
    stat = path.stat()
    return stat.st_dev, stat.st_ino


def _begins_like_a_picture(path: Path) -> bool:
    """Whether a file begins like a picture, also of a format that cannot be read; DICOM files often have no suffix."""
    if not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            return name_format(file.read(SIGNATURE_BYTES)) is not None
    except OSError:
        return False
