"""The patient, study and photograph that a report is about, without the DICOM object itself."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from datetime import datetime

from deepmtdr.errors import DicomError
from deepmtdr.files import printable_path
from deepmtdr.screening.report import ScreeningReport
from deepmtdr.terms import Laterality


@dataclass(frozen=True, kw_only=True)
class Examination:
    """The part of a DICOM photograph's header that its results refer to."""

    patient_id: str
    """Patient ID, (0010,0020); may be empty."""
    issuer: str = ""
    """Issuer of the patient ID, (0010,0021)."""
    accession: str = ""
    """Number of the order, (0008,0050)."""
    study_uid: str
    series_uid: str
    instance_uid: str
    laterality: Laterality | None = None
    """Side of the eye; None: unknown."""
    acquired: datetime | None = None
    """When the photograph was taken; without a time zone if the object has none."""
    device: str = ""
    """Manufacturer and model of the camera."""

    @property
    def eye(self) -> str:
        """The eye in words."""
        return {"R": "Right eye", "L": "Left eye", None: "Eye of unknown side"}[self.laterality]


def ungradable_reason(report: ScreeningReport) -> str:
    """Return the reason why a photograph was not graded, without its path: a file name may contain a patient's name.

    A name of letters and digits only is not replaced. On DICOM media many files are called `1` or `A`, and
    `report.reason` does not begin with the path.
    """
    reason = report.reason
    for name in (os.fspath(report.path), report.path.name):
        text = printable_path(name)
        if not text.isalnum() and any(letter.isalnum() for letter in text):
            reason = re.sub(rf"(?<!\w){re.escape(text)}(?!\w)", "the photograph", reason)
    return reason


def check_reportable(report: ScreeningReport) -> None:
    """Check that results can be written from a report.

    Raises:
        DicomError: if the file could not be decoded, or a graded report has no grade or no probabilities.
    """
    if report.status == "error":
        raise DicomError("found status error, expected ok or ungradable: no photograph was decoded")
    if report.status == "ok" and (report.grade is None or report.probabilities is None):
        raise DicomError("found status ok without grade or probabilities, expected both")
