"""Size limits that are checked before a photograph is decoded, and conversion to 8 bits."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MAX_PIXELS = 80_000_000
"""Most pixels that a header may declare: more than the largest fundus cameras have, fewer than the limit of Pillow."""

MAX_BYTES = 1 << 29
"""Largest file that is read into memory; 16-bit RGB of `MAX_PIXELS` is smaller."""

MIN_SIDE = 32
"""Shortest side of a photograph in pixels. The quality gate decides whether the field of view is large enough."""

EXPECTED = "expected one photograph as JPEG, PNG, TIFF, PPM, BMP or DICOM"
"""The end of the message for a file that is not a photograph."""


class DecodeError(Exception):
    """A file that cannot be decoded: what was found, what was expected. `read_photograph` adds the path."""


def check_size(width: int, height: int, frames: int) -> None:
    """Check the size in a header before anything is decoded.

    Raises:
        DecodeError: if there are several frames, or too many or too few pixels.
    """
    if frames != 1:
        raise DecodeError(f"found {frames} frames, expected one photograph")
    if width * height > MAX_PIXELS:
        raise DecodeError(f"the header declares {width}x{height} px, expected at most {MAX_PIXELS:,} pixels")
    if min(width, height) < MIN_SIDE:
        raise DecodeError(f"found {width}x{height} px, expected at least {MIN_SIDE} px on each side")


def to_8_bits(values: NDArray, largest: int) -> NDArray[np.uint8]:
    """Scale integers from 0 to `largest` to 8 bits; grey becomes RGB."""
    scaled = values if largest == 255 else (values.astype(np.float32) * (255 / largest) + 0.5)
    scaled = scaled.clip(0, 255).astype(np.uint8)
    return np.repeat(scaled[..., None], 3, axis=2) if scaled.ndim == 2 else scaled


def first_line(error: Exception) -> str:
    """First line of an error's text, or the error's type."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
