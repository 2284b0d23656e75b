"""Which attributes of a photograph an answer takes over, and which values may stand in it.

Whatever a header holds, what comes out of `select_valid_attributes` can be copied, written and judged: attributes that are not as the
standard has them are left out, never mended. The patient's number alone is too important for that: without a usable
one there is no answer.
"""

from __future__ import annotations

import unicodedata
from datetime import datetime

import pydicom.config
from pydicom import DataElement, Dataset
from pydicom.datadict import dictionary_VM, dictionary_VR, tag_for_keyword
from pydicom.valuerep import validate_value

from deepmtdr.errors import ClinicError

REQUIRED_UIDS = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")
PATIENT_ATTRIBUTES = (
    *("PatientName", "PatientID", "IssuerOfPatientID", "IssuerOfPatientIDQualifiersSequence", "PatientBirthDate"),
    *("PatientSex", "OtherPatientIDsSequence", "PatientIdentityRemoved", "DeidentificationMethod"),
    "DeidentificationMethodCodeSequence",
)
STUDY_ATTRIBUTES = (
    *("StudyInstanceUID", "StudyDate", "StudyTime", "StudyID", "AccessionNumber", "IssuerOfAccessionNumberSequence"),
    *("ReferringPhysicianName", "StudyDescription", "PatientAge", "ClinicalTrialSponsorName"),
    *("ClinicalTrialProtocolID", "ClinicalTrialSubjectID"),
)
"""Of the patient and study modules what is copied, as it stands."""
TYPE_2_SEQUENCES = (
    *("IlluminationTypeCodeSequence", "LightPathFilterTypeStackCodeSequence", "ImagePathFilterTypeStackCodeSequence"),
    *("LensesCodeSequence", "RefractiveStateSequence", "AcquisitionContextSequence"),
)
TYPE_2_VALUES = (
    *("DetectorType", "PatientEyeMovementCommanded", "HorizontalFieldOfView", "EmmetropicMagnification"),
    *("IntraOcularPressure", "PupilDilated"),
)
"""Of an Ophthalmic Photography object: must be there, if only empty (PS3.3 C.8.17)."""
ACQUISITION_ATTRIBUTES = (
    *(keyword for keyword in (*TYPE_2_SEQUENCES, *TYPE_2_VALUES) if keyword != "HorizontalFieldOfView"),
    *("AcquisitionDeviceTypeCodeSequence", "MydriaticAgentSequence", "DegreeOfDilation", "AcquisitionDateTime"),
    *("SynchronizationTrigger", "SynchronizationFrameOfReferenceUID", "AcquisitionTimeSynchronized"),
)
"""How the photograph was taken: as true of the super-resolved image, but for the camera's angle."""
OTHER_ATTRIBUTES = (
    *("SpecificCharacterSet", "InstanceNumber", "PatientOrientation", "Manufacturer", "ManufacturerModelName"),
    *("ContentDate", "ContentTime", "AcquisitionDate", "AcquisitionTime", "ImageLaterality", "Laterality"),
    *("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod", "BurnedInAnnotation"),
)
TEXT_VRS = ("PN", "LO", "SH", "LT", "ST", "UT")
"""Value representations of text, which is copied as it stands, also where it is longer than it may be."""

STRING_VRS = ("AS", "CS", "DS", "DT", "IS", "TM", "UI")
"""Value representations that are text in the file, and judged as it."""


def select_valid_attributes(dataset: Dataset) -> Dataset:
    """The header of a photograph, as far as it may stand in an answer.

    Args:
        dataset: as it was read; it is not changed.

    Returns:
        The attributes named above whose value representation, multiplicity and value are the standard's.

    Raises:
        ClinicError: if the patient's number is none: several values, or characters that cannot be printed.
    """
    kept = Dataset()
    for keyword in dict.fromkeys(
        (*OTHER_ATTRIBUTES, *REQUIRED_UIDS, *PATIENT_ATTRIBUTES, *STUDY_ATTRIBUTES, *ACQUISITION_ATTRIBUTES)
    ):
        element = _sound(dataset, keyword)
        if element is not None:
            kept[keyword] = element
    number = str(kept.get("PatientID") or "")
    if (dataset.get("PatientID") and not number) or not _printable(number):
        raise ClinicError("found a PatientID that is no single printable text, expected one or none")
    return kept


def parse_datetime(date: str, time: str = "") -> datetime | None:
    """A DICOM date and time as a moment; None if there is no such day. A time that is none counts as midnight."""
    clock = time.partition(".")[0]
    for text, form in ((date + clock, "%Y%m%d%H%M%S"), (date + clock + "00", "%Y%m%d%H%M%S"), (date, "%Y%m%d")):
        try:
            if len(date) == 8 and len(text) in (8, 14):
                return datetime.strptime(text, form)
        except ValueError:
            continue
    return None


def _sound(dataset: Dataset, keyword: str) -> DataElement | None:
    """The element, if it is as the standard's dictionary has it."""
    tag = tag_for_keyword(keyword)
    try:
        element = dataset[keyword]
        values = [] if element.is_empty else list(element.value) if element.VM > 1 else [element.value]
        if tag is None or dictionary_VR(tag) != element.VR or not _so_many(dictionary_VM(tag), len(values)):
            return None
        if element.VR == "SQ":
            return element if all(isinstance(item, Dataset) for item in element.value) else None
        return element if all(_valid(element.VR, value) for value in values) else None
    except Exception:  # missing, or a value that pydicom cannot make sense of, which makes it raise almost anything
        return None


def _so_many(multiplicity: str, found: int) -> bool:
    """Whether so many values are allowed, by the dictionary's words: 1, 2, 1-n, 2-n, 1-3."""
    least, _, most = multiplicity.partition("-")
    high = 1 << 30 if "n" in most else int(most or least)
    return found == 0 or int(least) <= found <= high


def _valid(vr: str, value: object) -> bool:
    if vr in TEXT_VRS:
        return True
    if vr == "DA":
        return parse_datetime(str(value)) is not None
    try:
        validate_value(vr, str(value) if vr in STRING_VRS else value, pydicom.config.RAISE)
    except (ValueError, TypeError, OverflowError):
        return False
    return vr != "IS" or -(1 << 31) <= int(str(value)) < 1 << 31


def _printable(text: str) -> bool:
    return not any(unicodedata.category(letter).startswith("C") for letter in text)
