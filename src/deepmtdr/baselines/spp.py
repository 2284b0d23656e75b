"""The four grading networks of Fig. 3 (a) with spatial pyramid pooling (He et al., TPAMI 2015): any input resolution.

Published (Finding 1): "we use SPP before the dense connection layers" of [35], [16], [14], [15] (VGG, SqueezeNet,
ResNet, DenseNet), whose inputs have 128 to 1,024 px and are not resized.

Assumed: the depths 16, 18 and 121, and SqueezeNet 1.0; the pyramid of the paper's grading subnet, 4x4, 2x2 and 1x1
cells by maximum. The pyramid replaces the last pooling, as in the SPP paper: the fifth pooling of VGG (with VGG-16's
learning rate), and the global averages of ResNet and DenseNet. SqueezeNet has no dense layer: here a dense layer on the
pyramid of fire 9 replaces the averaged class maps. It is wide and has no batch norm before it, so its learning rate is
VGG-16's too; at 1e-3 the network gave every photograph the same grade. Published weights are used up to the pyramid.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from deepmtdr.baselines.densenet121 import DenseNet121
from deepmtdr.baselines.resnet18 import ResNet18
from deepmtdr.baselines.squeezenet import SqueezeNet
from deepmtdr.baselines.vgg16 import VGG16
from deepmtdr.labels import DIABETIC_RETINOPATHY, LabelSet
from deepmtdr.model.grading import PYRAMID, spatial_pyramid_pooling
from deepmtdr.model.interfaces import GradingOutput, load_pretrained

CELLS = sum(level**2 for level in PYRAMID)


class VGG16SPP(VGG16):
    """VGG-16 with the pyramid before its first dense layer."""

    published_parameters: ClassVar[float | None] = None
    size: ClassVar[int] = 0
    skip_prefixes: ClassVar[tuple[str, ...]] = ("classifier.",)

    def __init__(self, labels: LabelSet = DIABETIC_RETINOPATHY) -> None:
        super().__init__(labels, pooled=512 * CELLS)

    def head(self, x: Float[Tensor, "b d h w"]) -> Float[Tensor, "b c"]:
        """The pyramid and the dense layers."""
        return self.classifier(spatial_pyramid_pooling(x))


class SqueezeNetSPP(SqueezeNet):
    """SqueezeNet with one dense layer, on the pyramid."""

    published_parameters: ClassVar[float | None] = None
    size: ClassVar[int] = 0
    learning_rate_factor: ClassVar[float] = VGG16.learning_rate_factor

    def __init__(self, labels: LabelSet = DIABETIC_RETINOPATHY) -> None:
        super().__init__(labels)
        self.classifier = nn.Sequential(nn.Dropout(), nn.Linear(self.channels[-1] * CELLS, len(labels.grades)))

    def head(self, x: Float[Tensor, "b d h w"]) -> Float[Tensor, "b c"]:
        """The pyramid and the dense layer."""
        return self.classifier(spatial_pyramid_pooling(x))


class ResNet18SPP(ResNet18):
    """ResNet-18 with the pyramid before its dense layer."""

    published_parameters: ClassVar[float | None] = None
    size: ClassVar[int] = 0

    def __init__(self, labels: LabelSet = DIABETIC_RETINOPATHY) -> None:
        super().__init__(labels)
        self.fc = nn.Identity()  # pyright: ignore[reportAttributeAccessIssue]
        self.spp_fc = nn.Linear(self.channels[-1] * CELLS, len(labels.grades))

    def grade(self, rgb: Float[Tensor, "b 3 s s"], lesions: Float[Tensor, "b l s s"]) -> GradingOutput:
        """Grade the image without the lesion maps."""
        features = super().grade(rgb, lesions).features
        return GradingOutput(self.spp_fc(spatial_pyramid_pooling(features[-1])), features)

    def load_imagenet(self, state: Mapping[str, Tensor]) -> None:
        """Copy published weights; the last layer keeps its values."""
        load_pretrained(self, state, skip_prefixes=("spp_fc.",))


class DenseNet121SPP(DenseNet121):
    """DenseNet-121 with the pyramid before its dense layer."""

    published_parameters: ClassVar[float | None] = None
    size: ClassVar[int] = 0

    def __init__(self, labels: LabelSet = DIABETIC_RETINOPATHY) -> None:
        super().__init__(labels)
        self.classifier = nn.Linear(self.channels[-1] * CELLS, len(labels.grades))

    def head(self, x: Float[Tensor, "b d h w"]) -> Float[Tensor, "b c"]:
        """The pyramid and the dense layer."""
        return self.classifier(spatial_pyramid_pooling(x))
