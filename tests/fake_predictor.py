"""A `Predictor` without a network, and a label set of another disease, for the tests of screening."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepmtdr.labels import DIABETIC_RETINOPATHY, GradeLabel, LabelSet, LesionType
from deepmtdr.screening.predictor import Findings, PredictorInfo

MACULAR_DEGENERATION = LabelSet(
    name="amd",
    disease="age-related macular degeneration",
    lesions=(
        LesionType(code="DR", name="drusen", colour=(240, 228, 66)),
        LesionType(code="GA", name="geographic atrophy", colour=(0, 158, 115)),
    ),
    grades=(
        GradeLabel(name="no macular degeneration"),
        GradeLabel(name="intermediate"),
        GradeLabel(name="late"),
    ),
    thresholds={"any": 1, "referable": 2},
)
"""Two lesion types and three grades; "DR" is a trap for code that expects diabetic retinopathy."""


class FakePredictor:
    """Enlarges the photograph, finds one lesion of the first type, and returns given logits."""

    def __init__(
        self, labels: LabelSet = DIABETIC_RETINOPATHY, logits: Sequence[float] | None = None, **info: Any
    ) -> None:
        about: dict[str, Any] = {"weights": "fake-0123456789ab", "precision": "fp32", "frame": 128}
        self.info = PredictorInfo(labels=labels, **(about | info))
        self.logits = np.array(logits or np.arange(len(labels.grades)) / 10, np.float32)
        self.calls: list[tuple[NDArray[np.uint8], int]] = []

    def predict(self, lr: NDArray[np.uint8], scale: int) -> Findings:
        self.calls.append((lr, scale))
        side = len(lr) * scale
        lesions = np.zeros((len(self.info.labels.lesions), side, side), np.float32)
        lesions[0, side // 2 : side // 2 + 4, side // 2 : side // 2 + 4] = 0.75
        return Findings(
            sr=lr.repeat(scale, axis=0).repeat(scale, axis=1),
            lesions=lesions,
            grade_logits=self.logits,
            evidence=lesions[0] / 2,
        )
