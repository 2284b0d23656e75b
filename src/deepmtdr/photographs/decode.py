"""Decode a photograph from an image or DICOM file and turn it upright (Sec. V-A).

The format is recognised by the content, never by the name. A file is read once, and its header is checked before pixels
are decoded. Colour profiles are ignored: the network gets the numbers that the camera wrote.

`read_photograph` decodes in this process: for files from a trusted source. `decoder_process` decodes any file.
"""

from __future__ import annotations

import hashlib
import io
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from deepmtdr.errors import PhotographError
from deepmtdr.photographs.codestreams import read_codestream_header
from deepmtdr.photographs.decode_dicom import read_dicom
from deepmtdr.photographs.decode_tiff import read_tiff
from deepmtdr.photographs.formats import is_readable, name_format
from deepmtdr.photographs.limits import EXPECTED, MAX_BYTES, MAX_PIXELS, DecodeError, check_size, first_line, to_8_bits
from deepmtdr.terms import Laterality

_PILLOW_FORMATS = ("JPEG", "PNG", "PPM", "BMP", "WEBP", "AVIF", "JPEG2000")
_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class Photograph(NamedTuple):
    """A decoded photograph, upright."""

    pixels: UInt8[np.ndarray, "h w 3"]
    """RGB, 0 to 255."""
    path: Path
    sha256: str
    """SHA-256 of the file's bytes, hexadecimal."""
    laterality: Laterality | None = None
    """The eye that is shown, if a DICOM header names it; else None."""
    original_size: tuple[int, int] | None = None
    """Width and height in the file, if the photograph was decoded at a reduced size (`min_side`)."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in the file, upright."""
        return self.original_size or (self.pixels.shape[1], self.pixels.shape[0])

    @property
    def reduction(self) -> int:
        """Factor by which the pixels are reduced: 1, 2, 4 or 8."""
        return round(self.size[0] / self.pixels.shape[1])


def read_photograph(path: Path | str, min_side: int | None = None) -> Photograph:
    """Decode one photograph in this process.

    A damaged file may crash or block a decoder. For files from unknown sources use `decoder_process.read_untrusted`.

    Args:
        path: a JPEG, PNG, TIFF, PPM, BMP, WebP, AVIF, JPEG 2000 or DICOM file with any suffix.
        min_side: pixels that are enough on the shorter side: a larger JPEG is decoded at a half, a quarter or an eighth
            of its size, which is several times as fast. None: every pixel.

    Returns:
        The upright pixels as 8-bit RGB: with EXIF orientation applied, transparency on black, 16 bits scaled to 8, and
        grey repeated three times.

    Raises:
        PhotographError: if the photograph cannot be decoded; the message has the path, what was found and what was
            expected.
    """
    path = Path(path)
    try:
        return decode_photograph(path, min_side)
    except DecodeError as error:
        raise PhotographError(f"{path}: {error}") from error.__cause__


def decode_photograph(path: Path, min_side: int | None = None) -> Photograph:
    """Decode one photograph, as `read_photograph`.

    Raises:
        DecodeError: if it cannot be decoded; the message does not have the path.
    """
    try:
        content = _read_bytes(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # decoders warn about metadata that is not used here
            return _decode(content, min_side)._replace(path=path, sha256=hashlib.sha256(content).hexdigest())
    except MemoryError as error:
        raise DecodeError("decoding it needs more memory than is available") from error


def _decode(content: bytes, min_side: int | None) -> Photograph:
    """Decode the bytes of a file, without path and digest."""
    found = name_format(content)
    if found is None:
        raise DecodeError(f"found no photograph (the file begins {content[:16]!r}), {EXPECTED}")
    if not is_readable(found):
        raise DecodeError(f"found {found}, {EXPECTED}; convert the file to one of these formats")
    laterality: Laterality | None = None
    full: tuple[int, int] | None = None
    if found == "DICOM":
        pixels, laterality = read_dicom(content)
    elif found == "TIFF":
        pixels, orientation = read_tiff(content)
        if orientation in _UPRIGHT:
            pixels = np.asarray(Image.fromarray(pixels).transpose(_UPRIGHT[orientation]))
    else:
        pixels, full = _read_image(content, found, min_side)
    return Photograph(np.ascontiguousarray(pixels), Path(), "", laterality, full)


def _read_bytes(path: Path) -> bytes:
    try:
        status = path.stat()
        if not path.is_file():
            raise DecodeError(f"found {'a folder' if path.is_dir() else 'neither a file nor a folder'}, {EXPECTED}")
        if not 0 < status.st_size <= MAX_BYTES:
            raise DecodeError(f"found a file of {status.st_size} bytes, expected 1 to {MAX_BYTES}")
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        reason = getattr(error, "strerror", None) or str(error)
        raise DecodeError(f"cannot be read: {reason}; {EXPECTED}") from error


def _read_image(content: bytes, found: str, min_side: int | None) -> tuple[NDArray[np.uint8], tuple[int, int] | None]:
    """Decode with Pillow. Also return the upright width and height in the file, if the size was reduced, else None."""
    what = found
    if found == "JPEG 2000":
        _check_jpeg_2000(content)
    try:
        with Image.open(io.BytesIO(content), formats=_PILLOW_FORMATS) as image:
            # An MPO is a camera's JPEG with previews appended; the first picture is the photograph.
            frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
            what = f"{found} of {image.width}x{image.height} px"
            check_size(image.width, image.height, frames)
            full = image.size
            if min_side is not None:
                image.draft(None, (min_side, min_side))  # has an effect on JPEG only
            reduced = image.size != full
            image.load()
            upright = _upright(image)
            if (upright.width > upright.height) != (image.width > image.height):
                full = (full[1], full[0])
            return _to_rgb(upright), full if reduced else None
    except UnidentifiedImageError as error:
        raise DecodeError(f"found {found} with a damaged header, {EXPECTED}") from error
    except Image.DecompressionBombError as error:
        raise DecodeError(
            f"the header declares too large an image ({error}); expected at most {MAX_PIXELS:,} pixels"
        ) from None
    except (DecodeError, MemoryError):
        raise
    except Exception as error:  # Pillow's plugins raise almost anything on a damaged file
        raise DecodeError(
            f"found {what}, but it cannot be decoded ({first_line(error)}); "
            "the file is damaged, or its encoding is not supported"
        ) from error


def _check_jpeg_2000(content: bytes) -> None:
    """Check the codestream, which may be larger than the boxes around it declare."""
    stream = read_codestream_header(content)
    if stream is not None:
        check_size(stream.width, stream.height, 1)
        if not 8 <= stream.bits <= (8 if stream.components in (2, 4) else 16):  # Pillow does not scale transparency
            raise DecodeError(
                f"found JPEG 2000 of {stream.components} components of {stream.bits} bits, expected 8 to 16 bits "
                "without transparency, or 8 with it"
            )


def _upright(image: Image.Image) -> Image.Image:
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged EXIF data, but sound pixels
        orientation = 1
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def _to_rgb(image: Image.Image) -> NDArray[np.uint8]:
    """Convert an image of any of Pillow's modes to 8-bit RGB."""
    if image.mode == "F":
        raise DecodeError("found floating-point pixels, expected 8- or 16-bit integers")
    if image.mode.startswith("I"):
        return to_8_bits(np.asarray(image), 65535)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        black = Image.new("RGBA", image.size, (0, 0, 0, 255))
        image = Image.alpha_composite(black, image)
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
