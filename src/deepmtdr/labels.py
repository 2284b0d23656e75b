"""The labels of a disease as data: lesion types, grades and decision thresholds (Sec. VI: "other diseases").

Diabetic retinopathy is the default. A recipe may name a TOML file with another label set; the checkpoint then carries
it, and the network's outputs, the losses, scores, CSV columns, pictures, reports and DICOM objects follow it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from deepmtdr.errors import LabelSetError
from deepmtdr.terms import Grade, Lesion

Coding = tuple[str, str, str]
"""A code of a terminology: DICOM's designator of the coding scheme, the code, its meaning."""

Colour = tuple[int, int, int]
"""Red, green, blue; 0 to 255."""


@dataclass(frozen=True, kw_only=True)
class LesionType:
    """One type of lesion that the segmentation subnet marks."""

    code: str = ""
    """Letters and digits, such as `MA`: the type's name in file names, CSV columns and Python."""
    name: str = ""
    """Full name for people, plural and lower case: "microaneurysms"."""
    colour: Colour = (213, 94, 0)
    """Its colour in every picture."""
    coding: Coding | None = None
    """Its code in DICOM and FHIR; None: a private code of this project is used."""
    extra_coding: Coding | None = None
    """A second code for the same, in FHIR only."""


@dataclass(frozen=True, kw_only=True)
class GradeLabel:
    """One grade of the disease."""

    name: str = ""
    """For people, lower case: "moderate"."""
    coding: Coding | None = None
    """The answer's code in DICOM and FHIR; None: a private code of this project is used."""
    condition: Coding | None = None
    """The code of the diagnosis, in FHIR only; None where there is none, as for "no disease"."""


@dataclass(frozen=True, kw_only=True)
class LabelSet:
    """The lesion types and grades of one disease.

    The order of `lesions` is the channel order of every `lesions` tensor, the order of `grades` that of
    `grade_logits`. Grade 0 is "no disease".

    Raises:
        LabelSetError: from the constructor, if the values contradict each other.
    """

    name: str = "diabetic-retinopathy"
    """Short name, for logs and errors."""
    disease: str = "diabetic retinopathy"
    """Full name for people, lower case."""
    coding: Coding | None = None
    """Code of the disease; None: a private code of this project is used."""
    lesions: tuple[LesionType, ...] = ()
    grades: tuple[GradeLabel, ...] = ()
    thresholds: dict[str, int] = field(default_factory=lambda: {"any": 1, "referable": 2})
    """Name of a yes-or-no question -> the lowest grade whose answer is yes. `any` and `referable` are required."""

    def __post_init__(self) -> None:
        for problem in self._problems():
            raise LabelSetError(f"label set {self.name!r}: {problem}")

    def _problems(self) -> Sequence[str]:
        codes = [lesion.code for lesion in self.lesions]
        problems = []
        if not codes or len({code.casefold() for code in codes}) < len(codes):
            problems.append(f"lesion codes {codes}, expected at least one, each different (case does not count)")
        problems += [
            f"lesion code {code!r}, expected 1 to 16 letters, digits or underscores, starting with a letter"
            for code in codes
            if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,15}", code)
        ]
        problems += [f"lesion {lesion.code} without a name" for lesion in self.lesions if not lesion.name]
        problems += [
            f"lesion {lesion.code} has the colour {lesion.colour}, expected three numbers from 0 to 255"
            for lesion in self.lesions
            if len(lesion.colour) != 3 or not all(0 <= value <= 255 for value in lesion.colour)
        ]
        if len(self.grades) < 2 or not all(grade.name for grade in self.grades):
            problems.append(f"grades {self.grade_names}, expected at least two, each with a name")
        problems += [
            f"thresholds without {name!r}, expected any and referable at least"
            for name in ("any", "referable")
            if name not in self.thresholds
        ]
        problems += [
            f"threshold {name} = {grade}, expected a grade from 1 to {len(self.grades) - 1}"
            for name, grade in self.thresholds.items()
            if not 1 <= grade < len(self.grades)
        ]
        return problems

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


DIABETIC_RETINOPATHY = LabelSet(
    lesions=(
        LesionType(
            code=Lesion.MA.name,
            name="microaneurysms",
            colour=(86, 180, 233),
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

Its terminology codes are in `dicom/codes.toml`, where a site can replace them.
"""
