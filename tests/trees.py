"""Tiny trees in the layouts of the public data sets: names and tables as published, photographs without content."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

MASKS = "A. Segmentation/2. All Segmentation Groundtruths/a. Training Set"
GRADING_PHOTOGRAPHS = "B. Disease Grading/1. Original Images/a. Training Set"
GRADING_TABLE = "B. Disease Grading/2. Groundtruths/a. IDRiD_Disease Grading_Training Labels.csv"


def touch(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()


def write_table(path: Path, *rows: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")


def idrid(root: Path) -> Path:
    """A: 04 (alone), 05 (twin 082), 53 (twin 012). B: 001, 012, 021 = 391 and 082; a table as dirty as the real one."""
    touch(root / "A. Segmentation/1. Original Images/a. Training Set", "IDRiD_04.jpg", "IDRiD_05.jpg", "IDRiD_53.jpg")
    touch(root / MASKS / "1. Microaneurysms", "IDRiD_04_MA.tif", "IDRiD_05_MA.tif", "IDRiD_53_MA.tif")
    touch(root / MASKS / "2. Haemorrhages", "IDRiD_04_HE.tif", "IDRiD_05_HE.tif")
    touch(root / MASKS / "3. Hard Exudates", "IDRiD_04_EX.tif", "IDRiD_05_EX.tif", "IDRiD_53_EX.tif")
    touch(root / MASKS / "4. Soft Exudates", "IDRiD_53_SE.tif")
    touch(root / MASKS / "5. Optic Disc", "IDRiD_04_OD.tif")
    grades = {"001": 3, "012": 3, "021": 1, "082": 2, "391": 2}
    touch(root / GRADING_PHOTOGRAPHS, *(f"IDRiD_{number}.jpg" for number in grades))
    rows = (f"IDRiD_{number},{grade},2,,,," for number, grade in grades.items())
    write_table(root / GRADING_TABLE, "Image name,Retinopathy grade,Risk of macular edema ,,,,", *rows, ",,,,,,")
    return root


def eyepacs(root: Path, grades: dict[str, int]) -> Path:
    touch(root / "train", *(f"{name}.jpeg" for name in grades))
    write_table(root / "trainLabels.csv", "image,level", *(f"{name},{grade}" for name, grade in grades.items()))
    return root


def aptos(root: Path, grades: dict[str, int]) -> Path:
    touch(root / "train_images", *(f"{name}.png" for name in grades))
    write_table(root / "train.csv", "id_code,diagnosis", *(f"{name},{grade}" for name, grade in grades.items()))
    return root


def diaretdb0(root: Path, rows: Iterable[str]) -> Path:
    rows = list(rows)
    touch(root / "images", *(f"{row.split(',')[0]}.jpg" for row in rows))
    header = "image,redsmalldots,hemorrhages,hardexudates,softexudates,neovascularisation"
    write_table(root / "labels.csv", header, *rows)
    return root


def drive(root: Path) -> Path:
    touch(root / "training/images", "21_training.tif", "25_training.tif", "26_training.tif")
    touch(root / "training/mask", "21_training_mask.gif", "25_training_mask.gif")
    touch(root / "test/images", "01_test.tif")
    return root
