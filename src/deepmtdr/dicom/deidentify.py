"""De-identification for research export: the Basic Application Level Confidentiality Profile of DICOM PS3.15.

What happens to which attribute is the standard's Table E.1-1 (edition 2026c) as dicom-anonymizer holds it; that
library's own walk is not used, for it leaves nested sequences alone and its UIDs differ from run to run. Where the
table leaves a choice, the one is taken that is valid in every IOD: an empty or a dummy value instead of none.

Identifiers are replaced by keyed hashes (HMAC): with the same key, objects that belonged together still do.
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
from pydicom.dataset import FileMetaDataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag, Tag

from deepmtdr import __version__
from deepmtdr.errors import ClinicError

EDITION = "2026c"
KEY_BYTES = 32
DUMMY_DATES = {"DA": "19000101", "DT": "19000101000000", "TM": "000000"}
DUMMY_VALUES: Mapping[str, Any] = {
    **DUMMY_DATES,
    **dict.fromkeys(("AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UT"), "REMOVED"),
    **dict.fromkeys(("DS", "IS", "FD", "FL", "SL", "SS", "SV", "UL", "US", "UV"), 0),
    **dict.fromkeys(("OB", "OD", "OF", "OL", "OV", "OW", "UN"), b"\0\0\0\0\0\0\0\0"),
    **{"AS": "000Y", "UR": "http://removed.invalid"},
}
"""What replaces a value that may not be empty, by value representation."""
FREE_CONTENT = {0x0040A730: "a structured document", 0x00420011: "an encapsulated document", 0x00700001: "annotations"}
"""Content that may say anything of anybody: the basic profile has no way to clean it."""


def deidentify(dataset: Dataset, key: bytes) -> Dataset:
    """De-identify an image object.

    Args:
        dataset: as read from a file, or made; not changed.
        key: at least 16 bytes, secret. The same key gives the same pseudonym and the same UIDs.

    Returns:
        A copy without whatever the profile protects. Pixels, camera model and laterality stay.

    Raises:
        ClinicError: if the object says that the pixels hold text, holds free content (documents, annotations), or the
            key is too short.
    """
    if len(key) < 16:
        raise ClinicError(f"key of {len(key)} bytes, expected at least 16")
    if str(dataset.get("BurnedInAnnotation", "")).strip().upper() == "YES":
        raise ClinicError("(0028,0301) Burned In Annotation is YES, expected NO: the pixels may name the patient")
    clean = copy.deepcopy(dataset)
    try:
        _Cleaner(key).clean(clean)
    except ClinicError:
        raise
    except Exception as error:  # its message may hold what was to be removed
        raise ClinicError(f"{type(error).__name__} at a broken attribute, expected a sound object") from None
    clean.PatientIdentityRemoved = "YES"
    clean.DeidentificationMethod = [f"DICOM PS3.15 {EDITION} Basic Profile", f"deepmtdr {__version__}"]
    clean.DeidentificationMethodCodeSequence = [_method()]
    clean.LongitudinalTemporalInformationModified = "REMOVED"
    _as_a_new_file(clean, dataset)
    return clean


def load_or_create_key(path: Path) -> bytes:
    """Read the key, or make one that only its owner can read.

    Args:
        path: of a file of 64 hexadecimal digits; made if it does not exist. Whoever has it can find out which
            pseudonym belongs to a known patient.

    Raises:
        ClinicError: if the file is no key, or others than its owner may read it.
        OSError: if it cannot be read or made.
    """
    if not path.exists():
        _make_key(path)
    mode = path.stat().st_mode & 0o777
    if mode & 0o077:
        raise ClinicError(f"{path}: key file with permissions {mode:04o}, expected 0600")
    with contextlib.suppress(ValueError):
        key = bytes.fromhex(path.read_text(encoding="ascii").strip())
        if len(key) == KEY_BYTES:
            return key
    raise ClinicError(f"{path}: no key, expected {2 * KEY_BYTES} hexadecimal digits")


def _make_key(path: Path) -> None:
    """Whole or not at all; if somebody else was first, theirs stays."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secrets.token_hex(KEY_BYTES) + "\n")
        file.flush()
        os.fsync(file.fileno())
    try:
        with contextlib.suppress(FileExistsError):
            os.link(part, path)
    finally:
        part.unlink()


class _Cleaner:
    def __init__(self, key: bytes) -> None:
        self.key = key

    def clean(self, dataset: Dataset) -> None:
        """Clean a data set in place, with all that is nested in it."""
        patient = self._pseudonym(dataset)
        for tag in list(dataset.keys()):
            if tag in FREE_CONTENT:
                raise ClinicError(f"{tag} {keyword_for_tag(tag)}: found {FREE_CONTENT[tag]}, expected an image")
            self._apply(dataset, tag, action_of(tag))
        if "PatientID" in dataset:
            dataset.PatientID = patient

    def _pseudonym(self, dataset: Dataset) -> str:
        """Of the patient, within the issuer of the identifier; an empty identifier stays empty."""
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
        """Look into sequences; a name or a time that is newer than the table is not kept."""
        known, written = dictionary_VR(tag), dataset.get_item(tag).VR
        if "SQ" in (known, written):
            items = dataset[tag].value
            if not isinstance(items, Sequence):
                del dataset[tag]
                return
            for item in items:
                self.clean(item)
        elif known == "PN" or known in DUMMY_DATES:
            _replace(dataset, tag, "Z" if known == "PN" else "D")

    def uid(self, uid: object) -> str | None:
        """The replacement of a UID; those of the standard itself name nobody and stay."""
        if not uid or str(uid).startswith("1.2.840.10008."):
            return str(uid) if uid else None
        number = uuid.UUID(bytes=self._hash(f"uid\n{uid}")[:16], version=4).int
        return f"2.25.{number}"

    def _hash(self, text: str) -> bytes:
        return hmac.digest(self.key, text.encode("utf-8", "surrogateescape"), "sha256")


def _replace(dataset: Dataset, tag: BaseTag, action: str) -> None:
    """By an empty value if that is always valid, else by a dummy; a sequence has no dummy."""
    vr = dictionary_VR(tag)
    vr = dataset[tag].VR if " " in vr else vr
    del dataset[tag]
    if vr == "SQ":
        if "Z" in action:
            dataset.add_new(tag, vr, [])
    else:
        dataset.add_new(tag, vr, None if action in ("Z", "X/Z") else DUMMY_VALUES[vr])


def action_of(tag: BaseTag) -> str:
    """What the basic profile does to an attribute.

    Returns:
        `X` remove, `Z` empty, `D` dummy, `U` another UID, their combinations as in Table E.1-1, or `K` keep.
    """
    if tag.is_private or tag.element == 0 or not dictionary_has_tag(tag):
        return "X"  # group lengths too, and what the dictionary has no single name for: curves, overlays
    return _table().get(tag, "K")


@cache
def _table() -> Mapping[int, str]:
    """Table E.1-1 without its ranges of groups."""
    table = dicom_anonymization_database_selector(f"dicomfields_{EDITION}")
    named = {
        **{"D_TAGS": "D", "Z_TAGS": "Z", "X_TAGS": "X", "U_TAGS": "U", "Z_D_TAGS": "Z/D", "X_Z_TAGS": "X/Z"},
        **{"X_D_TAGS": "X/D", "X_Z_D_TAGS": "X/Z/D", "X_Z_U_STAR_TAGS": "K"},  # sequences of UIDs: replaced inside
    }
    return {Tag(*tag): action for name, action in named.items() for tag in table[name] if len(tag) == 2}


def _method() -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator = "113100", "DCM"
    item.CodeMeaning = "Basic Application Confidentiality Profile"
    return item


def _as_a_new_file(clean: Dataset, dataset: Dataset) -> None:
    """A file's head says where it came from: only what is needed to read it is taken over."""
    syntax = getattr(getattr(dataset, "file_meta", None), "TransferSyntaxUID", None)
    clean.file_meta = FileMetaDataset()
    if syntax is not None:
        clean.file_meta.TransferSyntaxUID = syntax
    for name in ("SOPClassUID", "SOPInstanceUID"):
        if name in clean:
            setattr(clean.file_meta, f"MediaStorage{name}", clean[name].value)
    for name, nothing in (("filename", ""), ("preamble", b"\0" * 128)):
        if hasattr(clean, name):
            setattr(clean, name, nothing)
