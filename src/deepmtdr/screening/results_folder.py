"""The results folder of `grade` and `dicom`: one run at a time, and no results of two runs mixed.

    results.csv     a row for each photograph; its column `folder` names the photograph's folder
    run.json        weights and settings of the run
    .lock           locked while a run writes into the folder

Patients may be in these files: only their owner can read them.
"""

from __future__ import annotations

import contextlib
import errno
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from deepmtdr.csv_tables import format_table, read_column_names, read_table
from deepmtdr.errors import DataError, ResultsError
from deepmtdr.files import (
    PRIVATE_FILE_MODE,
    file_sha256,
    make_folder,
    printable_path,
    same_name_key,
    shorten_name,
    write_atomically,
    write_json,
)
from deepmtdr.labels import LabelSet
from deepmtdr.screening.inputs import SKIPPED_FILE
from deepmtdr.screening.report import REFERABLE_COLUMN, result_columns
from deepmtdr.screening.report_files import REPORT_FILE
from deepmtdr.toml_config import parse_json

RESULTS_CSV, RUN_FILE, LOCK_NAME = "results.csv", "run.json", ".lock"
FOLDER_COLUMN = "folder"
"""Column of `results.csv`: name of the photograph's folder in the results folder."""
SAVE_INTERVAL = 2.0
"""Shortest time between two writings of `results.csv`, s. A run that is killed loses the rows of this time."""
MAX_FOLDER_BYTES = 240
"""Longest folder name; longer ones are shortened. With a number added they stay within the usual limit of 255."""

_NEEDED = ("path", FOLDER_COLUMN, "sha256", "status")
"""Columns by which an earlier run is resumed."""

Row = Mapping[str, Any]
"""A row of `results.csv` by column; the cells of an earlier run are text."""
RunSettings = Mapping[str, str | int | bool | None]
"""The command, the weights, and every setting that changes results."""


class ExistingResults(StrEnum):
    """What to do with a results folder that has results of an earlier run."""

    REFUSE = "refuse"
    """Raise an error, and change nothing."""
    RESUME = "resume"
    """Keep the results, which must be of the same weights and settings, and do what is not done."""
    OVERWRITE = "overwrite"
    """Remove the results first."""


class ResultsFolder:
    """A results folder that this run has locked; `open_results` makes one."""

    def __init__(self, path: Path, labels: LabelSet, rows: Iterable[Row] = ()) -> None:
        """Use a folder.

        Args:
            path: the folder.
            labels: lesion types and grades, which name the columns.
            rows: rows of an earlier run that are kept.
        """
        self.path, self._labels = path, labels
        self._rows: dict[str, Row] = {str(row[FOLDER_COLUMN]): row for row in rows}
        self._earlier = dict(self._rows)
        self.save()

    def folder_names(self, paths: Sequence[Path]) -> list[str]:
        """A folder name for each photograph: that of its earlier row, or a new one (`unique_folder_names`)."""
        known = {row["path"]: name for name, row in self._earlier.items()}
        kept = [known.pop(printable_path(path).strip(), None) for path in paths]
        new = (path for path, name in zip(paths, kept, strict=True) if name is None)
        names = iter(unique_folder_names(new, taken=self._rows))
        return [next(names) if name is None else name for name in kept]

    def finished(self, folder: str, photograph: Path) -> bool:
        """Whether an earlier run has graded a photograph, or found it ungradable, and its file has not changed.

        Args:
            folder: name of the photograph's folder.
            photograph: its file.

        Raises:
            OSError: if the file cannot be read.
        """
        row = self._earlier.get(folder)
        if row is None or row["status"] not in ("ok", "ungradable") or row["sha256"] != file_sha256(photograph):
            return False
        return (self.path / folder / REPORT_FILE).is_file()

    def add(self, folder: str, row: Row) -> None:
        """Add a photograph's row, or replace that of an earlier run; it is written within a few seconds."""
        self._rows[folder] = {**row, FOLDER_COLUMN: folder}
        # Writing 100,000 rows takes a while: spend at most a twentieth of the time on it.
        if time.monotonic() - self._saved_at > max(SAVE_INTERVAL, 20 * self._duration):
            self.save()

    def save(self) -> None:
        """Write all rows, in one step.

        Raises:
            OSError: if `results.csv` cannot be written.
        """
        started = time.monotonic()
        rows = self._rows.values()
        path, *others = result_columns(self._labels)
        referable = (REFERABLE_COLUMN,) if any(row.get(REFERABLE_COLUMN) not in (None, "") for row in rows) else ()
        columns = (path, FOLDER_COLUMN, *others, *referable)
        table = format_table([columns, *([row.get(column) for column in columns] for row in rows)])
        write_atomically(self.path / RESULTS_CSV, table.encode(), private=True)
        self._saved_at = time.monotonic()
        self._duration = self._saved_at - started


@contextlib.contextmanager
def open_results(
    path: Path,
    labels: LabelSet,
    settings: RunSettings,
    existing: ExistingResults,
    remove_files: Callable[[Path], None],
) -> Iterator[ResultsFolder]:
    """Context manager that locks a results folder for a run; `results.csv` is complete when it ends, also by an error.

    Args:
        path: the folder; created if it does not exist.
        labels: lesion types and grades of the weights.
        settings: written to `run.json`; results that are resumed must have the same.
        existing: what to do with results of an earlier run.
        remove_files: removes the files that a run has written into a photograph's folder.

    Raises:
        ResultsError: if another run is writing into the folder, or it has results that may not be kept or replaced.
        DataError: if `results.csv` of a run that is resumed is damaged.
        OSError: if it cannot be written.
    """
    make_folder(path, private=True)
    with _lock(path):
        rows = _rows_to_keep(path, settings, existing, remove_files)
        write_json(path / RUN_FILE, dict(settings), private=True)
        results = ResultsFolder(path, labels, rows)
        try:
            yield results
        except BaseException as error:  # also Ctrl-C, and a caller who stops early
            with contextlib.suppress(OSError):  # the first error is the one to report
                results.save()
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                advice = f"{error.strerror}; results so far are kept: free disk space and go on with --resume"
                raise OSError(error.errno, advice, error.filename) from error
            raise
        results.save()


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    try:
        with FileLock(path / LOCK_NAME, timeout=0, mode=PRIVATE_FILE_MODE):
            yield
    except Timeout:
        raise ResultsError(
            f"{printable_path(path)}: found another run that writes into this folder; wait for its end, or choose "
            "another --out"
        ) from None


def _rows_to_keep(
    path: Path, settings: RunSettings, existing: ExistingResults, remove_files: Callable[[Path], None]
) -> list[Row]:
    """Rows of an earlier run that stay. The folders of all others are removed."""
    rows: list[Row] = []
    try:
        rows = _read_rows(path / RESULTS_CSV)
        if not rows and not any(path.glob(f"*/{REPORT_FILE}")):
            return []
    except DataError:  # not of this version, or damaged: also results of an earlier run
        if existing == ExistingResults.RESUME:
            raise
    if existing == ExistingResults.REFUSE:
        raise ResultsError(
            f"{printable_path(path)}: found results of an earlier run, expected a folder without; use --resume to go "
            "on with it, --overwrite to replace it, or another --out"
        )
    if existing == ExistingResults.RESUME:
        _check_settings(path, settings)
    else:
        rows = []
    kept = {row[FOLDER_COLUMN] for row in rows}
    for folder in (report.parent for report in path.glob(f"*/{REPORT_FILE}")):
        if folder.name not in kept and not folder.is_symlink():
            remove_files(folder)
            with contextlib.suppress(OSError):  # it has other files, which are not ours
                folder.rmdir()
    return rows


def _check_settings(path: Path, settings: RunSettings) -> None:
    """Check that an earlier run had the same settings."""
    try:
        found = parse_json((path / RUN_FILE).read_text(encoding="utf-8"))
        differences = [key for key in settings if found.get(key) != settings[key]]
    except (OSError, ValueError, AttributeError) as error:
        raise ResultsError(
            f"{printable_path(path / RUN_FILE)}: cannot be read, so the settings of the earlier run are not known; use "
            "--overwrite, or another --out"
        ) from error
    if differences:
        changes = "; ".join(f"{key} {found.get(key)}, now {settings[key]}" for key in differences)
        raise ResultsError(
            f"{printable_path(path)}: found results of other settings ({changes}), expected the same; use --overwrite, "
            "or another --out"
        )


def _read_rows(path: Path) -> list[Row]:
    """Rows of `results.csv`.

    Raises:
        DataError: if it is not a table of this version.
    """
    if not path.exists():
        return []
    columns = list(dict.fromkeys((*_NEEDED, *read_column_names(path))))
    rows: list[Row] = []
    for where, row in read_table(path, columns, names=columns):
        folder = row[FOLDER_COLUMN]
        if folder in ("", ".", "..") or Path(folder).name != folder:
            raise DataError(f"{where}: expected the name of a folder in {path.parent}, found {folder!r}")
        rows.append(row)
    return rows


def unique_folder_names(paths: Iterable[Path], taken: Iterable[str] = ()) -> list[str]:
    """A folder name for each photograph: its file name without suffix, with a number where two would be the same.

    Names that some file systems do not distinguish count as the same: other case, or another Unicode form.

    Args:
        paths: paths of the photographs.
        taken: names that are given already.
    """
    names = []
    keys = {same_name_key(name) for name in (RESULTS_CSV, RUN_FILE, SKIPPED_FILE, *taken)}
    for path in paths:
        stem = printable_path(path.stem.strip(". ") or "photograph")  # in UTF-8, so that the table can name it
        if len(stem.encode()) > MAX_FOLDER_BYTES:
            stem = shorten_name(stem, path.stem)
        name, number = stem, 2
        while same_name_key(name) in keys:
            name, number = f"{stem}-{number}", number + 1
        keys.add(same_name_key(name))
        names.append(name)
    return names
