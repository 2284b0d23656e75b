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

from deepmtdr.datasets.folder import READABLE_SUFFIXES
from deepmtdr.files import write_atomically
from deepmtdr.screening.engine import ScreeningEngine
from deepmtdr.screening.report import REFERABLE_COLUMN, RESULT_COLUMNS, ScreeningReport
from deepmtdr.screening.report_files import save_report

FILE_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG", b"II*\x00", b"MM\x00*", b"BM", b"P5", b"P6")
"""First bytes of JPEG, PNG, TIFF, BMP and PNM: photographs under any other name."""

RESULTS_CSV = "results.csv"
SAVE_INTERVAL = 2.0
"""Least time between two writings of `results.csv`, s; what a kill can lose."""


class InputFile(NamedTuple):
    """One file that was come upon: to be read, or the reason why not."""

    path: Path
    problem: str = ""


class FoundInputs(NamedTuple):
    """What was found under the given paths."""

    inputs: list[InputFile]
    """One row of `results.csv` each; at least one for each given path."""
    skipped: list[Path]
    """Files in given folders that are no photographs by name and content. Hidden files are left out unsaid."""


NOT_A_PHOTOGRAPH = "no photograph by name or content"
"""The problem of a file that came with a folder and is left out."""


def find_photographs(paths: Iterable[Path | str], out: Path | None = None) -> FoundInputs:
    """Find the photographs in files, folders (searched through) and globs.

    Args:
        paths: a file named here is always an input, whatever its name; a glob may use `**`.
        out: the folder for results: what lies in it is no input, so that a run can be repeated from the same folder.

    Returns:
        Inputs in the order of the paths, sorted within a folder, each file once.
    """
    search, seen = FoundInputs([], []), set()
    for path in (part for given in paths for part in _expanded(Path(given))):
        found = list(_look(path, out))
        search.skipped.extend(file.path for file in found if file.problem == NOT_A_PHOTOGRAPH)
        inputs = [file for file in found if file.problem != NOT_A_PHOTOGRAPH]
        for file in inputs or [InputFile(path, "no photograph in this folder")]:
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
    write_atomically(out / RESULTS_CSV, _csv([]))  # an earlier run's rows are not of this one


def grade_photographs(
    engine: ScreeningEngine, inputs: Sequence[InputFile], out: Path | None = None, as_lr: int | None = None
) -> Iterator[ScreeningReport]:
    """Grade each input and write its folder; keep `results.csv` up to date on the way.

    Args:
        engine: reads the photographs.
        inputs: from `find_photographs`.
        out: folder for the results; None writes nothing.
        as_lr: as in `ScreeningEngine.predict`.

    Returns:
        As `process_inputs` yields them.
    """

    def read(found: InputFile, folder: Path | None) -> ScreeningReport:
        problem = found.problem
        report = engine.report_failure(found.path, problem) if problem else engine.predict(found.path, as_lr)
        if folder is not None:
            save_report(report, folder)
        return report

    return process_inputs(inputs, out, read, unique_folder_names(found.path for found in inputs))


def process_inputs(
    inputs: Sequence[InputFile],
    out: Path | None,
    read: Callable[[InputFile, Path | None], ScreeningReport],
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
        table = _Table(out / RESULTS_CSV)
    try:
        for found, name in zip(inputs, names, strict=True):
            report = read(found, None if out is None else out / name)
            if table is not None:
                table.add(report.row())
            yield replace(report, pictures=None)
    finally:  # also when the caller stops, or is stopped by Ctrl-C
        if table is not None:
            table.save()


def unique_folder_names(paths: Iterable[Path]) -> list[str]:
    """A folder for each photograph: its name without suffix, and a number where two would be the same.

    Names that differ in case alone count as the same, for file systems that do not tell them apart.
    """
    names, taken = [], {RESULTS_CSV}
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
        if time.monotonic() - self.saved > max(SAVE_INTERVAL, 20 * self.cost):
            self.save()

    def save(self) -> None:
        """Write all rows."""
        started = time.monotonic()
        write_atomically(self.path, _csv(self.rows))
        self.saved = time.monotonic()
        self.cost = self.saved - started


def _csv(rows: Sequence[dict[str, Any]]) -> bytes:
    text = io.StringIO(newline="")
    columns = (*RESULT_COLUMNS, REFERABLE_COLUMN) if any(REFERABLE_COLUMN in row for row in rows) else RESULT_COLUMNS
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


def _look(path: Path, out: Path | None) -> Iterator[InputFile]:
    """A file is itself, a folder what is in it, anything else a problem."""
    try:
        if path.is_dir():
            yield from _walk(path, out)
        elif path.is_file():
            yield InputFile(path)
        elif path.exists():
            yield InputFile(path, "neither a file nor a folder")
        elif path.is_symlink():
            yield InputFile(path, "a link that leads nowhere")
        elif glob.has_magic(os.fspath(path)):
            yield InputFile(path, "no such file, and no file fits it as a pattern")
        else:
            yield InputFile(path, "no such file or folder")
    except OSError as error:  # the way there may not be searched, a name may be too long
        yield InputFile(path, error.strerror or type(error).__name__)


def _walk(folder: Path, out: Path | None) -> Iterator[InputFile]:
    """The files in a folder and the folders in it; symbolic links are followed, but no folder is entered twice."""
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
            if path.suffix.lower() in READABLE_SUFFIXES or _opens_as_picture(path):
                yield from _look(path, out)
            else:
                yield InputFile(path, NOT_A_PHOTOGRAPH)
    for problem in problems:  # a folder that could not be searched may hold photographs: it is not passed over
        yield InputFile(Path(problem.filename), problem.strerror or "cannot be searched")


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
    return start.startswith(FILE_SIGNATURES) or start[128:] == b"DICM"
