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

from deepmtdr.clinic.codes import Codes, load_codes
from deepmtdr.clinic.deidentify import deidentify, read_key
from deepmtdr.clinic.derived import document, overlay, sr_image
from deepmtdr.clinic.document import draw_document
from deepmtdr.clinic.examination import reason_of
from deepmtdr.clinic.fhir import Namespaces, to_bundle, to_json
from deepmtdr.clinic.objects import Answer, as_file
from deepmtdr.clinic.segments import lesion_segments, probability_maps
from deepmtdr.clinic.source import read_source
from deepmtdr.clinic.structured_report import structured_report
from deepmtdr.errors import ClinicError, said_safely
from deepmtdr.files import readable, write_atomically
from deepmtdr.screening.batch import Found, find_photographs, folder_names, make_results_folder, read_all
from deepmtdr.screening.engine import ScreeningEngine
from deepmtdr.screening.report import ScreeningReport
from deepmtdr.screening.summary import draw_notice, draw_summary

OBJECTS = ("sr", "lesions", "probabilities", "report", "overlay", "document")
REPORT, FHIR, ORIGINAL = "report.json", "fhir.json", "original.dcm"
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
    empty(folder)
    codes = codes or load_codes()
    try:
        source = read_source(photograph)
        read = photograph if key is None else _without_patient(photograph, folder / ORIGINAL, key)
        source = source if key is None else read_source(read)
        report = engine.read(read)
        if report.status == "error":
            raise ClinicError(_without_quotations(reason_of(report)))
        answer = Answer(source, _named(report, Answer(source, report, codes)), codes)
        files = {f"{name}.dcm": as_file(made) for name, made in objects(answer).items()}
        files[FHIR] = to_json(to_bundle(answer.report, source.examination, codes, namespaces))
    except OSError:
        raise
    except Exception as error:
        empty(folder)
        # A header that nobody foresaw: its values are not for anybody's eyes.
        said = str(error) if isinstance(error, ClinicError) else f"cannot be answered ({said_safely(error)})"
        where = readable(photograph)
        raise ClinicError(f"{where}: {said.removeprefix(f'{where}: ')}") from error
    for name, content in files.items():
        write_atomically(folder / name, content)
    write_atomically(folder / REPORT, (json.dumps(answer.report.to_json(), indent=2) + "\n").encode())
    return answer.report


def empty(folder: Path) -> None:
    """Take away an earlier answer, whosever it was: no file of it may stand beside the next one."""
    for name in (REPORT, FHIR, ORIGINAL, *(f"{name}.dcm" for name in OBJECTS)):
        (folder / name).unlink(missing_ok=True)


def _without_quotations(reason: str) -> str:
    """A decoder's words without what it quotes of the object."""
    return re.sub(r"b?(['\"]).*?\1", "...", reason)


class Answers(NamedTuple):
    """What `answer_paths` found and will answer."""

    reports: Iterator[ScreeningReport]
    """One for each input, made when it is asked for."""
    inputs: list[Found]
    left_out: list[Path]
    """Files in given folders that are no photographs."""


def answer_paths(
    paths: Sequence[Path],
    out: Path,
    weights: Path | None = None,
    codes: Path | None = None,
    key_file: Path | None = None,
) -> Answers:
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
    known, key = load_codes(codes), None if key_file is None else read_key(key_file)
    inputs, left_out = find_photographs(paths, out)
    given = [found.path for found in inputs]
    names = folder_names(given) if key is None else [f"{number:06d}" for number in range(1, len(given) + 1)]
    shown = dict(zip(inputs, given if key is None else map(Path, names), strict=True))
    engine = ScreeningEngine.load(weights)

    def read(found: Found, folder: Path | None) -> ScreeningReport:
        name, reason = shown[found], found.problem
        if reason and folder is not None:
            empty(folder)
        try:
            if folder is not None and not reason:
                return replace(write_results(engine, found.path, folder, known, key), path=name)
        except ClinicError as error:
            reason = str(error).removeprefix(f"{readable(found.path)}: ")
        except OSError as error:
            reason = error.strerror or type(error).__name__
        return engine.refuse(name, reason)

    if key is not None:  # nor are their names anybody's
        left_out = [Path(f"file {number}") for number in range(1, len(left_out) + 1)]
    return Answers(read_all(inputs, out, read, names), inputs, left_out)


def objects(answer: Answer) -> Mapping[str, Dataset]:
    """The DICOM objects of an answer, by name; of an ungradable photograph report, overlay and document."""
    report, source = answer.report, answer.source
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # names and numbers are copied as they stand, as the standard wants them or not
        made: dict[str, Dataset] = dict(_graded(answer))
        made["report"] = structured_report(answer, made.get("sr"), made.get("lesions"))
        page = draw_notice(report) if report.pictures is None else draw_summary(report)
        made["overlay"] = overlay(answer, np.asarray(page))
        made["document"] = document(answer, draw_document(report, source.examination, source.patient))
    return made


def _graded(answer: Answer) -> Iterator[tuple[str, Dataset]]:
    pictures = answer.report.pictures
    if pictures is not None:
        image = sr_image(answer, pictures.sr)
        yield "sr", image
        yield "lesions", lesion_segments(answer, image, pictures)
        yield "probabilities", probability_maps(answer, image, pictures)


def _named(report: ScreeningReport, answer: Answer) -> ScreeningReport:
    """The same under a name for people, in place of a path that may hold anything."""
    name = f"{answer.source.examination.eye}, image {answer.instance_number}"
    return replace(report, path=Path(name), message=f"{name}: {reason_of(report)}" if report.message else "")


def _without_patient(photograph: Path, place: Path, key: bytes) -> Path:
    write_atomically(place, as_file(deidentify(dcmread(photograph), key)))
    return place
