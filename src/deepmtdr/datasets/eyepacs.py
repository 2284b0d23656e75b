"""EyePACS, the Kaggle "Diabetic Retinopathy Detection" set of 2015: grades only (Sec. V-A).

Who made it: EyePACS LLC (free retinopathy screening, United States) for a competition of the California Healthcare
    Foundation; many cameras and clinics, two photographs per patient, graded by one clinician each.
Licence: competition terms: research only, no redistribution. Weights trained on it are for research, as their card
    states.
Citation: J. Cuadros and G. Bresnick, "EyePACS: an adaptable telemedicine system for diabetic retinopathy screening",
    J. Diabetes Sci. Technol. 3(3):509-516, 2009; E. Dugas et al., "Diabetic Retinopathy Detection", Kaggle, 2015.
How to get it: https://www.kaggle.com/c/diabetic-retinopathy-detection/data (account; accept the terms). Unpack
    train.zip.001-005 into ROOT/train and trainLabels.csv.zip into ROOT. The testing part, if wanted: test.zip.001-007
    into ROOT/test and retinopathy_solution.csv, published in the forum after the end of the competition, into ROOT.
Counts: 35,126 training photographs: 25810, 2443, 5292, 873, 708 of grades 0-4; 53,576 for testing, of which 10,906
    "Public" (8130, 720, 1579, 237, 240) and 42,670 "Private" (31403, 3042, 6282, 977, 966).

Official split: the paper uses "the default setting of training, validation and test sets" of all 88,702. Kaggle made
two parts. As is usual, this reader takes the public part of the testing set for validation, the private part for the
test.

Known errors and gaps:
    * Noisy grades; dark, blurred and overexposed photographs; strong JPEG; some photographs are upside down.
    * Copies from elsewhere are resized or contrast-equalised and have only some of the photographs. Their patients are
      the same people: `patient` is "eyepacs/NUMBER" in every copy, so that a split over several copies does not leak.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from deepmtdr.csv_tables import read_table
from deepmtdr.datasets.layout import (
    DatasetPart,
    LabelCounts,
    check_labels_match,
    check_unique_names,
    find_files,
    parse_eye,
    read_grades,
)
from deepmtdr.datasets.sample import Sample, SplitName
from deepmtdr.errors import DataError

EXPECTED = LabelCounts(35126, (25810, 2443, 5292, 873, 708))
EXPECTED_PUBLIC = LabelCounts(10906, (8130, 720, 1579, 237, 240))
EXPECTED_PRIVATE = LabelCounts(42670, (31403, 3042, 6282, 977, 966))

Usage = Literal["Public", "Private"]

_SPLITS: dict[str, SplitName] = {"Public": "validation", "Private": "test"}


def read_eyepacs(root: Path, dataset: str = "eyepacs") -> list[Sample]:
    """Read Kaggle's training part and, if present, the testing part.

    Args:
        root: folder with `train` and `trainLabels.csv`, and perhaps with `test` and `retinopathy_solution.csv`.
        dataset: name of the data set in the samples; another name for a resized copy.

    Raises:
        DataError: if a folder or table is missing, a grade is not 0-4, a name is not NUMBER_left or NUMBER_right, or
            photographs and rows do not match.
    """
    samples = read_eyepacs_training(root, dataset)
    if (root / "test").exists() or (root / "retinopathy_solution.csv").exists():
        samples += read_eyepacs_testing(root, dataset)
        check_unique_names(samples)
    return samples


def read_eyepacs_training(root: Path, dataset: str = "eyepacs") -> list[Sample]:
    """Read ROOT/train/NUMBER_left.jpeg with grades in ROOT/trainLabels.csv (image, level).

    Raises:
        DataError: as `read_eyepacs`.
    """
    folder, table = root / "train", root / "trainLabels.csv"
    photographs, grades = find_files(folder), read_grades(table, "image", "level")
    check_labels_match(photographs, grades, folder, table)
    return [_sample(name, path, grades[name], "train", dataset) for name, path in photographs.items()]


def read_eyepacs_testing(root: Path, dataset: str = "eyepacs", usage: Usage | None = None) -> list[Sample]:
    """Read ROOT/test/NUMBER_left.jpeg with grades in ROOT/retinopathy_solution.csv (image, level, Usage).

    Args:
        root: folder with `test` and `retinopathy_solution.csv`.
        dataset: name of the data set in the samples.
        usage: only the photographs of this usage; None: all.

    Raises:
        DataError: as `read_eyepacs`, or if a Usage is neither Public nor Private.
    """
    folder, table = root / "test", root / "retinopathy_solution.csv"
    photographs, grades = find_files(folder), read_grades(table, "image", "level")
    check_labels_match(photographs, grades, folder, table)
    usages: dict[str, str] = {}
    for where, row in read_table(table, ("image", "Usage")):
        if row["Usage"] not in _SPLITS:
            raise DataError(f"{where}: expected Public or Private in Usage, found {row['Usage']!r}")
        usages[row["image"]] = row["Usage"]
    return [
        _sample(name, path, grades[name], _SPLITS[usages[name]], dataset)
        for name, path in photographs.items()
        if usage in {None, usages[name]}
    ]


def read_eyepacs256_equalised(root: Path) -> list[Sample]:
    """Read a copy at 256 px with equalised contrast in Kaggle's layout: processed photographs of the same patients.

    Raises:
        DataError: as `read_eyepacs`.
    """
    return read_eyepacs(root, "eyepacs256_equalised")


PARTS = (
    DatasetPart("training", read_eyepacs_training, EXPECTED, "train"),
    DatasetPart("testing, public", lambda root: read_eyepacs_testing(root, usage="Public"), EXPECTED_PUBLIC, "test"),
    DatasetPart("testing, private", lambda root: read_eyepacs_testing(root, usage="Private"), EXPECTED_PRIVATE, "test"),
)
"""The official parts; each is one split."""


def _sample(name: str, path: Path, grade: int, split: SplitName, dataset: str) -> Sample:
    found = re.fullmatch(r"(\d+)_(left|right)", name)
    if found is None:
        raise DataError(f"{path}: expected a name such as 1000_left, found {name!r}")
    return Sample(
        photograph=path,
        name=name,
        patient=f"eyepacs/{found[1]}",
        dataset=dataset,
        laterality=parse_eye(found[2], str(path)),
        grade=grade,
        official_split=split,
    )
