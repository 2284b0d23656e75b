"""What is said of one photograph (Sec. I: from a photograph to a report)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from deepmtdr.files import printable_path
from deepmtdr.photographs.decode import FieldOfView, InputScale
from deepmtdr.screening.quality_model import Fault
from deepmtdr.terms import Grade, Lesion, ReferralThreshold

Status = Literal["ok", "ungradable", "error"]

RESULT_COLUMNS = (
    *("path", "sha256", "status", "message", "grade", "grade_name"),
    *(f"p{int(grade)}" for grade in Grade),
    "p_referable",
    *(f"count_{lesion.name}" for lesion in Lesion),
    *(f"area_{lesion.name}" for lesion in Lesion),
    *("quality", "fault", "for_reader"),
    *("width", "height", "weights", "version"),
)
"""Of `results.csv`, in this order; empty where there is nothing to say."""
REFERABLE_COLUMN = "referable"
"""The last column, if the weights are calibrated."""


class Pictures(NamedTuple):
    """One photograph in the HR frame, as it came and as it was read."""

    photograph: UInt8[np.ndarray, "s s 3"]
    """The field of view cut out of the photograph, resized to the frame without any network."""
    sr: UInt8[np.ndarray, "s s 3"]
    """Super-resolved, or the frame itself where the ISR subnet was skipped."""
    lesions: Float[np.ndarray, "4 s s"]
    """Probabilities of MA, HE, EX, SE."""
    evidence: Float[np.ndarray, "s s"]
    """What spoke for diabetic retinopathy, in [0, 1]."""


@dataclass(frozen=True, kw_only=True)
class ScreeningReport:
    """Everything that is said of one photograph. What could not be said is None."""

    path: Path
    """As it was given."""
    status: Status
    """`ok`; `ungradable`: decoded, but not fit to be graded; `error`: not decoded."""
    message: str = ""
    """One line with path and reason if the status is not `ok`."""
    sha256: str | None = None
    quality: float | None = None
    """How fit the photograph is to be graded, in [0, 1]; None where no field of view was found."""
    fault: Fault | None = None
    """What is wrong with an ungradable photograph: `NO_FUNDUS` is none of a fundus, most others are poor ones."""
    review_reasons: tuple[str, ...] = ()
    """Why a person should look at it, a clause each; empty if the grade stands by itself."""
    grade: Grade | None = None
    probabilities: tuple[float, ...] | None = None
    """Of the grades 0-4, summing to 1."""
    operating_point: ReferralThreshold | None = None
    """The operating point: from which `p_referable` on the photograph is called referable; None: not calibrated."""
    counts: Mapping[Lesion, int] | None = None
    """Connected parts (8 neighbours) of each type's map at probability >= `LESION_THRESHOLD`, inside the field of view."""
    areas: Mapping[Lesion, float] | None = None
    """The same parts' area in per cent of the field of view."""
    width: int | None = None
    """Of the upright photograph, px."""
    height: int | None = None
    fov: FieldOfView | None = None
    """The square that the frame shows, in the photograph's own px; lays every map back (`data.photograph.map_to_photograph`)."""
    way: InputScale | None = None
    weights: str = ""
    """Which weights read it: name and digest."""
    version: str = ""
    """Of deepmtdr."""
    precision: str = ""
    """Of the network's convolutions: `fp32` or `bf16`. The two differ in the third digit of a probability."""
    seconds: float = 0.0
    """Time taken to read it; not written, so that a repeat writes the same bytes."""
    pictures: Pictures | None = None

    @property
    def p_referable(self) -> float | None:
        """Probability of grade 2 or worse."""
        if self.probabilities is None:
            return None
        return sum(p for grade, p in zip(Grade, self.probabilities, strict=True) if grade.referable)

    @property
    def referable(self) -> bool | None:
        """Whether the photograph is called so, at `operating_point`; None without an operating point."""
        # As it is written: whoever compares the two columns comes to the same.
        p = _rounded(self.p_referable, 6)
        return None if p is None or self.operating_point is None else p >= self.operating_point.value

    @property
    def reason(self) -> str:
        """The message without the path; empty if there is none."""
        return self.message.removeprefix(f"{printable_path(self.path)}: ")

    @property
    def scaling_text(self) -> str:
        """How the photograph came into the frame (reading R19): `x4 from 256 px`, or `straight, ISR skipped`."""
        if self.way is None:
            return ""
        return "straight, ISR skipped" if self.way.scale == 1 else f"x{self.way.scale} from {self.way.lr_size} px"

    def row(self) -> dict[str, Any]:
        """The photograph's row of `results.csv`, with None where there is nothing to say; `REFERABLE_COLUMN` if it is called."""
        probabilities = self.probabilities or (None,) * len(Grade)
        counts, areas = self.counts or {}, self.areas or {}
        values = {
            **{
                "path": printable_path(self.path),
                "sha256": self.sha256,
                "status": self.status,
                "message": self.message,
            },
            **{"grade": _int(self.grade), "grade_name": self.grade.full_name if self.grade is not None else None},
            **{f"p{int(grade)}": _rounded(p, 6) for grade, p in zip(Grade, probabilities, strict=True)},
            "p_referable": _rounded(self.p_referable, 6),
            **{f"count_{lesion.name}": counts.get(lesion) for lesion in Lesion},
            **{f"area_{lesion.name}": _rounded(areas.get(lesion), 5) for lesion in Lesion},
            **{"quality": _rounded(self.quality, 4), "fault": None if self.fault is None else self.fault.value},
            "for_reader": "; ".join(self.review_reasons) or None,
            **{"width": self.width, "height": self.height, "weights": self.weights, "version": self.version},
        }
        called = {} if self.referable is None else {REFERABLE_COLUMN: self.referable}
        return {column: values[column] for column in RESULT_COLUMNS} | called

    def to_json(self) -> dict[str, Any]:
        """The row with numbers as numbers, and what has no column: the content of `report.json`."""
        geometry = None
        if self.fov is not None and self.way is not None:
            frame = self.way.lr_size * self.way.scale
            geometry = {"x": self.fov.x, "y": self.fov.y, "side": self.fov.side, "frame": frame}
        point = self.operating_point
        said = None if point is None else {"sensitivity": point.sensitivity, "threshold": point.value}
        called = {REFERABLE_COLUMN: self.referable, "operating_point": said}
        way = {"way": self.scaling_text or None, "precision": self.precision, "geometry": geometry}
        return {**self.row(), "for_reader": list(self.review_reasons), **called, **way}


def _int(value: int | None) -> int | None:
    return None if value is None else int(value)


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(float(value), digits)
