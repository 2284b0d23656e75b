"""HEI-MED: photographs in which an ophthalmologist outlined all exudates, hard and soft together; no grades.

Who made it: L. Giancardo et al., Oak Ridge National Laboratory, Université de Bourgogne and Hamilton Eye Institute,
    Memphis, from a telemedicine network for diabetic retinopathy.
Licence: non-commercial research only, with citation. Weights trained on it are for research, as their card states.
Citation: L. Giancardo et al., "Exudate-based diabetic macular edema detection in fundus images using publicly available
    datasets", Medical Image Analysis 16(1):216-226, 2012, doi:10.1016/j.media.2011.07.004.
How to get it: https://github.com/lgiancaUTH/HEI-MED. There each photograph has a file of regions in a format of its
    own, with a type for each region. This reader takes the photographs in ROOT/photographs, masks of the exudates in
    ROOT/exudates, masks of the other bright regions (drusen, scars, reflections) in ROOT/other_bright, and the number
    of regions in ROOT/labels.csv with the columns photograph, exudates, other_bright, microaneurysms, haemorrhages. A
    mask has its photograph's name and size; a photograph without such a region has no mask.
Counts: 169 photographs, each of another patient; 54 with exudates.

Official split: none.

Known errors and gaps:
    * Hard and soft exudates were not distinguished: their mask is the union label "EX+SE" (interpretation R32).
    * Other bright regions are ignored pixels: they may look like exudates and are not background. In two photographs
      they share pixels with exudates (34 px and 1 px at a width of 1200 px); these are ignored too.
    * Microaneurysms and haemorrhages were counted in a few photographs only and have no masks here: not annotated.
    * No grades. A photograph without exudates may show other signs of retinopathy, so `dr_present` is not known.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path

from deepmtdr.csv_tables import add_once, parse_integer, read_table
from deepmtdr.datasets.layout import (
    DatasetPart,
    LabelCounts,
    check_labels_match,
    find_files,
    find_masks,
    photograph_name,
)
from deepmtdr.datasets.sample import Sample
from deepmtdr.errors import DataError
from deepmtdr.terms import Lesion

EXUDATES = f"{Lesion.EX}+{Lesion.SE}"
"""The union label: hard or soft exudates."""

EXPECTED = LabelCounts(169, unions={EXUDATES: 54})

_FOLDERS = ("exudates", "other_bright")
_COLUMNS = (*_FOLDERS, "microaneurysms", "haemorrhages")


def read_heimed(root: Path) -> list[Sample]:
    """Read ROOT/photographs with the masks in ROOT/exudates and ROOT/other_bright.

    Raises:
        DataError: if a folder or the table is missing, a cell is not a number, photographs and rows do not match, or a
            mask is there without a region in the table, or the reverse.
    """
    photographs, counts = find_files(root / "photographs"), read_region_counts(root)
    check_labels_match(photographs, counts, root / "photographs", root / "labels.csv")
    exudates, other_bright = (_find_region_masks(root / folder, photographs, counts) for folder in _FOLDERS)
    return [
        Sample(
            photograph=path,
            name=name,
            patient=f"heimed/{name}",
            dataset="heimed",
            union_masks={EXUDATES: exudates.get(name)},
            ignored_mask=other_bright.get(name),
        )
        for name, path in photographs.items()
    ]


PARTS = (DatasetPart("all", read_heimed, EXPECTED, "photographs"),)
"""The whole data set; there is no official split."""


def read_region_counts(root: Path) -> dict[str, dict[str, int]]:
    """Number of regions of each kind, by name of the photograph.

    Raises:
        DataError: if the table is missing, has a photograph twice, or a cell that is not a number.
    """
    counts: dict[str, dict[str, int]] = {}
    for where, row in read_table(root / "labels.csv", ("photograph", *_COLUMNS)):
        regions = {column: _parse_count(row[column], f"{where}, column {column}") for column in _COLUMNS}
        add_once(counts, photograph_name(row["photograph"]), regions, where)
    return counts


def _parse_count(cell: str, where: str) -> int:
    with contextlib.suppress(ValueError):
        if (count := parse_integer(cell)) >= 0:
            return count
    raise DataError(f"{where}: expected a number, found {cell!r}")


def _find_region_masks(
    folder: Path, photographs: Mapping[str, Path], counts: Mapping[str, Mapping[str, int]]
) -> dict[str, Path]:
    """Masks by photograph; the table counts at least one region for each mask, and no region without a mask."""
    masks = find_masks(folder, folder.name, photographs)
    for name in photographs:
        regions = counts[name][folder.name]
        if bool(regions) is not (name in masks):
            found = "a mask" if name in masks else "no mask"
            raise DataError(
                f"{folder}: found {found} of {name}; labels.csv has {regions} regions, expected both or none"
            )
    return masks
