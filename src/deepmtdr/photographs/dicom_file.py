"""Read the data set of a DICOM file without inflating deflated files, and its header without a huge one."""

from __future__ import annotations

import io

from pydicom import dcmread
from pydicom.dataset import FileDataset
from pydicom.filereader import _read_file_meta_info, read_partial, read_preamble
from pydicom.tag import BaseTag
from pydicom.uid import DeflatedExplicitVRLittleEndian

from deepmtdr.photographs.limits import DecodeError

MAX_HEADER_BYTES = 1 << 24
"""Largest header: reading one of many small elements takes 40 times its size in memory, and seconds for each MiB."""
_PIXEL_TAGS = (0x7FE00008, 0x7FE00009, 0x7FE00010)


def read_dicom_file(content: bytes) -> FileDataset:
    """Read the data set of a DICOM file, with the pixels as they are in the file.

    Args:
        content: the bytes of the file.

    Raises:
        DecodeError: if the file is deflated: a small one can be inflated to any size.
        Exception: pydicom raises almost any exception for a damaged file.
    """
    _refuse_deflated(content)
    return dcmread(io.BytesIO(content))


def read_dicom_header(content: bytes) -> FileDataset:
    """Read the elements of a DICOM file that precede the pixels.

    Args:
        content: the bytes of the file.

    Raises:
        DecodeError: if the file is deflated, or there are more than `MAX_HEADER_BYTES` before the pixels.
        Exception: pydicom raises almost any exception for a damaged file.
    """
    _refuse_deflated(content)
    reached = False

    def at_pixels(tag: BaseTag, vr: str | None, length: int) -> bool:
        nonlocal reached
        reached = reached or tag in _PIXEL_TAGS
        return reached

    dataset = read_partial(io.BytesIO(content[:MAX_HEADER_BYTES]), at_pixels)
    if len(content) > MAX_HEADER_BYTES and not reached:
        raise DecodeError(f"found a DICOM header of more than {MAX_HEADER_BYTES:,} bytes, expected a photograph")
    return dataset


def _refuse_deflated(content: bytes) -> None:
    file = io.BytesIO(content)
    read_preamble(file, force=False)
    # The transfer syntax as dcmread finds it, wherever it is in the file.
    syntax = _read_file_meta_info(file).get("TransferSyntaxUID")
    if syntax == DeflatedExplicitVRLittleEndian:
        raise DecodeError(f"found deflated DICOM ({syntax}), expected a transfer syntax for images")
