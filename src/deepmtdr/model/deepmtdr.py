"""DeepMTDR wires the three subnets (Fig. 6): super-resolve, segment the lesions, grade, show the evidence."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn

from deepmtdr.model.gmsv import GMSV, GMSVConfig
from deepmtdr.model.grading import GradingConfig, GradingSubnet, dr_score
from deepmtdr.model.isr import ISRConfig, ISRSubnet
from deepmtdr.model.preprocessing import local_contrast
from deepmtdr.model.segmentation import LesionSegmentationSubnet, SegmentationConfig
from deepmtdr.terms import Grade, Lesion


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Size of the whole network."""

    isr: ISRConfig = field(default_factory=ISRConfig)
    segmentation: SegmentationConfig = field(default_factory=SegmentationConfig)
    grading: GradingConfig = field(default_factory=GradingConfig)
    gmsv: GMSVConfig = field(default_factory=GMSVConfig)
    segments: bool = True
    """False removes the lesion segmentation subnet (Sec. V-C): the grading subnet is shown empty lesion maps."""


class Prediction(NamedTuple):
    """Everything the network says of a batch of photographs, in the HR frame."""

    sr: Float[Tensor, "b 3 H W"]
    """Super-resolved image (or the frame itself where the ISR subnet was skipped)."""
    lesions: Float[Tensor, "b 4 H W"]
    """Probabilities of MA, HE, EX, SE."""
    lesion_region: Float[Tensor, "b 1 H W"]
    """1 - P(background): any lesion."""
    grade_logits: Float[Tensor, "b 5"]
    features: tuple[Float[Tensor, "b _ _ _"], ...]
    """The five taps of the grading subnet, fine to coarse."""

    @property
    def grade_probs(self) -> Float[Tensor, "b 5"]:
        """Probabilities of the grades 0-4."""
        return self.grade_logits.softmax(dim=1)


class EvidenceMethod(Protocol):
    """Another way than GMSV to show what spoke for a grade (Table V)."""

    def __call__(
        self, model: DeepMTDR, prediction: Prediction, *, create_graph: bool = False
    ) -> Float[Tensor, "b 1 H W"]:
        """EvidenceMethod in [0, 1], at the size of the frame; the prediction must still carry its graph."""
        ...


class Parts(NamedTuple):
    """The boxes of Fig. 6, or what a compared method has in their place."""

    isr: nn.Module
    """LR images and a scale -> SR images."""
    segmentation: nn.Module | None
    """Frames as it sees them -> probabilities of the four lesion types and the background. None: there is none."""
    grading: nn.Module | None
    """Frames as it sees them and lesion maps -> logits and features by name; `channels` are those of its features."""
    evidence: EvidenceMethod | None = None
    """None: GMSV."""
    task_aware: bool = True
    """Whether the joint stage has the losses of Eqs. (4), (5) and (9)."""


class DeepMTDR(nn.Module):
    """The network of Fig. 6. One checkpoint serves x2, x4 and x8 (reading R1).

    A compared method (`deepmtdr.systems`) is the same wiring with other parts, so that every one is trained, scored
    and shown by the same code.
    """

    def __init__(self, config: ModelConfig | None = None, parts: Parts | None = None) -> None:
        """Wire the parts.

        Args:
            config: size of the paper's subnets.
            parts: what is wired; None makes the paper's own.
        """
        super().__init__()
        config = config or ModelConfig()
        parts = parts or paper_parts(config)
        self.has_segmentation = parts.segmentation is not None and config.segments
        self.has_grading = parts.grading is not None
        self.evidence_method, self.task_aware = parts.evidence, parts.task_aware
        self.isr = parts.isr
        self.segmentation = nn.Identity() if parts.segmentation is None else parts.segmentation
        self.grading = nn.Identity() if parts.grading is None else parts.grading
        self.gmsv = GMSV(() if parts.grading is None else parts.grading.channels, config.gmsv)  # pyright: ignore[reportArgumentType]

    def forward(self, lr: Float[Tensor, "b 3 h w"], scale: int = 4) -> Prediction:
        """Fig. 6 from left to right.

        Args:
            lr: low-resolution photographs, RGB in [0, 1].
            scale: 2, 4 or 8; 1 takes `lr` for the HR frame itself and skips the ISR subnet (reading R19).

        Returns:
            The prediction, differentiable.
        """
        return self.segment_and_grade(self.super_resolve(lr, scale))

    def super_resolve(self, lr: Float[Tensor, "b 3 h w"], scale: int = 4) -> Float[Tensor, "b 3 H W"]:
        """The ISR subnet alone; scale 1 hands the frame on."""
        return lr if scale == 1 else self.isr(lr, scale)

    def segment_and_grade(self, frame: Float[Tensor, "b 3 H W"]) -> Prediction:
        """Segment and grade a frame, super-resolved or HR."""
        seen, shown = self.preprocess(frame)
        classes = self.segment(seen)
        lesions, lesion_region = classes[:, :4], 1 - classes[:, 4:]
        # Reading R10: the grading loss trains the grading subnet, and the ISR subnet through the image; not this one.
        grade_logits, features = self.grade(shown, lesions.detach())
        return Prediction(frame, lesions, lesion_region, grade_logits, features)

    def preprocess(self, frame: Float[Tensor, "b 3 H W"]) -> tuple[Float[Tensor, "b 3 H W"], Float[Tensor, "b 3 H W"]]:
        """A frame as segmentation and grading see it, in [-3, 3]: each part's own `view`, or `local_contrast`."""
        how = [getattr(part, "preprocess", local_contrast) for part in (self.segmentation, self.grading)]
        seen = how[0](frame)
        return seen, seen if how[0] is how[1] else how[1](frame)

    def segment(self, seen: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b 5 H W"]:
        """Probabilities of the four lesion types and the background; background alone without a segmentation subnet."""
        if self.has_segmentation:
            return self.segmentation(seen)
        classes = seen.new_zeros(seen.shape[0], len(Lesion) + 1, *seen.shape[2:])
        classes[:, -1] = 1
        return classes

    def grade(
        self, seen: Float[Tensor, "b 3 H W"], lesions: Float[Tensor, "b 4 H W"]
    ) -> tuple[Float[Tensor, "b 5"], tuple[Float[Tensor, "b _ _ _"], ...]]:
        """Logits of the grades and the taps; equal logits and no tap without a grading subnet."""
        if self.has_grading:
            grading = self.grading(seen, lesions)
            return grading.logits, grading.features
        return seen.new_zeros(seen.shape[0], len(Grade)), ()

    def evidence(self, prediction: Prediction, *, create_graph: bool = False) -> Float[Tensor, "b 1 H W"]:
        """The evidence of the grades; the prediction must still carry its graph. 0 without a grading subnet."""
        if not self.has_grading:
            return torch.zeros_like(prediction.lesion_region)
        if self.evidence_method is not None:
            return self.evidence_method(self, prediction, create_graph=create_graph)
        score = dr_score(prediction.grade_logits)
        region = prediction.lesion_region.detach()
        return self.gmsv(score, prediction.features, region, create_graph=create_graph)

    def predict(self, lr: Float[Tensor, "b 3 h w"], scale: int = 4) -> tuple[Prediction, Float[Tensor, "b 1 H W"]]:
        """For use: prediction and evidence without any graph left; only the grading subnet is run with one.

        Args:
            lr: low-resolution photographs, RGB in [0, 1].
            scale: 2, 4 or 8; 1 skips the ISR subnet.

        Returns:
            The prediction (`sr` clamped to [0, 1]) and the evidence in [0, 1].
        """
        with torch.no_grad():
            frame = self.super_resolve(lr, scale).clamp(0, 1)
            seen, shown = self.preprocess(frame)
            classes = self.segment(seen)
        lesions, lesion_region = classes[:, :4], 1 - classes[:, 4:]
        with torch.enable_grad():
            grade_logits, features = self.grade(shown.requires_grad_(), lesions)
            attached = Prediction(frame, lesions, lesion_region, grade_logits, features)
            evidence = self.evidence(attached)
        taps = tuple(tap.detach() for tap in features)
        return attached._replace(grade_logits=grade_logits.detach(), features=taps), evidence.detach()


def paper_parts(config: ModelConfig) -> Parts:
    """The three subnets of the paper."""
    return Parts(ISRSubnet(config.isr), LesionSegmentationSubnet(config.segmentation), GradingSubnet(config.grading))
