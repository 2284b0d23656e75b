"""EfficientNet-Lite0 (Tan and Le, "EfficientNet: Rethinking Model Scaling for CNNs", ICML 2019): not in the paper.

A network whose ImageNet weights are available to this project, fine-tuned and frozen. Frozen, with a linear
head, it is a control: what ImageNet's features know about a grade without having seen a retina.

Published: EfficientNet-B0 without squeeze-and-excitation, ReLU6 in place of swish; global average, dropout 0.2, one
linear layer; 4,652,008 parameters with 1,000 classes; 224 px.

Assumed: cross-entropy, as for the other graders. 448 px, twice the published size: a microaneurysm of 10 px in the
frame of 1024 px has 4 px left, at 224 px only 2; the sides of the features stay multiples of 32.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from deepmtdr.baselines.rgb_grader import RGBGrader
from deepmtdr.labels import DIABETIC_RETINOPATHY, LabelSet
from deepmtdr.model.efficientnet_lite0 import CHANNELS, LAST, EfficientNetLite0
from deepmtdr.model.interfaces import GradingOutput
from deepmtdr.model.preprocessing import local_contrast, normalise_imagenet

DROPOUT = 0.2
"""Share of the averaged features dropped in training (published)."""


class EfficientNetLite0Classifier(RGBGrader):
    """EfficientNet-Lite0; global average pooling; one linear layer."""

    published_parameters: ClassVar[float | None] = 4.65
    size: ClassVar[int] = 448
    channels: tuple[int, ...] = CHANNELS

    def __init__(self, labels: LabelSet = DIABETIC_RETINOPATHY) -> None:
        super().__init__()
        self.backbone = EfficientNetLite0()
        self.dropout = nn.Dropout(DROPOUT)
        self.classifier = nn.Linear(LAST, len(labels.grades))

    def grade(self, rgb: Float[Tensor, "b 3 s s"], lesions: Float[Tensor, "b l s s"]) -> GradingOutput:
        """Grade the image without the lesion maps."""
        features = self.backbone(normalise_imagenet(rgb))
        return GradingOutput(self.classifier(self.dropout(features[-1].float().mean(dim=(2, 3)))), features)

    def imagenet_parameters(self) -> Iterator[nn.Parameter]:
        """Return the parameters of all layers but the last."""
        return self.backbone.parameters()

    def load_imagenet(self, state: Mapping[str, Tensor]) -> None:
        """Copy published weights; the last layer keeps its values."""
        self.backbone.load_imagenet(state)


class FrozenEfficientNetLite0(RGBGrader):
    """EfficientNet-Lite0 that keeps its weights; mean and maximum of its last features; one trained linear layer.

    Its input is the local contrast of the image: with plain RGB the features depend mostly on the camera.
    """

    size: ClassVar[int] = 448
    channels: tuple[int, ...] = CHANNELS

    def __init__(self, labels: LabelSet = DIABETIC_RETINOPATHY) -> None:
        super().__init__()
        self.backbone = EfficientNetLite0(drop_connect=0.0).requires_grad_(False)
        self.norm = nn.LayerNorm(LAST, elementwise_affine=False)
        self.classifier = nn.Linear(2 * LAST, len(labels.grades))

    def trained_parameters(self) -> Iterator[nn.Parameter]:
        """The linear layer."""
        return self.classifier.parameters()

    def train(self, mode: bool = True) -> FrozenEfficientNetLite0:
        """Set the mode of the linear layer; the frozen layers stay in evaluation mode, with their statistics."""
        super().train(mode)
        self.backbone.eval()
        return self

    def grade(self, rgb: Float[Tensor, "b 3 s s"], lesions: Float[Tensor, "b l s s"]) -> GradingOutput:
        """Grade the image without the lesion maps."""
        features = self.backbone(local_contrast(rgb))
        last = features[-1].float()
        pooled = torch.cat([self.norm(last.mean(dim=(2, 3))), self.norm(last.amax(dim=(2, 3)))], dim=1)
        return GradingOutput(self.classifier(pooled), features)

    def load_imagenet(self, state: Mapping[str, Tensor]) -> None:
        """Copy published weights; the last layer keeps its values."""
        self.backbone.load_imagenet(state)
