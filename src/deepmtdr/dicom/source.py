"""The object that came: one DICOM photograph of one eye, and whose it is.

Pixels are decoded elsewhere (`data.photograph`); here it is judged whether the object can be answered at all, and what
of it goes into every answer.
"""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from pydicom import Dataset, dcmread
from pydicom.dataset import FileDataset
from pydicom.multival import MultiValue
from pydicom.uid import UID

from deepmtdr.dicom.attributes import REQUIRED_UIDS, parse_datetime, select_valid_attributes
from deepmtdr.dicom.examination import Examination
from deepmtdr.dicom.pdf_text import format_person_name
from deepmtdr.dicom.sop_classes import PHOTOGRAPH_SOP_CLASSES
from deepmtdr.errors import ClinicError
from deepmtdr.files import printable_path
from deepmtdr.terms import Laterality

DUMMY_DATE, DUMMY_TIME = "19000101", "000000"
"""Where a date must stand and the photograph has none, as after de-identification."""


@dataclass(frozen=True)
class SourcePhotograph:
    """A photograph's header, without the pixels."""

    dataset: Dataset
    """What of the header may stand in an answer (`attributes.select_valid_attributes`)."""
    laterality: Laterality | None
    """Which eye; None where the object does not say."""
    transfer_syntax: str
    """UID of the transfer syntax it came in."""
    sha256: str
    """Of the file."""
    size_bytes: int
    """Of the file, bytes."""

    @property
    def uid(self) -> UID:
        """SOP Instance UID."""
        return self.dataset.SOPInstanceUID

    @property
    def examination(self) -> Examination:
        """What the answer refers to."""
        header = self.dataset
        camera = (str(header.get(keyword) or "").strip() for keyword in ("Manufacturer", "ManufacturerModelName"))
        return Examination(
            patient_id=str(header.get("PatientID") or ""),
            issuer=str(header.get("IssuerOfPatientID") or ""),
            accession=str(header.get("AccessionNumber") or ""),
            study_uid=str(header.StudyInstanceUID),
            series_uid=str(header.SeriesInstanceUID),
            instance_uid=str(header.SOPInstanceUID),
            laterality=self.laterality,
            acquired=_acquired(header),
            device=" ".join(part for part in camera if part),
        )

    @property
    def patient_label(self) -> str:
        """Whose photograph it is, for people: name, number, date of birth."""
        born = str(self.dataset.get("PatientBirthDate") or "")
        name = format_person_name(str(self.dataset.get("PatientName") or ""))
        parts = (name, self.examination.patient_id, f"born {born}" if born else "")
        return ", ".join(part for part in parts if part)


def read_source(path: Path) -> SourcePhotograph:
    """Read the header of a photograph.

    Args:
        path: a DICOM file.

    Raises:
        ClinicError: if it is no DICOM file, of another SOP class, without the identifiers that an answer needs, or says
            of itself that it is both a left and a right eye. The message holds no patient data.
        OSError: if the file cannot be read.
    """
    content = path.read_bytes()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # values that are not as the standard wants them are judged where used
            return source_from_dataset(
                dcmread(path, stop_before_pixels=True), hashlib.sha256(content).hexdigest(), len(content)
            )
    except ClinicError as error:
        raise ClinicError(f"{printable_path(path)}: {error}") from None
    except Exception as error:  # a damaged header makes pydicom raise almost anything, quoting what it holds
        raise ClinicError(f"{printable_path(path)}: no readable DICOM header ({type(error).__name__})") from None


def source_from_dataset(dataset: FileDataset | Dataset, sha256: str = "", size_bytes: int = 1) -> SourcePhotograph:
    """Judge a header that was read.

    Args:
        dataset: with or without pixels.
        sha256: of the file.
        size_bytes: of the file, bytes.

    Raises:
        ClinicError: as `read_source`, without the path.
    """
    for keyword in REQUIRED_UIDS:
        value = dataset.get(keyword)
        if not isinstance(value, UID) or not value.is_valid:
            raise ClinicError(f"found {'no' if not value else 'no valid'} {keyword}, expected an identifier")
    if dataset.SOPClassUID not in PHOTOGRAPH_SOP_CLASSES:
        expected = ", ".join(UID(uid).name for uid in PHOTOGRAPH_SOP_CLASSES)
        raise ClinicError(f"found {_class_name(dataset.SOPClassUID)}, expected one of {expected}")
    meta = getattr(dataset, "file_meta", Dataset())
    for named, own in (("MediaStorageSOPClassUID", "SOPClassUID"), ("MediaStorageSOPInstanceUID", "SOPInstanceUID")):
        if meta.get(named, dataset[own].value) != dataset[own].value:
            raise ClinicError(f"found a file header and a data set that name different {own}s, expected the same")
    return SourcePhotograph(
        select_valid_attributes(dataset),
        _laterality(dataset),
        str(meta.get("TransferSyntaxUID", "")),
        sha256,
        size_bytes,
    )


def _acquired(dataset: Dataset) -> datetime | None:
    """When the photograph was taken, as far as it says so."""
    moment = str(dataset.get("AcquisitionDateTime") or "")
    return _first(dataset, (moment[:8], moment[8:14]), ("AcquisitionDate", "AcquisitionTime"), *DATETIME_KEYWORDS)


def content_time(dataset: Dataset) -> tuple[str, str]:
    """Date and time of a photograph's content, YYYYMMDD and HHMMSS: else of its acquisition, else of its study."""
    found = _first(dataset, *DATETIME_KEYWORDS[:1]) or _acquired(dataset)
    return (DUMMY_DATE, DUMMY_TIME) if found is None else (found.strftime("%Y%m%d"), found.strftime("%H%M%S"))


DATETIME_KEYWORDS = (("ContentDate", "ContentTime"), ("StudyDate", "StudyTime"))


def _first(dataset: Dataset, *places: tuple[str, str]) -> datetime | None:
    """The first moment that is one; a place is two attributes, or date and time themselves."""
    for date, time in places:
        found = parse_datetime(str(dataset.get(date, date) or ""), str(dataset.get(time, time) or ""))
        if found is not None:
            return found
    return None


def _class_name(uid: UID) -> str:
    return uid.name if uid.name != uid else "an unknown SOP class"


def _laterality(dataset: Dataset) -> Laterality | None:
    """What the header says, wherever it says it; R and L at once is no answer but a danger."""
    said = [*_values(dataset.get("ImageLaterality")), *_values(dataset.get("Laterality"))]
    for region in dataset.get("AnatomicRegionSequence") or ():
        for modifier in region.get("AnatomicRegionModifierSequence") or ():
            said.append(LATERALITY_CODES.get(str(modifier.get("CodeValue")), ""))
    sides = {side for side in (str(side).strip().upper() for side in said) if side in ("L", "R", "B")}
    if len(sides) > 1:
        raise ClinicError(f"found eyes {', '.join(sorted(sides))} in the header, expected one side")
    return "L" if sides == {"L"} else "R" if sides == {"R"} else None


def _values(value: Any) -> list[Any]:
    """One value, several or none."""
    return list(value) if isinstance(value, MultiValue) else [value] if value else []


LATERALITY_CODES = {
    **{"24028007": "R", "G-A100": "R", "7771000": "L", "G-A101": "L", "51440002": "B", "G-A102": "B"},
}
"""Right, left and both by SNOMED CT and by the retired SNOMED RT codes that older devices write."""
