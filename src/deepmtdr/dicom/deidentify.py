"""De-identification for research export: the Basic Application Level Confidentiality Profile of DICOM PS3.15.

The action for each attribute is that of Table E.1-1 (edition 2026c), which dicom-anonymizer contains. The library's
own function is not used: it skips nested sequences, and its UIDs differ from run to run. Where the table allows several
actions, an empty or a dummy value replaces the attribute, because that is valid in every kind of object.

Identifiers are replaced by keyed hashes (HMAC): objects of the same patient or study still have the same identifiers.
"""

from __future__ import annotations

import contextlib
import copy
import hmac
import os
import secrets
import uuid
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from dicomanonymizer.dicomfields_selector import dicom_anonymization_database_selector
from pydicom import Dataset
from pydicom.datadict import dictionary_has_tag, dictionary_VR, keyword_for_tag
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag, Tag

from deepmtdr._version import __version__
from deepmtdr.dicom.codes import Code
from deepmtdr.dicom.objects import code_item
from deepmtdr.dicom.text_in_pixels import declares_no_text
from deepmtdr.errors import DicomError
from deepmtdr.files import NEW_FILE, PRIVATE_FILE_MODE, sync_folder

EDITION = "2026c"
BASIC_PROFILE = Code("DCM", "113100", "Basic Application Confidentiality Profile")
KEY_BYTES = 32
DUMMY_DATES = {"DA": "19000101", "DT": "19000101000000", "TM": "000000"}
DUMMY_VALUES: Mapping[str, Any] = {
    **DUMMY_DATES,
    **dict.fromkeys(("AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UT"), "REMOVED"),
    **dict.fromkeys(("DS", "IS", "FD", "FL", "SL", "SS", "SV", "UL", "US", "UV"), 0),
    **dict.fromkeys(("OB", "OD", "OF", "OL", "OV", "OW", "UN"), b"\0\0\0\0\0\0\0\0"),
    "AS": "000Y",
    "UR": "http://removed.invalid",
}
"""Value representation -> the replacement for a value that must not be empty."""
FREE_CONTENT = {
    0x0040A730: "a structured document",
    0x00420011: "an encapsulated document",
    0x00700001: "annotations",
}
"""Attributes of free text or documents. The basic profile cannot clean them."""
PIXELS_NOT_CLEANED = "pixels not cleaned, they may contain text"
"""Value of De-identification Method."""
PREAMBLE = b"\0" * 128
"""The first bytes of a DICOM file, without content."""


def deidentify(dataset: Dataset, key: bytes, *, marks_found: bool = False) -> Dataset:
    """De-identify an image object.

    Args:
        dataset: the object; it is not changed.
        key: at least 16 bytes, secret. The same key gives the same pseudonym and the same UIDs.
        marks_found: whether its pixels show marks that may be text (`text_in_pixels`).

    Returns:
        A copy without the attributes that the profile protects. Pixels, camera model and laterality stay.
        De-identification Method warns of possible text if the header does not exclude it, or if marks were found.

    Raises:
        DicomError: if the pixels contain text, the object has free content (documents, annotations), an attribute is
            damaged, or the key is too short.
    """
    if len(key) < 16:
        raise DicomError(f"found a key of {len(key)} bytes, expected at least 16")
    if str(dataset.get("BurnedInAnnotation", "")).strip().upper() == "YES":
        raise DicomError("(0028,0301) Burned In Annotation is YES, expected NO: the pixels may name the patient")
    clean = copy.deepcopy(dataset)
    try:
        _Cleaner(key).clean(clean)
    except DicomError:
        raise
    except Exception as error:  # its message may quote what has to be removed
        raise DicomError(f"found a damaged attribute ({type(error).__name__}), expected a readable object") from None
    clean.PatientIdentityRemoved = "YES"
    clean.DeidentificationMethod = [f"DICOM PS3.15 {EDITION} Basic Profile", f"deepmtdr {__version__}"]
    if marks_found or not declares_no_text(dataset):
        clean.DeidentificationMethod.append(PIXELS_NOT_CLEANED)
    clean.DeidentificationMethodCodeSequence = [code_item(BASIC_PROFILE)]
    clean.LongitudinalTemporalInformationModified = "REMOVED"
    _reset_file_header(clean, dataset)
    return clean


def load_or_create_key(path: Path) -> bytes:
    """Read the key, or create one that only its owner can read.

    Args:
        path: file of 64 hexadecimal digits; created if it does not exist. Keep it secret: whoever has it can compute
            the pseudonym of a known patient.

    Raises:
        DicomError: if the file is not a key, or users other than its owner can read it.
        OSError: if it cannot be read or created.
    """
    if not path.exists():
        _create_key(path)
    mode = path.stat().st_mode & 0o777
    if mode & 0o077:
        raise DicomError(f"{path}: found a key file with permissions {mode:04o}, expected 0600; use chmod 600")
    with contextlib.suppress(ValueError):
        key = bytes.fromhex(path.read_text(encoding="ascii").strip())
        if len(key) == KEY_BYTES:
            return key
    raise DicomError(f"{path}: found no key, expected {2 * KEY_BYTES} hexadecimal digits")


def _create_key(path: Path) -> None:
    """Create the key file in one step. If another process has created it first, that key is kept."""
    part = path.with_name(f".{secrets.token_hex(8)}.part")
    with os.fdopen(os.open(part, NEW_FILE, PRIVATE_FILE_MODE), "w") as file:
        file.write(secrets.token_hex(KEY_BYTES) + "\n")
        file.flush()
        os.fsync(file.fileno())
    try:
        with contextlib.suppress(FileExistsError):
            os.link(part, path)
    finally:
        part.unlink()
        sync_folder(path.parent)


class _Cleaner:
    def __init__(self, key: bytes) -> None:
        self.key = key

    def clean(self, dataset: Dataset) -> None:
        """Clean a data set in place, with all nested sequences."""
        patient = self._pseudonym(dataset)
        for tag in list(dataset.keys()):
            if tag in FREE_CONTENT:
                raise DicomError(f"{tag} {keyword_for_tag(tag)}: found {FREE_CONTENT[tag]}, expected an image")
            self._apply(dataset, tag, action_of(tag))
        if "PatientID" in dataset:
            dataset.PatientID = patient

    def _pseudonym(self, dataset: Dataset) -> str:
        """Compute the replacement of Patient ID, which depends on the issuer too. An empty Patient ID stays empty."""
        patient, issuer = (str(dataset.get(name) or "").strip() for name in ("PatientID", "IssuerOfPatientID"))
        return self._hash(f"patient\n{issuer}\n{patient}").hex()[:16].upper() if patient else ""

    def _apply(self, dataset: Dataset, tag: BaseTag, action: str) -> None:
        if action == "X":
            del dataset[tag]
        elif action == "U":
            value = dataset[tag].value
            many = isinstance(value, list | MultiValue)
            dataset.add_new(tag, "UI", [self.uid(one) for one in value] if many else self.uid(value))
        elif action == "K":
            self._keep(dataset, tag)
        else:
            _replace(dataset, tag, action)

    def _keep(self, dataset: Dataset, tag: BaseTag) -> None:
        """Keep a value, and clean a sequence. Names and times that are newer than the table are replaced."""
        known, found = dictionary_VR(tag), dataset.get_item(tag).VR
        if "SQ" in (known, found):
            items = dataset[tag].value
            if not isinstance(items, Sequence):
                del dataset[tag]
                return
            for item in items:
                self.clean(item)
        elif known == "PN" or known in DUMMY_DATES:
            _replace(dataset, tag, "Z" if known == "PN" else "D")

    def uid(self, uid: object) -> str | None:
        """Compute the replacement of a UID. UIDs that the standard defines are kept: they identify no object."""
        if not uid or str(uid).startswith("1.2.840.10008."):
            return str(uid) if uid else None
        number = uuid.UUID(bytes=self._hash(f"uid\n{uid}")[:16], version=4).int
        return f"2.25.{number}"

    def _hash(self, text: str) -> bytes:
        return hmac.digest(self.key, text.encode("utf-8", "surrogateescape"), "sha256")


def _replace(dataset: Dataset, tag: BaseTag, action: str) -> None:
    """Replace a value by an empty one if that is always valid, else by a dummy. A sequence has no dummy."""
    vr = dictionary_VR(tag)
    vr = dataset[tag].VR if " " in vr else vr
    del dataset[tag]
    if vr == "SQ":
        if "Z" in action:
            dataset.add_new(tag, vr, [])
    else:
        dataset.add_new(tag, vr, None if action in ("Z", "X/Z") else DUMMY_VALUES[vr])


def action_of(tag: BaseTag) -> str:
    """Look up the action of the basic profile for an attribute.

    Returns:
        `X` remove, `Z` empty, `D` dummy, `U` another UID, their combinations as in Table E.1-1, or `K` keep.
    """
    if tag.is_private or tag.element == 0 or not dictionary_has_tag(tag):
        return "X"  # also group lengths, and attributes of repeating groups: curves, overlays
    return _table().get(tag, "K")


@cache
def _table() -> Mapping[int, str]:
    """Read Table E.1-1 without its ranges of groups: tag -> action."""
    table = dicom_anonymization_database_selector(f"dicomfields_{EDITION}")
    named = {
        "D_TAGS": "D",
        "Z_TAGS": "Z",
        "X_TAGS": "X",
        "U_TAGS": "U",
        "Z_D_TAGS": "Z/D",
        "X_Z_TAGS": "X/Z",
        "X_D_TAGS": "X/D",
        "X_Z_D_TAGS": "X/Z/D",
        "X_Z_U_STAR_TAGS": "K",  # sequences with UIDs, which are replaced inside
    }
    return {Tag(*tag): action for name, action in named.items() for tag in table[name] if len(tag) == 2}


def _reset_file_header(clean: Dataset, dataset: Dataset) -> None:
    """Replace the file header, which may name the sender, by one with only what is needed to read the file."""
    syntax = getattr(getattr(dataset, "file_meta", None), "TransferSyntaxUID", None)
    clean.file_meta = FileMetaDataset()
    if syntax is not None:
        clean.file_meta.TransferSyntaxUID = syntax
    for name in ("SOPClassUID", "SOPInstanceUID"):
        if name in clean:
            setattr(clean.file_meta, f"MediaStorage{name}", clean[name].value)
    if isinstance(clean, FileDataset):
        clean.filename, clean.preamble = "", PREAMBLE
