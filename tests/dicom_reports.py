"""Reports and examinations without an engine, for the tests of `dicom`."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from deepmtdr.dicom.examination import Examination
from deepmtdr.labels import Coding, GradeLabel, LabelSet, LesionType
from deepmtdr.screening.report import ScreeningReport
from deepmtdr.terms import ReferralThreshold
from dicom_objects import make_report

PATH = Path("Müller^Hans 1950.dcm")
"""A file name that contains a patient's name."""
GLAUCOMA: Coding = ("SCT", "23986001", "Glaucoma")
GLAUCOMA_LABELS = LabelSet(
    name="glaucoma",
    disease="glaucoma",
    coding=GLAUCOMA,
    lesions=(
        LesionType(code="DH", name="disc haemorrhages", colour=(213, 94, 0)),
        LesionType(
            code="report", name="RNFL defects", colour=(86, 180, 233), coding=("99DEEPMTDR", "RNFL", "A defect")
        ),
    ),
    grades=(
        GradeLabel(name="no glaucoma"),
        GradeLabel(name="suspected", coding=("LN", "LA1-1", "Suspected")),
        GradeLabel(name="manifest", condition=GLAUCOMA),
    ),
    thresholds={"any": 1, "referable": 1},
)
"""Another disease: two lesion types and three grades, some with codes. The lesion type "report" is a difficult name."""


def make_examination(**changes: Any) -> Examination:
    examination = Examination(
        patient_id="4711",
        issuer="1.2.276.0.76",
        accession="A-17",
        study_uid="2.25.1",
        series_uid="2.25.2",
        instance_uid="2.25.3",
        laterality="R",
        acquired=datetime(2024, 5, 1, 10),
        device="Drawn Camera",
    )
    return replace(examination, **changes)


def graded_report(**changes: Any) -> ScreeningReport:
    report = make_report(
        path=PATH,
        probabilities=(0.05, 0.15, 0.6, 0.15, 0.05),
        operating_point=ReferralThreshold(0.9, 0.3125),
        counts={"MA": 3, "HE": 1, "EX": 2, "SE": 0},
        areas={"MA": 0.02, "HE": 1.5, "EX": 0.25, "SE": 0.0},
    )
    return replace(report, **changes)


def glaucoma_report(**changes: Any) -> ScreeningReport:
    return make_report(labels=GLAUCOMA_LABELS, path=PATH, operating_point=ReferralThreshold(0.9, 0.25), **changes)


def ungradable_report(reason: str = "too dark: median brightness 3 of 255, expected at least 8") -> ScreeningReport:
    return make_report("ungradable", path=PATH, message=f"{PATH}: {reason}")
