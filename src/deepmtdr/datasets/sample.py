"""One photograph of a data set with what is known of it (Sec. V-A); what is absent is None."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from deepmtdr.terms import Grade, Laterality, Lesion

SplitName = Literal["train", "validation", "test"]


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A row of a data set: where the photograph lies, whose it is, and which labels it has."""

    photograph: Path
    """File of the photograph."""
    name: str
    """Unique within the data set."""
    patient: str
    """Whose eye: photographs of one patient never stand on both sides of a split."""
    dataset: str
    """Name of the data set, as the field writes it."""
    laterality: Laterality | None = None
    grade: Grade | None = None
    """Grade 0-4, or None where nobody graded it."""
    dr_present: bool | None = None
    """Whether there is any retinopathy, where somebody said that but no grade; a grade says it too (`has_dr`)."""
    ungradable: bool = False
    """Somebody judged the photograph too poor to be graded (reading R17); its grade is None."""
    official_split: SplitName | None = None
    """Where the set's own makers put it; None where they made no split."""
    lesion_masks: Mapping[Lesion, Path | None] = field(default_factory=dict)
    """A type that is no key was not annotated. None: annotated, and none is there. A path: see `mask_threshold`."""
    mask_threshold: int = 0
    """A pixel of a mask file above this is lesion; above 0 where masks are grey levels, of agreement or coverage."""

    @property
    def has_dr(self) -> bool | None:
        """Whether there is any retinopathy (grade >= 1), by grade or by `dr_present`; None where nobody said."""
        return self.dr_present if self.grade is None else self.grade > 0

    @property
    def annotated(self) -> tuple[bool, bool, bool, bool]:
        """Which lesion types were annotated, in channel order."""
        ma, he, ex, se = (lesion in self.lesion_masks for lesion in Lesion)
        return ma, he, ex, se
