"""The report of one photograph: grade, lesions, quality, and reasons for a review (Sec. I)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from deepmtdr.files import printable_path
from deepmtdr.labels import DIABETIC_RETINOPATHY, LabelSet
from deepmtdr.photographs.geometry import FieldOfView, InputScale
from deepmtdr.screening.quality_model import Fault
from deepmtdr.screening.turned_copies import TurnedCopies
from deepmtdr.terms import ReferralThreshold

Status = Literal["ok", "ungradable", "error"]

REFERABLE_COLUMN = "referable"
"""Last column of `results.csv`, if the weights are calibrated."""
PROBABILITY_DIGITS = 6
"""Decimal places of probabilities in files. Decisions use the rounded values, so that the files show why."""


def result_columns(labels: LabelSet) -> tuple[str, ...]:
    """Columns of `results.csv` in their order, without `REFERABLE_COLUMN`."""
    return (
        "path",
        "sha256",
        "status",
        "message",
        "grade",
        "grade_name",
        *(f"p{grade}" for grade in range(len(labels.grades))),
        "p_referable",
        *(f"count_{code}" for code in labels.codes),
        *(f"area_{code}" for code in labels.codes),
        "quality",
        "fault",
        "for_reader",
        "width",
        "height",
        "weights",
        "version",
    )


class Pictures(NamedTuple):
    """Pictures of one photograph in the HR frame."""

    photograph: UInt8[np.ndarray, "s s 3"]
    """The field of view of the photograph, resized to the frame without any network."""
    sr: UInt8[np.ndarray, "s s 3"]
    """Super-resolved image, or the frame itself where the ISR subnet was skipped."""
    lesions: Float[np.ndarray, "l s s"]
    """Probability of each lesion type."""
    evidence: Float[np.ndarray, "s s"]
    """Evidence of disease, in [0, 1]."""


@dataclass(frozen=True, kw_only=True)
class ScreeningReport:
    """The result for one photograph. Values that are not known are None."""

    path: Path
    """Path of the photograph, as given by the caller."""
    status: Status
    """`ok`: graded. `ungradable`: decoded, but not fit to be graded. `error`: not decoded, or not processed."""
    labels: LabelSet = DIABETIC_RETINOPATHY
    """Lesion types and grades of the weights."""
    message: str = ""
    """One line with path and reason if the status is not `ok`."""
    sha256: str | None = None
    """SHA-256 of the file."""
    quality: float | None = None
    """How fit the photograph is to be graded, in [0, 1]; None if no field of view was found."""
    fault: Fault | None = None
    """Why an ungradable photograph was refused."""
    review_reasons: tuple[str, ...] = ()
    """Why a person should review the photograph, one clause each; empty if the grade needs no review."""
    grade: int | None = None
    probabilities: tuple[float, ...] | None = None
    """Probability of each grade; their sum is 1."""
    grade_thresholds: tuple[float, ...] = ()
    """Thresholds of the expected grade that decided the grade; empty: the most probable grade."""
    operating_point: ReferralThreshold | None = None
    """Probability from which the photograph is called referable; None if the weights are not calibrated."""
    counts: Mapping[str, int] | None = None
    """Lesion code -> number of connected parts (8 neighbours) inside the field of view, where its probability is at
    least `LESION_THRESHOLD`."""
    areas: Mapping[str, float] | None = None
    """Lesion code -> area of these parts in per cent of the field of view."""
    width: int | None = None
    """Width of the upright photograph, px."""
    height: int | None = None
    fov: FieldOfView | None = None
    """The square that the frame shows, in px of the photograph; `map_to_photograph` uses it to map results back."""
    way: InputScale | None = None
    """Input size and scale (interpretation R19)."""
    weights: str = ""
    """Name and digest of the weights."""
    version: str = ""
    """Version of deepmtdr."""
    precision: str = ""
    """Number format of the convolutions: `fp32` or `bf16`. The two differ in the third digit of a probability."""
    turned_copies: TurnedCopies = TurnedCopies.NONE
    """Which turned copies of the photograph were predicted too."""
    turn_grades: tuple[int, ...] = ()
    """Grade of the photograph as it is, then of each turned copy, alone; empty if no copy was predicted."""
    seconds: float = 0.0
    """Time taken, s. It is not written to files, so that a repeated run writes the same bytes."""
    pictures: Pictures | None = None

    @property
    def grade_name(self) -> str | None:
        """Name of the grade in words: "moderate"."""
        return None if self.grade is None else self.labels.grade_names[self.grade]

    @property
    def expected_grade(self) -> float | None:
        """The mean of the grades, weighted by their probabilities."""
        return None if self.probabilities is None else sum(grade * p for grade, p in enumerate(self.probabilities))

    @property
    def decision_text(self) -> str:
        """Why the grade is not the most probable one, for people; empty if it is."""
        if (
            self.probabilities is None
            or self.grade is None
            or self.probabilities[self.grade] == max(self.probabilities)
        ):
            return ""
        return f"The grade was decided by the expected grade {self.expected_grade:.2f}, not by the highest probability"

    @property
    def p_referable(self) -> float | None:
        """Probability that the grade is at least `labels.referable_from`."""
        return None if self.probabilities is None else sum(self.probabilities[self.labels.referable_from :])

    @property
    def referable(self) -> bool | None:
        """Whether the photograph is called referable at `operating_point`; None without an operating point."""
        p = _rounded(self.p_referable, PROBABILITY_DIGITS)
        return None if p is None or self.operating_point is None else p >= self.operating_point.value

    @property
    def reason(self) -> str:
        """The message without the path; empty if there is no message."""
        return self.message.removeprefix(f"{printable_path(self.path)}: ")

    @property
    def settings_text(self) -> str:
        """The settings that decide the results besides the weights, for identifiers and DICOM: do not change the texts.

        The number format, and which turned copies were predicted, if any were: `fp32`, `bf16, turned copies: all`.
        """
        if self.turned_copies is TurnedCopies.NONE:
            return self.precision
        return f"{self.precision}, turned copies: {self.turned_copies}"

    @property
    def scaling_text(self) -> str:
        """How the photograph was resized to the frame, for report.json and identifiers; do not change these texts.

        `straight, ISR skipped` means that it was not super-resolved; `scaling_description` is the text for people.
        """
        if self.way is None:
            return ""
        return "straight, ISR skipped" if self.way.scale == 1 else f"x{self.way.scale} from {self.way.lr_size} px"

    @property
    def scaling_description(self) -> str:
        """How the photograph was resized to the frame, for people: `x4 from 256 px`, or `not super-resolved`."""
        return "not super-resolved" if self.way is not None and self.way.scale == 1 else self.scaling_text

    def row(self) -> dict[str, Any]:
        """The photograph's row of `results.csv`; with `REFERABLE_COLUMN` if there is an operating point."""
        probabilities = self.probabilities or (None,) * len(self.labels.grades)
        counts, areas = self.counts or {}, self.areas or {}
        values: dict[str, Any] = {
            "path": printable_path(self.path),
            "sha256": self.sha256,
            "status": self.status,
            "message": self.message,
            "grade": self.grade,
            "grade_name": self.grade_name,
            "p_referable": _rounded(self.p_referable, PROBABILITY_DIGITS),
            "quality": _rounded(self.quality, 4),
            "fault": None if self.fault is None else self.fault.value,
            "for_reader": "; ".join(self.review_reasons) or None,
            "width": self.width,
            "height": self.height,
            "weights": self.weights,
            "version": self.version,
        }
        values |= {f"p{grade}": _rounded(p, PROBABILITY_DIGITS) for grade, p in enumerate(probabilities)}
        values |= {f"count_{code}": counts.get(code) for code in self.labels.codes}
        values |= {f"area_{code}": _rounded(areas.get(code), 5) for code in self.labels.codes}
        referable = {} if self.referable is None else {REFERABLE_COLUMN: self.referable}
        return {column: values[column] for column in result_columns(self.labels)} | referable

    def to_json(self) -> dict[str, Any]:
        """The content of `report.json`: the row, and what has no column."""
        return {
            **self.row(),
            "for_reader": list(self.review_reasons),
            REFERABLE_COLUMN: self.referable,
            "operating_point": _operating_point_json(self.operating_point),
            "way": self.scaling_text or None,
            "precision": self.precision,
            "geometry": self._geometry_json(),
            "disease": self.labels.disease,
            **self._decision_json(),
            **self._turns_json(),
        }

    def _decision_json(self) -> dict[str, Any]:
        """The expected grade and its thresholds, if they decided the grade."""
        if not self.grade_thresholds:
            return {}
        expected = _rounded(self.expected_grade, PROBABILITY_DIGITS)
        return {"expected_grade": expected, "grade_thresholds": list(self.grade_thresholds)}

    def _turns_json(self) -> dict[str, Any]:
        """Which turned copies were predicted, and their grades, if any were."""
        if self.turned_copies is TurnedCopies.NONE:
            return {}
        return {"turned_copies": self.turned_copies.value, "turn_grades": list(self.turn_grades)}

    def _geometry_json(self) -> dict[str, int] | None:
        if self.fov is None or self.way is None:
            return None
        frame = self.way.lr_size * self.way.scale
        return {"x": self.fov.x, "y": self.fov.y, "side": self.fov.side, "frame": frame}


def _operating_point_json(point: ReferralThreshold | None) -> dict[str, float] | None:
    return None if point is None else {"sensitivity": point.sensitivity, "threshold": point.value}


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(float(value), digits)
