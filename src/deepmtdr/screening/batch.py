"""Many photographs: found in files, folders and globs, each one a report and a row whatever happens (Sec. I)."""

from __future__ import annotations

import csv
import glob
import io
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from deepmtdr.data.folder import SUFFIXES
from deepmtdr.files import write_atomically
from deepmtdr.screening.engine import ScreeningEngine
from deepmtdr.screening.report import CALLED, COLUMNS, ScreeningReport
from deepmtdr.screening.written import write_report

OPENINGS = (b"\xff\xd8\xff", b"\x89PNG", b"II*\x00", b"MM\x00*", b"BM", b"P5", b"P6")
"""First bytes of JPEG, PNG, TIFF, BMP and PNM: photographs under any other name."""

RESULTS = "results.csv"
SAVE_EVERY = 2.0
"""Least time between two writings of `results.csv`, s; what a kill can lose."""


class Found(NamedTuple):
    """One file that was come upon: to be read, or the reason why not."""

    path: Path
    problem: str = ""


class Search(NamedTuple):
    """What was found under the given paths."""

    inputs: list[Found]
    """One row of `results.csv` each; at least one for each given path."""
    left_out: list[Path]
    """Files in given folders that are no photographs by name and content. Hidden files are left out unsaid."""


NO_PHOTOGRAPH = "no photograph by name or content"
"""The problem of a file that came with a folder and is left out."""


def find_photographs(paths: Iterable[Path | str], out: Path | None = None) -> Search:
    """Find the photographs in files, folders (searched through) and globs.

    Args:
        paths: a file named here is always an input, whatever its name; a glob may use `**`.
        out: the folder for results: what lies in it is no input, so that a run can be repeated from the same folder.

    Returns:
        Inputs in the order of the paths, sorted within a folder, each file once.
    """
    search, seen = Search([], []), set()
    for path in (part for given in paths for part in _expanded(Path(given))):
        found = list(_look(path, out))
        search.left_out.extend(file.path for file in found if file.problem == NO_PHOTOGRAPH)
        inputs = [file for file in found if file.problem != NO_PHOTOGRAPH]
        for file in inputs or [Found(path, "no photograph in this folder")]:
            place = file.path.absolute()  # not resolved: two links to one file are two inputs
            if place not in seen:
                seen.add(place)
                search.inputs.append(file)
    return search


def make_results_folder(out: Path) -> None:
    """Create the folder for the results, and try whether it can be written: now, not after an hour.

    Raises:
        OSError: if it cannot.
    """
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / RESULTS, _csv([]))  # an earlier run's rows are not of this one


def grade_all(
    engine: ScreeningEngine, inputs: Sequence[Found], out: Path | None = None, as_lr: int | None = None
) -> Iterator[ScreeningReport]:
    """Grade each input and write its folder; keep `results.csv` up to date on the way.

    Args:
        engine: reads the photographs.
        inputs: from `find_photographs`.
        out: folder for the results; None writes nothing.
        as_lr: as in `ScreeningEngine.read`.

    Returns:
        As `read_all` yields them.
    """

    def read(found: Found, folder: Path | None) -> ScreeningReport:
        problem = found.problem
        report = engine.refuse(found.path, problem) if problem else engine.read(found.path, as_lr)
        if folder is not None:
            write_report(report, folder)
        return report

    return read_all(inputs, out, read, folder_names(found.path for found in inputs))


def read_all(
    inputs: Sequence[Found],
    out: Path | None,
    read: Callable[[Found, Path | None], ScreeningReport],
    names: Iterable[str],
) -> Iterator[ScreeningReport]:
    """Read each input into a folder of its own; keep `results.csv` up to date on the way.

    Args:
        inputs: from `find_photographs`.
        out: folder for the results; None writes nothing.
        read: reads one into its folder, or into none, and never raises for the photograph's sake.
        names: of the folders, one for each input.

    Yields:
        A report for each input, in order, without its pictures: thousands of them fit into memory.

    Raises:
        OSError: if `out` cannot be written.
    """
    table = None
    if out is not None:
        make_results_folder(out)
        table = _Table(out / RESULTS)
    try:
        for found, name in zip(inputs, names, strict=True):
            report = read(found, None if out is None else out / name)
            if table is not None:
                table.add(report.row())
            yield replace(report, pictures=None)
    finally:  # also when the caller stops, or is stopped by Ctrl-C
        if table is not None:
            table.save()


def folder_names(paths: Iterable[Path]) -> list[str]:
    """A folder for each photograph: its name without suffix, and a number where two would be the same.

    Names that differ in case alone count as the same, for file systems that do not tell them apart.
    """
    names, taken = [], {RESULTS}
    for path in paths:
        stem = path.stem.strip(". ") or "photograph"
        name, number = stem, 2
        while name.casefold() in taken:
            name, number = f"{stem}-{number}", number + 1
        taken.add(name.casefold())
        names.append(name)
    return names


class _Table:
    """`results.csv`, rewritten as a whole so that it is whole at any time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[dict[str, Any]] = []
        self.save()

    def add(self, row: dict[str, Any]) -> None:
        """Take a row up; write it soon."""
        self.rows.append(row)
        # A table of 100,000 rows takes a while: spend at most a twentieth of the time on it.
        if time.monotonic() - self.saved > max(SAVE_EVERY, 20 * self.cost):
            self.save()

    def save(self) -> None:
        """Write all rows."""
        started = time.monotonic()
        write_atomically(self.path, _csv(self.rows))
        self.saved = time.monotonic()
        self.cost = self.saved - started


def _csv(rows: Sequence[dict[str, Any]]) -> bytes:
    text = io.StringIO(newline="")
    columns = (*COLUMNS, CALLED) if any(CALLED in row for row in rows) else COLUMNS
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def _expanded(path: Path) -> list[Path]:
    """The path itself, or what a glob stands for where no shell has expanded it."""
    text = os.fspath(path)
    if os.path.lexists(path) or not glob.has_magic(text):
        return [path]
    # Not Path.glob: that has no absolute patterns, and `**` leaves the files out.
    return [Path(match) for match in sorted(glob.glob(text, recursive=True))] or [path]  # noqa: PTH207


def _look(path: Path, out: Path | None) -> Iterator[Found]:
    """A file is itself, a folder what is in it, anything else a problem."""
    try:
        if path.is_dir():
            yield from _walk(path, out)
        elif path.is_file():
            yield Found(path)
        elif path.exists():
            yield Found(path, "neither a file nor a folder")
        elif path.is_symlink():
            yield Found(path, "a link that leads nowhere")
        elif glob.has_magic(os.fspath(path)):
            yield Found(path, "no such file, and no file fits it as a pattern")
        else:
            yield Found(path, "no such file or folder")
    except OSError as error:  # the way there may not be searched, a name may be too long
        yield Found(path, error.strerror or type(error).__name__)


def _walk(folder: Path, out: Path | None) -> Iterator[Found]:
    """The files in a folder and the folders in it; symbolic links are followed, but no folder is entered twice."""
    problems: list[OSError] = []
    entered = {_identity(out)} if out is not None and out.exists() else set()
    if _identity(folder) in entered:
        yield Found(folder, "this is the folder for the results")
    for root, folders, files in os.walk(folder, onerror=problems.append, followlinks=True):
        identity = _identity(Path(root))
        if identity in entered:
            folders.clear()
            continue
        entered.add(identity)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for path in (Path(root, name) for name in sorted(files) if not name.startswith(".")):
            if path.suffix.lower() in SUFFIXES or _opens_as_picture(path):
                yield from _look(path, out)
            else:
                yield Found(path, NO_PHOTOGRAPH)
    for problem in problems:  # a folder that could not be searched may hold photographs: it is not passed over
        yield Found(Path(problem.filename), problem.strerror or "cannot be searched")


def _identity(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_dev, stat.st_ino


def _opens_as_picture(path: Path) -> bool:
    """Whether a file without a photograph's name begins like one; DICOM files often have no suffix at all."""
    if not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            start = file.read(132)
    except OSError:
        return False
    return start.startswith(OPENINGS) or start[128:] == b"DICM"
