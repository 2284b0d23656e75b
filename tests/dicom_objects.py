"""Photographs as the DICOM objects of a camera, and reports about them, for the tests of `dicom`."""

from __future__ import annotations

import io
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, OphthalmicPhotography8BitImageStorage

from deepmtdr.dicom.codes import load_codes
from deepmtdr.dicom.objects import DicomResult, to_file_bytes
from deepmtdr.dicom.results import create_objects
from deepmtdr.dicom.source import source_from_dataset
from deepmtdr.labels import DIABETIC_RETINOPATHY, LabelSet
from deepmtdr.photographs.geometry import FieldOfView, InputScale
from deepmtdr.screening.report import Pictures, ScreeningReport, Status
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
    """A valid Ophthalmic Photography object of a drawn right eye; a keyword of None is left out."""
    if pixels is None:
        pixels = draw_fundus(300, 320, (160, 150), 140)
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = sop_class, UID(uid)
    made = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    made.SOPClassUID, made.SOPInstanceUID = sop_class, UID(uid)
    made.update(_patient_and_study())
    made.update(_image(pixels))
    made.update(_acquisition())
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


def _acquisition() -> Dataset:
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


def make_report(status: str = "ok", labels: LabelSet = DIABETIC_RETINOPATHY, **changes: Any) -> ScreeningReport:
    """A report of grade 2 with a lesion of each of the first two types and evidence on them, or one without a grade."""
    report = ScreeningReport(
        path=Path("right eye, image 3"),
        status=cast("Status", status),
        labels=labels,
        sha256="00" * 32,
        width=320,
        height=300,
        weights="w-0123456789ab",
        version="1.2",
        precision="fp32",
    )
    if status == "ok":
        report = _graded(report)
    else:
        reason = "too dark: median brightness 3 of 255, expected at least 8"
        report = replace(report, message=f"{report.path}: {reason}")
    return replace(report, **changes)


def _graded(report: ScreeningReport) -> ScreeningReport:
    codes, grades = report.labels.codes, len(report.labels.grades)
    lesions = np.zeros((len(codes), 64, 64), np.float32)
    lesions[0, 20:23, 20:23], lesions[1, 30:36, 30:36] = 0.75, 1.0
    sr = draw_fundus(64, 64, (32, 32), 32)
    return replace(
        report,
        grade=2,
        probabilities=(0.1, 0.2, 0.4, 0.2, 0.1) if grades == 5 else (0.1, 0.2, 0.7),
        counts={code: int(channel < 2) for channel, code in enumerate(codes)},
        areas=dict(zip(codes, (0.28, 1.12, 0.0, 0.0), strict=False)),
        fov=FieldOfView(20, 10, 280),
        way=InputScale(16, 4),
        pictures=Pictures(sr, sr, lesions, lesions.max(axis=0) / 2),
    )


def make_result(photograph: FileDataset | None = None, report: ScreeningReport | None = None) -> DicomResult:
    report = report or make_report()
    codes = load_codes(labels=report.labels)
    return DicomResult(source_from_dataset(photograph or make_photograph()), report, codes)


def make_objects(result: DicomResult) -> dict[str, Dataset]:
    """The DICOM objects of a result by the names of their files."""
    return {kind.value: created for kind, created in create_objects(result).items()}


def read_back(dataset: Dataset) -> FileDataset:
    """An object as a reader of its file gets it."""
    return dcmread(io.BytesIO(to_file_bytes(dataset)))


def find_dciodvfy_errors(made: Dataset, folder: Path) -> list[str]:
    """The errors that dciodvfy finds in an object. Its warnings about our private codes are left out."""
    (folder / "made.dcm").write_bytes(to_file_bytes(made))
    output = subprocess.run(["dciodvfy", folder / "made.dcm"], capture_output=True, text=True, check=False).stderr
    return [line for line in output.splitlines() if line.startswith("Error")]
