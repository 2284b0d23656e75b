"""Decode the pixels of a DICOM file; the header of a compressed stream is checked before it is decoded."""

from __future__ import annotations

import io
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, JpegImagePlugin

from deepmtdr.photographs.codestreams import Codestream, read_codestream_header
from deepmtdr.photographs.limits import DecodeError, check_range, check_size, first_line, to_8_bits
from deepmtdr.terms import Laterality

if TYPE_CHECKING:
    from pydicom import Dataset

DECODE_TIMEOUT = 60.0
"""Longest time that a decoder in a separate process may take, s."""

_COLOURS = {
    "RGB": 3,
    "MONOCHROME1": 1,
    "MONOCHROME2": 1,
    "PALETTE COLOR": 1,
    "YBR_FULL": 3,
    "YBR_FULL_422": 3,
    "YBR_ICT": 3,
    "YBR_RCT": 3,
}
"""Number of samples for each photometric interpretation that can be decoded."""


def read_dicom(content: bytes) -> tuple[NDArray[np.uint8], Laterality | None]:
    """Decode the photograph of a DICOM file.

    Args:
        content: the bytes of the file.

    Returns:
        RGB, and the eye if the header names it.

    Raises:
        DecodeError: if there is no single photograph in it, or it is damaged or of an unsupported kind.
    """
    from deepmtdr.photographs.dicom_file import read_dicom_file

    try:
        dataset = read_dicom_file(content)
        if "PixelData" not in dataset:
            name = dataset.get("SOPClassUID", "")
            raise DecodeError(f"found DICOM without pixel data ({getattr(name, 'name', name)}), expected a photograph")
        check_size(dataset.Columns, dataset.Rows, int(dataset.get("NumberOfFrames") or 1))
        _check_samples(dataset)
        stream = _check_codestream(dataset) if dataset.file_meta.TransferSyntaxUID.is_encapsulated else None
        eye = str(dataset.get("ImageLaterality") or dataset.get("Laterality") or "").strip().upper()
        return _dicom_pixels(dataset, content, stream), "L" if eye == "L" else "R" if eye == "R" else None
    except (DecodeError, MemoryError):
        raise
    except Exception as error:  # decoders raise almost anything on damaged data
        raise DecodeError(_undecodable(first_line(error))) from error


def _undecodable(reason: str) -> str:
    """Message for a DICOM file whose pixels cannot be decoded."""
    return f"this DICOM file cannot be decoded ({reason}); the file is damaged, or its encoding is not supported"


def _check_samples(dataset: Dataset) -> None:
    """Refuse samples of an unsupported kind by name."""
    colours = str(dataset.PhotometricInterpretation)
    if colours not in _COLOURS:
        raise DecodeError(f"found colours as {colours!r}, expected one of {', '.join(_COLOURS)}")
    if dataset.SamplesPerPixel != _COLOURS[colours]:
        raise DecodeError(f"found {colours} with {dataset.SamplesPerPixel} samples, expected {_COLOURS[colours]}")
    allocated, stored, high = (int(dataset[name].value) for name in ("BitsAllocated", "BitsStored", "HighBit"))
    usable = (allocated in (8, 16) and 8 <= stored <= allocated) or (allocated, stored) == (1, 1)
    if not usable or high != stored - 1:
        raise DecodeError(
            f"found Bits Allocated {allocated}, Bits Stored {stored}, High Bit {high}; expected 8 or 16, 8 to Bits "
            "Allocated, and Bits Stored - 1"
        )


def _dicom_pixels(dataset: Dataset, content: bytes, stream: Codestream | None) -> NDArray[np.uint8]:
    from pydicom.pixels.processing import apply_color_lut

    colours = dataset.PhotometricInterpretation
    values = _decode(dataset, content, stream)  # YBR becomes RGB here
    bits = int(dataset.BitsStored)
    if colours == "PALETTE COLOR":
        values = apply_color_lut(values, dataset)[..., :3]
        bits = 8 * values.dtype.itemsize
    elif dataset.PixelRepresentation == 1:
        values = values.astype(np.int32) + (1 << (bits - 1))
    elif stream is not None:
        bits = min(bits, stream.bits)
    largest = (1 << bits) - 1
    if colours == "MONOCHROME1":  # 0 is white
        check_range(values, largest)
        values = largest - values.astype(np.int32)
    return to_8_bits(values, largest)


def _decode(dataset: Dataset, content: bytes, stream: Codestream | None) -> NDArray:
    """Decode by a plugin that survives damaged streams. GDCM may abort, so it runs in a separate process."""
    from pydicom import uid
    from pydicom.pixels.utils import pixel_array

    syntax = dataset.file_meta.TransferSyntaxUID
    eight_bit_jpeg = syntax == uid.JPEGBaseline8Bit or (syntax == uid.JPEGExtended12Bit and dataset.BitsStored <= 8)
    if eight_bit_jpeg:
        return _decode_baseline_jpeg(dataset)
    if syntax in uid.JPEGTransferSyntaxes:
        return _decode_in_process(content)
    plugin = "pyjpegls" if syntax in uid.JPEGLSTransferSyntaxes else "pylibjpeg"
    transformed = stream is not None and stream.colour_transform  # RGB already, whatever the header says
    return pixel_array(dataset, decoding_plugin=plugin if syntax.is_encapsulated else "", raw=transformed)


def _decode_baseline_jpeg(dataset: Dataset) -> NDArray[np.uint8]:
    """Decode an 8-bit JPEG; its own markers decide whether it is YCbCr, since headers often say RGB for YCbCr."""
    from pydicom.pixels.processing import convert_color_space

    with Image.open(io.BytesIO(_first_frame(dataset)), formats=("JPEG",)) as image:
        assert isinstance(image, JpegImagePlugin.JpegImageFile)
        ycbcr = image.mode == "RGB" and _is_ycbcr(image)
        if ycbcr:
            image.draft("YCbCr", image.size)  # undo libjpeg's conversion: pydicom's is that of the standard
        values = np.asarray(image)
    return convert_color_space(values, "YBR_FULL", "RGB") if ycbcr else values


def _is_ycbcr(image: JpegImagePlugin.JpegImageFile) -> bool:
    """Whether a JPEG of three components is YCbCr by the rule of libjpeg, which DCMTK and dcm4che use too."""
    if "jfif" in image.info:
        return True
    if "adobe_transform" in image.info:
        return image.info["adobe_transform"] != 0
    return bytes(layer[0] for layer in image.layer) != b"RGB"


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


def _first_frame(dataset: Dataset) -> bytes:
    from pydicom.encaps import generate_frames

    return next(generate_frames(dataset.PixelData, number_of_frames=1))


def _check_codestream(dataset: Dataset) -> Codestream | None:
    """Compare the header of the compressed stream with that of the file, which may hide a huge image or other colours.

    Returns:
        The header of the stream; None if it has none, such as RLE.
    """
    stream = read_codestream_header(_first_frame(dataset))
    if stream is None:
        return None
    if (stream.width, stream.height) != (dataset.Columns, dataset.Rows):
        raise DecodeError(
            f"the DICOM header declares {dataset.Columns}x{dataset.Rows} px, the pixel data has "
            f"{stream.width}x{stream.height} px; the file is damaged"
        )
    if stream.components != dataset.SamplesPerPixel or stream.bits > dataset.BitsAllocated:
        raise DecodeError(
            f"the DICOM header declares {dataset.SamplesPerPixel} samples of {dataset.BitsAllocated} bits, the pixel "
            f"data has {stream.components} of {stream.bits} bits; the file is damaged"
        )
    if dataset.PhotometricInterpretation in ("YBR_RCT", "YBR_ICT") and not stream.colour_transform:
        raise DecodeError(
            f"found {dataset.PhotometricInterpretation}, but pixel data without a colour transform; expected RGB"
        )
    return stream
