"""What every object that answers a photograph has in common: patient, study, series, identifiers, dates, maker.

The identifiers are derived from the photograph's and from what read it, and every date is the photograph's own. So the
same photograph read again by the same weights gives the same objects, byte by byte, and a PACS keeps one of them.
"""

from __future__ import annotations

import copy
import io
import uuid
from dataclasses import dataclass

from pydicom import Dataset, dcmwrite
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from deepmtdr.dicom.attributes import PATIENT_ATTRIBUTES, STUDY_ATTRIBUTES
from deepmtdr.dicom.codes import Code, Codes
from deepmtdr.dicom.source import SourcePhotograph, content_time
from deepmtdr.screening.report import ScreeningReport

UID_NAMESPACE = uuid.UUID("5d0f7d3e-6f0a-5b58-9a0e-0f6f3c1f6f71")
"""Of the identifiers that this project derives; fixed for ever."""
IMPLEMENTATION_UID = UID(f"2.25.{uuid.uuid5(UID_NAMESPACE, 'implementation').int}")

TYPE_2_ATTRIBUTES = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID"),
    *("AccessionNumber", "ReferringPhysicianName"),
)
"""Must be there, if only empty."""


UNSUPPORTED_CHARACTER_SET = "ISO 2022 IR 58"
"""Chinese by escape sequences, which pydicom reads but writes without them: answered in UTF-8."""


@dataclass(frozen=True)
class DicomResult:
    """One photograph, what was read in it, and in which codes it is said."""

    source: SourcePhotograph
    report: ScreeningReport
    codes: Codes

    def uid(self, *names: str) -> UID:
        """The identifier of a thing of this answer; another patient's or study's is another, whatever the photograph's.

        Args:
            names: what it is, such as "lesions", "series".
        """
        about = self.source.examination
        return self._uid(self.source.uid, about.study_uid, about.issuer, about.patient_id, *names)

    def series_uid(self, kind: str) -> UID:
        """Of the series of a kind of object: one for all photographs of a series and side."""
        return self._uid(self.source.dataset.SeriesInstanceUID, kind, self.source.laterality or "", "series")

    def _uid(self, *names: str) -> UID:
        report = self.report
        key = "|".join((*names, report.version, report.weights, report.precision, self.codes.fingerprint))
        return UID(f"2.25.{uuid.uuid5(UID_NAMESPACE, key).int}")

    @property
    def instance_number(self) -> int:
        """The photograph's own, so that both sort alike."""
        return max(int(self.source.dataset.get("InstanceNumber") or 1), 1)


def create_object(
    result: DicomResult, kind: str, sop_class: UID, modality: str, description: str, number: int
) -> Dataset:
    """A DICOM object of the photograph's patient and study, in a series of its own, with nothing in it yet.

    Args:
        result: to which photograph.
        kind: of object: makes its identifiers.
        sop_class: of the object.
        modality: of its series.
        description: of its series, for people.
        number: of its series.
    """
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = sop_class, result.uid(kind)
    meta.TransferSyntaxUID, meta.ImplementationClassUID = ExplicitVRLittleEndian, IMPLEMENTATION_UID
    made = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    made.SOPClassUID, made.SOPInstanceUID = sop_class, result.uid(kind)
    made.Modality, made.SeriesInstanceUID = modality, result.series_uid(kind)
    made.SeriesNumber, made.InstanceNumber = number, result.instance_number
    made.SeriesDescription = description
    return set_common_attributes(made, result)


def set_common_attributes(made: Dataset, result: DicomResult) -> Dataset:
    """Put the photograph's patient, study and dates into an object, and the maker; drop what differs at a repeat.

    Args:
        made: an object, by whatever hand; it is changed.
        result: to which photograph.
    """
    source, report = result.source.dataset, result.report
    _identify(made, source)
    made.ContentDate, made.ContentTime = content_time(source)
    for keyword in ("InstanceCreationDate", "InstanceCreationTime"):
        if keyword in made:
            del made[keyword]
    made.Manufacturer, made.ManufacturerModelName = "deepmtdr", "deepmtdr"
    made.DeviceSerialNumber = report.weights[:64]
    made.SoftwareVersions = [report.version, report.precision]
    return made


def without_patient(dataset: Dataset) -> Dataset:
    """What highdicom is given of an object: what it is and belongs to, and nothing of the patient.

    highdicom takes fewer character sets and values than a photograph may have; `set_common_attributes` writes the true ones after it.

    Args:
        dataset: a photograph or an image of ours; it is not changed.
    """
    made = Dataset()
    for element in dataset:
        if element.keyword not in ("PixelData", "SpecificCharacterSet", *PATIENT_ATTRIBUTES, *STUDY_ATTRIBUTES):
            made.add(copy.deepcopy(element))
    made.StudyInstanceUID = dataset.StudyInstanceUID
    for keyword in TYPE_2_ATTRIBUTES:
        setattr(made, keyword, "")
    made.setdefault("Modality", "OP")
    made.setdefault("Rows", 1)
    made.setdefault("Columns", 1)
    return made


def _identify(made: Dataset, source: Dataset) -> None:
    """Patient and study as they stand in the photograph, and nothing more of either."""
    made.pop("SpecificCharacterSet", None)
    for element in [element for element in made if element.tag.group == 0x0010]:
        del made[element.tag]
    for keyword in ("SpecificCharacterSet", *PATIENT_ATTRIBUTES, *STUDY_ATTRIBUTES):
        if keyword in source:
            made[keyword] = source[keyword]
        else:
            made.pop(keyword, None)
    if UNSUPPORTED_CHARACTER_SET in str(made.get("SpecificCharacterSet")):
        made.SpecificCharacterSet = "ISO_IR 192"
    for keyword in TYPE_2_ATTRIBUTES:
        if keyword not in made:
            setattr(made, keyword, "")


def code_item(code: Code) -> Dataset:
    """A code as an item of a sequence."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code.value, code.scheme, code.meaning
    return item


def reference_item(dataset: Dataset) -> Dataset:
    """An object by its class and identifier, as an item of a sequence."""
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = dataset.SOPClassUID, dataset.SOPInstanceUID
    return item


def to_file_bytes(made: Dataset) -> bytes:
    """An object as the bytes of a DICOM file."""
    buffer = io.BytesIO()
    dcmwrite(buffer, made, enforce_file_format=True)
    return buffer.getvalue()
