"""APTOS 2019, the Kaggle "Blindness Detection" set: grades only.

Who made it: Aravind Eye Hospital (India, rural screening) with the Asia Pacific Tele-Ophthalmology Society.
Licence: competition terms: research only, no redistribution. Weights trained on it are for research, as their card
    states.
Citation: M. Karthick and S. Dane, "APTOS 2019 Blindness Detection", Kaggle, 2019.
How to get it: https://www.kaggle.com/c/aptos2019-blindness-detection/data (account; accept the terms): train.csv and
    train_images/ into ROOT.
Counts: 3,662 training photographs: 1805, 370, 999, 193, 295 of grades 0-4.

Official split: none. Kaggle did not publish the grades of its 1,928 test photographs, so test_images/ is not read.

Known errors and gaps:
    * No patient numbers, and not known which eye: each photograph counts as a patient, so the two eyes of a person may
      be in two splits.
    * Several cameras and croppings. Some photographs are there twice under two names, some with two grades.
    * Copies at 224 px with a Gaussian filter are not photographs any more: use them only to test readers.
"""

from __future__ import annotations

from pathlib import Path

from deepmtdr.datasets.layout import DatasetPart, LabelCounts, check_labels_match, find_files, read_grades
from deepmtdr.datasets.sample import Sample

EXPECTED = LabelCounts(3662, (1805, 370, 999, 193, 295))


def read_aptos(root: Path) -> list[Sample]:
    """Kaggle's training part: ROOT/train_images/ID.png with grades in ROOT/train.csv (id_code, diagnosis).

    Raises:
        DataError: if folder or table is missing, a grade is not 0-4, or photographs and rows do not match.
    """
    folder, table = root / "train_images", root / "train.csv"
    photographs, grades = find_files(folder), read_grades(table, "id_code", "diagnosis")
    check_labels_match(photographs, grades, folder, table)
    return [
        Sample(photograph=path, name=name, patient=f"aptos/{name}", dataset="aptos", grade=grades[name])
        for name, path in photographs.items()
    ]


PARTS = (DatasetPart("training", read_aptos, EXPECTED, "train_images"),)
"""The official part that has labels."""
