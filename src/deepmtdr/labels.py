"""The labels of a disease as data: lesion types, grades and decision thresholds (Sec. VI: "other diseases").

Diabetic retinopathy is the default. A recipe may name a TOML file with another label set; the checkpoint then contains
it. The label set determines the outputs of the network, the losses, scores, CSV columns, pictures, reports and DICOM
objects.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deepmtdr.errors import ConfigError, LabelSetError
from deepmtdr.terms import Grade, Lesion
from deepmtdr.toml_config import from_dict, read_toml

Coding = tuple[str, str, str]
"""A code of a terminology: DICOM's designator of the coding scheme, the code, its meaning."""

Colour = tuple[int, int, int]
"""Red, green, blue; 0 to 255."""

MAX_LABELS = 100
"""Largest number of lesion types, and of grades."""

REQUIRED_THRESHOLDS = ("any", "referable")
"""Names of the thresholds that every label set has."""


@dataclass(frozen=True, kw_only=True)
class LesionType:
    """One type of lesion that the segmentation subnet marks."""

    code: str
    """Code of the type, letters and digits such as `MA`: its name in file names, CSV columns and Python."""
    name: str
    """Full name in texts, plural and lower case: "microaneurysms"."""
    colour: Colour = (213, 94, 0)
    """Colour of the type in every picture."""
    coding: Coding | None = None
    """Code of the type in DICOM and FHIR; None: a private code of this project is used."""
    extra_coding: Coding | None = None
    """Second code of the type, in FHIR only."""
    froc: bool = False
    """Whether evaluation also counts these lesions one by one (FROC), for lesions that are a few pixels wide."""


@dataclass(frozen=True, kw_only=True)
class GradeLabel:
    """One grade of the disease."""

    name: str
    """Name in texts, lower case: "moderate"."""
    coding: Coding | None = None
    """Code of the grade in DICOM and FHIR; None: a private code of this project is used."""
    condition: Coding | None = None
    """Code of the diagnosis, in the DICOM structured report and FHIR; None if there is none, as for "no disease"."""


@dataclass(frozen=True, kw_only=True)
class LabelSet:
    """The lesion types and grades of one disease.

    The order of `lesions` is the channel order of every `lesions` tensor, the order of `grades` that of
    `grade_logits`. Grade 0 is "no disease".

    Raises:
        LabelSetError: from the constructor, if the values contradict each other.
    """

    name: str
    """Short name, for logs and errors."""
    disease: str
    """Full name of the disease in texts, lower case."""
    short_disease: str = ""
    """Short form of the disease for captions, such as "retinopathy"; empty: the full name."""
    coding: Coding | None = None
    """Code of the disease; None: a private code of this project is used."""
    lesions: tuple[LesionType, ...]
    grades: tuple[GradeLabel, ...]
    thresholds: dict[str, int] = field(default_factory=lambda: {"any": 1, "referable": 2})
    """Name of a yes-or-no question -> the lowest grade whose answer is yes. `any` and `referable` are required."""

    def __post_init__(self) -> None:
        for problem in self._problems():
            raise LabelSetError(f"label set {self.name!r}: {problem}")

    def _problems(self) -> Iterator[str]:
        codes = self.codes
        if max(len(codes), len(self.grades)) > MAX_LABELS:
            yield f"{len(codes)} lesion types and {len(self.grades)} grades, expected at most {MAX_LABELS} of each"
            return
        if not codes or len({code.casefold() for code in codes}) < len(codes):
            yield f"lesion codes {list(codes)}, expected at least one, each different (case does not count)"
        for lesion in self.lesions:
            yield from _lesion_problems(lesion)
        if len(self.grades) < 2 or not all(self.grade_names):
            yield f"grades {list(self.grade_names)}, expected at least two, each with a name"
        for name in REQUIRED_THRESHOLDS:
            if name not in self.thresholds:
                yield f"thresholds without {name!r}, expected at least {' and '.join(REQUIRED_THRESHOLDS)}"
        for name, grade in self.thresholds.items():
            if not 1 <= grade < len(self.grades):
                yield f"threshold {name} = {grade}, expected a grade from 1 to {len(self.grades) - 1}"

    @property
    def codes(self) -> tuple[str, ...]:
        """Codes of the lesion types, in channel order: `("MA", "HE", "EX", "SE")`."""
        return tuple(lesion.code for lesion in self.lesions)

    @property
    def grade_names(self) -> tuple[str, ...]:
        """Names of the grades, from grade 0 on."""
        return tuple(grade.name for grade in self.grades)

    @property
    def referable_from(self) -> int:
        """The lowest grade that an ophthalmologist should see."""
        return self.thresholds["referable"]

    def channel(self, code: str) -> int:
        """Channel of a lesion type in every `lesions` tensor.

        Raises:
            LabelSetError: if there is no lesion type of that code.
        """
        if code not in self.codes:
            raise LabelSetError(f"label set {self.name!r}: no lesion type {code!r}, expected one of {self.codes}")
        return self.codes.index(code)

    def lesion(self, code: str) -> LesionType:
        """The lesion type of a code.

        Raises:
            LabelSetError: if there is none.
        """
        return self.lesions[self.channel(code)]

    def channels(self, label: str) -> list[int]:
        """Channels of a lesion type, or of the types of a union label such as "EX+SE" (interpretation R32).

        Raises:
            LabelSetError: if there is no lesion type of a code.
        """
        return [self.channel(code) for code in union_codes(label)]

    def name_of(self, label: str) -> str:
        """Name of a lesion type, or of a union label: "hard exudates or soft exudates".

        Raises:
            LabelSetError: if there is no lesion type of a code.
        """
        return " or ".join(self.lesion(code).name for code in union_codes(label))


def _lesion_problems(lesion: LesionType) -> Iterator[str]:
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,15}", lesion.code):
        yield f"lesion code {lesion.code!r}, expected 1 to 16 letters, digits or underscores, starting with a letter"
    if not lesion.name:
        yield f"lesion {lesion.code} has no name, expected a name such as microaneurysms"
    if not all(0 <= value <= 255 for value in lesion.colour):
        yield f"lesion {lesion.code} has the colour {lesion.colour}, expected three numbers from 0 to 255"


def union_codes(union: str) -> tuple[str, ...]:
    """Return the codes of the lesion types of a union label: `("EX", "SE")` of "EX+SE"."""
    return tuple(union.split("+"))


def capitalise(name: str) -> str:
    """Capitalise the first letter of a name; the other letters are not changed: "RNFL defects"."""
    return name[:1].upper() + name[1:]


def load_label_set(path: Path) -> LabelSet:
    """Read a label set from a TOML file.

    The keys are the fields of `LabelSet`; the default of `name` is the name of the file. The order of the `[[lesions]]`
    tables is the channel order, the order of the `[[grades]]` tables is that of the grades, from 0 on.

    Raises:
        LabelSetError: if the file cannot be read, is not TOML, or a key or value is wrong.
    """
    try:
        values = read_toml(path)
    except OSError as error:
        raise LabelSetError(f"{path}: cannot be read ({error.strerror}), expected a TOML file of labels") from error
    except ValueError as error:
        raise LabelSetError(f"{path}: not valid TOML: {error}") from error
    return label_set_from_dict({"name": path.stem, **values}, str(path))


def label_set_from_dict(values: Mapping[str, Any], where: str) -> LabelSet:
    """Build a label set from a table, as TOML or a checkpoint's card has it.

    Args:
        values: fields of `LabelSet`.
        where: name of the file, for the error message.

    Raises:
        LabelSetError: if a key or value is wrong.
    """
    try:
        return from_dict(LabelSet, values, where)
    except LabelSetError as error:
        raise LabelSetError(f"{where}: {error}") from error
    except ConfigError as error:
        raise LabelSetError(str(error)) from error


DIABETIC_RETINOPATHY = LabelSet(
    name="diabetic-retinopathy",
    disease="diabetic retinopathy",
    short_disease="retinopathy",
    lesions=(
        LesionType(
            code=Lesion.MA.name,
            name="microaneurysms",
            colour=(86, 180, 233),
            froc=True,
        ),
        LesionType(
            code=Lesion.HE.name,
            name="haemorrhages",
            colour=(213, 94, 0),
        ),
        LesionType(
            code=Lesion.EX.name,
            name="hard exudates",
            colour=(240, 228, 66),
        ),
        LesionType(
            code=Lesion.SE.name,
            name="soft exudates",
            colour=(204, 121, 167),
        ),
    ),
    grades=tuple(GradeLabel(name=grade.full_name) for grade in Grade),
    thresholds={"any": 1, "referable": 2, "sight_threatening": 3},
)
"""The default: MA, HE, EX, SE and the international grades 0-4. Colours: Okabe and Ito (2008).

Its terminology codes are in `dicom/codes_diabetic_retinopathy.toml`, where a site can replace them.
"""
