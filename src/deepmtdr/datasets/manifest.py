"""The manifest of a prepared data set: one row per photograph, also for those that could not be prepared (Sec. V-A)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, cast, get_args

from deepmtdr.csv_tables import format_table, parse_integer, read_column_names, read_table
from deepmtdr.datasets.layout import parse_grade
from deepmtdr.datasets.sample import SplitName
from deepmtdr.errors import DataError
from deepmtdr.files import printable_path
from deepmtdr.labels import DIABETIC_RETINOPATHY, LabelSet
from deepmtdr.photographs.geometry import FieldOfView
from deepmtdr.terms import Laterality

Status = Literal["ok", "unreadable", "no_fov", "bad_mask"]

_COLUMNS_BEFORE_AREAS = (
    "name",
    "dataset",
    "status",
    "problem",
    "source",
    "sha256",
    "masks_sha256",
    "patient",
    "laterality",
    "grade",
    "dr_present",
    "ungradable",
    "side",
    "split",
)
_NAME_COLUMNS = ("name", "dataset", "problem", "source", "patient", "split", "file")
"""Columns in which "NA" is a name."""
_NEW_COLUMNS = ("unions", "ignored", "mask_problems")
"""Columns that an earlier prepared set may not have."""
_COLUMNS_AFTER_AREAS = (
    "overlap",
    "width",
    "height",
    "fov_x",
    "fov_y",
    "fov_side",
    "scale",
    "file",
    "perceptual_hash",
    *_NEW_COLUMNS,
)


@dataclass(frozen=True, kw_only=True)
class ManifestRow:
    """One photograph of a prepared set; the fields are the columns of the manifest."""

    name: str
    dataset: str
    status: Status
    """Whether the photograph could be prepared. If it is not "ok", there are no files, and `problem` has the reason."""
    problem: str = ""
    source: str
    """Path of the photograph, relative to the data set's folder if it is inside."""
    sha256: str = ""
    """SHA-256 of the photograph's bytes."""
    masks_sha256: str = ""
    """SHA-256 of the bytes of all its masks: lesion types in channel order, union labels, ignored pixels; empty without
    a mask file.
    """
    patient: str
    laterality: Laterality | None = None
    grade: int | None = None
    dr_present: bool | None = None
    ungradable: bool = False
    side: SplitName | None = None
    """The official split of the photograph; None: the data set has none."""
    split: str = ""
    """The split of the photograph: the official one, or one that was drawn with the seed."""
    areas: Mapping[str, float] = field(default_factory=dict)
    """Code of each annotated lesion type -> its area in px of the HR frame, 0 if there is none. One column per type."""
    unions: Mapping[str, float] = field(default_factory=dict)
    """Union label -> area of its lesions in px of the HR frame, 0 if there are none; in the file "EX+SE=12 MA+HE=0"."""
    ignored: float | None = None
    """Area of the pixels that count for nothing, px of the HR frame; None: the photograph has no mask of them."""
    mask_problems: tuple[str, ...] = ()
    """Possible problems of the masks, such as "jpeg:EX": `MaskProblem`, and a lesion code, union label or "ignored"."""
    overlap: float | None = None
    """Share of the lesion pixels that belong to two or more types; None without lesions."""
    width: int | None = None
    height: int | None = None
    """Height of the upright photograph, px."""
    fov_x: int | None = None
    fov_y: int | None = None
    fov_side: int | None = None
    """The square around the field of view in the photograph's pixels; it may reach outside the photograph."""
    scale: int | None = None
    """1: the photograph has an `hr` file. 2, 4 or 8: it has low resolution and none (interpretation R19)."""
    file: str = ""
    """Name of the prepared files, without suffix."""
    perceptual_hash: str = ""

    @property
    def fov(self) -> FieldOfView | None:
        """The square by which the photograph and its masks were cropped."""
        if self.fov_x is None or self.fov_y is None or self.fov_side is None:
            return None
        return FieldOfView(self.fov_x, self.fov_y, self.fov_side)


def manifest_columns(labels: LabelSet) -> tuple[str, ...]:
    """Columns of a manifest: one for each lesion type, its code in lower case, and others.

    Raises:
        DataError: if a lesion code is the name of another column, or of a folder of a prepared set.
    """
    for code in labels.codes:
        if code.lower() in (*_COLUMNS_BEFORE_AREAS, *_COLUMNS_AFTER_AREAS, "hr", "lr"):
            raise DataError(
                f"label set {labels.name!r}: lesion code {code} is the name of a column or folder of a prepared set; "
                "choose another code"
            )
    return (*_COLUMNS_BEFORE_AREAS, *(code.lower() for code in labels.codes), *_COLUMNS_AFTER_AREAS)


def read_manifest(path: Path, labels: LabelSet = DIABETIC_RETINOPATHY) -> Iterator[ManifestRow]:
    """Read the rows of a manifest.

    Raises:
        DataError: if the file or a row is damaged; the message names both.
    """
    found = read_column_names(path)
    columns = [name for name in manifest_columns(labels) if name in found or name not in _NEW_COLUMNS]
    for where, cells in read_table(path, columns, names=_NAME_COLUMNS):
        yield _parse_row({**dict.fromkeys(_NEW_COLUMNS, ""), **cells}, where, labels)


def format_manifest(
    rows: Iterable[ManifestRow], labels: LabelSet = DIABETIC_RETINOPATHY, *, header: bool = True
) -> str:
    """Format the rows of a manifest as CSV text."""
    columns = manifest_columns(labels)
    return format_table([*([columns] if header else []), *(_cells(row, labels) for row in rows)])


def _cells(row: ManifestRow, labels: LabelSet) -> list[str]:
    before = (getattr(row, column) for column in _COLUMNS_BEFORE_AREAS)
    after = (getattr(row, column) for column in _COLUMNS_AFTER_AREAS)
    return [_cell(value) for value in (*before, *(row.areas.get(code) for code in labels.codes), *after)]


def _cell(value: bool | int | float | str | tuple[str, ...] | Mapping[str, float] | None) -> str:
    if isinstance(value, tuple):
        return " ".join(value)
    if isinstance(value, Mapping):
        return " ".join(f"{union}={_cell(area)}" for union, area in value.items())
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, float):
        return f"{value:.6g}"
    return "" if value is None else printable_path(str(int(value)) if isinstance(value, int) else value)


def _parse_row(cells: Mapping[str, str], where: str, labels: LabelSet) -> ManifestRow:
    if cells["status"] not in get_args(Status) or not (cells["name"] and cells["patient"]):
        expected = f"name, patient and a status of {', '.join(get_args(Status))}"
        raise DataError(f"{where}: expected {expected}; found status {cells['status']!r}")
    try:
        return ManifestRow(
            name=cells["name"],
            dataset=cells["dataset"],
            status=cast("Status", cells["status"]),
            problem=cells["problem"],
            source=cells["source"],
            sha256=cells["sha256"],
            masks_sha256=cells["masks_sha256"],
            patient=cells["patient"],
            laterality=cast("Laterality", _parse_word(cells["laterality"], get_args(Laterality))),
            grade=parse_grade(cells["grade"], where, labels) if cells["grade"] else None,
            dr_present=bool(parse_integer(cells["dr_present"])) if cells["dr_present"] else None,
            ungradable=bool(parse_integer(cells["ungradable"] or "0")),
            side=cast("SplitName", _parse_word(cells["side"], get_args(SplitName))),
            split=cells["split"],
            areas={code: _parse_number(cells[code.lower()]) for code in labels.codes if cells[code.lower()]},
            unions=_parse_unions(cells["unions"]),
            ignored=_parse_number(cells["ignored"]) if cells["ignored"] else None,
            mask_problems=tuple(cells["mask_problems"].split()),
            overlap=_parse_number(cells["overlap"]) if cells["overlap"] else None,
            width=_parse_int(cells["width"]),
            height=_parse_int(cells["height"]),
            fov_x=_parse_int(cells["fov_x"]),
            fov_y=_parse_int(cells["fov_y"]),
            fov_side=_parse_int(cells["fov_side"]),
            scale=_parse_int(cells["scale"]),
            file=cells["file"],
            perceptual_hash=cells["perceptual_hash"],
        )
    except ValueError as error:
        raise DataError(f"{where}: not a row of a manifest ({error})") from error


def _parse_unions(cell: str) -> dict[str, float]:
    pairs = (text.split("=") for text in cell.split())
    return {union: _parse_number(area) for union, area in pairs}


def _parse_number(cell: str) -> float:
    number = float(cell)
    if not math.isfinite(number):
        raise ValueError(f"found {cell}, expected a finite number")
    return number


def _parse_word(cell: str, known: tuple[str, ...]) -> str | None:
    if cell and cell not in known:
        raise ValueError(f"found {cell!r}, expected {', '.join(known)} or nothing")
    return cell or None


def _parse_int(cell: str) -> int | None:
    return parse_integer(cell) if cell else None
