"""Read the data set of a DICOM file without decoding pixels, and without inflating deflated files."""

from __future__ import annotations

import io

from pydicom import dcmread
from pydicom.dataset import FileDataset
from pydicom.filereader import _read_file_meta_info, read_preamble
from pydicom.uid import DeflatedExplicitVRLittleEndian

from deepmtdr.photographs.limits import DecodeError


def read_dicom_file(content: bytes, *, stop_before_pixels: bool = False) -> FileDataset:
    """Read the data set of a DICOM file.

    Args:
        content: the bytes of the file.
        stop_before_pixels: leave out the pixels and all elements after them.

    Raises:
        DecodeError: if the file is deflated: a small one can be inflated to any size.
        Exception: pydicom raises almost any exception for a damaged file.
    """
    file = io.BytesIO(content)
    read_preamble(file, force=False)
    # The transfer syntax as dcmread finds it, wherever it is in the file.
    syntax = _read_file_meta_info(file).get("TransferSyntaxUID")
    if syntax == DeflatedExplicitVRLittleEndian:
        raise DecodeError(f"found deflated DICOM ({syntax}), expected a transfer syntax for images")
    return dcmread(io.BytesIO(content), stop_before_pixels=stop_before_pixels)
