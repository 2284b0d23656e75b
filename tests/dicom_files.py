"""DICOM files with pixels of every encoding, for the tests of decoding."""

from __future__ import annotations

from pathlib import Path

from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, ExplicitVRLittleEndian, OphthalmicPhotography8BitImageStorage, generate_uid

from fundus import draw_fundus

PIXELS = draw_fundus(60, 80, (40, 30), 28)


def dicom(values: NDArray, photometric: str, *, bits: int = 8, **tags: object) -> Dataset:
    """An ophthalmic photograph with native pixels."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = OphthalmicPhotography8BitImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    dataset.Rows, dataset.Columns = values.shape[:2]
    dataset.SamplesPerPixel = values.shape[2] if values.ndim == 3 else 1
    if values.ndim == 3:
        dataset.PlanarConfiguration = 0
    dataset.PhotometricInterpretation = photometric
    dataset.BitsAllocated = 8 * values.itemsize
    dataset.BitsStored, dataset.HighBit = bits, bits - 1
    dataset.PixelRepresentation = 0
    dataset.PixelData = values.tobytes()
    dataset["PixelData"].VR = "OW" if values.itemsize == 2 else "OB"
    for keyword, value in tags.items():
        setattr(dataset, keyword, value)
    return dataset


def write(path: Path, dataset: Dataset) -> Path:
    dataset.save_as(path, enforce_file_format=True)
    return path


def encapsulated(stream: bytes, syntax: UID, photometric: str, **tags: object) -> Dataset:
    dataset = dicom(PIXELS, photometric, **tags)
    dataset.PixelData = encapsulate([stream])
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = syntax
    return dataset
