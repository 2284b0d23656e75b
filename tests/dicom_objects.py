"""Photographs as DICOM objects of a camera, for the tests of the clinic."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, OphthalmicPhotography8BitImageStorage

from deepmtdr.dicom.codes import load_codes
from deepmtdr.dicom.objects import DicomResult
from deepmtdr.dicom.source import source_from_dataset
from deepmtdr.photographs.geometry import FieldOfView, InputScale
from deepmtdr.screening.report import Pictures, ScreeningReport, Status
from deepmtdr.terms import Grade, Lesion
from fundus import draw_fundus

NAME = "Yamada^Tarou=山田^太郎=やまだ^たろう"


def make_code_item(value: str, scheme: str, meaning: str) -> Dataset:
    made = Dataset()
    made.CodeValue, made.CodingSchemeDesignator, made.CodeMeaning = value, scheme, meaning
    return made


def make_photograph(
    uid: str = "2.25.123",
    sop_class: UID = OphthalmicPhotography8BitImageStorage,
    pixels: NDArray[np.uint8] | None = None,
    **tags: object,
) -> FileDataset:
    """An Ophthalmic Photography object without a fault, of a drawn right eye; a tag of None is left out."""
    if pixels is None:
        pixels = draw_fundus(300, 320, (160, 150), 140)
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = sop_class, UID(uid)
    made = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    made.SOPClassUID, made.SOPInstanceUID = sop_class, UID(uid)
    made.update(_patient_and_study())
    made.update(_image(pixels))
    made.update(_taken())
    for keyword, value in tags.items():
        if value is None:
            delattr(made, keyword)
        else:
            setattr(made, keyword, value)
    return made


def save_dicom(path: Path, made: FileDataset) -> Path:
    made.save_as(path, enforce_file_format=True)
    return path


def _patient_and_study() -> Dataset:
    made = Dataset()
    made.SpecificCharacterSet = "ISO_IR 192"
    made.PatientName, made.PatientID, made.PatientBirthDate, made.PatientSex = NAME, "P-17", "19500101", "O"
    made.StudyInstanceUID, made.SeriesInstanceUID = UID("2.25.1"), UID("2.25.2")
    made.StudyID, made.AccessionNumber, made.StudyDate, made.StudyTime = "S1", "A17", "20240102", "101112"
    made.ReferringPhysicianName = ""
    made.Modality, made.SeriesNumber, made.InstanceNumber = "OP", 1, 3
    made.Manufacturer, made.ManufacturerModelName = "Nobody", "Drawn"
    made.DeviceSerialNumber, made.SoftwareVersions = "7", "1"
    return made


def _image(pixels: NDArray[np.uint8]) -> Dataset:
    made = Dataset()
    made.ImageType = ["ORIGINAL", "PRIMARY", "", "COLOR"]
    made.SamplesPerPixel, made.PhotometricInterpretation, made.PlanarConfiguration = 3, "RGB", 0
    made.Rows, made.Columns = pixels.shape[:2]
    made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 8, 8, 7, 0
    made.NumberOfFrames, made.FrameIncrementPointer, made.FrameTime = 1, 0x00181063, 0
    made.BurnedInAnnotation, made.LossyImageCompression = "NO", "00"
    made.PixelData = pixels.tobytes()
    made["PixelData"].VR = "OB"
    return made


def _taken() -> Dataset:
    made = Dataset()
    made.ContentDate, made.ContentTime, made.AcquisitionDateTime = "20240102", "101300", "20240102101300"
    made.ImageLaterality, made.PatientOrientation, made.PatientEyeMovementCommanded = "R", ["L", "F"], "NO"
    made.HorizontalFieldOfView, made.EmmetropicMagnification, made.IntraOcularPressure = 45.0, None, None
    made.PupilDilated, made.DegreeOfDilation, made.DetectorType = "YES", None, "CCD"
    made.SynchronizationTrigger, made.AcquisitionTimeSynchronized = "NO TRIGGER", "N"
    made.SynchronizationFrameOfReferenceUID = UID("2.25.9")
    made.AcquisitionDeviceTypeCodeSequence = [make_code_item("409898007", "SCT", "Fundus Camera")]
    made.AnatomicRegionSequence = [make_code_item("5665001", "SCT", "Retina")]
    for keyword in ("RefractiveStateSequence", "MydriaticAgentSequence", "IlluminationTypeCodeSequence"):
        setattr(made, keyword, [])
    for keyword in ("LightPathFilterTypeStackCodeSequence", "ImagePathFilterTypeStackCodeSequence"):
        setattr(made, keyword, [])
    for keyword in ("LensesCodeSequence", "AcquisitionContextSequence"):
        setattr(made, keyword, [])
    return made


def make_report(status: str = "ok", **said: Any) -> ScreeningReport:
    """What might be said of a photograph: moderate, with a microaneurysm, a haemorrhage, and evidence on it."""
    about: dict[str, Any] = {"path": Path("right eye, image 3"), "version": "1.2", "weights": "w-0123456789ab"}
    about |= {"precision": "fp32", "width": 320, "height": 300, "sha256": "00" * 32}
    if status == "ok":
        lesions = np.zeros((4, 64, 64), np.float32)
        lesions[Lesion.MA, 20:23, 20:23], lesions[Lesion.HE, 30:36, 30:36] = 0.75, 1.0
        evidence = lesions.max(axis=0) / 2
        sr = draw_fundus(64, 64, (32, 32), 32)
        about |= {
            "pictures": Pictures(sr, sr, lesions, evidence),
            "fov": FieldOfView(20, 10, 280),
            "way": InputScale(16, 4),
        }
        about |= {"grade": Grade.MODERATE, "probabilities": (0.1, 0.2, 0.4, 0.2, 0.1)}
        about |= {"counts": dict(zip(Lesion, (1, 1, 0, 0), strict=True))}
        about |= {"areas": dict(zip(Lesion, (0.28, 1.12, 0.0, 0.0), strict=True))}
    else:
        about["message"] = "right eye, image 3: too dark: median brightness 3 of 255, expected at least 8"
    return ScreeningReport(status=cast("Status", status), **(about | said))


def make_result(made: FileDataset | None = None, report: ScreeningReport | None = None) -> DicomResult:
    return DicomResult(source_from_dataset(made or make_photograph()), report or make_report(), load_codes())
