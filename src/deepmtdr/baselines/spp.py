"""The four grading networks of Fig. 3 (a) with spatial pyramid pooling (He et al., TPAMI 2015): any input resolution.

Published (Finding 1): "we use SPP before the dense connection layers" of [35], [16], [14], [15] (VGG, SqueezeNet,
ResNet, DenseNet), which are shown 128 to 1,024 px as they come. Assumed: the depths 16, 18 and 121 and SqueezeNet 1.0;
the pyramid of the paper's own grading subnet, 4x4, 2x2 and 1x1 cells by maximum. It takes the place of the last pooling
(as in the SPP paper): of VGG's fifth (whose learning rate stays VGG-16's), of the global averages of ResNet and
DenseNet, and in SqueezeNet, which has no dense layer, of the averaged map of the classes: its last layer becomes a
dense one on the pyramid of fire 9, for whose width, without batch norm before it, the learning rate is VGG-16's too: at
1e-3 it came to give every photograph the same answer. Published weights are taken over up to the pyramid.
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
from deepmtdr.model.grading import PYRAMID, spatial_pyramid_pooling
from deepmtdr.model.interfaces import GradingOutput, load_pretrained
from deepmtdr.terms import Grade

CELLS = sum(level**2 for level in PYRAMID)


class VGG16SPP(VGG16):
    """VGG-16 whose first dense layer sees the pyramid."""

    published_parameters: ClassVar[float | None] = None
    size: ClassVar[int] = 0
    skip_prefixes: ClassVar[tuple[str, ...]] = ("classifier.",)

    def __init__(self) -> None:
        super().__init__(pooled=512 * CELLS)

    def head(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 5"]:
        """The pyramid and the dense layers."""
        return self.classifier(spatial_pyramid_pooling(x))


class SqueezeNetSPP(SqueezeNet):
    """SqueezeNet with one dense layer, on the pyramid."""

    published_parameters: ClassVar[float | None] = None
    size: ClassVar[int] = 0
    lr_factor: ClassVar[float] = VGG16.lr_factor

    def __init__(self) -> None:
        super().__init__()
        self.classifier = nn.Sequential(nn.Dropout(), nn.Linear(self.channels[-1] * CELLS, len(Grade)))

    def head(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 5"]:
        """The pyramid and the dense layer."""
        return self.classifier(spatial_pyramid_pooling(x))


class ResNet18SPP(ResNet18):
    """ResNet-18 whose dense layer sees the pyramid."""

    published_parameters: ClassVar[float | None] = None
    size: ClassVar[int] = 0

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Identity()  # pyright: ignore[reportAttributeAccessIssue]
        self.spp_fc = nn.Linear(self.channels[-1] * CELLS, len(Grade))

    def grade(self, rgb: Float[Tensor, "b 3 s s"], lesions: Float[Tensor, "b 4 s s"]) -> GradingOutput:
        """Grade the photograph; the lesion maps are not looked at."""
        features = super().grade(rgb, lesions).features
        return GradingOutput(self.spp_fc(spatial_pyramid_pooling(features[-1])), features)

    def load_imagenet(self, state: Mapping[str, Tensor]) -> None:
        """Take over published ImageNet weights but for the last layer.

        Raises:
            ValueError: if a tensor is missing or has another shape.
        """
        load_pretrained(self, state, skip_prefixes=("spp_fc.",))


class DenseNet121SPP(DenseNet121):
    """DenseNet-121 whose dense layer sees the pyramid."""

    published_parameters: ClassVar[float | None] = None
    size: ClassVar[int] = 0

    def __init__(self) -> None:
        super().__init__()
        self.classifier = nn.Linear(self.channels[-1] * CELLS, len(Grade))

    def head(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 5"]:
        """The pyramid and the dense layer."""
        return self.classifier(spatial_pyramid_pooling(x))
