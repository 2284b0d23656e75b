"""Messidor-2: both eyes of each patient, with adjudicated grades; often used as an external test set (Sec. V-A).

Who made it: E. Decenciere et al. (Messidor programme) and Brest University Hospital (LaTIM), France; Topcon TRC NW6,
    45 degrees, two photographs per examination. The grades: J. Krause et al., Google, three retina specialists.
Licence: photographs for research and education, no redistribution; the grades as on their page. Weights trained on it
    are for research, as their card states.
Citation: M. D. Abramoff et al., "Automated analysis of retinal images for detection of referable diabetic retinopathy",
    JAMA Ophthalmol. 131(3):351-357, 2013; E. Decenciere et al., "Feedback on a publicly distributed image database: the
    Messidor database", Image Anal. Stereol. 33(3):231-234, 2014; J. Krause et al., "Grader variability and the
    importance of reference standards for evaluating machine learning models for diabetic retinopathy", Ophthalmology
    125(8):1264-1272, 2018.
How to get it: https://www.adcis.net/en/third-party/messidor2/ (form): the photographs into ROOT/IMAGES, the list of
    pairs messidor-2.csv into ROOT; https://www.kaggle.com/datasets/google-brain/messidor2-dr-grades: messidor_data.csv
    into ROOT.
Counts: 1,748 photographs of 874 patients; 1,744 gradable ones: 1017, 270, 347, 75, 35 of grades 0-4.

Official split: none. It is usual to keep the whole set for testing.

Known errors and gaps:
    * Photographs are called NAME.png and IMNUMBER.JPG, but IMNUMBER.jpg in the table: names are compared without suffix
      and without case.
    * Only the list of pairs states which two photographs are of one patient, and which eye each shows. Without it each
      photograph counts as a patient, and the two eyes of a person may be in two splits.
    * Four photographs were judged ungradable; their grade is empty. The column of macular oedema is not read.
    * The first Messidor set has 1,058 of these photographs: never train on that and test on this.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from deepmtdr.csv_tables import FLAGS, add_once, read_table
from deepmtdr.datasets.layout import (
    DatasetPart,
    LabelCounts,
    check_labels_match,
    find_files,
    parse_grade,
    photograph_name,
)
from deepmtdr.datasets.sample import Sample
from deepmtdr.errors import DataError
from deepmtdr.terms import Laterality

EXPECTED = LabelCounts(1748, (1017, 270, 347, 75, 35), ungradable=4)

_PAIR_COLUMNS: dict[str, Laterality] = {"left": "L", "right": "R"}
_COLUMNS = ("image_id", "adjudicated_dr_grade", "adjudicated_gradable")


class _Eye(NamedTuple):
    patient: str
    laterality: Laterality | None


def read_messidor2(root: Path) -> list[Sample]:
    """Read ROOT/IMAGES with grades in ROOT/messidor_data.csv and, if present, the pairs in ROOT/messidor-2.csv.

    Raises:
        DataError: if folder or table is missing, a grade is not 0-4, gradable is not 0 or 1, photographs and rows do
            not match, or the list of pairs lacks a photograph or has one twice.
    """
    folder, table, pairs = root / "IMAGES", root / "messidor_data.csv", root / "messidor-2.csv"
    photographs = _by_key(find_files(folder))
    grades = _read_grades(table)
    check_labels_match(photographs, grades, folder, table)
    eyes = _read_eyes(pairs) if pairs.exists() else {key: _Eye(path.stem, None) for key, path in photographs.items()}
    if unpaired := sorted(photographs.keys() - eyes.keys()):
        raise DataError(f"{pairs}: no row for {len(unpaired)} photographs, the first is {photographs[unpaired[0]]}")
    return [
        Sample(
            photograph=path,
            name=path.stem,
            patient=f"messidor2/{eyes[key].patient}",
            dataset="messidor2",
            laterality=eyes[key].laterality,
            grade=grades[key],
            ungradable=grades[key] is None,
        )
        for key, path in photographs.items()
    ]


PARTS = (DatasetPart("all", read_messidor2, EXPECTED, "IMAGES"),)
"""The whole data set; there is no official split."""


def _key(file: str) -> str:
    """Key of a photograph: its file name without suffix, in lower case."""
    return photograph_name(file).lower()


def _by_key(files: dict[str, Path]) -> dict[str, Path]:
    photographs: dict[str, Path] = {}
    for path in files.values():
        if (other := photographs.setdefault(_key(path.name), path)) is not path:
            raise DataError(f"{path.parent}: found two files of one name, {other.name} and {path.name}; expected one")
    return photographs


def _read_grades(table: Path) -> dict[str, int | None]:
    """Grade by photograph; None: ungradable."""
    grades: dict[str, int | None] = {}
    for where, row in read_table(table, _COLUMNS):
        file, grade, gradable = (row[column] for column in _COLUMNS)
        if gradable not in FLAGS:
            raise DataError(f"{where}: expected 0 or 1 in adjudicated_gradable, found {gradable!r}")
        if not FLAGS[gradable] and grade:
            raise DataError(f"{where}: expected no grade of an ungradable photograph, found {grade!r}")
        add_once(grades, _key(file), parse_grade(grade, where) if FLAGS[gradable] else None, where)
    return grades


def _read_eyes(table: Path) -> dict[str, _Eye]:
    """Patient and eye by photograph; the patient is named after the left eye. Absent photographs may be listed."""
    eyes: dict[str, _Eye] = {}
    for where, row in read_table(table, tuple(_PAIR_COLUMNS)):
        for column, laterality in _PAIR_COLUMNS.items():
            eye = _Eye(photograph_name(row["left"]), laterality)
            add_once(eyes, _key(row[column]), eye, where, "each photograph in one pair")
    return eyes
