"""Settings of the three training stages: restoration, grading and joint training (Sec. IV-C)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from deepmtdr.losses import LossWeights
from deepmtdr.model.interfaces import SUBNETS
from deepmtdr.model.stable_evidence import StableEvidenceConfig
from deepmtdr.terms import SCALES

StageName = Literal["restoration", "grading", "joint"]

STAGES: tuple[StageName, ...] = ("restoration", "grading", "joint")
"""Stages in the order of training. The position of a stage is part of its random seed: do not reorder them."""

SCHEDULES = ("cosine", "step")

VALIDATION_SCORES = ("psnr_gain", "psnr_gain_eroded", "aupr_mean", "kappa_quadratic", "auc_referable")
"""Gain over bicubic interpolation in the field of view (dB), gain over normalised bicubic interpolation without the rim
of the field of view (dB), AUPR (mean over the lesion types), two grading scores.
"""

PAPER_SCALE = 4
"""Scale of the paper's main setting, LR 256 px -> HR 1024 px (Sec. V-A)."""


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Ranges of the random changes to a photograph before its LR image is made (interpretation R24)."""

    zoom: float = 1.35
    """The side of a crop is multiplied by a factor in [1/zoom, zoom]: fields of view of 35 to 60 degrees."""
    gain: float = 0.25
    """Standard deviation of the logarithm of each channel's gain: illumination and colour cast."""
    gamma: float = 0.25
    """Standard deviation of the logarithm of the gamma: tone curves."""
    degraded: float = 1.0
    """Share of the crops with blur, noise, JPEG compression and vignetting; the others are as sharp as the HR crop."""
    blur: float = 0.6
    """Largest standard deviation of a Gaussian blur, px of the frame; half of the crops are not blurred."""
    noise: float = 0.01
    """Largest standard deviation of the sensor noise, as a share of the value range."""
    jpeg: int = 45
    """Lowest JPEG quality; half of the crops are not compressed; 100 compresses none."""
    vignetting: float = 0.0
    """Largest loss of light in a crop's corners, as a share."""
    rotation: float = 0.0
    """Largest rotation of a crop, degrees, in addition to the eight flips and quarter turns."""
    seed: int = 0
    """Seed of gain, gamma, blur, noise and JPEG only: another value keeps the crops."""


@dataclass(frozen=True, kw_only=True)
class OptimisationSettings:
    """Steps, batches, AdamW and its learning-rate schedule."""

    steps: int = 0
    """Optimiser steps; 0 skips the stage."""
    minutes: float = 0.0
    """Longest computing time, minutes; 0: no limit. The stage ends after this time even if steps are left, and the
    schedule follows the time. Such a run cannot be repeated exactly. On a CPU only the computing time of the training
    thread is counted, so other programs do not shorten the training. In the grading stage up to half of the limit is
    used to compute the cached outputs.
    """
    batch: int = 8
    """Number of photographs in a forward pass, over all processes together."""
    accumulate: int = 1
    """Number of forward passes whose gradients are averaged for one optimiser step."""
    weight_decay: float = 1e-4
    """Weight decay of AdamW; 0: Adam."""
    schedule: str = "cosine"
    """Schedule of the learning rates: "cosine" falls to 1 % of the largest rate; "step" falls once, at `decay_at`."""
    warm_up: float = 0.1
    """Share of the steps in which the learning rate rises to the largest."""
    decay_at: float = 0.8
    """Share of the steps after which a "step" schedule falls."""
    decay_factors: dict[str, float] = field(default_factory=lambda: {"isr": 5.0, "segmentation": 2.0, "grading": 5.0})
    """Subnet -> divisor of its learning rate after `decay_at` (the authors' values)."""
    imagenet_lr_share: float = 1.0
    """Learning rate of the layers of an EfficientNet-Lite0 that have published ImageNet weights, as a share of their
    subnet's.
    """
    ema: float = 0.995
    """Decay of the exponential moving average of the weights. The average is the result of the stage."""
    clip: float = 1.0
    """Largest norm of each subnet's gradient."""
    activation_checkpointing: bool = False
    """Compute the features of the paper's subnets again in the backward pass: less memory, more time."""

    def problems(self) -> Iterator[str]:
        """Describe each setting that is out of range, and what was expected."""
        if self.steps < 0 or self.batch < 1:
            yield f"steps = {self.steps}, batch = {self.batch}, expected at least 0 steps and 1 photograph"
        if self.minutes < 0:
            yield f"minutes = {self.minutes}, expected 0 or more"
        if self.accumulate < 1:
            yield f"accumulate = {self.accumulate}, expected at least 1"
        if self.schedule not in SCHEDULES:
            yield f"schedule = {self.schedule!r}, expected one of {', '.join(SCHEDULES)}"
        if not set(SUBNETS).issuperset(self.decay_factors) or min(self.decay_factors.values(), default=1) <= 0:
            yield f"decay_factors = {self.decay_factors}, expected positive divisors of {', '.join(SUBNETS)}"
        yield from _not_shares(warm_up=self.warm_up, decay_at=self.decay_at, imagenet_lr_share=self.imagenet_lr_share)


@dataclass(frozen=True, kw_only=True)
class SamplingSettings:
    """Sizes of the LR images."""

    scales: dict[str, float] = field(default_factory=lambda: {"1": 0.25, "2": 0.15, "4": 0.5, "8": 0.1})
    """Scale -> share of the LR images that are enlarged by it; "1" is the HR frame itself (interpretation R19)."""

    @property
    def validation_scale(self) -> int:
        """The scale at which the stage is validated: the most frequent one above 1; x4 if there is none."""
        shares = {int(scale): share for scale, share in self.scales.items() if int(scale) > 1 and share > 0}
        return max(shares, key=lambda scale: (shares[scale], scale == PAPER_SCALE), default=PAPER_SCALE)

    def problems(self) -> Iterator[str]:
        """Describe each setting that is out of range, and what was expected."""
        known, shares = ("1", *map(str, SCALES)), self.scales.values()
        if not any(shares) or min(shares) < 0 or not set(known).issuperset(self.scales):
            yield f"scales = {self.scales}, expected shares of {', '.join(known)}"


@dataclass(frozen=True, kw_only=True)
class ValidationSettings:
    """When a stage is validated, and early stopping."""

    validate_every: int = 0
    """Steps between two validations; 0: only at the end of the stage."""
    stop_on: str = ""
    """A validation score (higher is better) by which the best weights are kept; "": the last weights are kept."""
    patience: int = 0
    """Validations without a better score after which the stage ends early; 0: never."""

    def problems(self) -> Iterator[str]:
        """Describe each setting that is out of range, and what was expected."""
        if min(self.validate_every, self.patience) < 0 or (self.patience and not self.stop_on):
            found = f"validate_every = {self.validate_every}, patience = {self.patience}"
            yield f"{found}, expected values of 0 or more, and patience only with stop_on"
        if self.stop_on not in ("", *VALIDATION_SCORES):
            yield f"stop_on = {self.stop_on!r}, expected one of {', '.join(VALIDATION_SCORES)}, or empty"


@dataclass(frozen=True, kw_only=True)
class TrainingStage(ValidationSettings, SamplingSettings, OptimisationSettings, ABC):
    """Settings of all three stages."""

    name: ClassVar[StageName]
    loss: LossWeights = field(default_factory=LossWeights)

    @property
    @abstractmethod
    def learning_rates(self) -> Mapping[str, float]:
        """The subnets that the stage trains, and their largest learning rates; 0 freezes a subnet."""

    def problems(self) -> Iterator[str]:
        """Describe each setting that is out of range, and what was expected."""
        yield from OptimisationSettings.problems(self)
        yield from SamplingSettings.problems(self)
        yield from ValidationSettings.problems(self)
        yield from (f"loss.{problem}" for problem in self.loss.problems())


@dataclass(frozen=True, kw_only=True)
class ImageStage(TrainingStage, ABC):
    """A stage that trains the ISR and segmentation subnets on images."""

    crop: int = 256
    """Side of the HR crop, px; 0: whole frames."""
    annotated: float = 1.0
    """Share of a batch with lesion masks. The other photographs train the losses that need no masks (Eqs. 4-6, 9)."""
    union_share: float = 0.25
    """Share of photographs with union labels only, such as HEI-MED's, among those with masks (interpretation R32)."""
    augmentation: Augmentation = field(default_factory=Augmentation)
    lr_isr: float = 5e-4
    """Largest learning rate of the ISR subnet; 0 freezes it."""
    lr_segmentation: float = 2e-3
    """Largest learning rate of the segmentation subnet; 0 freezes it."""
    end_to_end: bool = False
    """Whether the segmentation and grading losses also train the ISR subnet, beside Eq. (11) (interpretation R27)."""

    def problems(self) -> Iterator[str]:
        """Describe each setting that is out of range, and what was expected."""
        yield from super().problems()
        if self.crop < 0 or self.crop % 16:
            yield f"crop = {self.crop}, expected a multiple of 16, or 0 for whole frames"
        yield from _not_shares(
            annotated=self.annotated, union_share=self.union_share, degraded=self.augmentation.degraded
        )


@dataclass(frozen=True, kw_only=True)
class RestorationStage(ImageStage):
    """Stage 1a: super-resolution and lesion segmentation, on crops."""

    name: ClassVar[StageName] = "restoration"
    batch_norm_batches: int = 32
    """Batches over which the running statistics of batch normalisation are estimated anew at the end of the stage, for
    the averaged weights (interpretation R29); 0: they stay as they are.
    """

    @property
    def learning_rates(self) -> Mapping[str, float]:
        """Largest learning rates of the ISR and the segmentation subnet."""
        return {"isr": self.lr_isr, "segmentation": self.lr_segmentation}


@dataclass(frozen=True, kw_only=True)
class GradingStage(TrainingStage):
    """Stage 1b: grading of whole frames, from the cached outputs of the frozen ISR and segmentation subnets."""

    name: ClassVar[StageName] = "grading"
    lr_grading: float = 1e-3
    """Largest learning rate of the grading subnet; 0 freezes it."""
    balance: float = 0.5
    """Grades are drawn with frequency ** -balance. 0: as often as they occur; 1: all equally often."""
    max_per_grade: int = 0
    """Largest number of photographs of one grade and data set, the first by name; 0: all."""
    small_frame_share: float = 0.0
    """Share of the steps at the beginning that use frames of a quarter of the side, which is faster."""
    hide_image: float = 0.0
    """How often the grading subnet gets the lesion maps without the image, so that it learns to use the maps. Has no
    effect without a segmentation subnet, or if a compared method does not use lesion maps.
    """
    rotation: float = 0.0
    """Largest rotation, degrees, in addition to the eight flips and quarter turns."""
    zoom: float = 1.0
    """The content of a frame is enlarged by a factor in [1/zoom, zoom]."""
    batch_norm_batches: int = 32
    """Batches of whole frames over which the running statistics of batch normalisation are estimated anew at the end of
    the stage (interpretation R29); 0: they stay as they are.
    """

    @property
    def learning_rates(self) -> Mapping[str, float]:
        """Largest learning rate of the grading subnet."""
        return {"grading": self.lr_grading}

    def problems(self) -> Iterator[str]:
        """Describe each setting that is out of range, and what was expected."""
        yield from super().problems()
        yield from _not_shares(small_frame_share=self.small_frame_share, hide_image=self.hide_image)
        if self.zoom < 1 or not 0 <= self.rotation <= 180:
            yield f"zoom = {self.zoom}, rotation = {self.rotation}, expected at least 1, and 0 to 180 degrees"


@dataclass(frozen=True, kw_only=True)
class JointStage(ImageStage):
    """Stage 2: all three subnets together, on whole frames with and without lesion masks."""

    name: ClassVar[StageName] = "joint"
    batch: int = 1
    crop: int = 0
    lr_grading: float = 1e-3
    """Largest learning rate of the grading subnet; 0 freezes it."""
    balance: float = 0.5
    """Photographs are drawn with (frequency of their grade) ** -balance. 0: grades as often as they occur."""
    dropout: bool = True
    """Whether the grading loss is computed with dropout. Otherwise the networks are in evaluation mode in this stage:
    batch normalisation is frozen (interpretation R29).
    """
    evidence: StableEvidenceConfig = field(default_factory=StableEvidenceConfig)

    @property
    def learning_rates(self) -> Mapping[str, float]:
        """Largest learning rates of all three subnets."""
        return {"isr": self.lr_isr, "segmentation": self.lr_segmentation, "grading": self.lr_grading}

    def problems(self) -> Iterator[str]:
        """Describe each setting that is out of range, and what was expected."""
        yield from super().problems()
        if self.crop:
            yield f"crop = {self.crop}, expected 0: a grade belongs to a whole frame"
        yield from (f"evidence.{problem}" for problem in self.evidence.problems())


STAGE_TYPES: Mapping[StageName, type[TrainingStage]] = {
    "restoration": RestorationStage,
    "grading": GradingStage,
    "joint": JointStage,
}


def _not_shares(**values: float) -> Iterator[str]:
    for name, value in values.items():
        if not 0 <= value <= 1:
            yield f"{name} = {value}, expected a share from 0 to 1"
