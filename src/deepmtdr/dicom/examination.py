"""Whose and which photograph a report is about: what every result for the clinic refers to."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import datetime

from deepmtdr.errors import ClinicError
from deepmtdr.files import printable_path
from deepmtdr.screening.report import ScreeningReport
from deepmtdr.terms import Laterality

RESEARCH_USE_NOTICE = "Research use: not a medical device"


@dataclass(frozen=True, kw_only=True)
class Examination:
    """The part of a DICOM photograph that its results refer to."""

    patient_id: str
    """(0010,0020); may be empty."""
    issuer: str = ""
    """Of the patient's identifier, (0010,0021)."""
    accession: str = ""
    """Number of the order, (0008,0050)."""
    study_uid: str
    series_uid: str
    instance_uid: str
    laterality: Laterality | None = None
    """Of the eye; None: unknown."""
    acquired: datetime | None = None
    """When the photograph was taken; without a time zone where the object has none."""
    device: str = ""
    """The camera, in words."""

    @property
    def eye(self) -> str:
        """The eye in words."""
        return {"R": "Right eye", "L": "Left eye", None: "Eye of unknown side"}[self.laterality]


def ungradable_reason(report: ScreeningReport) -> str:
    """Why a photograph was not graded, without its path: a file's name may be a patient's."""
    reason = report.reason
    for name in (os.fspath(report.path), report.path.name):
        reason = reason.replace(printable_path(name), "the photograph") if name else reason
    return reason


def check_reportable(report: ScreeningReport) -> None:
    """Refuse what no result can be made of.

    Raises:
        ClinicError: if the file could not be decoded, or a graded report lacks its numbers.
    """
    if report.status == "error":
        raise ClinicError("status error, expected ok or ungradable: no photograph was decoded, so nothing can be said")
    if report.status == "ok" and (report.grade is None or report.probabilities is None):
        raise ClinicError("status ok without grade and probabilities, expected both")
