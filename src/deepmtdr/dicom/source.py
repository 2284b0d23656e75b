"""Read the header of a DICOM photograph, and check whether results can be written for it.

`photographs.decode` decodes the pixels.
"""

from __future__ import annotations

import hashlib
import io
import warnings
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from pydicom import Dataset
from pydicom.dataset import FileDataset
from pydicom.filereader import data_element_generator, read_preamble
from pydicom.multival import MultiValue
from pydicom.uid import UID

from deepmtdr.dicom.attributes import (
    REQUIRED_UIDS,
    format_person_name,
    is_copyable_uid,
    parse_datetime,
    select_valid_attributes,
)
from deepmtdr.dicom.examination import Examination
from deepmtdr.dicom.sop_classes import PHOTOGRAPH_SOP_CLASSES
from deepmtdr.errors import DicomError
from deepmtdr.files import printable_path
from deepmtdr.photographs.dicom_file import read_dicom_header
from deepmtdr.photographs.limits import DecodeError
from deepmtdr.terms import Laterality

LATERALITY_CODES = {
    "24028007": "R",
    "G-A100": "R",
    "7771000": "L",
    "G-A101": "L",
    "51440002": "B",
    "G-A102": "B",
}
"""Codes of right, left and both: SNOMED CT, and the retired SNOMED RT that older devices write."""
FILE_HEADER_GROUP = 0x0002
DATETIME_KEYWORDS = (("ContentDate", "ContentTime"), ("StudyDate", "StudyTime"))
DUMMY_DATE, DUMMY_TIME = "19000101", "000000"
"""Date and time of a photograph without date and time, for example after de-identification."""


@dataclass(frozen=True)
class SourcePhotograph:
    """A photograph's header, without the pixels."""

    dataset: Dataset
    """The attributes that results may copy (`attributes.select_valid_attributes`)."""
    laterality: Laterality | None
    """Side of the eye; None: unknown."""
    transfer_syntax: str
    """Transfer syntax UID of the file."""
    sha256: str
    """SHA-256 of the file."""
    size_bytes: int
    """Size of the file, bytes."""

    @property
    def uid(self) -> UID:
        """SOP Instance UID."""
        return self.dataset.SOPInstanceUID

    @property
    def instance_number(self) -> int:
        """Number of the photograph in its series, at least 1; 1 if the header has none."""
        return max(int(self.dataset.get("InstanceNumber") or 1), 1)

    @property
    def examination(self) -> Examination:
        """The patient, study and photograph to which reports refer."""
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
        """The patient as reports show it: name, number, date of birth."""
        born = str(self.dataset.get("PatientBirthDate") or "")
        name = format_person_name(str(self.dataset.get("PatientName") or ""))
        parts = (name, self.examination.patient_id, f"born {born}" if born else "")
        return ", ".join(part for part in parts if part)


def read_source(path: Path) -> SourcePhotograph:
    """Read the header of a photograph.

    Args:
        path: a DICOM file.

    Raises:
        DicomError: if it is not a DICOM file, is of another SOP class, lacks an identifier that results need, or names
            different sides. The message contains no patient data.
        OSError: if the file cannot be read.
    """
    content = path.read_bytes()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid values are checked where they are used
            _check_file_header(content)
            dataset = read_dicom_header(content)
            return source_from_dataset(dataset, hashlib.sha256(content).hexdigest(), len(content))
    except (DicomError, DecodeError) as error:
        raise DicomError(f"{printable_path(path)}: {error}") from None
    except Exception as error:  # pydicom raises almost any exception for a damaged header, and quotes its content
        raise DicomError(
            f"{printable_path(path)}: found no readable DICOM header ({type(error).__name__}), expected a DICOM file"
        ) from None


def _check_file_header(content: bytes) -> None:
    """Check that the elements of the file header (group 0002) are in order, each of them once.

    pydicom takes all elements of group 0002 at the beginning of a file for the header, also those of a data set that
    follows it: they would replace the UIDs and the transfer syntax of the header.

    Raises:
        DicomError: if they are not.
    """
    file = io.BytesIO(content)
    read_preamble(file, force=False)
    elements = data_element_generator(file, False, True, stop_when=lambda tag, *_: tag.group != FILE_HEADER_GROUP)
    tags = [element.tag for element in elements]
    if any(tag >= following for tag, following in pairwise(tags)):
        raise DicomError("found elements of group 0002 twice or out of order, expected one file header")


def source_from_dataset(dataset: FileDataset | Dataset, sha256: str = "", size_bytes: int = 1) -> SourcePhotograph:
    """Check a header.

    Args:
        dataset: the object, with or without pixels.
        sha256: SHA-256 of the file.
        size_bytes: size of the file, bytes.

    Raises:
        DicomError: as `read_source`, without the path.
    """
    selected = select_valid_attributes(dataset)
    for keyword in REQUIRED_UIDS:
        if not is_copyable_uid(selected.get(keyword)):  # also text of another value representation, which is left out
            raise DicomError(f"found {'an invalid' if dataset.get(keyword) else 'no'} {keyword}, expected a UID")
    if dataset.SOPClassUID not in PHOTOGRAPH_SOP_CLASSES:
        expected = ", ".join(UID(uid).name for uid in PHOTOGRAPH_SOP_CLASSES)
        raise DicomError(f"found {_class_name(dataset.SOPClassUID)}, expected one of {expected}")
    meta = getattr(dataset, "file_meta", Dataset())
    for keyword in ("SOPClassUID", "SOPInstanceUID"):
        if meta.get(f"MediaStorage{keyword}", dataset[keyword].value) != dataset[keyword].value:
            raise DicomError(f"found different {keyword}s in the file header and in the data set, expected the same")
    return SourcePhotograph(
        selected,
        _laterality(dataset),
        str(meta.get("TransferSyntaxUID", "")),
        sha256,
        size_bytes,
    )


def _acquired(dataset: Dataset) -> datetime | None:
    """When the photograph was taken; None if its header has no valid date of it."""
    moment = str(dataset.get("AcquisitionDateTime") or "")
    return _first(dataset, (moment[:8], moment[8:14]), ("AcquisitionDate", "AcquisitionTime"), *DATETIME_KEYWORDS)


def content_time(dataset: Dataset) -> tuple[str, str]:
    """Date and time of a photograph's content, else of its acquisition, else of its study: YYYYMMDD and HHMMSS."""
    found = _first(dataset, *DATETIME_KEYWORDS[:1]) or _acquired(dataset)
    return (DUMMY_DATE, DUMMY_TIME) if found is None else (found.strftime("%Y%m%d"), found.strftime("%H%M%S"))


def _first(dataset: Dataset, *places: tuple[str, str]) -> datetime | None:
    """Return the first valid date and time; each place is a pair of keywords, or a pair of texts."""
    for date, time in places:
        found = parse_datetime(str(dataset.get(date, date) or ""), str(dataset.get(time, time) or ""))
        if found is not None:
            return found
    return None


def _class_name(uid: UID) -> str:
    return uid.name if uid.name != uid else "an unknown SOP class"


def _laterality(dataset: Dataset) -> Laterality | None:
    """Determine the side of the eye from all attributes that may name it; None if they name none, or only both (B).

    Raises:
        DicomError: if they contradict each other: a result could then be filed under the wrong eye.
    """
    named = [*_values(dataset.get("ImageLaterality")), *_values(dataset.get("Laterality"))]
    for region in dataset.get("AnatomicRegionSequence") or ():
        for modifier in region.get("AnatomicRegionModifierSequence") or ():
            named.append(LATERALITY_CODES.get(str(modifier.get("CodeValue")), ""))
    sides = {side for side in (str(side).strip().upper() for side in named) if side in ("L", "R", "B")}
    if len(sides) > 1:
        raise DicomError(f"found the sides {', '.join(sorted(sides))} in the header, expected one")
    return "L" if sides == {"L"} else "R" if sides == {"R"} else None


def _values(value: Any) -> list[Any]:
    """Return the values of an attribute as a list, whether it has one value, several or none."""
    return list(value) if isinstance(value, MultiValue) else [value] if value else []
