"""DIARETDB0: photographs of which is known which lesions they show, but neither where nor the grade.

Who made it: T. Kauppi et al., Lappeenranta and Kuopio, Finland (ImageRet); 50 degrees, settings of the camera unknown.
Licence: free for research; no redistribution.
Citation: T. Kauppi et al., "DIARETDB0: Evaluation Database and Methodology for Diabetic Retinopathy Algorithms",
    technical report, Lappeenranta University of Technology, 2006.
How to get it: https://www.it.lut.fi/project/imageret/diaretdb0/. The original layout could not be seen: this reader
    takes a plain form of it, the photographs in ROOT/images and their lesions in ROOT/labels.csv with the columns
    image, redsmalldots, hemorrhages, hardexudates, softexudates, neovascularisation, each 0 or 1.
Counts: 130 photographs, 20 of them without any sign of diabetic retinopathy.

Known dirt:
    * No patient numbers and no eye: the photograph is the patient.
    * image028 and image072 are the same photograph, byte for byte, with different lesions: one `patient`.
    * Presence is no annotation of pixels: `lesion_masks` stays empty, and the photographs are unannotated material.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from deepmtdr.csv_tables import add_once, read_table
from deepmtdr.datasets.layout import DatasetPart, LabelCounts, check_labels_match, find_files
from deepmtdr.datasets.sample import Sample
from deepmtdr.errors import DataError
from deepmtdr.terms import Lesion

EXPECTED = LabelCounts(130)

SAME_PHOTOGRAPH = {"image072": "image028"}
"""The later name of a photograph that stands here twice -> the earlier one."""

_COLUMNS = {
    "redsmalldots": Lesion.MA,
    "hemorrhages": Lesion.HE,
    "hardexudates": Lesion.EX,
    "softexudates": Lesion.SE,
}


class Presence(NamedTuple):
    """What one photograph shows, wherever it may be."""

    lesions: frozenset[Lesion]
    neovascularisation: bool


def read_diaretdb0(root: Path) -> list[Sample]:
    """The photographs, without grade and without masks.

    Raises:
        DataError: if folder or table is missing, a cell is neither 0 nor 1, or photographs and rows do not match.
    """
    folder = root / "images"
    photographs = find_files(folder)
    check_labels_match(photographs, read_presence(root), folder, root / "labels.csv")
    return [
        Sample(photograph=path, name=name, patient=f"diaretdb0/{SAME_PHOTOGRAPH.get(name, name)}", dataset="diaretdb0")
        for name, path in photographs.items()
    ]


PARTS = (DatasetPart("all", read_diaretdb0, EXPECTED, "images"),)
"""The makers made no split."""


def read_presence(root: Path) -> dict[str, Presence]:
    """Which lesions each photograph shows, by the photograph's name.

    Raises:
        DataError: if the table is missing, names a photograph twice, or has a cell that is neither 0 nor 1.
    """
    presence: dict[str, Presence] = {}
    for where, row in read_table(root / "labels.csv", ("image", *_COLUMNS, "neovascularisation")):
        name = row.pop("image")
        for column, cell in row.items():
            if cell not in {"0", "1"}:
                raise DataError(f"{where}: expected 0 or 1 in {column}, found {cell!r}")
        lesions = frozenset(lesion for column, lesion in _COLUMNS.items() if row[column] == "1")
        add_once(presence, name, Presence(lesions, row["neovascularisation"] == "1"), where)
    return presence
