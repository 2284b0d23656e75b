"""The files that a report is written into: its numbers, its maps, and the one picture to look at."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

from deepmtdr.files import write_atomically
from deepmtdr.screening.report import Pictures, ScreeningReport
from deepmtdr.screening.summary_image import draw_summary
from deepmtdr.terms import Lesion


def save_report(report: ScreeningReport, folder: Path) -> None:
    """Write everything into the photograph's folder, each file atomically.

    `report.json` is written last: where it lies, the folder is whole. Pictures that an earlier run left there and that
    this report does not have are removed.

    Args:
        report: with its pictures if the status is `ok`.
        folder: created if need be.

    Raises:
        OSError: if the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").unlink(missing_ok=True)
    pictures = {} if report.pictures is None else {**_maps(report.pictures), "summary.png": draw_summary(report)}
    for name in PICTURE_FILES:
        if name in pictures:
            write_atomically(folder / name, _png(pictures[name]))
        else:
            (folder / name).unlink(missing_ok=True)
    write_atomically(folder / "report.json", (json.dumps(report.to_json(), indent=2) + "\n").encode())


PICTURE_FILES = ("sr.png", *(f"lesion_{lesion.name}.png" for lesion in Lesion), "evidence.png", "summary.png")
"""Names of the pictures that are written for a photograph."""


def _maps(pictures: Pictures) -> dict[str, Image.Image]:
    as_grey = {f"lesion_{lesion.name}.png": pictures.lesions[lesion] for lesion in Lesion}
    as_grey["evidence.png"] = pictures.evidence
    grey = {name: Image.fromarray(np.rint(255 * map_).astype(np.uint8)) for name, map_ in as_grey.items()}
    return {"sr.png": Image.fromarray(pictures.sr), **grey}


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=4)  # 6 takes twice the time for 3 % of the size
    return buffer.getvalue()
