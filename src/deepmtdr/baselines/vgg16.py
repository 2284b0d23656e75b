"""VGG-16 (Simonyan & Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR 2015).

Fig. 3 (a), there with SPP (`spp`).

Published: configuration D, thirteen convolutions of 3 px in five blocks with max pooling after each, dense layers of
4,096, 4,096 and 1,000 units with half of the hidden ones dropped, 224 px, cross-entropy, 138.4 million parameters.

Assumed: depth 16 (the paper has only "[35]"); He's initialisation of the convolutions, instead of the published start
from a shallower network's weights; a tenth of the recipe's learning rate, because Adam changes each of the 25,088
weights of a hidden unit by about the learning rate. Parameter names are those of the published ImageNet state-dict.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from deepmtdr.baselines.rgb_grader import RGBGrader
from deepmtdr.labels import DIABETIC_RETINOPATHY, LabelSet
from deepmtdr.model.interfaces import GradingOutput, load_pretrained
from deepmtdr.model.preprocessing import normalise_imagenet

BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
DENSE = 4096
POOLED_GRID = 7
"""Cells per side of the dense layers' input: 224 px / 32."""


class VGG16(RGBGrader):
    """Five blocks of convolutions, three dense layers."""

    published_parameters: ClassVar[float | None] = 138.36
    size: ClassVar[int] = 224
    learning_rate_factor: ClassVar[float] = 0.1
    skip_prefixes: ClassVar[tuple[str, ...]] = ("classifier.6.",)
    """Layers that do not take published weights."""

    def __init__(self, labels: LabelSet = DIABETIC_RETINOPATHY, pooled: int = BLOCKS[-1][-1] * POOLED_GRID**2) -> None:
        """Build the network.

        Args:
            labels: the label set, which has the grades.
            pooled: length of the first dense layer's input.
        """
        super().__init__()
        layers, width = [], 3
        for block in BLOCKS:
            for channels in block:
                layers += [nn.Conv2d(width, channels, 3, padding=1), nn.ReLU()]
                width = channels
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Linear(pooled, DENSE),
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(DENSE, DENSE),
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(DENSE, len(labels.grades)),
        )
        self.channels = tuple(block[-1] for block in BLOCKS)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.01)
            if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def extract_features(self, rgb: Float[Tensor, "b 3 h w"]) -> tuple[Float[Tensor, "b _ _ _"], ...]:
        """Compute the output of each block before its pooling: strides 1, 2, 4, 8, 16."""
        features, x = [], normalise_imagenet(rgb)
        for layer in list(self.features)[:-1]:
            if isinstance(layer, nn.MaxPool2d):
                features.append(x)
            x = layer(x)
        return (*features, x)

    def head(self, x: Float[Tensor, "b d h w"]) -> Float[Tensor, "b c"]:
        """Apply the last pooling and the dense layers."""
        return self.classifier(F.adaptive_avg_pool2d(self.features[-1](x), POOLED_GRID).flatten(1))

    def grade(self, rgb: Float[Tensor, "b 3 s s"], lesions: Float[Tensor, "b l s s"]) -> GradingOutput:
        """Grade the image without the lesion maps."""
        features = self.extract_features(rgb)
        return GradingOutput(self.head(features[-1]), features)

    def load_imagenet(self, state: Mapping[str, Tensor]) -> None:
        """Copy published weights; the last layer keeps its values."""
        load_pretrained(self, state, self.skip_prefixes)
