"""A prepared data set: a folder of files in the HR frame and a manifest with one row per photograph (Sec. V-A).

* manifest.csv: one row per photograph, also for those that could not be prepared;
* prepared.json: size of the frame, scale of the LR files, version of the format, and the label set unless it is that of
  diabetic retinopathy;
* hr/NAME.tif: the field of view, resized to the HR frame; only if the frame is the size nearest to it (interpretation
  R19);
* lr/NAME.tif: the network's input: the HR file reduced by the scale, or without an HR file the field of view, resized
  to the nearest low-resolution size;
* CODE/NAME.tif, such as MA/NAME.tif: coverage of the HR frame by lesions of a type, 0-255; absent if there is no such
  lesion or the type was not annotated;
* EX+SE/NAME.tif: coverage by lesions of several types that were annotated together (interpretation R32);
* ignored/NAME.tif: coverage by pixels that count for nothing; absent if all pixels count.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple, cast, get_args

from deepmtdr.datasets.frames import IGNORED, Frame
from deepmtdr.datasets.manifest import ManifestRow, read_manifest
from deepmtdr.datasets.sample import Sample, SplitName
from deepmtdr.errors import DataError, LabelSetError
from deepmtdr.files import write_json
from deepmtdr.labels import DIABETIC_RETINOPATHY, LabelSet, label_set_from_dict
from deepmtdr.toml_config import parse_json

MANIFEST, SETTINGS = "manifest.csv", "prepared.json"
FORMAT_VERSION = 2
"""Version of the folder's format."""
READABLE_VERSIONS = (1, 2)
"""Versions that can be read. A set of format 1 has no union labels and no ignored pixels."""
COVERAGE_THRESHOLD = 127
"""A pixel of the HR frame is lesion where the mask covers more than half of it."""


class PreparedSettings(NamedTuple):
    """The settings in `prepared.json`."""

    size: int
    """Side of the HR frame, px."""
    scale: int
    """Enlargement factor from the `lr` files to the `hr` files."""
    labels: LabelSet = DIABETIC_RETINOPATHY
    version: int = FORMAT_VERSION
    """Version of the folder's format."""


class PreparedSet(NamedTuple):
    """A prepared data set on disk."""

    folder: Path
    size: int
    """Side of the HR frame, px."""
    scale: int
    """Enlargement factor from the `lr` files to the `hr` files."""
    rows: list[ManifestRow]
    """Sorted by name."""
    labels: LabelSet = DIABETIC_RETINOPATHY

    def samples(self) -> list[Sample]:
        """All photographs with their labels; those that could not be prepared have a `problem` and no file."""
        return [self.sample(row) for row in self.rows]

    def frames(self) -> list[Frame]:
        """The photographs that could be prepared, as frames."""
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
            union_masks={union: self.folder / union / file if area else None for union, area in row.unions.items()},
            ignored_mask=self.folder / IGNORED / file if row.ignored else None,
            mask_threshold=COVERAGE_THRESHOLD,
            problem="" if ok else row.problem or row.status,
        )


def is_prepared(folder: Path) -> bool:
    """Whether the folder has a manifest.csv, which preparation writes last. No other file is checked."""
    return (folder / MANIFEST).is_file()


def read_prepared(folder: Path) -> PreparedSet:
    """Open a prepared data set.

    Raises:
        DataError: if manifest or settings are missing or damaged, naming file and row.
    """
    size, scale, labels, _ = read_prepared_settings(folder / SETTINGS)
    rows = list(read_manifest(folder / MANIFEST, labels))
    return PreparedSet(folder, size, scale, rows, labels)


def read_prepared_settings(path: Path) -> PreparedSettings:
    """Read `prepared.json`.

    Raises:
        DataError: if the file is missing, damaged, or of an unknown format version.
    """
    try:
        found = parse_json(path.read_text(encoding="utf-8"))
        version, size, scale = (int(found[key]) for key in ("form", "size", "scale"))
        labels = label_set_from_dict(found["labels"], str(path)) if "labels" in found else DIABETIC_RETINOPATHY
    except (OSError, ValueError, KeyError, TypeError, AttributeError, LabelSetError) as error:
        raise DataError(f"{path}: expected the settings of a prepared set ({error})") from error
    if version not in READABLE_VERSIONS:
        expected = " or ".join(map(str, READABLE_VERSIONS))
        raise DataError(f"{path}: prepared in format {version}, expected {expected}; prepare the set again")
    return PreparedSettings(size, scale, labels, version)


def write_prepared_settings(path: Path, settings: PreparedSettings) -> None:
    """Write `prepared.json`; the labels of diabetic retinopathy are left out."""
    values: dict[str, Any] = {"form": settings.version, "size": settings.size, "scale": settings.scale}
    if settings.labels != DIABETIC_RETINOPATHY:
        values["labels"] = asdict(settings.labels)
    write_json(path, values)
