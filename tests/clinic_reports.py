"""Reports and examinations for the tests of the clinic: what an engine would say, without one."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepmtdr.checkpoint import Threshold
from deepmtdr.clinic.examination import Examination
from deepmtdr.data.photograph import FieldOfView, Way
from deepmtdr.screening.report import Pictures, ScreeningReport
from deepmtdr.terms import Grade, Lesion
from fundus import draw_fundus

PATH = Path("Müller^Hans 1950.dcm")
"""A file's name may be a patient's."""
ABOUT = {"sha256": "ab" * 32, "width": 400, "height": 300, "weights": "v0-0123456789ab", "version": "0.1"}


def examination(**other: Any) -> Examination:
    given = {"patient_id": "4711", "issuer": "1.2.276.0.76", "accession": "A-17", "laterality": "R"}
    uids = {"study_uid": "2.25.1", "series_uid": "2.25.2", "instance_uid": "2.25.3"}
    return Examination(**{**given, **uids, "acquired": datetime(2024, 5, 1, 10), "device": "Drawn Camera", **other})


def graded(side: int = 96, **other: Any) -> ScreeningReport:
    said = {
        **{"grade": Grade.MODERATE, "probabilities": (0.05, 0.15, 0.6, 0.15, 0.05)},
        **{"referable_from": Threshold(0.9, 0.3125), "counts": dict(zip(Lesion, (3, 1, 2, 0), strict=True))},
        **{"areas": dict(zip(Lesion, (0.02, 1.5, 0.25, 0.0), strict=True)), "pictures": pictures(side)},
        **{"fov": FieldOfView(60, 10, 280), "way": Way(side // 4, 4), "precision": "fp32"},
    }
    return ScreeningReport(**{"path": PATH, "status": "ok", **ABOUT, **said, **other})


def ungradable(reason: str = "too dark: median brightness 3 of 255, expected at least 8") -> ScreeningReport:
    return ScreeningReport(path=PATH, status="ungradable", message=f"{PATH}: {reason}", **ABOUT)


def pictures(side: int) -> Pictures:
    """A drawn fundus with a square of each lesion and a round of evidence."""
    photograph = draw_fundus(side, side, (side / 2, side / 2), side / 2)
    y, x = np.mgrid[:side, :side] / side
    lesions: NDArray[np.float32] = np.zeros((4, side, side), np.float32)
    for lesion in Lesion:
        lesions[lesion, side // 3 : side // 3 + 5, side * (lesion + 2) // 8 :][:, :5] = 0.9
    evidence = np.exp(-20 * ((x - 0.4) ** 2 + (y - 0.4) ** 2)).astype(np.float32)
    return Pictures(photograph, photograph, lesions, evidence)
