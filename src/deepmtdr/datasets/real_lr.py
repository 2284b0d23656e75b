"""Real-LR: the paper's photographs of real low-resolution cameras, labelled negative or positive (Sec. V-A).

Who made it: X. Wang et al., the paper's authors: 40 photographs of DRIVE and 858 from Beijing Tongren Hospital, 470 x
    380, labelled by its doctors.
Licence: DRIVE's terms for its part; none is stated for the hospital's. Taken as research only.
Citation: the paper.
How to get it: DRIVE as in `drive.py`, into ROOT/drive. The paper names a download of the whole set, but we could not
    get it and do not know its layout. This reader takes the hospital's part as ROOT/hospital with the photographs in
    `images`, and `labels.csv` with the columns image (the name, with or without suffix), label (negative or positive)
    and, if known, patient and eye (L or R). Either of the two parts is enough.
Counts: 898 photographs, 611 of them negative and 287 positive.

Split: test. The paper evaluates on it and does not train on it. DRIVE's own parts are ignored here. Training on
DRIVE's training part would use photographs of this test set; `patient` is the same in both, so that a split reports it.

Known errors and gaps:
    * Negative is grade 0. Positive is not one of the five grades: the grade is None, and `dr_present` is True.
    * DRIVE's photographs are labelled here by DRIVE's own notes (5 of the 40 are positive). The labels of the
      hospital's doctors for them are not published, so the counts may differ by a few.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from deepmtdr.csv_tables import add_once, read_column_names, read_table
from deepmtdr.datasets.drive import read_drive
from deepmtdr.datasets.layout import (
    DatasetPart,
    LabelCounts,
    check_labels_match,
    check_unique_names,
    find_files,
    parse_eye,
    photograph_name,
)
from deepmtdr.datasets.sample import Sample
from deepmtdr.errors import DataError
from deepmtdr.terms import Grade, Laterality

EXPECTED = LabelCounts(898, (611, 0, 0, 0, 0))

_POSITIVE = {"negative": False, "positive": True}


class _Row(NamedTuple):
    positive: bool
    patient: str
    laterality: Laterality | None


def read_real_lr(root: Path) -> list[Sample]:
    """Read DRIVE's photographs, then the hospital's.

    Raises:
        DataError: if neither part is present, a folder or table is missing, a label is not negative or positive, or
            photographs and rows do not match.
    """
    samples: list[Sample] = []
    if (root / "drive").exists():
        samples += [replace(sample, dataset="real_lr", official_split="test") for sample in read_drive(root / "drive")]
    if (root / "hospital").exists():
        samples += _read_hospital(root / "hospital")
    if not samples:
        raise DataError(f"{root}: expected the folders drive or hospital with photographs, found neither")
    check_unique_names(samples)
    return samples


PARTS = (DatasetPart("all", read_real_lr, EXPECTED, "."),)
"""The whole data set; the paper gives no counts of its parts."""


def _read_hospital(root: Path) -> list[Sample]:
    folder, table = root / "images", root / "labels.csv"
    photographs, rows = find_files(folder), _read_labels(table)
    check_labels_match(photographs, rows, folder, table)
    return [
        Sample(
            photograph=path,
            name=name,
            patient=f"real_lr/{rows[name].patient or name}",
            dataset="real_lr",
            laterality=rows[name].laterality,
            grade=None if rows[name].positive else Grade.NEGATIVE,
            dr_present=True if rows[name].positive else None,
            official_split="test",
        )
        for name, path in photographs.items()
    ]


def _read_labels(table: Path) -> dict[str, _Row]:
    known = [column for column in ("patient", "eye") if column in read_column_names(table)]
    rows: dict[str, _Row] = {}
    for where, row in read_table(table, ("image", "label", *known)):
        label = row["label"]
        if label not in _POSITIVE:
            raise DataError(f"{where}: expected negative or positive in label, found {label!r}")
        read = _Row(_POSITIVE[label], row.get("patient", ""), parse_eye(row.get("eye", ""), where))
        add_once(rows, photograph_name(row["image"]), read, where)
    return rows
