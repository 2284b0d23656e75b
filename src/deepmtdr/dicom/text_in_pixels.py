"""Signs of text in a photograph, which may name the patient. De-identification does not change pixels."""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8
from pydicom import Dataset
from scipy import ndimage

from deepmtdr.errors import NoFieldOfViewError
from deepmtdr.photographs.field_of_view import find_fov

POSSIBLE_TEXT = "the pixels may contain text"
"""Beginning of the warnings, which are values of the column `for_reader` of results.csv."""
MIN_CONTRAST = 64
"""How much brighter than the background a mark is, grey levels of 255."""
MIN_MARKS = 3
"""Number of marks that are taken for letters. The notch or dot that cameras add to one side is less."""
MIN_MARK_PIXELS = 4
"""Smallest mark, px; single bright pixels are noise."""
MARGIN = 1.03
"""Radius of the disc that is not searched, as a multiple of the radius of the field of view."""


def describe_possible_text(header: Dataset, *, marks_found: bool) -> tuple[str, ...]:
    """Describe why text is possible in the pixels of a photograph.

    Args:
        header: its DICOM header.
        marks_found: whether `has_marks_beside_field` found any.

    Returns:
        One clause for each reason, each beginning with `POSSIBLE_TEXT`; empty if there is no reason. That is no proof:
        text on the retina is not searched.
    """
    undeclared = "the header does not state that there is none (Burned In Annotation is not NO)"
    reasons = [] if declares_no_text(header) else [undeclared]
    reasons += ["there are bright marks beside the field of view"] if marks_found else []
    return tuple(f"{POSSIBLE_TEXT}: {reason}" for reason in reasons)


def declares_no_text(header: Dataset) -> bool:
    """Whether the header says that no text in the pixels identifies the patient (Burned In Annotation is NO)."""
    return str(header.get("BurnedInAnnotation", "")).strip().upper() == "NO"


def has_marks_beside_field(pixels: UInt8[np.ndarray, "h w 3"]) -> bool:
    """Whether there are bright marks, such as letters, that do not touch the field of view.

    Args:
        pixels: the photograph, RGB.

    Returns:
        False also if there is no field of view.
    """
    try:
        fov = find_fov(pixels)
    except NoFieldOfViewError:
        return False
    rows, columns = np.ogrid[: pixels.shape[0], : pixels.shape[1]]
    radius = fov.side / 2
    centre_x, centre_y = fov.x + radius - 0.5, fov.y + radius - 0.5
    outside = (columns - centre_x) ** 2 + (rows - centre_y) ** 2 > (MARGIN * radius) ** 2
    if not outside.any():
        return False
    light = pixels.max(axis=2).astype(np.int16)
    parts, number = ndimage.label(light > np.median(light[outside]) + MIN_CONTRAST, np.ones((3, 3)))  # pyright: ignore[reportGeneralTypeIssues]
    sizes = np.bincount(parts.ravel(), minlength=number + 1)
    beside = np.setdiff1d(np.arange(1, number + 1), parts[~outside])
    return int((sizes[beside] >= MIN_MARK_PIXELS).sum()) >= MIN_MARKS
