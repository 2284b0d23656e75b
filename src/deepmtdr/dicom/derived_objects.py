"""The pictures that answer a photograph: the super-resolved image, the page for every viewer, the PDF document."""

from __future__ import annotations

from typing import Any

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
from deepmtdr.dicom.objects import DicomResult, code_item, create_object, reference_item

IMAGE_PROCESSING_PURPOSE = Code("DCM", "121322", "Source image for image processing operation")
FUNDUS_CAMERA = Code("SCT", "409898007", "Fundus Camera")
OPHTHALMIC_SOP_CLASSES = (OphthalmicPhotography8BitImageStorage, OphthalmicPhotography16BitImageStorage)
LOSSY_METHODS = {
    JPEGBaseline8Bit: "ISO_10918_1",
    JPEGExtended12Bit: "ISO_10918_1",
    JPEGLSNearLossless: "ISO_14495_1",
    JPEG2000: "ISO_15444_1",
    JPEG2000MC: "ISO_15444_1",
    HTJ2K: "ISO_15444_15",
}
"""Transfer syntaxes that lose detail, or may, and their methods in the words of PS3.3."""


def create_sr_image(result: DicomResult, sr: UInt8[np.ndarray, "s s 3"]) -> Dataset:
    """The image in the frame: Ophthalmic Photography 8 bit, derived, as the photograph; else a Secondary Capture.

    An Ophthalmic Photography object must say which eye it shows and what compression took away, and nothing is
    guessed here.

    Args:
        result: to which photograph.
        sr: RGB.
    """
    side, kind = result.source.laterality, result.source.dataset.SOPClassUID
    known = side is not None and kind in OPHTHALMIC_SOP_CLASSES and None not in _lossy(result).values()
    sop_class = OphthalmicPhotography8BitImageStorage if known else SecondaryCaptureImageStorage
    made = create_object(result, "sr", sop_class, "OP", "deepmtdr: super-resolved image", 9001)
    _colour(made, sr)
    made.ImageType = ["DERIVED", "PRIMARY", "SUPERRESOLVED", "COLOR"] if known else ["DERIVED", "SECONDARY"]
    made.BurnedInAnnotation, made.PatientOrientation = _burned_in(result), _orientation(result)
    _derived(made, result, _derivation(result))
    if not known:
        _captured(made, result)
        return made
    _as_it_was_taken(made, result.source.dataset)
    made.ImageLaterality = side
    made.NumberOfFrames, made.FrameIncrementPointer, made.FrameTime = 1, 0x00181063, 0
    made.AnatomicRegionSequence = [anatomic_region(result)]
    return made


def create_overlay(result: DicomResult, page: UInt8[np.ndarray, "h w 3"]) -> Dataset:
    """The page with lesions in colour, as a Secondary Capture that every viewer shows.

    Args:
        result: to which photograph.
        page: RGB, with no patient data drawn on it.
    """
    made = create_object(
        result, "overlay", SecondaryCaptureImageStorage, "OT", "deepmtdr: lesions, evidence, grade", 9005
    )
    _colour(made, page)
    made.ImageType, made.PatientOrientation = ["DERIVED", "SECONDARY"], ""
    made.BurnedInAnnotation = _burned_in(result)
    _captured(made, result)
    _derived(made, result, "Page drawn by deepmtdr: lesion maps, evidence and grade of the photograph")
    return made


def create_encapsulated_pdf(result: DicomResult, pdf: bytes) -> Dataset:
    """The report for people, as an encapsulated PDF.

    Args:
        result: to which photograph.
        pdf: the file; it names the patient.
    """
    made = create_object(result, "document", EncapsulatedPDFStorage, "DOC", "deepmtdr: report", 9006)
    made.ConversionType, made.BurnedInAnnotation, made.VerificationFlag = "WSD", "YES", "UNVERIFIED"
    made.DocumentTitle = "Diabetic retinopathy, read by deepmtdr"
    made.MIMETypeOfEncapsulatedDocument = "application/pdf"
    made.ConceptNameCodeSequence = []
    made.AcquisitionDateTime = ""
    made.EncapsulatedDocumentLength = len(pdf)
    made.EncapsulatedDocument = pdf + b"\0" * (len(pdf) % 2)
    made.SourceInstanceSequence = [_source_item(result)]
    return made


def anatomic_region(result: DicomResult) -> Dataset:
    """The retina, and of which eye if that is known, as an item of AnatomicRegionSequence."""
    item, side = code_item(result.codes["place.retina"]), result.source.laterality
    if side is not None:
        item.AnatomicRegionModifierSequence = [code_item(result.codes[f"place.{side}"])]
    return item


def _colour(made: Dataset, pixels: UInt8[np.ndarray, "h w 3"]) -> None:
    made.SamplesPerPixel, made.PhotometricInterpretation, made.PlanarConfiguration = 3, "RGB", 0
    made.Rows, made.Columns = pixels.shape[:2]
    made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 8, 8, 7, 0
    made.PixelData = np.ascontiguousarray(pixels).tobytes()
    made["PixelData"].VR = "OB"


def _captured(made: Dataset, result: DicomResult) -> None:
    """A Secondary Capture names the side for its series, which therefore holds one side alone."""
    made.ConversionType, made.Laterality = "WSD", result.source.laterality or ""


def _derived(made: Dataset, result: DicomResult, how: str) -> None:
    made.DerivationDescription = how
    item = _source_item(result)
    item.PurposeOfReferenceCodeSequence = [code_item(IMAGE_PROCESSING_PURPOSE)]
    made.SourceImageSequence = [item]
    for keyword, value in _lossy(result).items():
        if value is not None:
            setattr(made, keyword, value)


def _source_item(result: DicomResult) -> Dataset:
    return reference_item(result.source.dataset)


def _derivation(result: DicomResult) -> str:
    report = result.report
    fov = report.fov
    where = "" if fov is None else f"Square of the field of view: x {fov.x}, y {fov.y}, side {fov.side} px. "
    how = f"Brought into the frame {report.scaling_text} by deepmtdr {report.version}, weights {report.weights}. "
    return f"{where}{how}Plausible, not recovered detail: no finding may rest on it alone."


def _burned_in(result: DicomResult) -> str:
    """Text in the photograph's pixels is in every picture of it."""
    return result.source.dataset.get("BurnedInAnnotation") or "NO"


def _orientation(result: DicomResult) -> list[str] | str:
    said = result.source.dataset.get("PatientOrientation") or ""
    return list(said) if not isinstance(said, str) else said


def _as_it_was_taken(made: Dataset, source: Dataset) -> None:
    """Copy what the photograph says of its making; what must be there and is not known stays empty."""
    for keyword in TYPE_2_SEQUENCES:
        setattr(made, keyword, [])
    for keyword in TYPE_2_VALUES:
        setattr(made, keyword, None)
    made.AcquisitionDeviceTypeCodeSequence = [code_item(FUNDUS_CAMERA)]
    for keyword in ACQUISITION_ATTRIBUTES:
        if keyword in source and not source[keyword].is_empty:
            made[keyword] = source[keyword]
    if made.PupilDilated == "YES":
        made.setdefault("MydriaticAgentSequence", [])
        made.setdefault("DegreeOfDilation", None)


def _lossy(result: DicomResult) -> dict[str, Any]:
    """Whether detail was lost before, how and how much: once lossy, always lossy (C.7.6.1.1.5); None: not known."""
    source, report = result.source, result.report
    said, method = source.dataset, LOSSY_METHODS.get(UID(source.transfer_syntax))
    if said.get("LossyImageCompression") != "01" and method is None:
        return {"LossyImageCompression": "00"}
    ratio = None if method is None else round(3 * (report.width or 0) * (report.height or 0) / source.size_bytes, 2)
    return {
        "LossyImageCompression": "01",
        "LossyImageCompressionRatio": said.get("LossyImageCompressionRatio") or ratio or None,
        "LossyImageCompressionMethod": said.get("LossyImageCompressionMethod") or method,
    }
