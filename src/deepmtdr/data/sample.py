"""One photograph of a data set with what is known of it (Sec. V-A); what is absent is None."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from deepmtdr.terms import Grade, Lesion

Laterality = Literal["L", "R"]


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
    lesion_masks: Mapping[Lesion, Path | None] = field(default_factory=dict)
    """A type that is no key was not annotated. None: annotated, and none is there. A path: non-zero is lesion."""

    @property
    def annotated(self) -> tuple[bool, bool, bool, bool]:
        """Which lesion types were annotated, in channel order."""
        ma, he, ex, se = (lesion in self.lesion_masks for lesion in Lesion)
        return ma, he, ex, se
