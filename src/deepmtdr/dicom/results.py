"""One DICOM photograph in, everything that is said of it out: the door of the clinic.

Where `report.json` lies, the folder is whole. Nothing of the patient is in a name of a file.
"""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pydicom import Dataset, dcmread

from deepmtdr.dicom.codes import Codes, Namespaces, load_codes
from deepmtdr.dicom.deidentify import deidentify, load_or_create_key
from deepmtdr.dicom.derived_objects import create_encapsulated_pdf, create_overlay, create_sr_image
from deepmtdr.dicom.examination import ungradable_reason
from deepmtdr.dicom.fhir import to_bundle, to_json
from deepmtdr.dicom.objects import DicomResult, to_file_bytes
from deepmtdr.dicom.pdf_report import draw_pdf_report
from deepmtdr.dicom.segmentations import create_lesion_segmentation, create_probability_segmentation
from deepmtdr.dicom.source import read_source
from deepmtdr.dicom.structured_report import create_structured_report
from deepmtdr.errors import ClinicError, describe_error_location
from deepmtdr.files import printable_path, write_atomically
from deepmtdr.screening.batch import (
    InputFile,
    find_photographs,
    make_results_folder,
    process_inputs,
    unique_folder_names,
)
from deepmtdr.screening.engine import ScreeningEngine
from deepmtdr.screening.report import ScreeningReport
from deepmtdr.screening.summary_image import draw_not_graded, draw_summary

OBJECT_NAMES = ("sr", "lesions", "probabilities", "report", "overlay", "document")
REPORT_FILE, FHIR_FILE, ORIGINAL_FILE = "report.json", "fhir.json", "original.dcm"
"""The last is the photograph without its patient, where that was asked for."""


def write_results(
    engine: ScreeningEngine,
    photograph: Path,
    folder: Path,
    codes: Codes | None = None,
    key: bytes | None = None,
    namespaces: Namespaces | None = None,
) -> ScreeningReport:
    """Read a DICOM photograph and write all that answers it.

    Args:
        engine: reads the photograph.
        photograph: a DICOM file.
        folder: for `sr.dcm`, `lesions.dcm` and `probabilities.dcm` of a graded photograph, and of an ungradable one
            too `report.dcm`, `overlay.dcm`, `document.dcm`, `fhir.json` and `report.json`.
        codes: `load_codes()` if not given.
        key: de-identify the photograph first, by this key; it is then written too, as `original.dcm`.
        namespaces: of a site's own numbers, for FHIR.

    Returns:
        What is said, under a name that says nothing of the patient.

    Raises:
        ClinicError: if the object cannot be answered; the folder then holds no answer, neither an earlier one. The
            message holds no patient data but the file's own path.
        OSError: if the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    remove_results(folder)
    codes = codes or load_codes()
    try:
        source = read_source(photograph)
        read = photograph if key is None else _without_patient(photograph, folder / ORIGINAL_FILE, key)
        source = source if key is None else read_source(read)
        report = engine.predict(read)
        if report.status == "error":
            raise ClinicError(_without_quotations(ungradable_reason(report)))
        result = DicomResult(source, _named(report, DicomResult(source, report, codes)), codes)
        files = {f"{name}.dcm": to_file_bytes(made) for name, made in create_objects(result).items()}
        files[FHIR_FILE] = to_json(to_bundle(result.report, source.examination, codes, namespaces))
    except OSError:
        raise
    except Exception as error:
        remove_results(folder)
        # A header that nobody foresaw: its values are not for anybody's eyes.
        said = (
            str(error) if isinstance(error, ClinicError) else f"cannot be answered ({describe_error_location(error)})"
        )
        where = printable_path(photograph)
        raise ClinicError(f"{where}: {said.removeprefix(f'{where}: ')}") from error
    for name, content in files.items():
        write_atomically(folder / name, content)
    write_atomically(folder / REPORT_FILE, (json.dumps(result.report.to_json(), indent=2) + "\n").encode())
    return result.report


def remove_results(folder: Path) -> None:
    """Take away an earlier answer, whosever it was: no file of it may stand beside the next one."""
    for name in (REPORT_FILE, FHIR_FILE, ORIGINAL_FILE, *(f"{name}.dcm" for name in OBJECT_NAMES)):
        (folder / name).unlink(missing_ok=True)


def _without_quotations(reason: str) -> str:
    """A decoder's words without what it quotes of the object."""
    return re.sub(r"b?(['\"]).*?\1", "...", reason)


class BatchResults(NamedTuple):
    """What `process_paths` found and will answer."""

    reports: Iterator[ScreeningReport]
    """One for each input, made when it is asked for."""
    inputs: list[InputFile]
    skipped: list[Path]
    """Files in given folders that are no photographs."""


def process_paths(
    paths: Sequence[Path],
    out: Path,
    weights: Path | None = None,
    codes: Path | None = None,
    key_file: Path | None = None,
) -> BatchResults:
    """Answer each DICOM photograph in files, folders and globs; `results.csv` is up to date on the way.

    Args:
        paths: where the photographs are.
        out: folder for a folder each; with a key the folders are numbered, for a name may be a patient's. From here on
            the process writes files that only their owner can read.
        weights: a checkpoint; None for the shipped weights.
        codes: a site's own; None for the shipped ones.
        key_file: de-identify by the key in it.

    Raises:
        CheckpointError, ClinicError, DataError: if weights, key or codes are none.
        OSError: if `out` cannot be written.
    """
    os.umask(0o077)
    make_results_folder(out)
    known, key = load_codes(codes), None if key_file is None else load_or_create_key(key_file)
    inputs, skipped = find_photographs(paths, out)
    given = [found.path for found in inputs]
    names = unique_folder_names(given) if key is None else [f"{number:06d}" for number in range(1, len(given) + 1)]
    shown = dict(zip(inputs, given if key is None else map(Path, names), strict=True))
    engine = ScreeningEngine.load(weights)

    def read(found: InputFile, folder: Path | None) -> ScreeningReport:
        name, reason = shown[found], found.problem
        if reason and folder is not None:
            remove_results(folder)
        try:
            if folder is not None and not reason:
                return replace(write_results(engine, found.path, folder, known, key), path=name)
        except ClinicError as error:
            reason = str(error).removeprefix(f"{printable_path(found.path)}: ")
        except OSError as error:
            reason = error.strerror or type(error).__name__
        return engine.report_failure(name, reason)

    if key is not None:  # nor are their names anybody's
        skipped = [Path(f"file {number}") for number in range(1, len(skipped) + 1)]
    return BatchResults(process_inputs(inputs, out, read, names), inputs, skipped)


def create_objects(result: DicomResult) -> Mapping[str, Dataset]:
    """The DICOM objects of an answer, by name; of an ungradable photograph report, overlay and document."""
    report, source = result.report, result.source
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # names and numbers are copied as they stand, as the standard wants them or not
        made: dict[str, Dataset] = dict(_graded(result))
        made["report"] = create_structured_report(result, made.get("sr"), made.get("lesions"))
        page = draw_not_graded(report) if report.pictures is None else draw_summary(report)
        made["overlay"] = create_overlay(result, np.asarray(page))
        made["document"] = create_encapsulated_pdf(
            result, draw_pdf_report(report, source.examination, source.patient_label)
        )
    return made


def _graded(result: DicomResult) -> Iterator[tuple[str, Dataset]]:
    pictures = result.report.pictures
    if pictures is not None:
        image = create_sr_image(result, pictures.sr)
        yield "sr", image
        yield "lesions", create_lesion_segmentation(result, image, pictures)
        yield "probabilities", create_probability_segmentation(result, image, pictures)


def _named(report: ScreeningReport, result: DicomResult) -> ScreeningReport:
    """The same under a name for people, in place of a path that may hold anything."""
    name = f"{result.source.examination.eye}, image {result.instance_number}"
    return replace(report, path=Path(name), message=f"{name}: {ungradable_reason(report)}" if report.message else "")


def _without_patient(photograph: Path, place: Path, key: bytes) -> Path:
    write_atomically(place, to_file_bytes(deidentify(dcmread(photograph), key)))
    return place
