"""Draw photographs with the labels of another disease, as a folder that `deepmtdr prepare folder` reads.

The drawings show diabetic retinopathy. Here their hard exudates are labelled as drusen, and five grades become three.
The result shows how the software works; it has no meaning for macular degeneration.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from PIL import Image

from deepmtdr.synthetic.drawings import Drawing, draw_photograph
from deepmtdr.terms import Grade, Lesion

LESIONS = {"DRU": Lesion.EX, "HAE": Lesion.HE}
"""Code of the label set -> lesion type of the drawing."""
GRADES = (0, 1, 1, 2, 2)
"""Grade of the label set for each grade of diabetic retinopathy."""


def draw_folder(root: Path, count: int, size: int) -> None:
    """Write ROOT/photographs, ROOT/masks and ROOT/photographs.csv.

    Args:
        root: folder to be created.
        count: number of drawings; seeds 2p and 2p + 1 are the eyes of patient p.
        size: diameter of the field of view, px.
    """
    for folder in ("photographs", "masks"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    with (root / "photographs.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["path", "patient", "grade", *LESIONS])
        for seed in range(count):
            table.writerow(_write(root, seed, draw_photograph(seed, Grade(seed % len(Grade)), size)))


def _write(root: Path, seed: int, drawing: Drawing) -> list[str]:
    """Write one drawing with its masks; returns its row of the table."""
    path = f"photographs/{seed:03d}.png"
    Image.fromarray(drawing.photograph).save(root / path)
    row = [path, f"P{seed // 2:03d}", str(GRADES[drawing.grade])]
    for code, lesion in LESIONS.items():
        mask = drawing.mask(lesion)
        row.append(f"masks/{seed:03d}_{code}.png" if mask.any() else "none")
        if mask.any():
            Image.fromarray(mask.astype(np.uint8) * 255).save(root / row[-1])
    return row
