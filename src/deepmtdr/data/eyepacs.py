"""EyePACS, the Kaggle "Diabetic Retinopathy Detection" set of 2015: grades only (Sec. V-A).

Who made it: EyePACS LLC (free retinopathy screening, United States) for a competition of the California Healthcare
    Foundation; many cameras and clinics, two photographs per patient, graded by one clinician each.
Licence: competition terms: research only, no redistribution. Weights that saw it are for research and say so.
Citation: J. Cuadros and G. Bresnick, "EyePACS: an adaptable telemedicine system for diabetic retinopathy screening",
    J. Diabetes Sci. Technol. 3(3):509-516, 2009; E. Dugas et al., "Diabetic Retinopathy Detection", Kaggle, 2015.
How to get it: https://www.kaggle.com/c/diabetic-retinopathy-detection/data (account; accept the terms). Unpack
    train.zip.001-005 into ROOT/train and trainLabels.csv.zip into ROOT.
Counts: 35,126 training photographs: 25810, 2443, 5292, 873, 708 of grades 0-4.

Known dirt:
    * Noisy grades; dark, blurred and overexposed photographs; strong JPEG; some photographs are upside down.
    * Copies made elsewhere are resized or contrast-equalised and hold only some of the photographs. Their patients are
      the same people: `patient` is "eyepacs/NUMBER" in every copy, so that a split over several copies does not leak.
"""

from __future__ import annotations

import re
from pathlib import Path

from deepmtdr.data.layout import Counts, check_pairs, find_files, read_grades
from deepmtdr.data.sample import Laterality, Sample
from deepmtdr.errors import DataError

EXPECTED = Counts(35126, (25810, 2443, 5292, 873, 708))

_EYES: dict[str, Laterality] = {"left": "L", "right": "R"}


def read_eyepacs(root: Path, dataset: str = "eyepacs") -> list[Sample]:
    """Kaggle's training part: ROOT/train/NUMBER_left.jpeg with grades in ROOT/trainLabels.csv (image, level).

    Args:
        root: folder with `train` and `trainLabels.csv`.
        dataset: the name that the samples carry, so that a resized copy can be told from the original.

    Raises:
        DataError: if folder or table is missing, a grade is none of 0-4, a name is not NUMBER_left or NUMBER_right, or
            photographs and rows do not match.
    """
    folder, table = root / "train", root / "trainLabels.csv"
    photographs, grades = find_files(folder), read_grades(table, "image", "level")
    check_pairs(photographs, grades, folder, table)
    samples = []
    for name, path in photographs.items():
        patient, laterality = _patient_and_eye(name, path)
        samples.append(
            Sample(
                photograph=path,
                name=name,
                patient=patient,
                dataset=dataset,
                laterality=laterality,
                grade=grades[name],
            )
        )
    return samples


def read_eyepacs256_equalised(root: Path) -> list[Sample]:
    """A copy at 256 px with equalised contrast in Kaggle's layout: not raw photographs, but the same patients.

    Raises:
        DataError: as `read_eyepacs`.
    """
    return read_eyepacs(root, "eyepacs256_equalised")


def _patient_and_eye(name: str, path: Path) -> tuple[str, Laterality]:
    found = re.fullmatch(r"(\d+)_(left|right)", name)
    if found is None:
        raise DataError(f"{path}: expected a name such as 1000_left, found {name!r}")
    return f"eyepacs/{found[1]}", _EYES[found[2]]
