"""Read the report of a photograph that an earlier run has graded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deepmtdr.errors import DataError
from deepmtdr.files import printable_path
from deepmtdr.labels import LabelSet
from deepmtdr.photographs.geometry import FieldOfView, InputScale
from deepmtdr.screening.quality_model import Fault
from deepmtdr.screening.report import ScreeningReport
from deepmtdr.screening.report_files import REPORT_FILE
from deepmtdr.terms import ReferralThreshold
from deepmtdr.toml_config import parse_json


@dataclass(frozen=True, kw_only=True)
class EarlierReport(ScreeningReport):
    """A report that was read from `report.json`; it has no pictures."""

    values: Mapping[str, Any] = field(default_factory=dict)
    """The content of the file."""

    @property
    def p_referable(self) -> float | None:
        """Probability of referable disease as in the file: a sum of rounded probabilities could differ from it."""
        return self.values["p_referable"]

    @property
    def expected_grade(self) -> float | None:
        """The expected grade as in the file, if it is there."""
        return self.values.get("expected_grade", super().expected_grade)

    def to_json(self) -> dict[str, Any]:
        """The content of the file, with the path of the photograph."""
        return {**self.values, "path": printable_path(self.path)}


def read_report(folder: Path, photograph: Path, labels: LabelSet) -> EarlierReport:
    """Read `report.json`.

    Args:
        folder: folder of the photograph.
        photograph: path of the photograph.
        labels: lesion types and grades of the weights.

    Raises:
        DataError: if the file is missing or damaged.
    """
    path = folder / REPORT_FILE
    try:
        report = _parse(parse_json(path.read_text(encoding="utf-8")), photograph, labels)
        report.row()  # fails if a value is not of the type that the table needs
        return report
    except (OSError, ValueError, ArithmeticError, LookupError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: expected the report of a photograph ({error})") from error


def _parse(values: Mapping[str, Any], photograph: Path, labels: LabelSet) -> EarlierReport:
    probabilities = tuple(values[f"p{grade}"] for grade in range(len(labels.grades)))
    point, graded = values["operating_point"], values["grade"] is not None
    fov, way = _parse_geometry(values)
    return EarlierReport(
        path=photograph,
        status=values["status"],
        labels=labels,
        message=values["message"],
        sha256=values["sha256"],
        quality=values["quality"],
        fault=None if values["fault"] is None else Fault(values["fault"]),
        review_reasons=tuple(values["for_reader"]),
        grade=values["grade"],
        probabilities=probabilities if graded else None,
        grade_thresholds=tuple(values.get("grade_thresholds", ())),
        operating_point=None if point is None else ReferralThreshold(point["sensitivity"], point["threshold"]),
        counts={code: values[f"count_{code}"] for code in labels.codes} if graded else None,
        areas={code: values[f"area_{code}"] for code in labels.codes} if graded else None,
        width=values["width"],
        height=values["height"],
        fov=fov,
        way=way,
        weights=values["weights"],
        version=values["version"],
        precision=values["precision"],
        values=values,
    )


def _parse_geometry(values: Mapping[str, Any]) -> tuple[FieldOfView | None, InputScale | None]:
    """The field of view, and the scale from a text such as "x4 from 256 px"."""
    geometry = values["geometry"]
    if geometry is None:
        return None, None
    fov, frame = FieldOfView(geometry["x"], geometry["y"], geometry["side"]), geometry["frame"]
    first = values["way"].partition(" ")[0]
    scale = int(first[1:]) if first.startswith("x") else 1
    return fov, InputScale(frame // scale, scale)
