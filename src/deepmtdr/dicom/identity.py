"""What two DICOM files of the same SOP Instance UID must have in common to be the same photograph.

A PACS may send a photograph again in another transfer syntax, with another character set or with more attributes. It is
the same photograph if patient, study, eye and decoded pixels are the same.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import NamedTuple

from deepmtdr.dicom.source import SourcePhotograph, read_source
from deepmtdr.errors import DicomError, PhotographError
from deepmtdr.photographs.decoder_process import read_untrusted

PATIENT_KEYWORDS = ("PatientID", "IssuerOfPatientID", "PatientName", "PatientBirthDate")
STUDY_KEYWORDS = ("StudyInstanceUID", "SeriesInstanceUID", "AccessionNumber")


class PhotographIdentity(NamedTuple):
    """SHA-256 of each part of the identity of a photograph."""

    patient: str
    """Patient ID with its issuer, name and date of birth."""
    study: str
    """Study, series and accession number."""
    eye: str
    """Laterality."""
    pixels: str
    """The decoded photograph, 8-bit RGB."""

    def to_text(self) -> str:
        """Encode the identity, for the queue."""
        return json.dumps(self._asdict(), allow_nan=False)


def identity_from_text(text: str) -> PhotographIdentity:
    """Decode the result of `PhotographIdentity.to_text`."""
    return PhotographIdentity(**json.loads(text))


def read_identity(path: Path) -> PhotographIdentity:
    """Read header and pixels of a photograph. Its pixels are decoded in the decoder process.

    Raises:
        DicomError: if the header cannot be used, or the pixels cannot be decoded.
        OSError: if the file cannot be read.
    """
    return _read_header(path)._replace(pixels=_pixel_digest(path))


def find_differences(known: PhotographIdentity, path: Path) -> tuple[str, ...]:
    """Name the parts in which a file differs from a known photograph: `patient`, `study`, `eye` or `pixels`.

    Args:
        known: identity of the known photograph.
        path: the file. Its pixels are decoded only if nothing else differs.

    Returns:
        Empty if it is the same photograph.

    Raises:
        DicomError, OSError: as `read_identity`.
    """
    header = _read_header(path)
    different = [name for name in ("patient", "study", "eye") if getattr(header, name) != getattr(known, name)]
    if not different and _pixel_digest(path) != known.pixels:
        different.append("pixels")
    return tuple(different)


def _read_header(path: Path) -> PhotographIdentity:
    """Read the identity without the pixels."""
    source = read_source(path)
    return PhotographIdentity(
        patient=_digest(_texts(source, PATIENT_KEYWORDS)),
        study=_digest(_texts(source, STUDY_KEYWORDS)),
        eye=_digest([source.laterality or ""]),
        pixels="",
    )


def _pixel_digest(path: Path) -> str:
    try:
        pixels = read_untrusted(path).pixels
    except PhotographError as error:
        raise DicomError(str(error)) from error
    digest = hashlib.sha256(repr(pixels.shape).encode())
    digest.update(pixels.data)
    return digest.hexdigest()


def _texts(source: SourcePhotograph, keywords: tuple[str, ...]) -> list[str]:
    """The values of attributes, without the padding and the empty parts of names at their end."""
    values = (str(source.dataset.get(keyword) or "") for keyword in keywords)
    return ["=".join(group.strip(" ^") for group in value.split("=")).rstrip("=") for value in values]


def _digest(texts: list[str]) -> str:
    return hashlib.sha256(json.dumps(texts, allow_nan=False).encode()).hexdigest()
