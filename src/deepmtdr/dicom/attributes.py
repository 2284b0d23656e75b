"""Attributes of a photograph that its results copy, and the check of their values.

`select_valid_attributes` returns only attributes that can be copied, written and validated. An attribute that the
standard does not allow is left out and never corrected. The patient's number is the exception: an invalid
one is an error. It may be empty or missing.
"""

from __future__ import annotations

import re
import unicodedata
from datetime import datetime

import pydicom.config
from pydicom import DataElement, Dataset
from pydicom.datadict import dictionary_VM, dictionary_VR, tag_for_keyword
from pydicom.valuerep import validate_value

from deepmtdr.errors import DicomError

REQUIRED_UIDS = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")
PATIENT_ATTRIBUTES = (
    "PatientName",
    "PatientID",
    "IssuerOfPatientID",
    "IssuerOfPatientIDQualifiersSequence",
    "PatientBirthDate",
    "PatientSex",
    "OtherPatientIDsSequence",
    "PatientIdentityRemoved",
    "DeidentificationMethod",
    "DeidentificationMethodCodeSequence",
)
"""Attributes of the patient module that are copied unchanged."""
STUDY_ATTRIBUTES = (
    "StudyInstanceUID",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "IssuerOfAccessionNumberSequence",
    "ReferringPhysicianName",
    "StudyDescription",
    "PatientAge",
    "ClinicalTrialSponsorName",
    "ClinicalTrialProtocolID",
    "ClinicalTrialSubjectID",
)
"""Attributes of the study modules that are copied unchanged."""
TYPE_2_SEQUENCES = (
    "IlluminationTypeCodeSequence",
    "LightPathFilterTypeStackCodeSequence",
    "ImagePathFilterTypeStackCodeSequence",
    "LensesCodeSequence",
    "RefractiveStateSequence",
    "AcquisitionContextSequence",
)
"""Sequences that an Ophthalmic Photography object must have, empty if not known (PS3.3 C.8.17)."""
TYPE_2_VALUES = (
    "DetectorType",
    "PatientEyeMovementCommanded",
    "HorizontalFieldOfView",
    "EmmetropicMagnification",
    "IntraOcularPressure",
    "PupilDilated",
)
"""Values that an Ophthalmic Photography object must have, empty if not known (PS3.3 C.8.17)."""
ACQUISITION_ATTRIBUTES = (
    *TYPE_2_SEQUENCES,
    *(keyword for keyword in TYPE_2_VALUES if keyword != "HorizontalFieldOfView"),
    "AcquisitionDeviceTypeCodeSequence",
    "MydriaticAgentSequence",
    "DegreeOfDilation",
    "AcquisitionDateTime",
    "SynchronizationTrigger",
    "SynchronizationFrameOfReferenceUID",
    "AcquisitionTimeSynchronized",
)
"""How the photograph was taken. All of this applies to the super-resolved image too, except for the camera's angle."""
OTHER_ATTRIBUTES = (
    "SpecificCharacterSet",
    "InstanceNumber",
    "PatientOrientation",
    "Manufacturer",
    "ManufacturerModelName",
    "ContentDate",
    "ContentTime",
    "AcquisitionDate",
    "AcquisitionTime",
    "ImageLaterality",
    "Laterality",
    "LossyImageCompression",
    "LossyImageCompressionRatio",
    "LossyImageCompressionMethod",
    "BurnedInAnnotation",
)
TEXT_VRS = ("PN", "LO", "SH", "LT", "ST", "UT")
"""Value representations of text. It is copied unchanged, even if it is longer than the standard allows."""
STRING_VRS = ("AS", "CS", "DS", "DT", "IS", "TM")
"""Value representations that a file stores as text, and that are checked as text."""
UID_PATTERN = re.compile(r"\d+(\.\d+)*", re.ASCII)
MAX_UID_LENGTH = 64
"""Characters of a UID (PS3.5 Sec. 9.1)."""


def select_valid_attributes(dataset: Dataset) -> Dataset:
    """Select the attributes of a photograph's header that results may copy.

    Args:
        dataset: the header as it was read; it is not changed.

    Returns:
        The attributes in the lists of this module whose value representation, multiplicity and value the standard
        allows. The values of texts are not checked.

    Raises:
        DicomError: if Patient ID has several values, or characters that cannot be printed.
    """
    selected = Dataset()
    for keyword in dict.fromkeys(
        (*OTHER_ATTRIBUTES, *REQUIRED_UIDS, *PATIENT_ATTRIBUTES, *STUDY_ATTRIBUTES, *ACQUISITION_ATTRIBUTES)
    ):
        element = _valid_element(dataset, keyword)
        if element is not None:
            selected[keyword] = element
    number = str(selected.get("PatientID") or "")
    if (dataset.get("PatientID") and not number) or not _printable(number):
        raise DicomError("found a PatientID with several values or unprintable characters, expected one printable text")
    return selected


def is_copyable_uid(value: object) -> bool:
    """Whether a value can be copied as a UID: numbers with dots between them, at most `MAX_UID_LENGTH` characters.

    The standard does not allow a number with a leading zero (1.2.007), but devices write such identifiers. Archives
    take and return them unchanged, and so do results: otherwise they would not belong to the study in the archive.
    """
    return isinstance(value, str) and len(value) <= MAX_UID_LENGTH and UID_PATTERN.fullmatch(value) is not None


def parse_datetime(date: str, time: str = "") -> datetime | None:
    """Parse a DICOM date and time.

    Returns:
        None if the date does not exist. An invalid time counts as midnight.
    """
    clock = time.partition(".")[0]
    for text, form in ((date + clock, "%Y%m%d%H%M%S"), (date + clock + "00", "%Y%m%d%H%M%S"), (date, "%Y%m%d")):
        try:
            if len(date) == 8 and len(text) in (8, 14):
                return datetime.strptime(text, form)
        except ValueError:
            continue
    return None


def format_person_name(name: str) -> str:
    """Format a DICOM person name (PN) for display: the alphabetic group, then the ideographic one in parentheses.

    Args:
        name: `family^given^middle^prefix^suffix`, in up to three groups separated by `=`. The third, phonetic group is
            left out.
    """
    groups = [" ".join(part for part in group.split("^") if part.strip()) for group in name.split("=")][:2]
    first, *second = [" ".join(group.split()) for group in groups if group.strip()] or [""]
    return f"{first} ({second[0]})" if second else first


def _valid_element(dataset: Dataset, keyword: str) -> DataElement | None:
    """The element of a keyword; None if it is missing or the standard does not allow it."""
    tag = tag_for_keyword(keyword)
    try:
        element = dataset[keyword]
        values = [] if element.is_empty else list(element.value) if element.VM > 1 else [element.value]
        if tag is None or dictionary_VR(tag) != element.VR or not _allows_count(dictionary_VM(tag), len(values)):
            return None
        if element.VR == "SQ":
            return element if all(isinstance(item, Dataset) for item in element.value) else None
        return element if all(_valid_value(element.VR, value) for value in values) else None
    except Exception:  # missing, or a damaged value, for which pydicom raises almost any exception
        return None


def _allows_count(multiplicity: str, count: int) -> bool:
    """Whether a multiplicity of the dictionary (1, 2, 1-n, 2-n, 1-3) allows a number of values; 0 is always allowed."""
    least, _, most = multiplicity.partition("-")
    high = 1 << 30 if "n" in most else int(most or least)
    return count == 0 or int(least) <= count <= high


def _valid_value(vr: str, value: object) -> bool:
    if vr in TEXT_VRS:
        return True
    if vr == "DA":
        return parse_datetime(str(value)) is not None
    if vr == "UI":
        return is_copyable_uid(value)
    try:
        validate_value(vr, str(value) if vr in STRING_VRS else value, pydicom.config.RAISE)
    except (ValueError, TypeError, OverflowError):
        return False
    return vr != "IS" or -(1 << 31) <= int(str(value)) < 1 << 31


def _printable(text: str) -> bool:
    return not any(unicodedata.category(letter).startswith("C") for letter in text)
