"""A prepared data set: a folder of files in the HR frame and a manifest with one row per photograph (Sec. V-A).

* manifest.csv: one row per photograph, also for those that could not be prepared;
* prepared.json: size of the frame, scale of the LR files, version of the format, and the label set unless it is that of
  diabetic retinopathy;
* hr/NAME.tif: the field of view in the HR frame; absent if the photograph has fewer pixels than the frame;
* lr/NAME.tif: the network's input: the HR file reduced by the scale, or the low-resolution photograph itself;
* CODE/NAME.tif, such as MA/NAME.tif: coverage of the HR frame by lesions of a type, 0-255; absent if there is no such
  lesion or the type was not annotated.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast, get_args

from deepmtdr.csv_tables import format_table, read_table
from deepmtdr.datasets.frames import Frame
from deepmtdr.datasets.layout import parse_grade
from deepmtdr.datasets.sample import Sample, SplitName
from deepmtdr.errors import DataError, LabelSetError
from deepmtdr.files import printable_path, write_json
from deepmtdr.labels import DIABETIC_RETINOPATHY, LabelSet, label_set_from_dict
from deepmtdr.photographs.geometry import FieldOfView
from deepmtdr.terms import Laterality

MANIFEST, SETTINGS = "manifest.csv", "prepared.json"
FORMAT_VERSION = 1
"""Version of the folder's format."""
COVERAGE_THRESHOLD = 127
"""A pixel of the HR frame is lesion where the mask covers more than half of it."""

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
)


@dataclass(frozen=True, kw_only=True)
class ManifestRow:
    """One photograph of a prepared set; the fields are the columns of the manifest."""

    name: str
    dataset: str
    status: Status
    """If it is not "ok", there are no files, and `problem` tells why."""
    problem: str = ""
    source: str
    """Path of the photograph; relative to the data set's root, if it lies inside."""
    sha256: str = ""
    """Of the photograph's bytes."""
    masks_sha256: str = ""
    """Of the bytes of all its masks, in channel order; empty without a mask file."""
    patient: str
    laterality: Laterality | None = None
    grade: int | None = None
    dr_present: bool | None = None
    ungradable: bool = False
    side: SplitName | None = None
    """The split in which the makers of the data set put the photograph."""
    split: str = ""
    """The split of the photograph: the makers', or one drawn by the seed."""
    areas: Mapping[str, float] = field(default_factory=dict)
    """Code of each annotated lesion type -> its area in px of the HR frame, 0 if there is none. One column per type."""
    overlap: float | None = None
    """Share of the lesion pixels that belong to two or more types; None without lesions."""
    width: int | None = None
    height: int | None = None
    """Of the upright photograph, px."""
    fov_x: int | None = None
    fov_y: int | None = None
    fov_side: int | None = None
    """The square around the field of view in the photograph's pixels; it may reach outside the photograph."""
    scale: int | None = None
    """From the photograph's size to the HR frame: 1 has an `hr` file; 2, 4, 8 are low-resolution photographs (R19)."""
    file: str = ""
    """Name of its files, without suffix."""
    perceptual_hash: str = ""

    @property
    def fov(self) -> FieldOfView | None:
        """The square by which the photograph and its masks were cropped."""
        if self.fov_x is None or self.fov_y is None or self.fov_side is None:
            return None
        return FieldOfView(self.fov_x, self.fov_y, self.fov_side)


class PreparedSettings(NamedTuple):
    """What `prepared.json` records."""

    size: int
    """Side of the HR frame, px."""
    scale: int
    """From the `lr` files to the `hr` files."""
    labels: LabelSet = DIABETIC_RETINOPATHY


class PreparedSet(NamedTuple):
    """A prepared data set on disk."""

    folder: Path
    size: int
    """Side of the HR frame, px."""
    scale: int
    """From the `lr` files to the `hr` files."""
    rows: list[ManifestRow]
    """Sorted by name."""
    labels: LabelSet = DIABETIC_RETINOPATHY

    def samples(self) -> list[Sample]:
        """All photographs with their labels; those that could not be prepared have a `problem` and no file."""
        return [self.sample(row) for row in self.rows]

    def frames(self) -> list[Frame]:
        """The photographs that could be prepared."""
        ready = (row for row in self.rows if row.status == "ok")
        return [Frame(self.sample(row), self.size, row.scale or 1, self.labels) for row in ready]

    def sample(self, row: ManifestRow) -> Sample:
        """One row as a sample of the prepared files; its official split is the row's split."""
        ok = row.status == "ok"
        file = f"{row.file}.tif"
        return Sample(
            photograph=self.folder / ("hr" if row.scale == 1 else "lr") / file if ok else Path(row.source),
            name=row.name,
            dataset=row.dataset,
            patient=row.patient,
            laterality=row.laterality,
            grade=row.grade,
            dr_present=row.dr_present,
            ungradable=row.ungradable,
            official_split=cast("SplitName", row.split) if row.split in get_args(SplitName) else None,
            lesion_masks={code: self.folder / code / file if area else None for code, area in row.areas.items()},
            mask_threshold=COVERAGE_THRESHOLD,
            problem="" if ok else row.problem or row.status,
        )


def is_prepared(folder: Path) -> bool:
    """Whether the folder is a prepared data set that is complete."""
    return (folder / MANIFEST).is_file()


def read_prepared(folder: Path) -> PreparedSet:
    """Open a prepared data set.

    Raises:
        DataError: if manifest or settings are missing or damaged, naming file and row.
    """
    size, scale, labels = read_prepared_settings(folder / SETTINGS)
    rows = list(read_manifest(folder / MANIFEST, labels))
    return PreparedSet(folder, size, scale, rows, labels)


def read_prepared_settings(path: Path) -> PreparedSettings:
    """Read `prepared.json`.

    Raises:
        DataError: if the file is missing, damaged, or of another format version.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        version, size, scale = (int(found[key]) for key in ("form", "size", "scale"))
        labels = label_set_from_dict(found["labels"], str(path)) if "labels" in found else DIABETIC_RETINOPATHY
    except (OSError, ValueError, KeyError, TypeError, LabelSetError) as error:
        raise DataError(f"{path}: expected the settings of a prepared set ({error})") from error
    if version != FORMAT_VERSION:
        raise DataError(f"{path}: prepared in format {version}, expected {FORMAT_VERSION}; prepare the set again")
    return PreparedSettings(size, scale, labels)


def write_prepared_settings(path: Path, settings: PreparedSettings) -> None:
    """Write `prepared.json`; the labels of diabetic retinopathy are left out."""
    values: dict[str, Any] = {"form": FORMAT_VERSION, "size": settings.size, "scale": settings.scale}
    if settings.labels != DIABETIC_RETINOPATHY:
        values["labels"] = asdict(settings.labels)
    write_json(path, values)


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
        DataError: naming file and row.
    """
    for where, cells in read_table(path, manifest_columns(labels)):
        yield _parse_row(cells, where, labels)


def format_manifest(
    rows: Iterable[ManifestRow], labels: LabelSet = DIABETIC_RETINOPATHY, *, header: bool = True
) -> str:
    """Rows of a manifest as CSV text."""
    columns = manifest_columns(labels)
    return format_table([*([columns] if header else []), *(_cells(row, labels) for row in rows)])


def _cells(row: ManifestRow, labels: LabelSet) -> list[str]:
    before = (getattr(row, column) for column in _COLUMNS_BEFORE_AREAS)
    after = (getattr(row, column) for column in _COLUMNS_AFTER_AREAS)
    return [_cell(value) for value in (*before, *(row.areas.get(code) for code in labels.codes), *after)]


def _cell(value: bool | int | float | str | None) -> str:
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
            laterality=cast("Laterality", cells["laterality"]) if cells["laterality"] else None,
            grade=parse_grade(cells["grade"], where, labels) if cells["grade"] else None,
            dr_present=bool(int(cells["dr_present"])) if cells["dr_present"] else None,
            ungradable=bool(int(cells["ungradable"] or 0)),
            side=cast("SplitName", cells["side"]) if cells["side"] else None,
            split=cells["split"],
            areas={code: float(cells[code.lower()]) for code in labels.codes if cells[code.lower()]},
            overlap=float(cells["overlap"]) if cells["overlap"] else None,
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


def _parse_int(cell: str) -> int | None:
    return int(cell) if cell else None
