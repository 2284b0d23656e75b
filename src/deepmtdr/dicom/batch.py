"""Grade many DICOM photographs: a folder of results for each one, and `results.csv` with a row for each one."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from deepmtdr.dicom.codes import Codes, load_codes
from deepmtdr.dicom.deidentify import load_or_create_key
from deepmtdr.dicom.results import remove_results, write_results
from deepmtdr.errors import ClinicError, ResultsError
from deepmtdr.files import file_sha256, printable_path
from deepmtdr.screening.batch import earlier_report, run_settings
from deepmtdr.screening.engine import ScreeningEngine
from deepmtdr.screening.inputs import InputFile, find_photographs, write_skipped
from deepmtdr.screening.report import ScreeningReport
from deepmtdr.screening.results_folder import ExistingResults, ResultsFolder, RunSettings, open_results


class BatchResults(NamedTuple):
    """The reports of a batch, and the files that are not inputs."""

    reports: Iterator[ScreeningReport]
    """A report for each input. A photograph is graded when its report is requested from the iterator."""
    inputs: list[InputFile]
    skipped: list[Path]
    """Files in the given folders that are not photographs."""


@dataclass(frozen=True)
class _Job:
    """One input: the folder of its results, and the name under which it is reported."""

    found: InputFile
    folder: Path
    name: Path


def process_paths(
    engine: ScreeningEngine,
    paths: Sequence[Path],
    out: Path,
    codes: Path | None = None,
    key_file: Path | None = None,
    *,
    existing: ExistingResults = ExistingResults.REFUSE,
) -> BatchResults:
    """Grade DICOM photographs and write a folder of results for each; `results.csv` is kept up to date.

    Args:
        engine: grades the photographs.
        paths: files, folders and glob patterns.
        out: results folder. With a key its folders have numbers for names, since a file name may be a patient's name.
            From this call on, only the owner can read files that the process writes.
        codes: TOML file with the codes of the site; None: the shipped codes.
        key_file: de-identify with the key in this file; created if it does not exist. None: do not de-identify.
        existing: what to do if `out` has results of an earlier run. `RESUME` needs names, so it cannot be combined with
            a key: which number a photograph had is written nowhere.

    Raises:
        ClinicError, DataError: if key or codes cannot be used.
        ResultsError: with a key, if a run is to be resumed. From the iterator of the reports: if another run writes
            into `out`, or results of an earlier run may not be kept or replaced.
        OSError: from the iterator, if `out` cannot be written.
    """
    if key_file is not None and existing == ExistingResults.RESUME:
        raise ResultsError("--resume cannot be used with --deidentify; use --overwrite, or another --out")
    os.umask(0o077)
    site_codes = load_codes(codes, engine.labels)
    key = None if key_file is None else load_or_create_key(key_file)
    inputs, skipped = find_photographs(paths, out)
    if key is not None:
        skipped = [Path(f"file {number}") for number in range(1, len(skipped) + 1)]
    digest = None if codes is None else file_sha256(codes)
    settings = {**run_settings(engine, "dicom"), "codes": digest, "deidentified": key is not None}
    reports = _process_all(engine, inputs, skipped, out, site_codes, key, settings, existing)
    return BatchResults(reports, inputs, skipped)


def _process_all(
    engine: ScreeningEngine,
    inputs: Sequence[InputFile],
    skipped: Sequence[Path],
    out: Path,
    codes: Codes,
    key: bytes | None,
    settings: RunSettings,
    existing: ExistingResults,
) -> Iterator[ScreeningReport]:
    with open_results(out, engine.labels, settings, existing, remove_results) as results:
        write_skipped(skipped, out)
        for job in _jobs(inputs, results, anonymous=key is not None):
            report = None if key is not None else earlier_report(results, job.folder.name, job.found, engine)
            if report is None:
                report = _process(engine, job, codes, key)
                results.add(job.folder.name, report.row())
            yield replace(report, pictures=None)


def _jobs(inputs: Sequence[InputFile], results: ResultsFolder, *, anonymous: bool) -> list[_Job]:
    if anonymous:
        numbers = [f"{number:06d}" for number in range(1, len(inputs) + 1)]
        return [_Job(found, results.path / number, Path(number)) for found, number in zip(inputs, numbers, strict=True)]
    names = results.folder_names([found.path for found in inputs])
    return [_Job(found, results.path / name, found.path) for found, name in zip(inputs, names, strict=True)]


def _process(engine: ScreeningEngine, job: _Job, codes: Codes, key: bytes | None) -> ScreeningReport:
    """Write the results of one input; if that fails, the report gives the reason.

    Raises:
        OSError: if its folder cannot be written, for example on a full disk.
    """
    path, reason = job.found.path, job.found.problem
    if reason:
        remove_results(job.folder)
        return engine.report_failure(job.name, reason)
    try:
        return replace(write_results(engine, path, job.folder, codes, key), path=job.name)
    except ClinicError as error:
        reason = str(error).removeprefix(f"{printable_path(path)}: ")
    except OSError as error:
        if error.filename is not None and Path(error.filename).is_relative_to(job.folder):
            raise
        reason = error.strerror or type(error).__name__
    return engine.report_failure(job.name, reason)
