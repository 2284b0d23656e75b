"""SRahimDR: both eyes of patients of an eye clinic, graded by ophthalmologists; no masks.

Who made it: S. S. Rahim et al., Universiti Teknikal Malaysia Melaka and Coventry University, with the eye clinic of
    Hospital Melaka, Malaysia; 3872 x 2592 JPEG, original colours. The photographs look as if from several cameras.
Licence: free for academic purposes, with attribution. Weights trained on it are for research, as their card states.
Citation: S. S. Rahim, V. Palade, J. Shuttleworth and C. Jayne, "Automatic screening and classification of diabetic
    retinopathy and maculopathy using fuzzy image processing", Brain Informatics 3(4):249-267, 2016,
    doi:10.1007/s40708-016-0045-3.
How to get it: https://github.com/SRahimDR/DR-image-dataset. There the photographs are in ten folders: no retinopathy,
    then mild, moderate, severe and proliferative retinopathy, each without and with maculopathy, then advanced diabetic
    eye disease. This reader takes them in ROOT/photographs and their labels in ROOT/labels.csv with the columns
    photograph, patient, eye, grade, maculopathy, note.
Counts: 600 photographs of 300 patients.

Official split: none.

Known errors and gaps:
    * "Advanced diabetic eye disease" is not one of the five grades: such a photograph has an empty cell in the column
      grade, no grade here, but `dr_present`.
    * Maculopathy is not read: no part of the network predicts it.
    * Two persons are there twice, and have one `patient` each (`SAME_PATIENT`). Patient299 and Patient300 have the same
      two photographs, byte for byte, with grade 2 and grade 3. Patient067 and Patient237 are the same eyes at another
      visit, as their vessels show. We found no other such pair among 420 photographs by their perceptual hashes.
    * In the photographs that we have seen, the circle of the field of view is cut off above and below.
"""

from __future__ import annotations

from pathlib import Path

from deepmtdr.csv_tables import add_once, read_table
from deepmtdr.datasets.layout import (
    DatasetPart,
    LabelCounts,
    check_labels_match,
    find_files,
    parse_eye,
    parse_grade,
    photograph_name,
)
from deepmtdr.datasets.sample import Sample
from deepmtdr.errors import DataError

EXPECTED = LabelCounts(600)

SAME_PATIENT = {"Patient237": "Patient067", "Patient300": "Patient299"}
"""Persons that the data set has twice: the later name -> the earlier one."""

ADVANCED_DISEASE = "advanced diabetic eye disease"
"""The note of a photograph that shows retinopathy beyond the five grades."""

_COLUMNS = ("photograph", "patient", "eye", "grade", "note")


def read_srahim(root: Path) -> list[Sample]:
    """Read ROOT/photographs with the labels in ROOT/labels.csv.

    Raises:
        DataError: if folder or table is missing, a cell is wrong, a photograph has neither a grade nor the note of
            advanced disease, or photographs and rows do not match.
    """
    folder, table = root / "photographs", root / "labels.csv"
    photographs = find_files(folder)
    rows: dict[str, tuple[str, dict[str, str]]] = {}
    for where, row in read_table(table, _COLUMNS):
        add_once(rows, photograph_name(row["photograph"]), (where, row), where)
    check_labels_match(photographs, rows, folder, table)
    return [_sample(name, path, *rows[name]) for name, path in photographs.items()]


PARTS = (DatasetPart("all", read_srahim, EXPECTED, "photographs"),)
"""The whole data set; there is no official split."""


def _sample(name: str, path: Path, where: str, row: dict[str, str]) -> Sample:
    advanced = row["note"].casefold() == ADVANCED_DISEASE
    if not row["patient"]:
        raise DataError(f"{where}: expected a patient, found an empty cell")
    if bool(row["grade"]) is advanced:
        expected = f"either a grade or the note {ADVANCED_DISEASE!r}"
        raise DataError(f"{where}: expected {expected}, found grade {row['grade']!r} and note {row['note']!r}")
    return Sample(
        photograph=path,
        name=name,
        patient=f"srahim/{SAME_PATIENT.get(row['patient'], row['patient'])}",
        dataset="srahim",
        laterality=parse_eye(row["eye"], f"{where}, column eye"),
        grade=None if advanced else parse_grade(row["grade"], where),
        dr_present=True if advanced else None,
    )
