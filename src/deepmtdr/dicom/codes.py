"""Codes of terminologies: the names of grades, lesion types, eyes and questions in DICOM and FHIR.

`codes.toml` has the codes that fit any disease, `codes_diabetic_retinopathy.toml` those of diabetic retinopathy. The
codes of another label set come from the label set (`label_codes.py`). A site can replace each code.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from deepmtdr.dicom.label_codes import codes_from_labels
from deepmtdr.errors import DataError, DicomError
from deepmtdr.labels import DIABETIC_RETINOPATHY, LabelSet
from deepmtdr.toml_config import read_toml, shorten

COMMON_FILE, DIABETIC_RETINOPATHY_FILE = "codes.toml", "codes_diabetic_retinopathy.toml"
CODE_FIELDS = ("scheme", "value", "meaning")
MAX_LENGTHS = {"scheme": 16, "value": 16, "meaning": 64}
"""Characters that DICOM allows for each part (value representations SH and LO)."""

CodeTable = dict[str, Any]
"""Name of a code, such as `lesion.MA`, -> its scheme, value and meaning, not checked yet."""


class Code(NamedTuple):
    """A concept, identified by the code of a scheme."""

    scheme: str
    """Coding scheme designator of DICOM."""
    value: str
    meaning: str


@dataclass(frozen=True)
class Codes:
    """The codes of a label set by name: `codes["lesion.MA"]`."""

    by_name: Mapping[str, Code]
    systems: Mapping[str, str]
    """Scheme -> its URI in FHIR."""
    labels: LabelSet = DIABETIC_RETINOPATHY

    @property
    def fingerprint(self) -> str:
        """All codes in one text. The text is part of every derived identifier: other codes make other objects.

        `systems` is not part of the text: a corrected URI does not change the concept, and an object keeps its
        identifier.
        """
        return str(sorted((name, *code) for name, code in self.by_name.items()))

    def __getitem__(self, name: str) -> Code:
        """Return the code with a name."""
        return self.by_name[name]

    def check_labels(self, labels: LabelSet) -> None:
        """Check that these codes belong to the label set of a report.

        Raises:
            DicomError: if the label set is another one.
        """
        if labels != self.labels:
            raise DicomError(
                f"found a report of label set {labels.name!r} and codes of {self.labels.name!r}, expected the same; "
                "use load_codes(path, report.labels)"
            )


@dataclass(frozen=True, kw_only=True)
class Namespaces:
    """URIs of the identifiers that a site assigns, for FHIR. Empty: no URI, unless the issuer is an OID."""

    patient: str = ""
    """URI for Patient ID."""
    accession: str = ""
    """URI for Accession Number."""


def load_codes(path: Path | None = None, labels: LabelSet = DIABETIC_RETINOPATHY) -> Codes:
    """Read the codes of a label set, and replace those for which a site has its own.

    Args:
        path: a TOML file like `codes.toml` with only the codes that differ; None: the shipped codes.
        labels: the label set of the reports.

    Raises:
        DataError: if the file is not TOML, a name is unknown, or a code is not three texts that DICOM can hold.
        OSError: if the file cannot be read.
    """
    systems, shipped = _shipped_codes(labels)
    own = {} if path is None else _read_site_file(path)
    systems |= own.pop("system", {})
    replaced = _named(own)
    for name in replaced:
        if name not in shipped:
            raise DataError(f"{path}: unknown code {shorten(name)}, expected one of {', '.join(shipped)}")
    source = COMMON_FILE if labels == DIABETIC_RETINOPATHY else f"label set {labels.name!r}"
    by_name = {name: _code(source, name, value, systems) for name, value in shipped.items() if name not in replaced}
    by_name |= {name: _code(str(path), name, value, systems) for name, value in replaced.items()}
    return Codes(by_name, systems, labels)


def _shipped_codes(labels: LabelSet) -> tuple[dict[str, str], CodeTable]:
    """The URIs of the schemes, and the codes before any replacement."""
    tables = tomllib.loads(files("deepmtdr.dicom").joinpath(COMMON_FILE).read_text(encoding="utf-8"))
    systems = tables.pop("system")
    if labels != DIABETIC_RETINOPATHY:
        return systems, {**_named(tables), **codes_from_labels(labels)}
    text = files("deepmtdr.dicom").joinpath(DIABETIC_RETINOPATHY_FILE).read_text(encoding="utf-8")
    return systems, {**_named(tables), **_named(tomllib.loads(text))}


def _named(tables: Mapping[str, Mapping[str, Any]]) -> CodeTable:
    """Convert nested tables to one table with the names `TABLE.KEY`."""
    return {f"{table}.{name}": value for table, values in tables.items() for name, value in values.items()}


def _read_site_file(path: Path) -> dict[str, Any]:
    try:
        tables = read_toml(path)
    except ValueError as error:
        raise DataError(f"{path}: not valid TOML: {error}") from error
    for table, values in tables.items():
        if not isinstance(values, dict):
            key = shorten(table)
            raise DataError(f"{path}: found the key {key} outside of a table, expected [{key}] with codes in it")
    return tables


def _code(source: str, name: str, value: Any, systems: Mapping[str, str]) -> Code:
    """Check one code; `source` is the place where it is defined, for the error message."""
    where = f"{source}: {name} = {shorten(repr(value))}"
    is_sequence = isinstance(value, list | tuple) and len(value) == len(CODE_FIELDS)
    if not (is_sequence and all(isinstance(part, str) and part for part in value)):
        raise DataError(f"{where}, expected [{', '.join(CODE_FIELDS)}], each a text")
    for part, text in zip(CODE_FIELDS, value, strict=True):
        if len(text) > MAX_LENGTHS[part] or not text.isprintable() or "\\" in text:
            expected = f"at most {MAX_LENGTHS[part]} printable characters without a backslash"
            raise DataError(f"{where}: {part} of {len(text)} characters, expected {expected}")
    if value[0] not in systems:
        raise DataError(f"{where}: no [system] for {value[0]!r}, expected one of {', '.join(systems)}")
    return Code(*value)
