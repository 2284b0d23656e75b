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
from deepmtdr.errors import ClinicError
from deepmtdr.files import printable_path
from deepmtdr.screening.batch import make_results_folder, record_results, unique_folder_names
from deepmtdr.screening.engine import ScreeningEngine
from deepmtdr.screening.inputs import InputFile, find_photographs
from deepmtdr.screening.report import ScreeningReport


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
) -> BatchResults:
    """Grade DICOM photographs and write a folder of results for each; `results.csv` is kept up to date.

    Args:
        engine: grades the photographs.
        paths: files, folders and glob patterns.
        out: results folder. With a key its folders have numbers for names, since a file name may be a patient's name.
            From this call on, only the owner can read files that the process writes.
        codes: TOML file with the codes of the site; None: the shipped codes.
        key_file: de-identify with the key in this file; created if it does not exist. None: do not de-identify.

    Raises:
        ClinicError, DataError: if key or codes cannot be used.
        OSError: if `out` cannot be written.
    """
    os.umask(0o077)
    make_results_folder(out, engine.labels)
    site_codes = load_codes(codes, engine.labels)
    key = None if key_file is None else load_or_create_key(key_file)
    inputs, skipped = find_photographs(paths, out)
    if key is not None:
        skipped = [Path(f"file {number}") for number in range(1, len(skipped) + 1)]
    reports = (_process(engine, job, site_codes, key) for job in _jobs(inputs, out, anonymous=key is not None))
    return BatchResults(record_results(reports, out, engine.labels), inputs, skipped)


def _jobs(inputs: Sequence[InputFile], out: Path, *, anonymous: bool) -> list[_Job]:
    if anonymous:
        numbers = [f"{number:06d}" for number in range(1, len(inputs) + 1)]
        return [_Job(found, out / number, Path(number)) for found, number in zip(inputs, numbers, strict=True)]
    names = unique_folder_names(found.path for found in inputs)
    return [_Job(found, out / name, found.path) for found, name in zip(inputs, names, strict=True)]


def _process(engine: ScreeningEngine, job: _Job, codes: Codes, key: bytes | None) -> ScreeningReport:
    """Write the results of one input; if that fails, the report gives the reason."""
    path, reason = job.found.path, job.found.problem
    if reason:
        remove_results(job.folder)
        return engine.report_failure(job.name, reason)
    try:
        return replace(write_results(engine, path, job.folder, codes, key), path=job.name)
    except ClinicError as error:
        reason = str(error).removeprefix(f"{printable_path(path)}: ")
    except OSError as error:
        reason = error.strerror or type(error).__name__
    return engine.report_failure(job.name, reason)
