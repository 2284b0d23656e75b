"""DenseNet-121 (Huang et al., "Densely Connected Convolutional Networks", CVPR 2017). Tables I and II.

Published: growth rate 32, bottlenecks of 128 channels, blocks of 6, 12, 24 and 16 layers, half of the channels between
them, 224 px, cross-entropy, 7.98 million parameters with 1,000 classes (6.95 without the last layer).

Assumed: the input has the native size. Parameter names are those of the published ImageNet state-dict.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from deepmtdr.baselines.rgb_grader import RGBGrader
from deepmtdr.labels import DIABETIC_RETINOPATHY, LabelSet
from deepmtdr.model.interfaces import GradingOutput, load_pretrained
from deepmtdr.model.preprocessing import normalise_imagenet

STEM = 64
GROWTH = 32
LAYERS = (6, 12, 24, 16)


class DenseLayer(nn.Module):
    """Adds `GROWTH` channels to its input: norm, ReLU, conv1x1, norm, ReLU, conv3x3."""

    def __init__(self, channels_in: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(channels_in)
        self.conv1 = nn.Conv2d(channels_in, 4 * GROWTH, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(4 * GROWTH)
        self.conv2 = nn.Conv2d(4 * GROWTH, GROWTH, 3, padding=1, bias=False)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        """Concatenate the input and the new channels."""
        new = self.conv2(F.relu(self.norm2(self.conv1(F.relu(self.norm1(x))))))
        return torch.cat([x, new], dim=1)


class Transition(nn.Module):
    """Halves the channels and the size."""

    def __init__(self, channels_in: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels_in)
        self.conv = nn.Conv2d(channels_in, channels_in // 2, 1, bias=False)

    def forward(self, x: Float[Tensor, "b c h w"]) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "b d H W"]]:
        """Compute the features after the ReLU, and the input of the next block."""
        activated = F.relu(self.norm(x))
        return activated, F.avg_pool2d(self.conv(activated), 2)


class DenseNet121(RGBGrader):
    """A stem and four dense blocks; global average pooling; one linear layer."""

    published_parameters: ClassVar[float | None] = 7.98
    size: ClassVar[int] = 224

    def __init__(self, labels: LabelSet = DIABETIC_RETINOPATHY) -> None:
        super().__init__()
        layers = {"conv0": nn.Conv2d(3, STEM, 7, stride=2, padding=3, bias=False), "norm0": nn.BatchNorm2d(STEM)}
        width, channels = STEM, [STEM]
        for n, number in enumerate(LAYERS, 1):
            block = {f"denselayer{i}": DenseLayer(width + GROWTH * (i - 1)) for i in range(1, number + 1)}
            layers[f"denseblock{n}"] = nn.Sequential()
            for name, layer in block.items():
                layers[f"denseblock{n}"].add_module(name, layer)
            width += GROWTH * number
            channels.append(width)
            if n < len(LAYERS):
                layers[f"transition{n}"] = Transition(width)
                width //= 2
        layers["norm5"] = nn.BatchNorm2d(width)
        self.features = nn.ModuleDict(layers)
        self.classifier = nn.Linear(width, len(labels.grades))
        self.channels = tuple(channels)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
        nn.init.zeros_(self.classifier.bias)

    def extract_features(self, rgb: Float[Tensor, "b 3 h w"]) -> tuple[Float[Tensor, "b _ _ _"], ...]:
        """The stem and the four blocks, each after the norm and ReLU that follow it: strides 2, 4, 8, 16, 32."""
        part = self.features
        features = [F.relu(part["norm0"](part["conv0"](normalise_imagenet(rgb))))]
        x = F.max_pool2d(features[0], 3, stride=2, padding=1)
        for n in range(1, len(LAYERS)):
            activated, x = part[f"transition{n}"](part[f"denseblock{n}"](x))
            features.append(activated)
        return (*features, F.relu(part["norm5"](part[f"denseblock{len(LAYERS)}"](x))))

    def head(self, x: Float[Tensor, "b d h w"]) -> Float[Tensor, "b c"]:
        """Apply the pooling and the linear layer."""
        return self.classifier(x.mean(dim=(2, 3)))

    def grade(self, rgb: Float[Tensor, "b 3 s s"], lesions: Float[Tensor, "b l s s"]) -> GradingOutput:
        """Grade the image without the lesion maps."""
        features = self.extract_features(rgb)
        return GradingOutput(self.head(features[-1]), features)

    def load_imagenet(self, state: Mapping[str, Tensor]) -> None:
        """Copy published weights; the last layer keeps its values.

        Args:
            state: the usual state-dict, or the one first published, in which `norm1` is called `norm.1`.

        Raises:
            ValueError: if a tensor is missing or has another shape.
        """
        renamed = {re.sub(r"\.(norm|conv)\.([12])\.", r".\1\2.", name): tensor for name, tensor in state.items()}
        load_pretrained(self, renamed, skip_prefixes=("classifier.",))
