"""DeepMTDR, the whole network of Fig. 6: super-resolution, lesion segmentation, grading and evidence."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from deepmtdr.labels import DIABETIC_RETINOPATHY, LabelSet
from deepmtdr.losses import GradeLabels, LesionLabels, LossWeights
from deepmtdr.model.efficientnet_grading import EfficientNetGradingConfig, EfficientNetLite0Grader
from deepmtdr.model.efficientnet_segmentation import EfficientNetSegmentationConfig, EfficientNetSegmentationSubnet
from deepmtdr.model.gmsv import GMSV, GMSVConfig
from deepmtdr.model.grading import GradingConfig, GradingSubnet, dr_score
from deepmtdr.model.interfaces import (
    DEFAULT_WEIGHTS,
    EvidenceMethod,
    Grader,
    GradingOutput,
    Prediction,
    Segmenter,
    SuperResolver,
)
from deepmtdr.model.isr import ISRConfig, ISRSubnet
from deepmtdr.model.segmentation import LesionSegmentationSubnet, SegmentationConfig
from deepmtdr.model.stable_evidence import TURNS, turn, turn_back
from deepmtdr.model.value_checks import check_finite_outputs, check_image


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Size of the whole network."""

    isr: ISRConfig = field(default_factory=ISRConfig)
    segmentation: SegmentationConfig = field(default_factory=SegmentationConfig)
    grading: GradingConfig = field(default_factory=GradingConfig)
    efficientnet_segmentation: EfficientNetSegmentationConfig = field(default_factory=EfficientNetSegmentationConfig)
    """Settings of the segmentation subnet of the system "DeepMT-DR, EfficientNet-Lite0"; others do not use them."""
    efficientnet_grading: EfficientNetGradingConfig = field(default_factory=EfficientNetGradingConfig)
    """Settings of the grading subnet of the system "DeepMT-DR, EfficientNet-Lite0"; others do not use them."""
    gmsv: GMSVConfig = field(default_factory=GMSVConfig)
    segments: bool = True
    """Whether there is a lesion segmentation subnet (Sec. V-C). False: the grading subnet gets empty lesion maps."""

    def problems(self) -> Iterator[str]:
        """Describe each setting that is out of range, and what was expected."""
        parts = {
            "isr": self.isr,
            "segmentation": self.segmentation,
            "grading": self.grading,
            "efficientnet_segmentation": self.efficientnet_segmentation,
            "efficientnet_grading": self.efficientnet_grading,
        }
        for name, part in parts.items():
            yield from (f"{name}.{problem}" for problem in part.problems())


class Parts(NamedTuple):
    """The parts of Fig. 6: those of the paper, or those of a compared method."""

    isr: SuperResolver
    segmentation: Segmenter | None
    """The segmentation network; None: no lesion is segmented."""
    grading: Grader | None
    """The grading network; None: nothing is graded."""
    evidence: EvidenceMethod | None = None
    """The method that computes the evidence; None: GMSV."""
    task_aware: bool = True
    """Whether the joint stage uses the losses of Eqs. (4), (5) and (9)."""


class DeepMTDR(nn.Module):
    """The network of Fig. 6. One checkpoint serves x2, x4 and x8 (interpretation R1).

    A compared method (`deepmtdr.systems`) is the same network with other parts, so that the same code trains and
    scores all of them.
    """

    def __init__(
        self,
        config: ModelConfig | None = None,
        parts: Parts | None = None,
        labels: LabelSet = DIABETIC_RETINOPATHY,
    ) -> None:
        """Connect the parts.

        Args:
            config: size of the paper's subnets.
            parts: the parts; None: those of the paper.
            labels: lesion types and grades of all parts.
        """
        super().__init__()
        config = config or ModelConfig()
        parts = parts or paper_parts(config, labels)
        self.labels = labels
        self.has_segmentation = parts.segmentation is not None and config.segments
        self.has_grading = parts.grading is not None
        self.evidence_method, self.task_aware = parts.evidence, parts.task_aware
        self.isr = parts.isr
        self.segmentation = parts.segmentation or NoSegmentation(labels)
        self.grading = parts.grading or NoGrading(labels)
        self.gmsv = GMSV(self.grading.channels, config.gmsv)

    @property
    def subnets(self) -> dict[str, SuperResolver | Segmenter | Grader]:
        """The trained parts by name, in the order of `SUBNETS`."""
        return {"isr": self.isr, "segmentation": self.segmentation, "grading": self.grading}

    def forward(self, lr: Float[Tensor, "b 3 h w"], scale: int = 4) -> Prediction:
        """Super-resolve, segment and grade: Fig. 6 from left to right.

        Args:
            lr: low-resolution photographs, RGB in [0, 1].
            scale: 2, 4 or 8; 1: `lr` is the HR frame itself, and the ISR subnet is skipped (interpretation R19).

        Returns:
            The prediction, differentiable.
        """
        return self.segment_and_grade(self.super_resolve(lr, scale))

    def super_resolve(self, lr: Float[Tensor, "b 3 h w"], scale: int = 4) -> Float[Tensor, "b 3 H W"]:
        """Apply only the ISR subnet; scale 1 returns `lr`."""
        return lr if scale == 1 else self.isr(lr, scale)

    def segment_and_grade(self, frame: Float[Tensor, "b 3 H W"]) -> Prediction:
        """Segment and grade a frame, super-resolved or HR."""
        segmentation_input, grading_input = self.preprocess(frame)
        return self._grade_segmented(frame, self.segment(segmentation_input), grading_input)

    def _grade_segmented(
        self,
        frame: Float[Tensor, "b 3 H W"],
        classes: Float[Tensor, "b k H W"],
        grading_input: Float[Tensor, "b 3 H W"],
    ) -> Prediction:
        lesions, lesion_region = classes[:, :-1], 1 - classes[:, -1:]
        # The lesion maps stay attached: Eq. (5) changes the image through them too (interpretation R27). Which subnets
        # a loss trains is decided in the backward pass.
        graded = self.grade(grading_input, lesions)
        return Prediction(frame, lesions, lesion_region, *graded)

    def preprocess(
        self, frame: Float[Tensor, "b 3 H W"], local_mean: Float[Tensor, "b 3 H W"] | None = None
    ) -> tuple[Float[Tensor, "b 3 H W"], Float[Tensor, "b 3 H W"]]:
        """Compute the inputs of the segmentation and of the grading network, in [-3, 3].

        Args:
            frame: a whole frame, or crops.
            local_mean: for crops, the local means of their frames (see `local_contrast`); None: a whole frame.
        """
        segmentation_input = self.segmentation.preprocess(frame, local_mean)
        if self.grading.preprocess is self.segmentation.preprocess:
            return segmentation_input, segmentation_input
        return segmentation_input, self.grading.preprocess(frame, local_mean)

    def segment(self, segmentation_input: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b k H W"]:
        """Predict the lesion types and the background; only background without a segmentation subnet."""
        if self.has_segmentation:
            return self.segmentation(segmentation_input)
        return background_only(segmentation_input, self.labels)

    def grade(self, grading_input: Float[Tensor, "b 3 H W"], lesions: Float[Tensor, "b l H W"]) -> GradingOutput:
        """Compute logits and features of frames; equal logits and no features without a grading subnet."""
        return self.grading(*self.grading.reduce(grading_input, lesions))

    def evidence(self, prediction: Prediction, *, create_graph: bool = False) -> Float[Tensor, "b 1 H W"]:
        """Compute the evidence for the disease; 0 without a grading subnet.

        Args:
            prediction: a prediction whose logits and features are still attached to their graph.
            create_graph: keep the evidence differentiable through its gradient weights, too, for Eq. (5).
        """
        if not self.has_grading:
            return torch.zeros_like(prediction.lesion_region)
        if self.evidence_method is not None:
            return self.evidence_method(self.grading, prediction, create_graph=create_graph)
        score = dr_score(prediction.grade_logits)
        region = prediction.lesion_region.detach()
        return self.gmsv(score, prediction.features, region, create_graph=create_graph)

    def predict(
        self, lr: Float[Tensor, "b 3 h w"], scale: int = 4, turns: int = 1
    ) -> tuple[Prediction, Float[Tensor, "b 1 H W"]]:
        """Compute prediction and evidence, detached. Only the grading subnet builds a graph, for the evidence.

        Args:
            lr: low-resolution photographs, RGB in [0, 1].
            scale: 2, 4 or 8; 1 skips the ISR subnet.
            turns: number of turns over which the evidence is averaged, see `average_evidence`; 1: only the frame as it
                is.

        Returns:
            The prediction (`sr` clamped to [0, 1]) and the evidence in [0, 1].

        Raises:
            ValueError: if `lr` has another shape, type or range, or `scale` or `turns` is none of the allowed numbers.
            PredictionError: if the network returns a value that is not finite.
        """
        check_image(lr, scale)
        if turns not in TURNS:
            raise ValueError(f"found {turns} turns, expected one of {', '.join(map(str, TURNS))}")
        prediction, evidence = self.predict_unchecked(lr, scale)
        if turns > 1:
            evidence = self.average_evidence(prediction, evidence, turns)
        outputs = {"SR image": prediction.sr, "lesions": prediction.lesions, "grade logits": prediction.grade_logits}
        check_finite_outputs({**outputs, "evidence": evidence})
        return prediction, evidence

    def predict_unchecked(
        self, lr: Float[Tensor, "b 3 h w"], scale: int = 4
    ) -> tuple[Prediction, Float[Tensor, "b 1 H W"]]:
        """Compute the same as `predict` with one turn, without checks of values: for training, which has its own."""
        with torch.no_grad():
            frame = self.super_resolve(lr, scale).clamp(0, 1)
            segmentation_input, grading_input = self.preprocess(frame)
            classes = self.segment(segmentation_input)
        with torch.enable_grad():
            attached = self._grade_segmented(frame, classes, grading_input.detach().requires_grad_())
            evidence = self.evidence(attached)
        return _detach(attached), evidence.detach()

    def average_evidence(
        self, prediction: Prediction, evidence: Float[Tensor, "b 1 H W"], turns: int
    ) -> Float[Tensor, "b 1 H W"]:
        """Average the evidence over turns of the frame, each turned back (interpretation R28).

        The lesion maps are turned with the frame, so each turn needs a pass through the grading subnet only.

        Args:
            prediction: the prediction for the frame as it is, detached.
            evidence: its evidence, which is the first of the turns.
            turns: 1, 2, 4 or 8, see `stable_evidence.turn`.
        """
        total = evidence
        for number in range(1, turns):
            turned = turn(prediction.sr, number)
            lesions, region = turn(prediction.lesions, number), turn(prediction.lesion_region, number)
            with torch.enable_grad():
                grading_input = self.grading.preprocess(turned).detach().requires_grad_()
                attached = Prediction(turned, lesions, region, *self.grade(grading_input, lesions))
                total = total + turn_back(self.evidence(attached).detach(), number)
        return total / turns


def paper_parts(config: ModelConfig, labels: LabelSet = DIABETIC_RETINOPATHY) -> Parts:
    """Make the three subnets of the paper."""
    return Parts(
        ISRSubnet(config.isr),
        LesionSegmentationSubnet(labels, config.segmentation),
        GradingSubnet(labels, config.grading),
    )


def efficientnet_parts(config: ModelConfig, labels: LabelSet = DIABETIC_RETINOPATHY) -> Parts:
    """Make the ISR subnet of the paper, and segmentation and grading with EfficientNet-Lite0 (interpretation R33)."""
    return Parts(
        ISRSubnet(config.isr),
        EfficientNetSegmentationSubnet(labels, config.efficientnet_segmentation),
        EfficientNetLite0Grader(labels, config.efficientnet_grading),
    )


def _detach(prediction: Prediction) -> Prediction:
    """Detach the outputs of the grading network, the only ones that can be attached after `predict`."""
    return prediction._replace(
        grade_logits=prediction.grade_logits.detach(),
        features=tuple(feature.detach() for feature in prediction.features),
        extra=tuple(tensor.detach() for tensor in prediction.extra),
        hidden=None if prediction.hidden is None else prediction.hidden.detach(),
    )


def _unchanged(frame: Tensor, local_mean: Tensor | None = None) -> Tensor:
    return frame


def background_only(network_input: Float[Tensor, "b 3 h w"], labels: LabelSet) -> Float[Tensor, "b k h w"]:
    """Return class probabilities without any lesion."""
    batch, _, height, width = network_input.shape
    classes = network_input.new_zeros(batch, len(labels.lesions) + 1, height, width)
    classes[:, -1] = 1
    return classes


class NoSegmentation(Segmenter):
    """Replacement for a missing segmentation network: background everywhere."""

    preprocess = staticmethod(_unchanged)

    def __init__(self, labels: LabelSet = DIABETIC_RETINOPATHY) -> None:
        super().__init__()
        self.labels = labels

    def forward(self, network_input: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b k h w"]:
        """Return probability 1 for the background, 0 for every lesion type."""
        return background_only(network_input, self.labels)

    def loss(
        self, classes: Float[Tensor, "b k h w"], labels: LesionLabels, weights: LossWeights = DEFAULT_WEIGHTS
    ) -> Float[Tensor, ""]:
        """0: there is nothing to train."""
        return classes.new_zeros(())


class NoGrading(Grader):
    """Replacement for a missing grading network: equal logits, no features."""

    preprocess = staticmethod(_unchanged)

    def __init__(self, labels: LabelSet = DIABETIC_RETINOPATHY) -> None:
        super().__init__()
        self.labels = labels

    def forward(self, network_input: Float[Tensor, "b 3 h w"], lesions: Float[Tensor, "b l h w"]) -> GradingOutput:
        """Return logits of 0."""
        return GradingOutput(network_input.new_zeros(network_input.shape[0], len(self.labels.grades)), ())

    def loss(self, graded: GradingOutput, labels: GradeLabels) -> Float[Tensor, ""]:
        """0: there is nothing to train."""
        return graded.logits.new_zeros(())
