"""The interface between screening and an inference engine: NumPy arrays in, NumPy arrays out.

`torch_predictor.py` implements it with PyTorch. Another engine (ONNX Runtime, OpenVINO) implements `Predictor` too;
nothing else in screening, DICOM or the service changes then.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, UInt8

from deepmtdr.errors import PredictionError
from deepmtdr.grade_decision import MOST_PROBABLE, GradeDecision
from deepmtdr.labels import DIABETIC_RETINOPATHY, LabelSet
from deepmtdr.terms import FRAME, ReferralThreshold


@dataclass(frozen=True, kw_only=True)
class PredictorInfo:
    """The weights, labels, frame and calibration of a predictor."""

    weights: str
    """Name of the weights and the first digits of their SHA-256, for reports."""
    precision: str
    """Number format of the convolutions: `fp32` or `bf16`."""
    labels: LabelSet = DIABETIC_RETINOPATHY
    """Lesion types and grades, in the order of the channels and of the logits."""
    frame: int = FRAME
    """Side of the HR frame, px."""
    decision: GradeDecision = MOST_PROBABLE
    """How the grade logits become probabilities and a grade; without calibration the most probable grade."""
    operating_point: ReferralThreshold | None = None
    """Probability from which a photograph is called referable; None without calibration."""


@dataclass(frozen=True, kw_only=True)
class Findings:
    """Outputs of the network for one photograph, in the HR frame."""

    sr: UInt8[np.ndarray, "s s 3"]
    """Super-resolved image, RGB; the input itself at scale 1."""
    lesions: Float[np.ndarray, "l s s"]
    """Probability of each lesion type, in [0, 1]."""
    grade_logits: Float[np.ndarray, " c"]
    """Logits of the grades, before the calibration."""
    evidence: Float[np.ndarray, "s s"]
    """Evidence of disease, in [0, 1]."""


def check_findings(findings: Findings, info: PredictorInfo, side: int) -> None:
    """Check what an engine returned: NaN, for example, would otherwise be reported as grade 0.

    Args:
        findings: what `Predictor.predict` returned.
        info: of the predictor.
        side: side of the frame, px.

    Raises:
        PredictionError: if an output has another shape, or a value is NaN, infinite or out of its range.
    """
    frame, lesions, grades = (side, side), len(info.labels.lesions), len(info.labels.grades)
    _expect_shape("SR image", findings.sr, (*frame, 3))
    _expect_shape("lesion maps", findings.lesions, (lesions, *frame))
    _expect_shape("grade logits", findings.grade_logits, (grades,))
    _expect_shape("evidence", findings.evidence, frame)
    if findings.sr.dtype != np.uint8:
        raise PredictionError(f"the network returned an SR image of {findings.sr.dtype}, expected 8-bit RGB")
    if not np.isfinite(findings.grade_logits).all():
        raise PredictionError(f"the network returned grade logits that are not finite, {_FINITE}")
    for name, values in (("lesion maps", findings.lesions), ("evidence", findings.evidence)):
        if not (values.min() >= 0 and values.max() <= 1):  # "not": NaN is refused, too
            raise PredictionError(f"the network returned {name} outside [0, 1] or not finite, {_FINITE}")


_FINITE = "expected finite numbers; do not use these weights"


def _expect_shape(name: str, values: np.ndarray, expected: tuple[int, ...]) -> None:
    if values.shape != expected:
        raise PredictionError(f"the network returned {name} of shape {values.shape}, expected {expected}")


@runtime_checkable
class Predictor(Protocol):
    """A loaded network."""

    @property
    def info(self) -> PredictorInfo:
        """Weights, labels, frame and calibration of the network."""
        ...

    def predict(self, lr: UInt8[np.ndarray, "h h 3"], scale: int) -> Findings:
        """Super-resolve, segment and grade one photograph.

        Args:
            lr: the field of view as a square, RGB. Its side times `scale` is the side of the frame.
            scale: 2, 4 or 8; 1: `lr` is the frame itself, and super-resolution is skipped.

        Returns:
            Everything that the network computes for it.
        """
        ...
