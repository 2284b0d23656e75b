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

SMALLEST_16_BIT_MAXIMUM = 4096
"""16-bit pixels that are all below this value have at most 12 significant bits, or are almost black."""

EXPECTED = "expected one photograph as JPEG, PNG, TIFF, PPM, BMP, WebP, AVIF, JPEG 2000 or DICOM"
"""The end of the message for a file that is not a photograph."""

_BLOCK_PIXELS = 1 << 20
"""Pixels that are scaled at once, so that the copies in floating point stay small."""


class DecodeError(Exception):
    """A file that cannot be decoded: what was found, what was expected. `read_photograph` adds the path.

    Its `__cause__` is the error of a decoder that found the file damaged; None if the file was refused by its header.
    """


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
    """Scale integers from 0 to `largest` to 8 bits; grey becomes RGB.

    Args:
        values: pixels, height x width or height x width x channels.
        largest: the value of white.

    Raises:
        DecodeError: see `check_range`.
    """
    check_range(values, largest)
    if largest != 255:
        values = _scale(values, 255 / largest)
    scaled = values.astype(np.uint8, copy=False)
    return np.repeat(scaled[..., None], 3, axis=2) if scaled.ndim == 2 else scaled


def check_range(values: NDArray, largest: int) -> None:
    """Compare the values of pixels with the range that a header declares, 0 to `largest`.

    Raises:
        DecodeError: if a value is negative or larger than `largest`; if `largest` is 65535 and no value is larger than
            4095: such a file has 12 significant bits or fewer and does not state its white, and 16 grey levels or fewer
            would remain.
    """
    lowest, highest = int(values.min()), int(values.max())
    if lowest < 0 or highest > largest:
        raise DecodeError(f"found pixel values {lowest} to {highest}, expected 0 to {largest} as the header states")
    if largest == 65535 and highest < SMALLEST_16_BIT_MAXIMUM:
        raise DecodeError(
            f"found 16-bit pixels of at most {highest}: too dark, or fewer significant bits than 16; expected "
            "values up to 65535, or a header that states the largest value (TIFF: MaxSampleValue; DICOM: Bits Stored)"
        )


def _scale(values: NDArray, factor: float) -> NDArray[np.uint8]:
    """Multiply and round, a few rows at a time."""
    scaled = np.empty(values.shape, np.uint8)
    rows = max(_BLOCK_PIXELS // values.shape[1], 1)
    for top in range(0, len(values), rows):
        block = values[top : top + rows].astype(np.float32) * np.float32(factor)
        scaled[top : top + rows] = (block + np.float32(0.5)).astype(np.uint8)
    return scaled


def first_line(error: Exception) -> str:
    """First line of an error's text, or the error's type."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
