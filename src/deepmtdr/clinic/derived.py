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

from deepmtdr.clinic.attributes import SEQUENCES, TAKEN_OVER, VALUES
from deepmtdr.clinic.codes import Code
from deepmtdr.clinic.objects import Answer, coded, new_object, reference

PROCESSED = Code("DCM", "121322", "Source image for image processing operation")
CAMERA = Code("SCT", "409898007", "Fundus Camera")
OPHTHALMIC = (OphthalmicPhotography8BitImageStorage, OphthalmicPhotography16BitImageStorage)
LOSSY = {
    JPEGBaseline8Bit: "ISO_10918_1",
    JPEGExtended12Bit: "ISO_10918_1",
    JPEGLSNearLossless: "ISO_14495_1",
    JPEG2000: "ISO_15444_1",
    JPEG2000MC: "ISO_15444_1",
    HTJ2K: "ISO_15444_15",
}
"""Transfer syntaxes that lose detail, or may, and their methods in the words of PS3.3."""


def sr_image(answer: Answer, sr: UInt8[np.ndarray, "s s 3"]) -> Dataset:
    """The image in the frame: Ophthalmic Photography 8 bit, derived, as the photograph; else a Secondary Capture.

    An Ophthalmic Photography object must say which eye it shows and what compression took away, and nothing is
    guessed here.

    Args:
        answer: to which photograph.
        sr: RGB.
    """
    side, kind = answer.source.laterality, answer.source.dataset.SOPClassUID
    known = side is not None and kind in OPHTHALMIC and None not in _lossy(answer).values()
    sop_class = OphthalmicPhotography8BitImageStorage if known else SecondaryCaptureImageStorage
    made = new_object(answer, "sr", sop_class, "OP", "deepmtdr: super-resolved image", 9001)
    _colour(made, sr)
    made.ImageType = ["DERIVED", "PRIMARY", "SUPERRESOLVED", "COLOR"] if known else ["DERIVED", "SECONDARY"]
    made.BurnedInAnnotation, made.PatientOrientation = _burned_in(answer), _orientation(answer)
    _derived(made, answer, _derivation(answer))
    if not known:
        _captured(made, answer)
        return made
    _as_it_was_taken(made, answer.source.dataset)
    made.ImageLaterality = side
    made.NumberOfFrames, made.FrameIncrementPointer, made.FrameTime = 1, 0x00181063, 0
    made.AnatomicRegionSequence = [region(answer)]
    return made


def overlay(answer: Answer, page: UInt8[np.ndarray, "h w 3"]) -> Dataset:
    """The page with lesions in colour, as a Secondary Capture that every viewer shows.

    Args:
        answer: to which photograph.
        page: RGB, with no patient data drawn on it.
    """
    made = new_object(answer, "overlay", SecondaryCaptureImageStorage, "OT", "deepmtdr: lesions, evidence, grade", 9005)
    _colour(made, page)
    made.ImageType, made.PatientOrientation = ["DERIVED", "SECONDARY"], ""
    made.BurnedInAnnotation = _burned_in(answer)
    _captured(made, answer)
    _derived(made, answer, "Page drawn by deepmtdr: lesion maps, evidence and grade of the photograph")
    return made


def document(answer: Answer, pdf: bytes) -> Dataset:
    """The report for people, as an encapsulated PDF.

    Args:
        answer: to which photograph.
        pdf: the file; it names the patient.
    """
    made = new_object(answer, "document", EncapsulatedPDFStorage, "DOC", "deepmtdr: report", 9006)
    made.ConversionType, made.BurnedInAnnotation, made.VerificationFlag = "WSD", "YES", "UNVERIFIED"
    made.DocumentTitle = "Diabetic retinopathy, read by deepmtdr"
    made.MIMETypeOfEncapsulatedDocument = "application/pdf"
    made.ConceptNameCodeSequence = []
    made.AcquisitionDateTime = ""
    made.EncapsulatedDocumentLength = len(pdf)
    made.EncapsulatedDocument = pdf + b"\0" * (len(pdf) % 2)
    made.SourceInstanceSequence = [_source_item(answer)]
    return made


def region(answer: Answer) -> Dataset:
    """The retina, and of which eye if that is known, as an item of AnatomicRegionSequence."""
    item, side = coded(answer.codes["place.retina"]), answer.source.laterality
    if side is not None:
        item.AnatomicRegionModifierSequence = [coded(answer.codes[f"place.{side}"])]
    return item


def _colour(made: Dataset, pixels: UInt8[np.ndarray, "h w 3"]) -> None:
    made.SamplesPerPixel, made.PhotometricInterpretation, made.PlanarConfiguration = 3, "RGB", 0
    made.Rows, made.Columns = pixels.shape[:2]
    made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 8, 8, 7, 0
    made.PixelData = np.ascontiguousarray(pixels).tobytes()
    made["PixelData"].VR = "OB"


def _captured(made: Dataset, answer: Answer) -> None:
    """A Secondary Capture names the side for its series, which therefore holds one side alone."""
    made.ConversionType, made.Laterality = "WSD", answer.source.laterality or ""


def _derived(made: Dataset, answer: Answer, how: str) -> None:
    made.DerivationDescription = how
    item = _source_item(answer)
    item.PurposeOfReferenceCodeSequence = [coded(PROCESSED)]
    made.SourceImageSequence = [item]
    for keyword, value in _lossy(answer).items():
        if value is not None:
            setattr(made, keyword, value)


def _source_item(answer: Answer) -> Dataset:
    return reference(answer.source.dataset)


def _derivation(answer: Answer) -> str:
    report = answer.report
    fov = report.fov
    where = "" if fov is None else f"Square of the field of view: x {fov.x}, y {fov.y}, side {fov.side} px. "
    how = f"Brought into the frame {report.way_in_words} by deepmtdr {report.version}, weights {report.weights}. "
    return f"{where}{how}Plausible, not recovered detail: no finding may rest on it alone."


def _burned_in(answer: Answer) -> str:
    """Text in the photograph's pixels is in every picture of it."""
    return answer.source.dataset.get("BurnedInAnnotation") or "NO"


def _orientation(answer: Answer) -> list[str] | str:
    said = answer.source.dataset.get("PatientOrientation") or ""
    return list(said) if not isinstance(said, str) else said


def _as_it_was_taken(made: Dataset, source: Dataset) -> None:
    """Copy what the photograph says of its making; what must be there and is not known stays empty."""
    for keyword in SEQUENCES:
        setattr(made, keyword, [])
    for keyword in VALUES:
        setattr(made, keyword, None)
    made.AcquisitionDeviceTypeCodeSequence = [coded(CAMERA)]
    for keyword in TAKEN_OVER:
        if keyword in source and not source[keyword].is_empty:
            made[keyword] = source[keyword]
    if made.PupilDilated == "YES":
        made.setdefault("MydriaticAgentSequence", [])
        made.setdefault("DegreeOfDilation", None)


def _lossy(answer: Answer) -> dict[str, Any]:
    """Whether detail was lost before, how and how much: once lossy, always lossy (C.7.6.1.1.5); None: not known."""
    source, report = answer.source, answer.report
    said, method = source.dataset, LOSSY.get(UID(source.syntax))
    if said.get("LossyImageCompression") != "01" and method is None:
        return {"LossyImageCompression": "00"}
    ratio = None if method is None else round(3 * (report.width or 0) * (report.height or 0) / source.length, 2)
    return {
        "LossyImageCompression": "01",
        "LossyImageCompressionRatio": said.get("LossyImageCompressionRatio") or ratio or None,
        "LossyImageCompressionMethod": said.get("LossyImageCompressionMethod") or method,
    }
