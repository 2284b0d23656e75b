"""The result of one photograph: its labels, the network's predictions and how they agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import NamedTuple

from deepmtdr.evaluation.evidence import EvidenceScores
from deepmtdr.metrics import FrocCounts, PooledCurve


class InputImage(StrEnum):
    """The images on which predictions are scored."""

    SR = "sr"
    """The super-resolved image, which the network uses normally."""
    BICUBIC = "bicubic"
    """The LR image enlarged by bicubic interpolation, in place of SR."""
    NORMALISED_BICUBIC = "normalised_bicubic"
    """The same, normalised by the field of view (interpretation R31); only PSNR and SSIM are computed."""
    HR = "hr"
    """The HR frame, in place of SR."""
    ORIGINAL = "original"
    """The pixels of the photograph, onto which the lesion maps of SR are transformed back."""


class LesionResult(NamedTuple):
    """Scores of one lesion type on one photograph, inside the field of view."""

    average_precision: float
    """Area under the precision-recall curve; nan if the photograph has no such lesion."""
    auc: float
    """Area under the ROC curve; nan where `average_precision` is nan."""
    prevalence: float
    dice: float
    """Dice of the pixels above one half; nan if no pixel is predicted or annotated as lesion."""
    iou: float
    counts: PooledCurve
    """Coarse pixel counts, small enough to be kept for each photograph and resampled by the bootstrap."""
    froc: FrocCounts | None = None
    """Counts of single lesions; None if this type is not counted."""


class InputResult(NamedTuple):
    """The predictions for one photograph on another image than SR."""

    probs: tuple[float, ...]
    """Probability of each grade; empty for `ORIGINAL`, which has lesion scores only."""
    lesions: Mapping[str, LesionResult]
    """Code of a lesion type -> its scores; only annotated types."""
    decided_grade: int | None = None
    """As `PhotographResult.decided_grade`."""

    @property
    def predicted_grade(self) -> int | None:
        """As `PhotographResult.predicted_grade`."""
        return most_probable_grade(self.probs) if self.decided_grade is None else self.decided_grade


class Agreement(NamedTuple):
    """How far the lesions on an image agree with a reference: those detected on the HR frame, or annotated ones."""

    detected: int
    """Number of lesions on the image."""
    hallucinated: int
    """Number of lesions on the image without a lesion of the reference near them."""
    reference: int
    """Number of lesions of the reference."""
    missed: int
    """Number of lesions of the reference without a lesion near them on the image."""


class FlipResult(NamedTuple):
    """Predictions for the eight turns of one photograph; the first is the upright photograph."""

    grades: tuple[int, ...]
    p_referable: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class PhotographResult:
    """Labels, predictions and scores of one photograph; what is not known has its default value."""

    dataset: str
    name: str
    patient: str
    failure: str = ""
    """Why there is no prediction; empty if there is one."""
    fov_side: int | None = None
    """Diameter of the field of view in pixels of the photograph."""
    lr_size: int | None = None
    scale: int | None = None
    """Factor by which the LR image is enlarged to the frame; 1 if the ISR subnet was skipped."""
    grade: int | None = None
    """The true grade; None if the photograph was not graded."""
    probs: tuple[float, ...] = ()
    """Predicted probability of each grade."""
    decided_grade: int | None = None
    """The grade predicted by another rule than the highest probability, such as thresholds of the expected grade
    (interpretation R34); None: the most probable grade is predicted."""
    grade_only: bool = False
    """A predicted grade is known, but no probabilities: `probs` is 1 for that grade and 0 for the others."""
    positive: bool | None = None
    """True label in a data set that only distinguishes negative and positive, such as Real-LR; None elsewhere."""
    p_positive: float | None = None
    """Predicted probability of `positive`."""
    image: Mapping[str, float] = field(default_factory=dict)
    """PSNR and SSIM against the HR frame; empty without an HR frame, and if the ISR subnet was skipped."""
    lesions: Mapping[str, LesionResult] = field(default_factory=dict)
    """Code of a lesion type -> its scores; only annotated types."""
    other_inputs: Mapping[InputImage, InputResult] = field(default_factory=dict)
    """Results on `BICUBIC`, `HR` and `ORIGINAL`."""
    agreement: Mapping[InputImage, Mapping[str, Agreement]] = field(default_factory=dict)
    """Agreement of the lesions on `SR` and on `BICUBIC` with those on HR, by code."""
    annotated_agreement: Mapping[InputImage, Mapping[str, Agreement]] = field(default_factory=dict)
    """Agreement of the lesions on `SR`, `BICUBIC` and `HR` with the annotated ones, by code of an annotated type."""
    evidence: EvidenceScores | None = None
    """Scores of the evidence; None if they were not computed, or nothing is annotated."""
    flips: FlipResult | None = None
    """Predictions for the turned photograph; None if they were not computed."""

    @property
    def predicted_grade(self) -> int | None:
        """`decided_grade`, or else the most probable grade, the lowest of equally probable ones; None without both."""
        return most_probable_grade(self.probs) if self.decided_grade is None else self.decided_grade

    @property
    def psnr_gain(self) -> float | None:
        """PSNR of SR minus that of bicubic interpolation, in the field of view, dB; None where `image` is empty."""
        return self.image["psnr_fov_sr"] - self.image["psnr_fov_bicubic"] if self.image else None

    @property
    def psnr_gain_eroded(self) -> float | None:
        """PSNR of SR minus that of bicubic interpolation normalised by the field of view, without its rim, dB."""
        name = "psnr_fov_eroded"
        if f"{name}_{InputImage.SR}" not in self.image:
            return None
        return self.image[f"{name}_{InputImage.SR}"] - self.image[f"{name}_{InputImage.NORMALISED_BICUBIC}"]

    def for_input(self, image: InputImage) -> PhotographResult:
        """Return a copy with the grade and lesions that were predicted on another image, empty if there are none."""
        if image is InputImage.SR:
            return self
        found = self.other_inputs.get(image, InputResult((), {}))
        return replace(self, **found._asdict(), other_inputs={})


def most_probable_grade(probs: Sequence[float]) -> int | None:
    """Return the most probable grade; the lowest of equally probable ones. None without probabilities."""
    return max(range(len(probs)), key=probs.__getitem__, default=None)
