"""Attributes that all DICOM objects of a photograph share: patient, study, series, identifiers, dates, manufacturer.

Identifiers are derived from those of the photograph and from the software, weights and codes, and the SOP Instance UID
also from the content of the object (`set_content_uid`). Every date is a date of the photograph. Therefore two objects
with the same SOP Instance UID are equal, byte by byte. The same photograph graded again with the same weights on the
same computer gives the same objects, and an archive keeps each of them once. Another number of threads or another
processor may change the last digits of a result, which then is another object with another SOP Instance UID.
"""

from __future__ import annotations

import hashlib
import io
import uuid
from dataclasses import dataclass
from enum import StrEnum

from pydicom import Dataset, dcmwrite
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from deepmtdr.dicom.attributes import PATIENT_ATTRIBUTES, STUDY_ATTRIBUTES
from deepmtdr.dicom.codes import Code, Codes
from deepmtdr.dicom.source import SourcePhotograph, content_time
from deepmtdr.screening.report import ScreeningReport

UID_NAMESPACE = uuid.UUID("5d0f7d3e-6f0a-5b58-9a0e-0f6f3c1f6f71")
"""Namespace of the derived identifiers. It must never change."""
IMPLEMENTATION_UID = UID(f"2.25.{uuid.uuid5(UID_NAMESPACE, 'implementation').int}")
PRODUCT = "deepmtdr"
"""Manufacturer, device and algorithm in every object."""
FIRST_SERIES_NUMBER = 9001

TYPE_2_ATTRIBUTES = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
)
"""Attributes of patient and study that every object must have, empty if not known."""
UNSUPPORTED_CHARACTER_SET = "ISO 2022 IR 58"
"""Chinese with escape sequences, which pydicom reads but does not write. The results use UTF-8 instead."""


class ObjectKind(StrEnum):
    """The DICOM objects of a result. Their values are part of the derived identifiers."""

    SR_IMAGE = "sr"
    LESIONS = "lesions"
    PROBABILITIES = "probabilities"
    REPORT = "report"
    OVERLAY = "overlay"
    DOCUMENT = "document"

    @property
    def file_name(self) -> str:
        """Name of the object's file in the folder of the photograph."""
        return f"{self.value}.dcm"

    @property
    def series_number(self) -> int:
        """Number of the series, 9001 to 9006: each kind of object has a separate series."""
        return FIRST_SERIES_NUMBER + list(ObjectKind).index(self)


@dataclass(frozen=True)
class DicomResult:
    """A photograph and its report, with the codes to write it.

    Raises:
        DicomError: from the constructor, if report and codes are of different label sets.
    """

    source: SourcePhotograph
    report: ScreeningReport
    codes: Codes

    def __post_init__(self) -> None:
        self.codes.check_labels(self.report.labels)

    def uid(self, *names: str) -> UID:
        """Derive the identifier of a part of this result.

        It is the same for the same photograph, weights, version, settings and codes. It also depends on patient and
        study, because some devices give the same identifier to several photographs.

        Args:
            names: the part, such as "lesions", "dimensions".
        """
        return self._uid(self.source.uid, *self._owner, *names)

    def content_uid(self, kind: ObjectKind, content: bytes) -> UID:
        """Derive the SOP Instance UID of an object, which no object with other content has.

        Args:
            kind: kind of the object.
            content: the encoded object with the provisional identifier `uid(kind)`.
        """
        return self.uid(kind, self.source.sha256, hashlib.sha256(content).hexdigest())

    def series_uid(self, kind: ObjectKind) -> UID:
        """Derive the UID of the series of a kind of object: the same for all photographs of one series and eye."""
        series = self.source.dataset.SeriesInstanceUID
        return self._uid(series, *self._owner, kind, self.source.laterality or "", "series")

    @property
    def _owner(self) -> tuple[str, str, str]:
        """Study and patient. A corrected photograph of another patient may have the same series and the same UID."""
        about = self.source.examination
        return about.study_uid, about.issuer, about.patient_id

    def _uid(self, *names: str) -> UID:
        report = self.report
        key = "|".join((*names, report.version, report.weights, report.settings_text, self.codes.fingerprint))
        return UID(f"2.25.{uuid.uuid5(UID_NAMESPACE, key).int}")

    @property
    def instance_number(self) -> int:
        """Instance number of the photograph, so that viewers sort photographs and results in the same order."""
        return self.source.instance_number

    @property
    def device_serial_number(self) -> str:
        """Name and digest of the weights, as far as the attribute can hold them."""
        return self.report.weights[:64]


def lesion_part(code: str) -> str:
    """Name of a lesion type in derived identifiers, different from every other part's name, such as "grade"."""
    return f"lesion.{code}" if code.islower() else code


def create_object(result: DicomResult, kind: ObjectKind, sop_class: UID, modality: str, description: str) -> Dataset:
    """Create a DICOM object of the photograph's patient and study, without content.

    Args:
        result: photograph and report.
        kind: kind of the object.
        sop_class: SOP class of the object.
        modality: modality of its series.
        description: description of its series, which viewers show.
    """
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = sop_class, result.uid(kind)
    meta.TransferSyntaxUID, meta.ImplementationClassUID = ExplicitVRLittleEndian, IMPLEMENTATION_UID
    created = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    created.SOPClassUID, created.SOPInstanceUID = sop_class, result.uid(kind)
    created.Modality, created.SeriesInstanceUID = modality, result.series_uid(kind)
    created.SeriesNumber, created.InstanceNumber = kind.series_number, result.instance_number
    created.SeriesDescription = description
    return set_common_attributes(created, result)


def set_common_attributes(dataset: Dataset, result: DicomResult) -> Dataset:
    """Set patient, study, dates and manufacturer of an object, and remove the time of its creation.

    Args:
        dataset: the object; it is changed.
        result: photograph and report.

    Returns:
        The object.
    """
    source, report = result.source.dataset, result.report
    copy_patient_and_study(dataset, source)
    dataset.ContentDate, dataset.ContentTime = content_time(source)
    for keyword in ("InstanceCreationDate", "InstanceCreationTime"):
        if keyword in dataset:
            del dataset[keyword]
    dataset.Manufacturer, dataset.ManufacturerModelName = PRODUCT, PRODUCT
    dataset.DeviceSerialNumber = result.device_serial_number
    dataset.SoftwareVersions = [report.version, report.settings_text]
    return dataset


def copy_patient_and_study(dataset: Dataset, source: Dataset) -> None:
    """Copy patient and study from the photograph or a result of it, and remove all other attributes of the patient."""
    dataset.pop("SpecificCharacterSet", None)
    for element in [element for element in dataset if element.tag.group == 0x0010]:
        del dataset[element.tag]
    for keyword in ("SpecificCharacterSet", *PATIENT_ATTRIBUTES, *STUDY_ATTRIBUTES):
        if keyword in source:
            dataset[keyword] = source[keyword]
        else:
            dataset.pop(keyword, None)
    if UNSUPPORTED_CHARACTER_SET in str(dataset.get("SpecificCharacterSet")):
        dataset.SpecificCharacterSet = "ISO_IR 192"
    for keyword in TYPE_2_ATTRIBUTES:
        if keyword not in dataset:
            setattr(dataset, keyword, "")


def code_item(code: Code) -> Dataset:
    """Create a sequence item for a code."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code.value, code.scheme, code.meaning
    return item


def reference_item(dataset: Dataset) -> Dataset:
    """Create a sequence item that refers to an object by class and identifier."""
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = dataset.SOPClassUID, dataset.SOPInstanceUID
    return item


def anatomic_region(result: DicomResult) -> Dataset:
    """Create the item of AnatomicRegionSequence for the retina, with the side if it is known."""
    item, side = code_item(result.codes["place.retina"]), result.source.laterality
    if side is not None:
        item.AnatomicRegionModifierSequence = [code_item(result.codes[f"place.{side}"])]
    return item


def set_content_uid(dataset: Dataset, result: DicomResult, kind: ObjectKind) -> Dataset:
    """Replace the provisional SOP Instance UID of a finished object by one that depends on its content.

    Args:
        dataset: the object, with `result.uid(kind)` as SOP Instance UID; it is changed.
        result: photograph and report.
        kind: kind of the object.

    Returns:
        The object.
    """
    uid = result.content_uid(kind, to_file_bytes(dataset))
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = uid
    return dataset


def to_file_bytes(dataset: Dataset) -> bytes:
    """Encode an object as a DICOM file."""
    buffer = io.BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()
