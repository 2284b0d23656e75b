"""A photograph out of a file, decoded and upright (Sec. V-A)."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from deepmtdr.data.field_of_view import (
    FieldOfView,
    Way,
    crop_mask,
    crop_to_frame,
    find_fov,
    fov_mask,
    lay_back,
    way_into_frame,
)

__all__ = [
    "FieldOfView",
    "Photograph",
    "Way",
    "crop_mask",
    "crop_to_frame",
    "find_fov",
    "fov_mask",
    "lay_back",
    "read_photograph",
    "way_into_frame",
]


class Photograph(NamedTuple):
    """A decoded photograph."""

    pixels: UInt8[np.ndarray, "h w 3"]
    path: Path
    sha256: str


def read_photograph(path: Path) -> Photograph:
    """Read one photograph."""
    content = Path(path).read_bytes()
    with Image.open(io.BytesIO(content)) as image:
        pixels = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    return Photograph(pixels, Path(path), hashlib.sha256(content).hexdigest())
