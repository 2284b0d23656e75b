"""A prepared set: a folder of files in the HR frame and the manifest that says what each of them is (Sec. V-A).

* manifest.csv: a row per photograph of the set, whatever happened to it;
* prepared.json: size of the frame, scale of the LR files, version of this form;
* hr/NAME.tif: the field of view in the HR frame; none of a photograph with fewer pixels than the frame;
* lr/NAME.tif: what the network is given, hr reduced by the scale or the low-resolution photograph itself;
* MA, HE, EX, SE/NAME.tif: coverage of the HR frame, 0-255; no file: no such lesion, or not annotated.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple, cast

from deepmtdr.datasets.frames import Frame
from deepmtdr.datasets.layout import read_table
from deepmtdr.datasets.sample import Sample, SplitName
from deepmtdr.errors import DataError
from deepmtdr.files import printable_path
from deepmtdr.photographs.field_of_view import FieldOfView
from deepmtdr.terms import Grade, Laterality, Lesion

MANIFEST, SETTINGS = "manifest.csv", "prepared.json"
FORMAT_VERSION = 1
"""Version of the folder's form."""
COVERAGE_THRESHOLD = 127
"""A pixel of the HR frame is lesion where the mask covers more than half of it."""
LABEL_FIELDS = ("name", "dataset", "patient", "laterality", "grade", "dr_present", "ungradable")
"""Fields that a sample and its row share."""
STATUSES = ("ok", "unreadable", "no_fov", "bad_mask")


@dataclass(frozen=True, kw_only=True)
class ManifestRow:
    """What the manifest says of one photograph; the fields are its columns."""

    name: str
    dataset: str
    status: str
    """One of `STATUSES`; any but "ok": there are no files, and `problem` says why."""
    problem: str = ""
    source: str
    """Path of the photograph, from the set's root where it lies inside."""
    sha256: str = ""
    """Of the photograph's bytes."""
    masks_sha256: str = ""
    """Of the bytes of all its masks, in channel order; empty without a mask file."""
    patient: str
    laterality: Laterality | None = None
    grade: Grade | None = None
    dr_present: bool | None = None
    ungradable: bool = False
    side: SplitName | None = None
    """Where the set's makers put it."""
    split: str = ""
    """Where it stands: the makers' side, or one drawn by the seed."""
    ma: float | None = None
    """Area of microaneurysms in px of the HR frame; 0: none there; None: not annotated. So with `he`, `ex`, `se`."""
    he: float | None = None
    ex: float | None = None
    se: float | None = None
    overlap: float | None = None
    """Share of the lesion pixels that two or more types claim; None without lesions."""
    width: int | None = None
    height: int | None = None
    """Of the photograph, upright, px."""
    fov_x: int | None = None
    fov_y: int | None = None
    fov_side: int | None = None
    """The square around the field of view in the photograph's px; it may reach outside the photograph."""
    scale: int | None = None
    """The way into the HR frame: 1 has an `hr` file; 2, 4, 8 are low-resolution photographs (reading R19)."""
    file: str = ""
    """Stem of its files."""
    perceptual_hash: str = ""

    @property
    def areas(self) -> tuple[float | None, ...]:
        """In channel order."""
        return self.ma, self.he, self.ex, self.se

    @property
    def fov(self) -> FieldOfView | None:
        """The square that every map was cropped by."""
        if self.fov_x is None or self.fov_y is None or self.fov_side is None:
            return None
        return FieldOfView(self.fov_x, self.fov_y, self.fov_side)


class PreparedSet(NamedTuple):
    """A prepared set on disk."""

    folder: Path
    size: int
    """Side of the HR frame, px."""
    scale: int
    """Between `lr` and `hr`."""
    rows: list[ManifestRow]
    """Sorted by name."""

    def samples(self) -> list[Sample]:
        """Every photograph with its labels and prepared files; one that could not be prepared names its source."""
        return [self.sample(row) for row in self.rows]

    def frames(self) -> list[Frame]:
        """The photographs that could be prepared."""
        return [Frame(self.sample(row), self.size, row.scale or 1) for row in self.rows if row.status == "ok"]

    def sample(self, row: ManifestRow) -> Sample:
        """One row as a sample; its side is where it stands in the split."""
        photograph = Path(row.source)
        if row.status == "ok":
            photograph = self.folder / ("hr" if row.scale == 1 else "lr") / f"{row.file}.tif"
        areas = zip(Lesion, row.areas, strict=True)
        return Sample(
            photograph=photograph,
            **shared_labels(row),
            official_split=cast("SplitName", row.split) if row.split in ("train", "validation", "test") else None,
            lesion_masks={
                lesion: self.folder / lesion.name / f"{row.file}.tif" if area else None
                for lesion, area in areas
                if area is not None
            },
            mask_threshold=COVERAGE_THRESHOLD,
        )


def shared_labels(known: Sample | ManifestRow) -> dict[str, Any]:
    """What a sample and its row both know."""
    return {label: getattr(known, label) for label in LABEL_FIELDS}


def is_prepared(folder: Path) -> bool:
    """Whether `prepare` has finished there."""
    return (folder / MANIFEST).is_file()


def read_prepared(folder: Path) -> PreparedSet:
    """Open a prepared set.

    Raises:
        DataError: if manifest or settings are missing or damaged, naming file and row.
    """
    size, scale = read_prepared_settings(folder / SETTINGS)
    rows = list(read_manifest(folder / MANIFEST))
    return PreparedSet(folder, size, scale, rows)


def read_prepared_settings(path: Path) -> tuple[int, int]:
    """Side of the HR frame and scale of the LR files.

    Raises:
        DataError: if the file is missing, or not of this form.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        form, size, scale = (int(found[key]) for key in ("form", "size", "scale"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: expected the settings of a prepared set ({error})") from error
    if form != FORMAT_VERSION:
        raise DataError(f"{path}: prepared in form {form}, expected {FORMAT_VERSION}; prepare it anew")
    return size, scale


def read_manifest(path: Path) -> Iterator[ManifestRow]:
    """Rows of a manifest.

    Raises:
        DataError: naming file and row.
    """
    for where, cells in read_table(path, COLUMNS):
        yield _row(cells, where)


def format_manifest(rows: Iterable[ManifestRow], header: bool = True) -> str:
    """The manifest's text."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    if header:
        table.writerow(COLUMNS)
    table.writerows([_cell(getattr(row, name)) for name in COLUMNS] for row in rows)
    return text.getvalue()


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, float):
        return f"{value:.6g}"
    return "" if value is None else printable_path(str(int(value)) if isinstance(value, int) else str(value))


def _row(cells: Mapping[str, str], where: str) -> ManifestRow:
    try:
        row = ManifestRow(**{name: _PARSE.get(name, str)(cell) for name, cell in cells.items() if cell})
    except (ValueError, TypeError) as error:
        raise DataError(f"{where}: not a row of a manifest ({error})") from error
    if row.status not in STATUSES or not (row.name and row.patient):
        raise DataError(f"{where}: expected name, patient and a status of {', '.join(STATUSES)}, found {row.status!r}")
    return row


COLUMNS = tuple(field.name for field in fields(ManifestRow))

_PARSE: dict[str, Any] = {
    **dict.fromkeys(("width", "height", "fov_x", "fov_y", "fov_side", "scale"), int),
    **dict.fromkeys(("ma", "he", "ex", "se", "overlap"), float),
    **dict.fromkeys(("dr_present", "ungradable"), lambda cell: bool(int(cell))),
    "grade": lambda cell: Grade(int(cell)),
}
