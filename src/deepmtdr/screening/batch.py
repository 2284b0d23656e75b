"""Grade many photographs: a folder for each one, and `results.csv` with a row for each one (Sec. I)."""

from __future__ import annotations

import csv
import io
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from deepmtdr.files import printable_path, shorten_name, write_atomically
from deepmtdr.labels import DIABETIC_RETINOPATHY, LabelSet
from deepmtdr.screening.engine import ScreeningEngine
from deepmtdr.screening.inputs import InputFile
from deepmtdr.screening.report import REFERABLE_COLUMN, ScreeningReport, result_columns
from deepmtdr.screening.report_files import save_report

RESULTS_CSV = "results.csv"
SAVE_INTERVAL = 2.0
"""Shortest time between two writings of `results.csv`, s. A run that is killed loses the rows of this time."""
MAX_FOLDER_BYTES = 240
"""Longest folder name; longer ones are shortened. With a number added they stay within the usual limit of 255."""


def grade_photographs(
    engine: ScreeningEngine, inputs: Sequence[InputFile], out: Path | None = None, as_lr: int | None = None
) -> Iterator[ScreeningReport]:
    """Grade each input, write its folder, and keep `results.csv` up to date.

    Args:
        engine: grades the photographs.
        inputs: from `find_photographs`.
        out: results folder; None writes nothing.
        as_lr: see `ScreeningEngine.predict`.

    Yields:
        A report for each input, in order, without its pictures.

    Raises:
        InputSizeError: if `as_lr` does not fit the frame of the weights.
        OSError: if `out` cannot be written.
    """
    return record_results(_grade_each(engine, inputs, out, as_lr), out, engine.labels)


def _grade_each(
    engine: ScreeningEngine, inputs: Sequence[InputFile], out: Path | None, as_lr: int | None
) -> Iterator[ScreeningReport]:
    for found, name in zip(inputs, unique_folder_names(found.path for found in inputs), strict=True):
        if found.problem:
            report = engine.report_failure(found.path, found.problem)
        else:
            report = engine.predict(found.path, as_lr)
        if out is not None:
            save_report(report, out / name)
        yield report


def record_results(
    reports: Iterable[ScreeningReport], out: Path | None, labels: LabelSet = DIABETIC_RETINOPATHY
) -> Iterator[ScreeningReport]:
    """Pass reports on and write `results.csv` with a row for each; the file is also complete if the caller stops early.

    Args:
        reports: in the order of the rows.
        out: results folder; None writes nothing.
        labels: lesion types and grades of the reports.

    Yields:
        Each report without its pictures, so that thousands of reports fit into memory.

    Raises:
        OSError: if `out` cannot be written.
    """
    table = None
    if out is not None:
        make_results_folder(out, labels)
        table = _ResultsTable(out / RESULTS_CSV, labels)
    try:
        for report in reports:
            if table is not None:
                table.add(report.row())
            yield replace(report, pictures=None)
    finally:  # also when the caller stops, or Ctrl-C is pressed
        if table is not None:
            table.save()


def make_results_folder(out: Path, labels: LabelSet = DIABETIC_RETINOPATHY) -> None:
    """Create the results folder with a `results.csv` without rows.

    Call it before long work: it shows early whether the folder can be written.

    Raises:
        OSError: if it cannot be written.
    """
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / RESULTS_CSV, _to_csv([], labels))


def unique_folder_names(paths: Iterable[Path]) -> list[str]:
    """A folder name for each photograph: its file name without suffix, with a number where two would be the same.

    Names that differ in case only count as the same, since some file systems do not distinguish them.
    """
    names, taken = [], {RESULTS_CSV}
    for path in paths:
        stem = path.stem.strip(". ") or "photograph"
        if len(os.fsencode(stem)) > MAX_FOLDER_BYTES:
            stem = shorten_name(printable_path(stem), stem)
        name, number = stem, 2
        while name.casefold() in taken:
            name, number = f"{stem}-{number}", number + 1
        taken.add(name.casefold())
        names.append(name)
    return names


class _ResultsTable:
    """`results.csv`, always rewritten as a whole, so that it is complete at any time."""

    def __init__(self, path: Path, labels: LabelSet) -> None:
        self._path, self._labels = path, labels
        self._rows: list[dict[str, Any]] = []
        self.save()

    def add(self, row: dict[str, Any]) -> None:
        """Add a row; it is written within a few seconds."""
        self._rows.append(row)
        # Writing 100,000 rows takes a while: spend at most a twentieth of the time on it.
        if time.monotonic() - self._saved_at > max(SAVE_INTERVAL, 20 * self._duration):
            self.save()

    def save(self) -> None:
        """Write all rows."""
        started = time.monotonic()
        write_atomically(self._path, _to_csv(self._rows, self._labels))
        self._saved_at = time.monotonic()
        self._duration = self._saved_at - started


def _to_csv(rows: Sequence[dict[str, Any]], labels: LabelSet) -> bytes:
    text = io.StringIO(newline="")
    columns = result_columns(labels)
    if any(REFERABLE_COLUMN in row for row in rows):
        columns = (*columns, REFERABLE_COLUMN)
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()
