"""Terms of the field: lesion types and grades of diabetic retinopathy, size of the HR frame (Sec. III, IV-A).

The paper writes HE for hard exudates and HM for haemorrhages. The data sets write HE for haemorrhages and EX for hard
exudates. Code and files use the data sets' letters (interpretation R20); texts use the full words.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import Literal, NamedTuple

Laterality = Literal["L", "R"]
"""Left or right eye."""

RESEARCH_USE_NOTICE = "Research use: not a medical device"
"""Notice on every page, report and help text."""


class Lesion(StrEnum):
    """Codes of the four lesion types of diabetic retinopathy: a dictionary key, not a channel number.

    Used by the readers of the public data sets and by the drawings. Everything else takes the lesion types from a
    `labels.LabelSet`, whose order is the channel order.
    """

    MA = "MA"
    HE = "HE"
    EX = "EX"
    SE = "SE"


LESION_THRESHOLD = 0.5
"""A pixel counts as lesion from this probability on."""


class Grade(IntEnum):
    """The five grades of diabetic retinopathy, on the international severity scale (Sec. IV-A)."""

    NEGATIVE = 0
    MILD = 1
    MODERATE = 2
    SEVERE = 3
    PROLIFERATIVE = 4

    @property
    def full_name(self) -> str:
        """The name in texts: `Grade.MILD.full_name == "mild"`."""
        return "no diabetic retinopathy" if self is Grade.NEGATIVE else self.name.lower()


PRECISIONS = ("auto", "fp32", "bf16")
"""Number formats of the convolutions. `auto` is bf16 where the device has instructions for it, else fp32."""

FRAME = 1024
"""Side of the HR frame in pixels; the field of view always spans it (interpretation R1)."""

SCALES = (2, 4, 8)
"""Factors from the LR image to the frame: 512 x 2, 256 x 4 (the paper's setting), 128 x 8 (Fig. 4)."""


class ReferralThreshold(NamedTuple):
    """A calibrated operating point: the probability from which a photograph is called referable."""

    sensitivity: float
    """Target sensitivity when the threshold was chosen on graded photographs, in (0, 1]."""
    value: float
    """Probability of referable disease from which a photograph is called referable, in (0, 1]."""
