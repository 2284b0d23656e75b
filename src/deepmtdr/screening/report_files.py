"""Write the report of one photograph: report.json, the maps, and the summary image."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from deepmtdr.files import make_folder, write_atomically, write_json
from deepmtdr.labels import LabelSet
from deepmtdr.screening.report import Pictures, ScreeningReport
from deepmtdr.screening.summary_image import draw_summary

REPORT_FILE = "report.json"


def picture_files(labels: LabelSet) -> tuple[str, ...]:
    """Names of the pictures that are written for a graded photograph."""
    return ("sr.png", *(f"lesion_{code}.png" for code in labels.codes), "evidence.png", "summary.png")


def save_report(report: ScreeningReport, folder: Path) -> None:
    """Write a report into the photograph's folder, each file atomically.

    `report.json` is written last: a folder that has it is complete. Pictures of an earlier run are removed first.

    Args:
        report: the report, with its pictures if the status is `ok`.
        folder: folder of the photograph; created if it does not exist.

    Raises:
        OSError: if the folder cannot be written.
    """
    make_folder(folder, private=True)
    pictures = {} if report.pictures is None else _draw(report, report.pictures)
    remove_report(folder)
    for name, image in pictures.items():
        write_atomically(folder / name, _png(image), private=True)
    write_report_json(report, folder)


def remove_report(folder: Path) -> None:
    """Remove the files of a report from a photograph's folder, of any label set; other files stay."""
    for name in (REPORT_FILE, "sr.png", "evidence.png", "summary.png"):
        (folder / name).unlink(missing_ok=True)
    for path in folder.glob("lesion_*.png"):
        path.unlink()


def write_report_json(report: ScreeningReport, folder: Path) -> None:
    """Write `report.json` into a folder, atomically.

    Raises:
        OSError: if it cannot be written.
    """
    write_json(folder / REPORT_FILE, report.to_json(), private=True)


def _draw(report: ScreeningReport, pictures: Pictures) -> dict[str, Image.Image]:
    """Draw all pictures; returns them by file name."""
    maps = {f"lesion_{code}.png": map_ for code, map_ in zip(report.labels.codes, pictures.lesions, strict=True)}
    maps["evidence.png"] = pictures.evidence
    grey = {name: Image.fromarray(np.rint(255 * map_).astype(np.uint8)) for name, map_ in maps.items()}
    return {"sr.png": Image.fromarray(pictures.sr), **grey, "summary.png": draw_summary(report)}


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=4)  # level 6 takes twice the time and saves 3 % of the size
    return buffer.getvalue()
