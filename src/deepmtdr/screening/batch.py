"""Grade many photographs: a folder for each one, and `results.csv` with a row for each one (Sec. I)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from deepmtdr._version import __version__
from deepmtdr.errors import DataError
from deepmtdr.screening.earlier_report import read_report
from deepmtdr.screening.engine import ScreeningEngine
from deepmtdr.screening.inputs import InputFile, write_skipped
from deepmtdr.screening.report import ScreeningReport
from deepmtdr.screening.report_files import remove_report, save_report
from deepmtdr.screening.results_folder import ExistingResults, ResultsFolder, RunSettings, open_results


def grade_photographs(
    engine: ScreeningEngine,
    inputs: Sequence[InputFile],
    out: Path | None = None,
    as_lr: int | None = None,
    *,
    existing: ExistingResults = ExistingResults.REFUSE,
    skipped: Sequence[Path] = (),
) -> Iterator[ScreeningReport]:
    """Grade each input, write its folder, and keep `results.csv` up to date.

    The results folder is locked until the last report, or until the iterator is closed.

    Args:
        engine: grades the photographs.
        inputs: from `find_photographs`.
        out: results folder; None writes nothing.
        as_lr: see `ScreeningEngine.predict`.
        existing: what to do if `out` has results of an earlier run.
        skipped: from `find_photographs`, for `skipped.txt`.

    Yields:
        A report for each input, in order, without its pictures. With `RESUME` also for those graded earlier.

    Raises:
        ResultsError: if another run writes into `out`, or results of an earlier run may not be kept or replaced.
        InputSizeError: if `as_lr` does not fit the frame of the weights.
        OSError: if `out` cannot be written.
    """
    if out is None:
        yield from (replace(_grade(engine, found, as_lr), pictures=None) for found in inputs)
        return
    settings = {**run_settings(engine, "grade"), "as_lr": as_lr}
    with open_results(out, engine.labels, settings, existing, remove_report) as results:
        write_skipped(skipped, out)
        for found, name in zip(inputs, results.folder_names([found.path for found in inputs]), strict=True):
            report = earlier_report(results, name, found, engine)
            if report is None:
                report = _grade(engine, found, as_lr)
                save_report(report, out / name)
                results.add(name, report.row())
            yield replace(report, pictures=None)


def run_settings(engine: ScreeningEngine, command: str) -> RunSettings:
    """What decides the results of a run, besides the options of the command."""
    info = engine.predictor.info
    return {
        "command": command,
        "weights": info.weights,
        "precision": info.precision,
        "turned_copies": engine.turned_copies.value,
        "version": __version__,
    }


def earlier_report(
    results: ResultsFolder, name: str, found: InputFile, engine: ScreeningEngine
) -> ScreeningReport | None:
    """The report of an earlier run on the same bytes; None if the photograph has to be graded.

    Args:
        results: the results folder.
        name: name of the photograph's folder in it.
        found: the photograph.
        engine: has the lesion types and grades.
    """
    try:
        if found.problem or not results.finished(name, found.path):
            return None
        return read_report(results.path / name, found.path, engine.labels)
    except (OSError, DataError):
        return None


def _grade(engine: ScreeningEngine, found: InputFile, as_lr: int | None) -> ScreeningReport:
    return engine.report_failure(found.path, found.problem) if found.problem else engine.predict(found.path, as_lr)
