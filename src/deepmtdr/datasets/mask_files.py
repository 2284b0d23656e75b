"""Read a mask file of any format and colours: which pixels are marked (Sec. V-A).

Annotation programs write masks in many ways. What counts as marked:

* A mask of two colours: the brighter one, whatever its value (1, 76, 255, red, ...). A palette is looked up first.
* A mask of more colours, and every JPEG, whose compression adds colours: pixels above half of the range of their type:
  127 of 255, 32767 of 65535, 0.5 of 1. The brightest of the channels counts.
* Transparency that is the same everywhere is ignored. If the colour is the same everywhere, the transparency is the
  mask: marked where opaque. If both vary, transparent pixels count as black.

A mask of more than two colours or in JPEG is a possible problem, which the report of a preparation lists.
"""

from __future__ import annotations

import warnings
from enum import StrEnum
from functools import reduce
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageOps

from deepmtdr.errors import DataError
from deepmtdr.photographs.limits import MAX_PIXELS, first_line

FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
"""Formats of masks, as Pillow names them. Its reader of PostScript, for example, would start another program."""

LARGEST = {"uint8": 255.0, "uint16": 65535.0}
"""Type of the pixels -> largest value; of other types 1, or the largest value of the mask if that is more."""
_THUMBNAIL = 1
"""Bit of the TIFF tag NewSubfileType of a page that is a reduced copy of another one."""
_NEW_SUBFILE_TYPE = 254


class MaskProblem(StrEnum):
    """A possible problem of a mask."""

    JPEG = "jpeg"
    """Compressed as JPEG, which changes the pixels at the edges of lesions."""
    COLOURS = "colours"
    """More than two colours, so that it is not certain which of them mean a lesion."""
    LARGE = "large"
    """More than half of the field of view is marked."""


class MaskFile(NamedTuple):
    """A mask that was read."""

    marked: Bool[np.ndarray, "h w"]
    problems: tuple[MaskProblem, ...] = ()


def read_mask(path: Path, threshold: int | None = None) -> MaskFile:
    """Read a mask file.

    Args:
        path: a picture of a format of `FORMATS`, with one page besides thumbnails.
        threshold: a pixel above this value is marked, for masks whose grey levels have a known meaning, such as
            coverage; None: as described at the head of this module.

    Raises:
        DataError: if the file cannot be decoded as one picture of at most `MAX_PIXELS` pixels.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # decoders warn about metadata that is not used here
            with Image.open(path, formats=FORMATS) as image:
                _check(image)
                is_jpeg = image.format in ("JPEG", "MPO") or image.info.get("compression") == "jpeg"
                levels, colours = _decode(image)
    except Exception as error:  # Pillow's plugins raise almost anything on a damaged file
        raise DataError(f"{path}: cannot be decoded as a mask ({first_line(error)})") from error
    if threshold is not None:
        return MaskFile(levels > threshold)
    if colours <= 2 and not is_jpeg:
        lowest, highest = float(levels.min()), float(levels.max())
        return MaskFile(levels > ((lowest + highest) / 2 if lowest < highest else 0))
    problems = (MaskProblem.JPEG,) if is_jpeg else (MaskProblem.COLOURS,)
    return MaskFile(levels > _largest(levels) / 2, problems)


def _check(image: Image.Image) -> None:
    """Check size and number of pages before anything is decoded, and go to the page of the mask."""
    _check_size(image)
    pages = [0]
    if image.format != "MPO":  # a camera's JPEG with previews; the first picture is the mask
        pages = [page for page in range(getattr(image, "n_frames", 1)) if not _is_thumbnail(image, page)]
    if len(pages) != 1:
        raise ValueError(f"found {len(pages)} pages, expected one")
    image.seek(pages[0])
    _check_size(image)


def _check_size(image: Image.Image) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(f"the header declares {image.width}x{image.height} px, expected at most {MAX_PIXELS:,} pixels")


def _is_thumbnail(image: Image.Image, page: int) -> bool:
    if image.format != "TIFF":
        return False
    image.seek(page)
    return bool(image.getexif().get(_NEW_SUBFILE_TYPE, 0) & _THUMBNAIL)


def _decode(image: Image.Image) -> tuple[NDArray, int]:
    """Grey levels of a mask, upright, and the number of its colours: 1, 2, or 3 for more."""
    upright = ImageOps.exif_transpose(image)
    if upright.mode == "F" or upright.mode.startswith("I"):  # more than 8 bits
        levels = np.asarray(upright)
        if not np.isfinite(levels).all():
            raise ValueError("found pixels that are not finite numbers, expected a mask")
        return levels, _count_values(levels)
    if upright.mode in ("PA", "La", "RGBa") or "transparency" in upright.info:
        upright = upright.convert("RGBA")
    elif upright.mode not in ("L", "LA", "RGB", "RGBA"):
        upright = upright.convert("L" if upright.mode == "1" else "RGB")
    colours = _resolve_transparency(upright) if upright.mode in ("LA", "RGBA") else upright
    counts = colours.getcolors(2)
    brightest = reduce(ImageChops.lighter, colours.split())
    return np.asarray(brightest), 3 if counts is None else len(counts)


def _resolve_transparency(image: Image.Image) -> Image.Image:
    """Colours or transparency, whichever holds the mask; colours on black if both vary."""
    colours, opacity = image.convert(image.mode[:-1]), image.getchannel("A")
    if _is_uniform(opacity):
        return colours
    if all(map(_is_uniform, colours.split())):
        return opacity
    opaque = opacity.point([0] * 128 + [255] * 128)
    return Image.composite(colours, Image.new(colours.mode, colours.size), opaque)


def _is_uniform(channel: Image.Image) -> bool:
    lowest, highest = channel.getextrema()
    return lowest == highest


def _count_values(levels: NDArray) -> int:
    """1, 2, or 3 for more; without sorting the pixels, which takes seconds."""
    others = levels[levels != levels.flat[0]]
    return 1 + (others.size > 0) + bool(others.size and (others != others[0]).any())


def _largest(levels: NDArray) -> float:
    """Largest value of the type of the pixels."""
    return LARGEST.get(str(levels.dtype), max(1.0, float(levels.max())))
