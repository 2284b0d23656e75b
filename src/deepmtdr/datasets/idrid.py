"""IDRiD, the Indian Diabetic Retinopathy Image Dataset: lesion masks and grades (Sec. V-A).

Who made it: P. Porwal et al., with an eye clinic in Nanded, India; one camera (Kowa VX-10 alpha), 4288 x 2848 JPEG.
Licence: CC BY 4.0.
Citation: P. Porwal et al., "Indian Diabetic Retinopathy Image Dataset (IDRiD): A Database for Diabetic Retinopathy
    Screening Research", Data 3(3):25, 2018, doi:10.3390/data3030025.
How to get it: https://ieee-dataport.org/open-access/indian-diabetic-retinopathy-image-dataset-idrid (free account);
    unpack "A. Segmentation.zip" and "B. Disease Grading.zip" side by side into ROOT.
Counts: segmentation 54 + 27 photographs (masks of MA 54 + 27, HE 53 + 27, EX 54 + 27, SE 26 + 14), grading 413 + 103
    (training: 134, 20, 136, 74, 49 of grades 0-4; testing: 34, 5, 32, 19, 13).

Known errors and gaps:
    * No patient numbers: each eye counts as a patient, so the two eyes of a person may be in two splits.
    * A photograph may be in A and in B under two names (`ALSO_GRADED`; ROOT/same_photograph.csv adds to it, with the
      columns segmentation_image, grading_image, retinopathy_grade). It is one sample here, with one `patient`.
    * At least ten eyes were photographed twice (`SAME_EYE`, `SAME_EYE_ACROSS`; found by comparing the vessels of every
      two training photographs, then checked by eye). These are two photographs with one `patient`.
    * B has photographs twice (`SAME_PHOTOGRAPH`): 021 = 391 and 028 = 327 with different grades, 045 = 333, 073 = 375
      and 079 = 279 with the same grade. Each pair has one `patient`; the grades are not changed.
    * The two parts of B use the same numbers: names of the testing part begin with "test_" here. A continues from 55.
      No photograph of the testing parts is known to be in A and in B; we could not see them.
    * The grading table has a trailing space in a header and empty columns. Its risk of oedema is not read.
    * A lesion type without a file was annotated, and there is no such lesion: None in `lesion_masks`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

from deepmtdr.csv_tables import read_table
from deepmtdr.datasets.layout import (
    DatasetPart,
    LabelCounts,
    check_labels_match,
    check_unique_names,
    find_files,
    find_masks,
    parse_grade,
    read_grades,
)
from deepmtdr.datasets.sample import Sample, SplitName
from deepmtdr.errors import DataError
from deepmtdr.terms import Lesion

IdridPart = Literal["training", "testing"]

EXPECTED_SEGMENTATION = LabelCounts(54, None, (54, 53, 54, 26))
EXPECTED_SEGMENTATION_TESTING = LabelCounts(27, None, (27, 27, 27, 14))
EXPECTED_GRADING = LabelCounts(413, (134, 20, 136, 74, 49))
EXPECTED_GRADING_TESTING = LabelCounts(103, (34, 5, 32, 19, 13))

# fmt: off
ALSO_GRADED = {
    1: 102, 2: 366, 3: 369, 5: 82, 6: 196, 7: 29, 8: 207, 10: 224, 13: 231, 14: 232, 15: 236, 16: 237, 17: 239, 18: 132,
    19: 242, 20: 245, 21: 246, 23: 247, 24: 248, 27: 254, 28: 261, 29: 263, 33: 272, 34: 277, 35: 278, 36: 280, 37: 281,
    38: 185, 40: 282, 41: 283, 42: 284, 43: 294, 44: 300, 46: 306, 47: 64, 48: 53, 49: 308, 50: 48, 51: 310, 52: 311,
    53: 12, 54: 314,
}
# fmt: on
"""Training photographs of A by number -> the same photograph's number in the training part of B."""

SAME_PHOTOGRAPH = {391: 21, 327: 28, 333: 45, 375: 73, 279: 79}
"""Training photographs that B has twice: the later number -> the earlier one."""

SAME_EYE = {397: 13, 401: 43, 354: 339, 126: 38, 338: 319, 404: 46}
"""Training photographs of B that show the same eye as another photograph of B: the one number -> the other."""

SAME_EYE_ACROSS = {11: 83, 25: 347, 26: 299, 39: 271}
"""Training photographs of A -> a photograph of B that shows the same eye in another exposure."""

_A = "A. Segmentation/1. Original Images"
_B = "B. Disease Grading/1. Original Images"
_FOLDERS: dict[IdridPart, str] = {"training": "a. Training Set", "testing": "b. Testing Set"}
_SPLITS: dict[IdridPart, SplitName] = {"training": "train", "testing": "test"}
MASK_FOLDERS = {
    Lesion.MA: "1. Microaneurysms",
    Lesion.HE: "2. Haemorrhages",
    Lesion.EX: "3. Hard Exudates",
    Lesion.SE: "4. Soft Exudates",
}


def read_idrid(root: Path, part: IdridPart | None = None) -> list[Sample]:
    """Read every photograph of A and B once: A's with masks and, if known, the grade; then those of B that A lacks.

    If a photograph is in both, A's copy is kept, with the grade of the same photograph in B, or None if B has different
    grades for it.

    Args:
        root: folder with "A. Segmentation" and "B. Disease Grading".
        part: only this part. None: the training part and, as far as present, the testing part.

    Raises:
        DataError: as `read_idrid_segmentation` and `read_idrid_grading`.
    """
    if part is not None:
        return _join(root, read_idrid_segmentation(root, part), read_idrid_grading(root, part), part)
    annotated = read_idrid_segmentation(root, "testing") if (root / _A / _FOLDERS["testing"]).exists() else []
    graded = read_idrid_grading(root, "testing") if (root / _B / _FOLDERS["testing"]).exists() else []
    samples = read_idrid(root, "training") + _join(root, annotated, graded, "testing")
    check_unique_names(samples)
    return samples


def read_idrid_segmentation(root: Path, part: IdridPart = "training") -> list[Sample]:
    """Read "A. Segmentation": photographs with masks of the four lesion types; grades from same_photograph.csv only.

    Raises:
        DataError: if a folder is missing, a mask has no photograph, or same_photograph.csv has a wrong row.
    """
    photographs = find_files(root / _A / _FOLDERS[part])
    folder = root / "A. Segmentation" / "2. All Segmentation Groundtruths" / _FOLDERS[part]
    masks = {
        lesion: find_masks(folder / MASK_FOLDERS[lesion], lesion, photographs, (f"_{lesion}",)) for lesion in Lesion
    }
    same = _same_photographs(root, photographs.keys(), part)
    return [
        Sample(
            photograph=path,
            name=name,
            patient=_patient_in_a(_number(name, path), same.get(name, (None, None))[0]),
            dataset="idrid",
            grade=same.get(name, (None, None))[1],
            official_split=_SPLITS[part],
            lesion_masks={lesion: masks[lesion].get(name) for lesion in Lesion},
        )
        for name, path in photographs.items()
    ]


def read_idrid_grading(root: Path, part: IdridPart = "training") -> list[Sample]:
    """Read "B. Disease Grading": photographs with grades; names of the testing part begin with "test_".

    Raises:
        DataError: if folder or table is missing, a grade is not 0-4, or photographs and rows do not match.
    """
    letter, title = _FOLDERS[part].split()[0], part.capitalize()
    folder = root / _B / _FOLDERS[part]
    table = root / "B. Disease Grading" / "2. Groundtruths" / f"{letter} IDRiD_Disease Grading_{title} Labels.csv"
    photographs = find_files(folder)
    grades = read_grades(table, "Image name", "Retinopathy grade")
    check_labels_match(photographs, grades, folder, table)
    return [
        Sample(
            photograph=path,
            name=name if part == "training" else f"test_{name}",
            patient=_patient_in_b(_number(name, path))
            if part == "training"
            else f"idrid/test_{_number(name, path):03d}",
            dataset="idrid",
            grade=grades[name],
            official_split=_SPLITS[part],
        )
        for name, path in photographs.items()
    ]


PARTS = (
    DatasetPart("A. Segmentation, training", read_idrid_segmentation, EXPECTED_SEGMENTATION, f"{_A}/a. Training Set"),
    DatasetPart(
        "A. Segmentation, testing",
        partial(read_idrid_segmentation, part="testing"),
        EXPECTED_SEGMENTATION_TESTING,
        f"{_A}/b. Testing Set",
    ),
    DatasetPart("B. Disease Grading, training", read_idrid_grading, EXPECTED_GRADING, f"{_B}/a. Training Set"),
    DatasetPart(
        "B. Disease Grading, testing",
        partial(read_idrid_grading, part="testing"),
        EXPECTED_GRADING_TESTING,
        f"{_B}/b. Testing Set",
    ),
)
"""The official parts; each is one split."""


def _join(root: Path, annotated: list[Sample], graded: list[Sample], part: IdridPart) -> list[Sample]:
    """Join one part of A and B, each photograph once."""
    same = _same_photographs(root, {sample.name for sample in annotated}, part)
    grades: dict[int | None, set[int]] = defaultdict(set)
    for number, grade in [*same.values(), *((_number_in_b(sample), sample.grade) for sample in graded)]:
        if grade is not None:
            grades[number].add(grade)
    agreed = {name: _agreed(grades[number]) for name, (number, _) in same.items()}
    in_a = {number for number, _ in same.values()}
    joined = [replace(sample, grade=agreed.get(sample.name)) for sample in annotated]
    return joined + [sample for sample in graded if _number_in_b(sample) not in in_a]


def _same_photographs(root: Path, names: Collection[str], part: IdridPart) -> dict[str, tuple[int, int | None]]:
    """Name in A -> number in B and grade, from `ALSO_GRADED` and same_photograph.csv; for the training parts only."""
    if part == "testing":
        return {}
    numbers = {name: ALSO_GRADED.get(_number(name, root)) for name in names}
    same: dict[str, tuple[int, int | None]] = {name: (_once(n), None) for name, n in numbers.items() if n is not None}
    path = root / "same_photograph.csv"
    columns = ("segmentation_image", "grading_image", "retinopathy_grade")
    for where, row in read_table(path, columns) if path.exists() else ():
        name, in_b, grade = (row[column] for column in columns)
        if name not in names:
            raise DataError(f"{where}: expected one of the {len(names)} photographs of A, found {name!r}")
        same[name] = _once(_number(in_b, where)), parse_grade(grade, where)
    return same


def _once(number: int) -> int:
    """The number of the first copy, if B contains the photograph twice; else its number."""
    return SAME_PHOTOGRAPH.get(number, number)


def _number_in_b(sample: Sample) -> int | None:
    """B's number of a training photograph; None for a testing one, which is not known to be in A."""
    return None if sample.name.startswith("test_") else _once(_number(sample.name, sample.photograph))


def _patient_in_a(number: int, in_b: int | None) -> str:
    in_b = SAME_EYE_ACROSS.get(number) if in_b is None else in_b
    return f"idrid/A{number:02d}" if in_b is None else _patient_in_b(in_b)


def _patient_in_b(number: int) -> str:
    return f"idrid/{SAME_EYE.get(_once(number), _once(number)):03d}"


def _number(name: str, where: Path | str) -> int:
    digits = name.removeprefix("IDRiD_")
    if digits == name or not digits.isdecimal():
        raise DataError(f"{where}: expected a name such as IDRiD_01, found {name!r}")
    return int(digits)


def _agreed(grades: set[int]) -> int | None:
    return next(iter(grades)) if len(grades) == 1 else None
