"""One photograph of a data set with its labels (Sec. V-A). A label that is not known is None."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from deepmtdr.errors import DataError
from deepmtdr.labels import LabelSet, union_codes
from deepmtdr.terms import Laterality

SplitName = Literal["train", "validation", "test"]


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One photograph of a data set: its file, its patient and its labels.

    Raises:
        DataError: from the constructor, if the photograph is ungradable and has a grade, a union label is not written
            as "CODE+CODE", or a lesion type is annotated twice.
    """

    photograph: Path
    """File of the photograph."""
    name: str
    """Name of the photograph, unique within the data set."""
    patient: str
    """The person; all photographs of one patient belong to the same split."""
    dataset: str
    """Name of the data set."""
    laterality: Laterality | None = None
    grade: int | None = None
    """Grade, 0 to the number of grades - 1; None: not graded."""
    dr_present: bool | None = None
    """Whether there is any retinopathy, for a data set that states this but no grade (see `has_dr`)."""
    ungradable: bool = False
    """Whether the photograph was judged too poor to be graded (interpretation R17); then the grade is None."""
    official_split: SplitName | None = None
    """The split that the authors of the data set chose for the photograph; None: they made no split."""
    lesion_masks: Mapping[str, Path | None] = field(default_factory=dict)
    """Code of a lesion type -> file of its mask; None: annotated, no such lesion; no key: not annotated."""
    union_masks: Mapping[str, Path | None] = field(default_factory=dict)
    """Union label -> file of its mask, where several lesion types were annotated together (interpretation R32).

    The key joins the codes of the types in channel order by "+", such as "EX+SE"; None: annotated, no lesion of any of
    the types. A type is in at most one key of `lesion_masks` and `union_masks`."""
    ignored_mask: Path | None = None
    """File of the mask of pixels that count for nothing in the losses and scores of lesions (interpretation R32); None:
    all pixels count."""
    mask_threshold: int | None = None
    """A pixel of a mask file above this is lesion, where grey levels mean agreement or coverage; None: the brighter of
    two colours, or the upper half of the range (`mask_files`)."""
    problem: str = ""
    """Why a prepared set has no file of the photograph; empty if there is one."""

    def __post_init__(self) -> None:
        if self.ungradable and self.grade is not None:
            raise DataError(
                f"{self.photograph}: found grade {self.grade:d} for an ungradable photograph, expected no grade"
            )
        self._check_union_labels()

    def _check_union_labels(self) -> None:
        taken = set(self.lesion_masks)
        for union in self.union_masks:
            codes = union_codes(union)
            if len(codes) < 2 or not all(codes):
                raise DataError(
                    f"{self.photograph}: found the union label {union!r}, expected codes joined by +, such as EX+SE"
                )
            for code in codes:
                if code in taken:
                    raise DataError(
                        f"{self.photograph}: found {code} annotated twice, in {union} and elsewhere; expected it once"
                    )
                taken.add(code)

    @property
    def has_masks(self) -> bool:
        """Whether any lesion type was annotated, alone or in a union label."""
        return bool(self.lesion_masks or self.union_masks)

    def without_masks(self) -> Sample:
        """Return the photograph without its lesion annotation (Sec. V-D: less pixel-wise supervision)."""
        return replace(self, lesion_masks={}, union_masks={}, ignored_mask=None)

    @property
    def has_dr(self) -> bool | None:
        """Whether there is any disease (grade >= 1), from the grade or `dr_present`; None: not known."""
        return self.dr_present if self.grade is None else self.grade > 0

    def annotated(self, labels: LabelSet) -> tuple[bool, ...]:
        """Which lesion types were annotated, in channel order."""
        return tuple(code in self.lesion_masks for code in labels.codes)
