"""A tiny IDRiD of drawings, for tests of training."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from dataset_trees import GRADING_PHOTOGRAPHS, GRADING_TABLE, MASKS, write_table
from deepmtdr.synthetic.drawings import Drawing, draw_photograph
from deepmtdr.terms import Grade, Lesion

PHOTOGRAPHS = "A. Segmentation/1. Original Images/a. Training Set"
MASK_FOLDERS = ("1. Microaneurysms", "2. Haemorrhages", "3. Hard Exudates", "4. Soft Exudates")
TWIN = "082"
"""In B, the same photograph as 05 in A."""
BLACK, SMALL = "005", "006"
"""In B: one without a field of view, one of less than half the size."""
GRADES = {"001": 0, "002": 2, "003": 0, "004": 4, BLACK: 1, SMALL: 3, TWIN: 2}


def draw_idrid(root: Path, size: int = 96) -> Path:
    """A: 04 and 09 (annotated), 05 (annotated, and graded as its twin in B). B: the photographs of `GRADES`.

    Args:
        root: folder of the data set, to be made.
        size: diameter of the field of view, px.
    """
    for folder in (PHOTOGRAPHS, GRADING_PHOTOGRAPHS, *(f"{MASKS}/{folder}" for folder in MASK_FOLDERS)):
        (root / folder).mkdir(parents=True)
    for number, grade in {"04": 3, "05": GRADES[TWIN], "09": 3}.items():
        _annotated(root, f"IDRiD_{number}", draw_photograph(int(number), Grade(grade), size))
    for number, grade in GRADES.items():
        photograph = Image.fromarray(
            draw_photograph(5 if number == TWIN else int(number), Grade(grade), size).photograph
        )
        if number == SMALL:
            photograph.thumbnail((44, 44))
        if number == BLACK:
            photograph = photograph.point(lambda _: 0)
        photograph.save(root / GRADING_PHOTOGRAPHS / f"IDRiD_{number}.jpg", quality=95)
    rows = (f"IDRiD_{number},{grade}" for number, grade in GRADES.items())
    write_table(root / GRADING_TABLE, "Image name,Retinopathy grade", *rows)
    return root


def _annotated(root: Path, name: str, drawing: Drawing) -> None:
    Image.fromarray(drawing.photograph).save(root / PHOTOGRAPHS / f"{name}.jpg", quality=95)
    for lesion, folder in zip(Lesion, MASK_FOLDERS, strict=True):
        if (mask := drawing.mask(lesion)).any():
            Image.fromarray(mask).save(root / MASKS / folder / f"{name}_{lesion}.tif")
