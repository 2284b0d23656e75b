"""Reports and examinations for the tests of the clinic: what an engine would say, without one."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

from deepmtdr.dicom.examination import Examination
from deepmtdr.screening.report import ScreeningReport
from deepmtdr.terms import Lesion, ReferralThreshold
from dicom_objects import make_report

PATH = Path("Müller^Hans 1950.dcm")
"""A file's name may be a patient's."""


def make_examination(**other: Any) -> Examination:
    given = {"patient_id": "4711", "issuer": "1.2.276.0.76", "accession": "A-17", "laterality": "R"}
    uids = {"study_uid": "2.25.1", "series_uid": "2.25.2", "instance_uid": "2.25.3"}
    return Examination(**{**given, **uids, "acquired": datetime(2024, 5, 1, 10), "device": "Drawn Camera", **other})


def graded_report(**other: Any) -> ScreeningReport:
    said: dict[str, Any] = {
        "probabilities": (0.05, 0.15, 0.6, 0.15, 0.05),
        "operating_point": ReferralThreshold(0.9, 0.3125),
    }
    said |= {"counts": dict(zip(Lesion, (3, 1, 2, 0), strict=True))}
    said |= {"areas": dict(zip(Lesion, (0.02, 1.5, 0.25, 0.0), strict=True))}
    return make_report(**{"path": PATH, **said, **other})


def ungradable_report(reason: str = "too dark: median brightness 3 of 255, expected at least 8") -> ScreeningReport:
    return make_report("ungradable", path=PATH, message=f"{PATH}: {reason}")
