"""DIARETDB0: photographs with the types of lesions that they show, without masks and without grades.

Who made it: T. Kauppi et al., Lappeenranta and Kuopio, Finland (ImageRet); 50 degrees, settings of the camera unknown.
Licence: free for research; no redistribution.
Citation: T. Kauppi et al., "DIARETDB0: Evaluation Database and Methodology for Diabetic Retinopathy Algorithms",
    technical report, Lappeenranta University of Technology, 2006.
How to get it: https://www.it.lut.fi/project/imageret/diaretdb0/. We could not see the original layout. This reader
    takes the photographs in ROOT/images and their lesions in ROOT/labels.csv with the columns image, redsmalldots,
    hemorrhages, hardexudates, softexudates, neovascularisation, each 0 or 1.
Counts: 130 photographs, 20 of them without any sign of diabetic retinopathy.

Known errors and gaps:
    * No patient numbers, and not known which eye: each photograph counts as a patient.
    * image028 and image072 are the same photograph, byte for byte, with different lesions: they have one `patient`.
    * The labels do not tell where the lesions are: `lesion_masks` is empty, and the photographs count as not annotated.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from deepmtdr.csv_tables import FLAGS, add_once, read_table
from deepmtdr.datasets.layout import DatasetPart, LabelCounts, check_labels_match, find_files
from deepmtdr.datasets.sample import Sample
from deepmtdr.errors import DataError
from deepmtdr.terms import Lesion

EXPECTED = LabelCounts(130)

SAME_PHOTOGRAPH = {"image072": "image028"}
"""Photograph that the data set has twice: the later name -> the earlier one."""

_COLUMNS = {
    "redsmalldots": Lesion.MA,
    "hemorrhages": Lesion.HE,
    "hardexudates": Lesion.EX,
    "softexudates": Lesion.SE,
}


class Presence(NamedTuple):
    """The lesions that one photograph shows."""

    lesions: frozenset[Lesion]
    neovascularisation: bool


def read_diaretdb0(root: Path) -> list[Sample]:
    """Read the photographs, without grades and masks.

    Raises:
        DataError: if folder or table is missing, a cell is not 0 or 1, or photographs and rows do not match.
    """
    folder = root / "images"
    photographs = find_files(folder)
    check_labels_match(photographs, read_presence(root), folder, root / "labels.csv")
    return [
        Sample(photograph=path, name=name, patient=f"diaretdb0/{SAME_PHOTOGRAPH.get(name, name)}", dataset="diaretdb0")
        for name, path in photographs.items()
    ]


PARTS = (DatasetPart("all", read_diaretdb0, EXPECTED, "images"),)
"""The whole data set; there is no official split."""


def read_presence(root: Path) -> dict[str, Presence]:
    """The lesions that each photograph shows, by name of the photograph.

    Raises:
        DataError: if the table is missing, has a photograph twice, or a cell that is not 0 or 1.
    """
    presence: dict[str, Presence] = {}
    for where, row in read_table(root / "labels.csv", ("image", *_COLUMNS, "neovascularisation")):
        name = row.pop("image")
        for column, cell in row.items():
            if cell not in FLAGS:
                raise DataError(f"{where}: expected 0 or 1 in {column}, found {cell!r}")
        lesions = frozenset(lesion for column, lesion in _COLUMNS.items() if FLAGS[row[column]])
        add_once(presence, name, Presence(lesions, FLAGS[row["neovascularisation"]]), where)
    return presence
