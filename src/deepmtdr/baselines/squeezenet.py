"""SqueezeNet 1.0 (Iandola et al., "SqueezeNet: AlexNet-Level Accuracy with 50x Fewer Parameters", arXiv 2016). Fig. 3.

Published, in Table 1 of its paper: a convolution of 7 px, eight fire modules, and a convolution to the classes (with
ReLU) that is averaged over the image; no dense layer; half of fire 9 dropped; cross-entropy; 1,248,424 parameters, of
which 513,000 belong to the 1,000 classes.

Assumed: version 1.0, not 1.1; 224 px without padding in the first layer, as in the published PyTorch weights (the 111
px of Table 1 result from 227 px). Parameter names are those of that ImageNet state-dict.

Version 1.1, of the same authors, is not in the paper; its ImageNet weights are available to this project. It has a stem
of 64 channels and 3 px, again without padding, pools after the stem, fire 3 and fire 5, and needs 2.4 times fewer
operations; 1,235,496 parameters.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from deepmtdr.baselines.rgb_grader import RGBGrader
from deepmtdr.labels import DIABETIC_RETINOPATHY, LabelSet
from deepmtdr.model.interfaces import GradingOutput, load_pretrained
from deepmtdr.model.preprocessing import normalise_imagenet


class Layout(NamedTuple):
    """Widths of a version."""

    stem: int
    """Channels of the first convolution."""
    kernel: int
    """Its side in px."""
    squeezed: tuple[tuple[int, ...], ...]
    """Squeeze channels of fire 2-9, with a max pooling before each group; each expand layer has four times as many."""


VERSION_1_0 = Layout(96, 7, ((16, 16, 32), (32, 48, 48, 64), (64,)))
VERSION_1_1 = Layout(64, 3, ((16, 16), (32, 32), (48, 48, 64, 64)))


class Fire(nn.Module):
    """Squeeze by 1x1, then expand by 1x1 and 3x3 side by side."""

    def __init__(self, channels_in: int, squeezed: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels_in, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, 4 * squeezed, 1)
        self.expand3x3 = nn.Conv2d(squeezed, 4 * squeezed, 3, padding=1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        """Apply the module."""
        x = F.relu(self.squeeze(x))
        return F.relu(torch.cat([self.expand1x1(x), self.expand3x3(x)], dim=1))


class SqueezeNet(RGBGrader):
    """A stem and eight fire modules; a map for each grade, averaged."""

    published_parameters: ClassVar[float | None] = 1.25
    size: ClassVar[int] = 224
    layout: ClassVar[Layout] = VERSION_1_0

    def __init__(self, labels: LabelSet = DIABETIC_RETINOPATHY) -> None:
        super().__init__()
        width = self.layout.stem
        layers: list[nn.Module] = [nn.Conv2d(3, width, self.layout.kernel, stride=2), nn.ReLU()]
        for group in self.layout.squeezed:
            layers.append(nn.MaxPool2d(3, stride=2, ceil_mode=True))
            for squeezed in group:
                layers.append(Fire(width, squeezed))
                width = 8 * squeezed
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Dropout(), nn.Conv2d(width, len(labels.grades), 1), nn.ReLU())
        self.channels = (self.layout.stem, *(8 * group[-1] for group in self.layout.squeezed))
        for name, module in self.named_modules():
            if isinstance(module, nn.Conv2d) and module.bias is not None:
                if name.startswith("classifier"):
                    nn.init.normal_(module.weight, std=0.01)
                else:
                    nn.init.kaiming_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def extract_features(self, rgb: Float[Tensor, "b 3 h w"]) -> tuple[Float[Tensor, "b _ _ _"], ...]:
        """Compute the layers before each pooling, and fire 9: strides 2, 4, 8, 16."""
        features, x = [], normalise_imagenet(rgb)
        for layer in self.features:
            if isinstance(layer, nn.MaxPool2d):
                features.append(x)
            x = layer(x)
        return (*features, x)

    def head(self, x: Float[Tensor, "b d h w"]) -> Float[Tensor, "b c"]:
        """Average the map of each grade."""
        return self.classifier(x).mean(dim=(2, 3))

    def grade(self, rgb: Float[Tensor, "b 3 s s"], lesions: Float[Tensor, "b l s s"]) -> GradingOutput:
        """Grade the image without the lesion maps."""
        features = self.extract_features(rgb)
        return GradingOutput(self.head(features[-1]), features)

    def imagenet_parameters(self) -> Iterator[nn.Parameter]:
        """Return the parameters of all layers but the last."""
        return self.features.parameters()

    def load_imagenet(self, state: Mapping[str, Tensor]) -> None:
        """Copy published weights; the last layer keeps its values."""
        load_pretrained(self, state, skip_prefixes=("classifier.",))


class SqueezeNet11(SqueezeNet):
    """SqueezeNet 1.1."""

    published_parameters: ClassVar[float | None] = 1.24
    layout: ClassVar[Layout] = VERSION_1_1
