"""Decode a photograph from a JPEG, PNG, TIFF, PPM, BMP or DICOM file and turn it upright (Sec. V-A).

The format is recognised by the content, never by the name. A file is read once, and its header is checked before pixels
are decoded. Colour profiles are ignored: the network gets the numbers that the camera wrote.
"""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from deepmtdr.errors import PhotographError
from deepmtdr.terms import Laterality

if TYPE_CHECKING:
    from pydicom import Dataset

PHOTOGRAPH_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".tif", ".tiff", ".ppm", ".bmp"})
"""Suffixes of photographs in public data sets; other files of a folder, such as a read-me file, are ignored."""

READABLE_SUFFIXES = PHOTOGRAPH_SUFFIXES | {".jpe", ".jfif", ".pgm", ".pnm", ".dcm", ".dicom"}
"""Suffixes of the files that are taken for photographs in a folder of the user."""

MAX_PIXELS = 80_000_000
"""Most pixels a photograph may have by its header: above the largest fundus cameras, below Pillow's own warning."""

MAX_BYTES = 1 << 29
"""Largest file that is read into memory: 16-bit RGB of MAX_PIXELS is smaller."""

MIN_SIDE = 32
"""Shortest side of a photograph in pixels; whether its field of view is large enough, the quality gate says."""

DECODE_TIMEOUT = 60.0
"""Longest that a decoder in a process of its own may take, s."""

# GIF is read for the sake of its message: several frames are refused by number.
_FORMATS = ("JPEG", "PNG", "TIFF", "PPM", "BMP", "GIF")
_EXPECTED = "expected one photograph as JPEG, PNG, TIFF, PPM, BMP or DICOM"
_COLOURS = ("RGB", "MONOCHROME1", "MONOCHROME2", "PALETTE COLOR", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
"""DICOM's words for them, of those that are read."""
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
    """Of the file's bytes, hexadecimal."""
    laterality: Laterality | None = None
    """Which eye, where a DICOM header says so."""
    original_size: tuple[int, int] | None = None
    """Width and height in the file, of a photograph that was decoded to a part of them (`min_side`)."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in the file, upright."""
        return self.original_size or (self.pixels.shape[1], self.pixels.shape[0])

    @property
    def reduction(self) -> int:
        """How many times smaller than in the file the pixels are: 1, 2, 4 or 8."""
        return round(self.size[0] / self.pixels.shape[1])


class _Refused(Exception):
    """What was found and expected; read_photograph adds where."""


def read_photograph(path: Path | str, min_side: int | None = None) -> Photograph:
    """Read one photograph.

    Args:
        path: a JPEG, PNG, TIFF, PPM, BMP or DICOM file, whatever its name ends in.
        min_side: this many pixels on the shorter side are enough: a larger JPEG is decoded straight to a half, a
            quarter or an eighth, several times as fast (its blocks' low frequencies alone). None: every pixel.

    Returns:
        The upright pixels as 8-bit RGB: EXIF orientation applied, transparency laid on black, 16 bits scaled to 8,
        grey repeated three times.

    Raises:
        PhotographError: naming the path, what was found there and what was expected.
    """
    path = Path(path)
    try:
        content = _content(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # decoders warn about metadata that is not used here
            if content[128:132] == b"DICM":
                (pixels, laterality), full = _read_dicom(content), None
            else:
                (pixels, full), laterality = _read_image(content, min_side), None
    except _Refused as error:
        raise PhotographError(f"{path}: {error}") from error.__cause__
    return Photograph(np.ascontiguousarray(pixels), path, hashlib.sha256(content).hexdigest(), laterality, full)


def _content(path: Path) -> bytes:
    try:
        status = path.stat()
        if not path.is_file():
            raise _Refused(f"found {'a folder' if path.is_dir() else 'no regular file'}, {_EXPECTED}")
        if not 0 < status.st_size <= MAX_BYTES:
            raise _Refused(f"found a file of {status.st_size} bytes, expected 1 to {MAX_BYTES}")
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        reason = getattr(error, "strerror", None) or str(error)
        raise _Refused(f"cannot be read: {reason}; {_EXPECTED}") from error


def _check_size(width: int, height: int, frames: int) -> None:
    """Judge what a header declares before anything is decoded."""
    if frames != 1:
        raise _Refused(f"found {frames} frames, expected one photograph")
    if width * height > MAX_PIXELS:
        raise _Refused(f"header declares {width}x{height} px, expected at most {MAX_PIXELS:,} pixels")
    if min(width, height) < MIN_SIDE:
        raise _Refused(f"found {width}x{height} px, expected at least {MIN_SIDE} px on each side")


def _read_image(content: bytes, min_side: int | None) -> tuple[NDArray[np.uint8], tuple[int, int] | None]:
    """Whatever Pillow decodes; and width and height in the file, upright, if it was decoded to a part of them."""
    what = "image"
    try:
        with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
            # An MPO is a camera's JPEG with previews behind it: the first picture is the photograph.
            frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
            what = f"{image.format} of {image.width}x{image.height} px"
            _check_size(image.width, image.height, frames)
            full = image.size
            if min_side is not None:
                image.draft(None, (min_side, min_side))  # of a JPEG alone
            reduced = image.size != full
            image.load()
            upright = _upright(image)
            if (upright.width > upright.height) != (image.width > image.height):
                full = (full[1], full[0])
            return _to_rgb(upright), full if reduced else None
    except UnidentifiedImageError as error:
        raise _Refused(f"found no photograph (the file begins {content[:16]!r}), {_EXPECTED}") from error
    except Image.DecompressionBombError as error:
        raise _Refused(
            f"header declares too large an image ({error}), expected at most {MAX_PIXELS:,} pixels"
        ) from error
    except _Refused:
        raise
    except Exception as error:  # a damaged file makes Pillow's plugins raise almost anything
        raise _Refused(f"{what}, damaged or of an unsupported kind ({_first_line(error)}), {_EXPECTED}") from error


def _upright(image: Image.Image) -> Image.Image:
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged EXIF data behind sound pixels
        orientation = 1
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def _to_rgb(image: Image.Image) -> NDArray[np.uint8]:
    """8-bit RGB out of any of Pillow's modes."""
    if image.mode == "F":
        raise _Refused("found floating-point pixels, expected 8- or 16-bit integers")
    if image.mode.startswith("I"):
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise _Refused(f"found pixel values {values.min()} to {values.max()}, expected 8- or 16-bit integers")
        return _to_8_bits(values, 65535)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        black = Image.new("RGBA", image.size, (0, 0, 0, 255))
        image = Image.alpha_composite(black, image)
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def _to_8_bits(values: NDArray, largest: int) -> NDArray[np.uint8]:
    """Scale integers from 0 to `largest` to 8 bits; grey becomes RGB."""
    scaled = values if largest == 255 else (values.astype(np.float32) * (255 / largest) + 0.5)
    scaled = scaled.clip(0, 255).astype(np.uint8)
    return np.repeat(scaled[..., None], 3, axis=2) if scaled.ndim == 2 else scaled


def _read_dicom(content: bytes) -> tuple[NDArray[np.uint8], Laterality | None]:
    """Whatever pydicom decodes with the plugins at hand."""
    from pydicom import dcmread
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    if DeflatedExplicitVRLittleEndian.encode() in content[:1024]:  # would be inflated whole before any header is known
        raise _Refused(
            f"found deflated DICOM ({DeflatedExplicitVRLittleEndian}), expected a transfer syntax for images"
        )
    try:
        dataset = dcmread(io.BytesIO(content))
        if "PixelData" not in dataset:
            name = dataset.get("SOPClassUID", "")
            raise _Refused(f"DICOM without pixel data ({getattr(name, 'name', name)}), {_EXPECTED}")
        _check_size(dataset.Columns, dataset.Rows, int(dataset.get("NumberOfFrames") or 1))
        if dataset.PhotometricInterpretation not in _COLOURS:
            found = dataset.PhotometricInterpretation
            raise _Refused(f"found colours as {found!r}, expected one of {', '.join(_COLOURS)}")
        if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
            _check_codestream(dataset)
        side = str(dataset.get("ImageLaterality") or dataset.get("Laterality") or "").strip().upper()
        return _dicom_pixels(dataset, content), "L" if side == "L" else "R" if side == "R" else None
    except _Refused:
        raise
    except Exception as error:  # decoders of damaged data raise almost anything
        raise _Refused(f"DICOM, damaged or of an unsupported kind ({_first_line(error)}), {_EXPECTED}") from error


def _dicom_pixels(dataset: Dataset, content: bytes) -> NDArray[np.uint8]:
    from pydicom.pixels.processing import apply_color_lut

    colours = dataset.PhotometricInterpretation
    values = _decoded(dataset, content)  # every YBR becomes RGB here
    bits = int(dataset.BitsStored)
    if colours == "PALETTE COLOR":
        values = apply_color_lut(values, dataset)[..., :3]
        bits = 8 * values.dtype.itemsize
    elif dataset.PixelRepresentation == 1:
        values = values.astype(np.int32) + (1 << (bits - 1))
    largest = (1 << bits) - 1
    if colours == "MONOCHROME1":  # 0 is white
        values = largest - values.astype(np.int32)
    return _to_8_bits(values, largest)


def _decoded(dataset: Dataset, content: bytes) -> NDArray:
    """By a decoder that survives damaged streams; where only GDCM can, in a process of its own, for it may abort."""
    from pydicom import uid
    from pydicom.pixels.utils import pixel_array

    syntax = dataset.file_meta.TransferSyntaxUID
    eight_bit_jpeg = syntax == uid.JPEGBaseline8Bit or (syntax == uid.JPEGExtended12Bit and dataset.BitsStored <= 8)
    if syntax in uid.JPEGTransferSyntaxes and not eight_bit_jpeg:
        return _decoded_apart(content)
    plugin = "pillow" if eight_bit_jpeg else "pyjpegls" if syntax in uid.JPEGLSTransferSyntaxes else "pylibjpeg"
    return pixel_array(dataset, decoding_plugin=plugin if syntax.is_encapsulated else "")


_APART = """
import io, sys, numpy
from pydicom import dcmread
from pydicom.pixels.utils import pixel_array
dataset = dcmread(io.BytesIO(sys.stdin.buffer.read()))
numpy.save(sys.stdout.buffer, pixel_array(dataset, decoding_plugin="gdcm"))
"""


def _decoded_apart(content: bytes) -> NDArray:
    command = [sys.executable, "-P", "-W", "ignore", "-c", _APART]
    try:
        done = subprocess.run(command, input=content, capture_output=True, timeout=DECODE_TIMEOUT, check=False)
    except subprocess.TimeoutExpired:
        raise _Refused(f"its JPEG decoder took longer than {DECODE_TIMEOUT:.0f} s, {_EXPECTED}") from None
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise _Refused(f"DICOM, damaged or of an unsupported kind ({said[0]}), {_EXPECTED}")
    return np.load(io.BytesIO(done.stdout), allow_pickle=False)


def _check_codestream(dataset: Dataset) -> None:
    """Compare the compressed stream's own size with the header's: a small header could hide a bomb."""
    from pydicom.encaps import generate_frames

    stream = next(generate_frames(dataset.PixelData, number_of_frames=1))
    width, height = _declared_size(stream) or (dataset.Columns, dataset.Rows)
    if (width, height) != (dataset.Columns, dataset.Rows):
        raise _Refused(f"DICOM header says {dataset.Columns}x{dataset.Rows} px, its pixel data {width}x{height} px")


def _declared_size(stream: bytes) -> tuple[int, int] | None:
    """Width and height in a JPEG, JPEG-LS or JPEG 2000 codestream's header; None for anything else (RLE has none)."""

    def number(at: int, length: int) -> int:
        return int.from_bytes(stream[at : at + length], "big")

    if stream[:4] == b"\xff\x4f\xff\x51":  # JPEG 2000: SOC, SIZ
        return number(8, 4) - number(16, 4), number(12, 4) - number(20, 4)
    at = 2 if stream[:2] == b"\xff\xd8" else len(stream)
    while at + 9 < len(stream) and stream[at] == 0xFF:
        marker = stream[at + 1]
        # SOF0 to SOF15 without DHT, JPG and DAC; SOF55 is JPEG-LS.
        if (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)) or marker == 0xF7:
            return number(at + 7, 2), number(at + 5, 2)
        at += 1 if marker == 0xFF else 2 + number(at + 2, 2)
    return None


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
