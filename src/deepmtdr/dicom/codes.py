"""The codes of `codes.toml`: what DICOM and FHIR call a grade, a lesion, a side."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from deepmtdr.errors import DataError

CODE_FIELDS = ("scheme", "value", "meaning")
MAX_LENGTHS = {"scheme": 16, "value": 16, "meaning": 64}
"""Letters that DICOM's SH and LO leave for each part."""


class Code(NamedTuple):
    """A concept by the code of a scheme."""

    scheme: str
    """DICOM's coding scheme designator."""
    value: str
    meaning: str


@dataclass(frozen=True)
class Codes:
    """Every code by its name in `codes.toml`: `codes["lesion.MA"]`."""

    by_name: Mapping[str, Code]
    systems: Mapping[str, str]
    """FHIR's URI of each scheme."""

    @property
    def fingerprint(self) -> str:
        """All of them in one text, which goes into identifiers: other codes make other objects."""
        return str(sorted((name, *code) for name, code in self.by_name.items()))

    def __getitem__(self, name: str) -> Code:
        """The code of a name."""
        return self.by_name[name]


@dataclass(frozen=True, kw_only=True)
class Namespaces:
    """URIs under which a site keeps its numbers, for FHIR; empty: not said, unless the issuer is an OID."""

    patient: str = ""
    """Of Patient ID."""
    accession: str = ""
    """Of Accession Number."""


def load_codes(path: Path | None = None) -> Codes:
    """Read the shipped codes, and over them a site's own.

    Args:
        path: a TOML file of the form of `codes.toml`, with the codes that differ; None for the shipped ones alone.

    Raises:
        DataError: if the file is no such file, a name is unknown, or a code is no three texts that DICOM can hold.
        OSError: if it cannot be read.
    """
    shipped = tomllib.loads(files("deepmtdr.dicom").joinpath("codes.toml").read_text(encoding="utf-8"))
    own: dict[str, Any] = {}
    if path is not None:
        try:
            own = tomllib.loads(path.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise DataError(f"{path}: no TOML file ({error})") from error
    systems = {**shipped.pop("system"), **own.pop("system", {})}
    named = {f"{table}.{name}": value for table, values in shipped.items() for name, value in values.items()}
    for table, values in own.items():
        for name, value in values.items() if isinstance(values, dict) else ((None, values),):
            if f"{table}.{name}" not in named:
                raise DataError(f"{path}: there is no code [{table}] {name}; known are {', '.join(named)}")
            named[f"{table}.{name}"] = value
    return Codes({name: _code(name, value, systems, path) for name, value in named.items()}, systems)


def _code(name: str, value: Any, systems: Mapping[str, str], path: Path | None) -> Code:
    where = f"{path or 'codes.toml'}: {name} = {value!r}"
    if not (isinstance(value, list) and len(value) == 3 and all(isinstance(part, str) and part for part in value)):
        raise DataError(f"{where}, expected [{', '.join(CODE_FIELDS)}] as texts")
    for part, text in zip(CODE_FIELDS, value, strict=True):
        if len(text) > MAX_LENGTHS[part]:
            raise DataError(f"{where}: {part} of {len(text)} letters, expected at most {MAX_LENGTHS[part]}")
    if value[0] not in systems:
        raise DataError(f"{where}: no [system] for {value[0]!r}, expected one of {', '.join(systems)}")
    return Code(*value)
