"""The pictures of a result as DICOM objects: super-resolved image, overlay page, PDF document."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from pydicom import Dataset
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    JPEG2000MC,
    UID,
    EncapsulatedPDFStorage,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLSNearLossless,
    OphthalmicPhotography8BitImageStorage,
    OphthalmicPhotography16BitImageStorage,
    SecondaryCaptureImageStorage,
)

from deepmtdr.dicom.attributes import ACQUISITION_ATTRIBUTES, TYPE_2_SEQUENCES, TYPE_2_VALUES
from deepmtdr.dicom.codes import Code
from deepmtdr.dicom.objects import (
    DicomResult,
    ObjectKind,
    anatomic_region,
    code_item,
    create_object,
    reference_item,
)
from deepmtdr.dicom.pdf_report import document_title

IMAGE_PROCESSING_PURPOSE = Code("DCM", "121322", "Source image for image processing operation")
FUNDUS_CAMERA = Code("SCT", "409898007", "Fundus Camera")
OPHTHALMIC_SOP_CLASSES = (OphthalmicPhotography8BitImageStorage, OphthalmicPhotography16BitImageStorage)
SYNCHRONISATION_ATTRIBUTES = (
    "SynchronizationFrameOfReferenceUID",
    "SynchronizationTrigger",
    "AcquisitionTimeSynchronized",
)
"""Attributes that an Ophthalmic Photography object must have (PS3.3 C.7.4.2)."""
LOSSY_METHODS = {
    JPEGBaseline8Bit: "ISO_10918_1",
    JPEGExtended12Bit: "ISO_10918_1",
    JPEGLSNearLossless: "ISO_14495_1",
    JPEG2000: "ISO_15444_1",
    JPEG2000MC: "ISO_15444_1",
    HTJ2K: "ISO_15444_15",
}
"""Transfer syntax with lossy compression -> its method, in the terms of PS3.3."""


class LossyCompression(NamedTuple):
    """Whether the photograph's pixels were ever compressed with loss, and how (PS3.3 C.7.6.1.1.5)."""

    lossy: bool | None
    """None: the header does not say."""
    ratio: object = None
    """Compression ratio, or several; None: not known."""
    method: object = None
    """Compression method, or several; None: not known."""

    @property
    def fully_described(self) -> bool:
        """Whether it is known if there was any loss, and if there was, also ratio and method."""
        return self.lossy is False or (self.ratio is not None and self.method is not None)


def create_sr_image(result: DicomResult, sr: UInt8[np.ndarray, "s s 3"]) -> Dataset:
    """Create the super-resolved image: Ophthalmic Photography 8 Bit if possible, else a Secondary Capture.

    An Ophthalmic Photography object must contain the side of the eye, whether its pixels contain text, any lossy
    compression with its method, and the synchronisation. None of them is guessed.

    Args:
        result: photograph and report.
        sr: RGB.
    """
    side, source = result.source.laterality, result.source.dataset
    ophthalmic = (
        side is not None
        and source.SOPClassUID in OPHTHALMIC_SOP_CLASSES
        and find_lossy_compression(result).fully_described
        and _burned_in_annotation(result) is not None
        and all(source.get(keyword) for keyword in SYNCHRONISATION_ATTRIBUTES)
    )
    sop_class = OphthalmicPhotography8BitImageStorage if ophthalmic else SecondaryCaptureImageStorage
    created = create_object(result, ObjectKind.SR_IMAGE, sop_class, "OP", "deepmtdr: super-resolved image")
    _set_pixels(created, sr)
    created.ImageType = ["DERIVED", "PRIMARY", "SUPERRESOLVED", "COLOR"] if ophthalmic else ["DERIVED", "SECONDARY"]
    created.PatientOrientation = _orientation(result)
    _set_burned_in_annotation(created, result)
    _set_derivation(created, result, _sr_derivation(result))
    if not ophthalmic:
        _set_secondary_capture(created, result)
        return created
    _copy_acquisition(created, source)
    created.ImageLaterality = side
    created.NumberOfFrames, created.FrameIncrementPointer, created.FrameTime = 1, 0x00181063, 0
    created.AnatomicRegionSequence = [anatomic_region(result)]
    return created


def create_overlay(result: DicomResult, page: UInt8[np.ndarray, "h w 3"]) -> Dataset:
    """Create the page with lesions in colour as a Secondary Capture, which every viewer can show.

    Args:
        result: photograph and report.
        page: RGB, without patient data.
    """
    created = create_object(
        result, ObjectKind.OVERLAY, SecondaryCaptureImageStorage, "OT", "deepmtdr: lesions, evidence, grade"
    )
    _set_pixels(created, page)
    created.ImageType, created.PatientOrientation = ["DERIVED", "SECONDARY"], ""
    _set_burned_in_annotation(created, result)
    _set_secondary_capture(created, result)
    _set_derivation(created, result, "Page drawn by deepmtdr: lesion maps, evidence and grade of the photograph")
    return created


def create_encapsulated_pdf(result: DicomResult, pdf: bytes) -> Dataset:
    """Create the PDF report as an encapsulated PDF object.

    Args:
        result: photograph and report.
        pdf: content of the PDF file, which contains the patient's name.
    """
    created = create_object(result, ObjectKind.DOCUMENT, EncapsulatedPDFStorage, "DOC", "deepmtdr: report")
    created.ConversionType, created.BurnedInAnnotation, created.VerificationFlag = "WSD", "YES", "UNVERIFIED"
    created.DocumentTitle = document_title(result.report.labels)
    created.MIMETypeOfEncapsulatedDocument = "application/pdf"
    created.ConceptNameCodeSequence = []
    created.AcquisitionDateTime = ""
    created.EncapsulatedDocumentLength = len(pdf)
    created.EncapsulatedDocument = pdf + b"\0" * (len(pdf) % 2)
    created.SourceInstanceSequence = [reference_item(result.source.dataset)]
    return created


def find_lossy_compression(result: DicomResult) -> LossyCompression:
    """Find out from header and transfer syntax whether the photograph was compressed with loss."""
    source, report = result.source, result.report
    header, method = source.dataset, LOSSY_METHODS.get(UID(source.transfer_syntax))
    declared = header.get("LossyImageCompression")
    if declared != "01" and method is None:
        return LossyCompression(False if declared == "00" else None)
    ratio = None if method is None else round(3 * (report.width or 0) * (report.height or 0) / source.size_bytes, 2)
    return LossyCompression(
        True,
        header.get("LossyImageCompressionRatio") or ratio or None,
        header.get("LossyImageCompressionMethod") or method,
    )


def _set_pixels(created: Dataset, pixels: UInt8[np.ndarray, "h w 3"]) -> None:
    created.SamplesPerPixel, created.PhotometricInterpretation, created.PlanarConfiguration = 3, "RGB", 0
    created.Rows, created.Columns = pixels.shape[:2]
    created.BitsAllocated, created.BitsStored, created.HighBit, created.PixelRepresentation = 8, 8, 7, 0
    created.PixelData = np.ascontiguousarray(pixels).tobytes()
    created["PixelData"].VR = "OB"


def _set_secondary_capture(created: Dataset, result: DicomResult) -> None:
    """Set the attributes of a Secondary Capture. Laterality belongs to its series, so each series shows one eye."""
    created.ConversionType, created.Laterality = "WSD", result.source.laterality or ""


def _set_derivation(created: Dataset, result: DicomResult, description: str) -> None:
    created.DerivationDescription = description
    item = reference_item(result.source.dataset)
    item.PurposeOfReferenceCodeSequence = [code_item(IMAGE_PROCESSING_PURPOSE)]
    created.SourceImageSequence = [item]
    compression = find_lossy_compression(result)
    if compression.lossy is not None:
        created.LossyImageCompression = "01" if compression.lossy else "00"
    if compression.ratio is not None:
        created.LossyImageCompressionRatio = compression.ratio
    if compression.method is not None:
        created.LossyImageCompressionMethod = compression.method


def _sr_derivation(result: DicomResult) -> str:
    report = result.report
    fov = report.fov
    where = "" if fov is None else f"Square of the field of view: x {fov.x}, y {fov.y}, side {fov.side} px. "
    how = (
        f"Resized to the frame by deepmtdr {report.version} ({report.scaling_description}), weights {report.weights}. "
    )
    return (
        f"{where}{how}The details are computed by a network and may be wrong. "
        "Do not base a finding on this image alone."
    )


def _burned_in_annotation(result: DicomResult) -> str | None:
    """Whether text in the photograph's pixels identifies the patient: YES, NO, or None if the header does not say."""
    found = str(result.source.dataset.get("BurnedInAnnotation") or "").strip().upper()
    return found if found in ("YES", "NO") else None


def _set_burned_in_annotation(created: Dataset, result: DicomResult) -> None:
    """Copy what the photograph's header says: every picture made from a photograph shows its text too."""
    found = _burned_in_annotation(result)
    if found is not None:
        created.BurnedInAnnotation = found


def _orientation(result: DicomResult) -> list[str] | str:
    orientation = result.source.dataset.get("PatientOrientation") or ""
    return list(orientation) if not isinstance(orientation, str) else orientation


def _copy_acquisition(created: Dataset, source: Dataset) -> None:
    """Copy how the photograph was taken; required attributes that are not known stay empty."""
    for keyword in TYPE_2_SEQUENCES:
        setattr(created, keyword, [])
    for keyword in TYPE_2_VALUES:
        setattr(created, keyword, None)
    created.AcquisitionDeviceTypeCodeSequence = [code_item(FUNDUS_CAMERA)]
    for keyword in ACQUISITION_ATTRIBUTES:
        if keyword in source and not source[keyword].is_empty:
            created[keyword] = source[keyword]
    if created.PupilDilated == "YES":
        created.setdefault("MydriaticAgentSequence", [])
        created.setdefault("DegreeOfDilation", None)
