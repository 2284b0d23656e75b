"""Decode the pixels of a DICOM file; the size of a compressed stream is checked before it is decoded."""

from __future__ import annotations

import io
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from deepmtdr.photographs.limits import DecodeError, check_size, first_line, to_8_bits
from deepmtdr.terms import Laterality

if TYPE_CHECKING:
    from pydicom import Dataset

DECODE_TIMEOUT = 60.0
"""Longest time that a decoder in a separate process may take, s."""

_COLOURS = ("RGB", "MONOCHROME1", "MONOCHROME2", "PALETTE COLOR", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
"""Photometric interpretations that can be decoded."""


def read_dicom(content: bytes) -> tuple[NDArray[np.uint8], Laterality | None]:
    """Decode the photograph of a DICOM file.

    Args:
        content: the bytes of the file.

    Returns:
        RGB, and the eye if the header names it.

    Raises:
        DecodeError: if there is no single photograph in it, or it is damaged or of an unsupported kind.
    """
    from pydicom import dcmread
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    if DeflatedExplicitVRLittleEndian.encode() in content[:1024]:  # pydicom would inflate it before the header is known
        raise DecodeError(
            f"found deflated DICOM ({DeflatedExplicitVRLittleEndian}), expected a transfer syntax for images"
        )
    try:
        dataset = dcmread(io.BytesIO(content))
        if "PixelData" not in dataset:
            name = dataset.get("SOPClassUID", "")
            raise DecodeError(f"found DICOM without pixel data ({getattr(name, 'name', name)}), expected a photograph")
        check_size(dataset.Columns, dataset.Rows, int(dataset.get("NumberOfFrames") or 1))
        if dataset.PhotometricInterpretation not in _COLOURS:
            found = dataset.PhotometricInterpretation
            raise DecodeError(f"found colours as {found!r}, expected one of {', '.join(_COLOURS)}")
        if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
            _check_codestream(dataset)
        eye = str(dataset.get("ImageLaterality") or dataset.get("Laterality") or "").strip().upper()
        return _dicom_pixels(dataset, content), "L" if eye == "L" else "R" if eye == "R" else None
    except DecodeError:
        raise
    except Exception as error:  # decoders raise almost anything on damaged data
        raise DecodeError(_undecodable(first_line(error))) from error


def _undecodable(reason: str) -> str:
    """Message for a DICOM file whose pixels cannot be decoded."""
    return f"this DICOM file cannot be decoded ({reason}); the file is damaged, or its encoding is not supported"


def _dicom_pixels(dataset: Dataset, content: bytes) -> NDArray[np.uint8]:
    from pydicom.pixels.processing import apply_color_lut

    colours = dataset.PhotometricInterpretation
    values = _decode(dataset, content)  # YBR becomes RGB here
    bits = int(dataset.BitsStored)
    if colours == "PALETTE COLOR":
        values = apply_color_lut(values, dataset)[..., :3]
        bits = 8 * values.dtype.itemsize
    elif dataset.PixelRepresentation == 1:
        values = values.astype(np.int32) + (1 << (bits - 1))
    largest = (1 << bits) - 1
    if colours == "MONOCHROME1":  # 0 is white
        values = largest - values.astype(np.int32)
    return to_8_bits(values, largest)


def _decode(dataset: Dataset, content: bytes) -> NDArray:
    """Decode by a plugin that survives damaged streams. GDCM may abort, so it runs in a separate process."""
    from pydicom import uid
    from pydicom.pixels.utils import pixel_array

    syntax = dataset.file_meta.TransferSyntaxUID
    eight_bit_jpeg = syntax == uid.JPEGBaseline8Bit or (syntax == uid.JPEGExtended12Bit and dataset.BitsStored <= 8)
    if syntax in uid.JPEGTransferSyntaxes and not eight_bit_jpeg:
        return _decode_in_process(content)
    plugin = "pillow" if eight_bit_jpeg else "pyjpegls" if syntax in uid.JPEGLSTransferSyntaxes else "pylibjpeg"
    return pixel_array(dataset, decoding_plugin=plugin if syntax.is_encapsulated else "")


_GDCM_PROGRAM = """
import io, sys, numpy
from pydicom import dcmread
from pydicom.pixels.utils import pixel_array
dataset = dcmread(io.BytesIO(sys.stdin.buffer.read()))
numpy.save(sys.stdout.buffer, pixel_array(dataset, decoding_plugin="gdcm"))
"""


def _decode_in_process(content: bytes) -> NDArray:
    command = [sys.executable, "-P", "-W", "ignore", "-c", _GDCM_PROGRAM]
    try:
        done = subprocess.run(command, input=content, capture_output=True, timeout=DECODE_TIMEOUT, check=False)
    except subprocess.TimeoutExpired:
        raise DecodeError(
            f"the JPEG decoder took longer than {DECODE_TIMEOUT:.0f} s; the file is probably damaged"
        ) from None
    if done.returncode:
        reason = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise DecodeError(_undecodable(reason[0]))
    return np.load(io.BytesIO(done.stdout), allow_pickle=False)


def _check_codestream(dataset: Dataset) -> None:
    """Compare the size in the compressed stream with the header, which may declare a small size for a huge image."""
    from pydicom.encaps import generate_frames

    stream = next(generate_frames(dataset.PixelData, number_of_frames=1))
    width, height = _stream_size(stream) or (dataset.Columns, dataset.Rows)
    if (width, height) != (dataset.Columns, dataset.Rows):
        raise DecodeError(
            f"the DICOM header declares {dataset.Columns}x{dataset.Rows} px, the pixel data has {width}x{height} px; "
            "the file is damaged"
        )


def _stream_size(stream: bytes) -> tuple[int, int] | None:
    """Width and height in the header of a JPEG, JPEG-LS or JPEG 2000 codestream; None for others, such as RLE."""

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
