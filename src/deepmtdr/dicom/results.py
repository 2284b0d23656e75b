"""Grade one DICOM photograph and write all of its results into a folder: DICOM objects, FHIR, PDF, JSON.

`report.json` is written last: a folder that has it is complete. No file name contains patient data.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from pydicom import Dataset, dcmread

from deepmtdr.dicom.codes import Codes, Namespaces, load_codes
from deepmtdr.dicom.deidentify import deidentify
from deepmtdr.dicom.derived_objects import create_encapsulated_pdf, create_overlay, create_sr_image
from deepmtdr.dicom.examination import ungradable_reason
from deepmtdr.dicom.fhir import to_bundle, to_json
from deepmtdr.dicom.objects import DicomResult, ObjectKind, set_content_uid, to_file_bytes
from deepmtdr.dicom.pdf_report import draw_pdf_report
from deepmtdr.dicom.segmentations import create_lesion_segmentation, create_probability_segmentation
from deepmtdr.dicom.source import SourcePhotograph, read_source
from deepmtdr.dicom.structured_report import create_structured_report
from deepmtdr.dicom.text_in_pixels import describe_possible_text, has_marks_beside_field
from deepmtdr.errors import ClinicError, DicomError, PhotographError, describe_error_location
from deepmtdr.files import make_folder, printable_path, write_atomically
from deepmtdr.photographs.decoder_process import read_untrusted
from deepmtdr.screening.engine import ScreeningEngine
from deepmtdr.screening.report import ScreeningReport
from deepmtdr.screening.report_files import REPORT_FILE, write_report_json
from deepmtdr.screening.summary_image import draw_not_graded, draw_summary

FHIR_FILE, ORIGINAL_FILE = "fhir.json", "original.dcm"
"""The FHIR bundle, and the de-identified photograph, which is written only if a key is given."""


def write_results(
    engine: ScreeningEngine,
    photograph: Path,
    folder: Path,
    codes: Codes | None = None,
    key: bytes | None = None,
    namespaces: Namespaces | None = None,
) -> ScreeningReport:
    """Grade a DICOM photograph and write its results.

    Args:
        engine: grades the photograph.
        photograph: a DICOM file.
        folder: gets `sr.dcm`, `lesions.dcm` and `probabilities.dcm` of a graded photograph, and `report.dcm`,
            `overlay.dcm`, `document.dcm`, `fhir.json` and `report.json` of an ungradable one too. Results of an earlier
            photograph are removed.
        codes: codes of the engine's label set; None: the shipped codes.
        key: de-identify the photograph first, with this key, and write it as `original.dcm`; None: do not de-identify.
        namespaces: URIs for the identifiers of the site, for FHIR.

    Returns:
        The report. Its `path` is a display name without patient data.

    Raises:
        DicomError: if no results can be written for the object; the folder then has none. The message contains no
            patient data except for the path of the file.
        OSError: if the folder cannot be written.
    """
    make_folder(folder, private=True)
    remove_results(folder)
    codes = codes or load_codes(labels=engine.labels)
    try:
        result = _grade(engine, photograph, codes, key, folder / ORIGINAL_FILE)
        files = {kind.file_name: to_file_bytes(created) for kind, created in create_objects(result).items()}
        files[FHIR_FILE] = to_json(to_bundle(result.report, result.source.examination, codes, namespaces))
    except OSError:
        raise
    except Exception as error:
        remove_results(folder)
        raise _without_patient_data(error, photograph) from error
    for name, content in files.items():
        write_atomically(folder / name, content, private=True)
    write_report_json(result.report, folder)
    return result.report


def create_objects(result: DicomResult) -> Mapping[ObjectKind, Dataset]:
    """Create the DICOM objects of a result. An ungradable photograph has only `REPORT`, `OVERLAY` and `DOCUMENT`."""
    report, source, created = result.report, result.source, dict[ObjectKind, Dataset]()

    def add(kind: ObjectKind, made: Dataset) -> Dataset:
        created[kind] = set_content_uid(made, result, kind)
        return made

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # names and numbers are copied unchanged, even if they are too long
        image, lesions = None, None
        if report.pictures is not None:
            image = add(ObjectKind.SR_IMAGE, create_sr_image(result, report.pictures.sr))
            lesions = add(ObjectKind.LESIONS, create_lesion_segmentation(result, image, report.pictures))
            add(ObjectKind.PROBABILITIES, create_probability_segmentation(result, image, report.pictures))
        add(ObjectKind.REPORT, create_structured_report(result, image, lesions))
        page = draw_not_graded(report) if report.pictures is None else draw_summary(report)
        add(ObjectKind.OVERLAY, create_overlay(result, np.asarray(page)))
        pdf = draw_pdf_report(report, source.examination, source.patient_label)
        add(ObjectKind.DOCUMENT, create_encapsulated_pdf(result, pdf))
    return created


def remove_results(folder: Path) -> None:
    """Remove all results from a folder, so that those of two photographs are never mixed."""
    for name in (REPORT_FILE, FHIR_FILE, ORIGINAL_FILE, *(kind.file_name for kind in ObjectKind)):
        (folder / name).unlink(missing_ok=True)


def _grade(engine: ScreeningEngine, photograph: Path, codes: Codes, key: bytes | None, original: Path) -> DicomResult:
    """Read and grade a photograph; with a key, de-identify it first and write it as `original`."""
    source, possible_text = read_source(photograph), tuple[str, ...]()
    if key is not None:
        possible_text = _write_deidentified(photograph, source, key, original)
        photograph, source = original, read_source(original)
    report = engine.predict(photograph)
    if report.status == "error":
        raise DicomError(_without_quotations(ungradable_reason(report)))
    report = replace(report, review_reasons=(*report.review_reasons, *possible_text))
    return DicomResult(source, _with_public_name(report, source), codes)


def _write_deidentified(photograph: Path, source: SourcePhotograph, key: bytes, original: Path) -> tuple[str, ...]:
    """Write a de-identified copy. Returns why its pixels may contain text, which de-identification does not remove."""
    try:
        pixels = read_untrusted(photograph).pixels
    except PhotographError:  # the engine reports it
        pixels = np.zeros((1, 1, 3), np.uint8)
    marks_found = has_marks_beside_field(pixels)
    write_atomically(
        original, to_file_bytes(deidentify(dcmread(photograph), key, marks_found=marks_found)), private=True
    )
    return describe_possible_text(source.dataset, marks_found=marks_found)


def _with_public_name(report: ScreeningReport, source: SourcePhotograph) -> ScreeningReport:
    """Replace the path in a report, which may contain patient data, by a display name."""
    name = f"{source.examination.eye}, image {source.instance_number}"
    return replace(report, path=Path(name), message=f"{name}: {ungradable_reason(report)}" if report.message else "")


def _without_quotations(reason: str) -> str:
    """Remove the quoted parts from the message of a decoder, because they may contain patient data."""
    return re.sub(r"b?(['\"]).*?\1", "...", reason)


def _without_patient_data(error: Exception, photograph: Path) -> DicomError:
    """Add the path of the file to an error. The text of an unexpected error is left out: it may quote the header."""
    where = printable_path(photograph)
    known = isinstance(error, ClinicError)
    reason = str(error) if known else f"no results could be written ({describe_error_location(error)})"
    return DicomError(f"{where}: {reason.removeprefix(f'{where}: ')}")
