"""The field's terms, each abbreviation mapped once (Sec. III, IV-A).

The paper writes HE for *hard exudates* and HM for haemorrhages; the data sets write HE for *haemorrhages* and EX for
hard exudates. Code and files keep the data sets' letters (reading R20); people are shown the full words.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Literal, NamedTuple

Laterality = Literal["L", "R"]
"""Left or right eye."""


class Lesion(IntEnum):
    """The four lesion types; the value is the channel in every `lesions` tensor."""

    MA = 0
    HE = 1
    EX = 2
    SE = 3

    @property
    def full_name(self) -> str:
        """The words for people: `Lesion.HE.full_name == "haemorrhages"`."""
        return _LESION_NAMES[self]


_LESION_NAMES = {
    Lesion.MA: "microaneurysms",
    Lesion.HE: "haemorrhages",
    Lesion.EX: "hard exudates",
    Lesion.SE: "soft exudates",
}


LESION_THRESHOLD = 0.5
"""A pixel counts as lesion from this probability on."""


class Grade(IntEnum):
    """The five grades of diabetic retinopathy (Sec. IV-A), the international severity scale."""

    NEGATIVE = 0
    MILD = 1
    MODERATE = 2
    SEVERE = 3
    PROLIFERATIVE = 4

    @property
    def full_name(self) -> str:
        """The words for people: `Grade.MILD.full_name == "mild"`."""
        return "no diabetic retinopathy" if self is Grade.NEGATIVE else self.name.lower()

    @property
    def referable(self) -> bool:
        """Moderate or worse: to be seen by an ophthalmologist."""
        return self >= Grade.MODERATE


FRAME = 1024
"""Side of the HR frame in pixels: the field of view always spans it (reading R1)."""

SCALES = (2, 4, 8)
"""The scales that lead into the frame: 512 x 2, 256 x 4 (the paper's setting), 128 x 8 (Fig. 4)."""


class ReferralThreshold(NamedTuple):
    """A calibrated operating point: the probability from which a photograph is called referable."""

    sensitivity: float
    """Target sensitivity when the threshold was chosen on graded photographs, in (0, 1]."""
    value: float
    """Probability of referable disease from which a photograph is called referable, in (0, 1]."""
