"""VNXK, VGGNet with extra kernels. Tables I and II.

Source: Vo and Verma, "New Deep Neural Nets for Fine-Grained Diabetic Retinopathy Recognition on Hybrid Color Space",
ISM 2016.

Published: an improvement of VGGNet by kernels of another size, on the hybrid colour space LGI (`hybrid_colour`). The
layer table is not public, so this follows the description.

From VGG-16 (Simonyan and Zisserman, ICLR 2015): channels, kernels of 3 px, two hidden layers of 4,096 units with half
of them dropped; 138.4 million parameters with 1,000 classes.

Assumed: 16 layers. Each of the five blocks has an extra 5 px kernel parallel to its first 3 px kernel; its output is
added, starts small, and has a separate ReLU, without which the two kernels would equal a single one. Batch norm,
without which 16 layers hardly learn from a random start; 224 px; cross-entropy; VGG-16's learning rate. Parameter names
are those of the published ImageNet state-dict of VGG-16 with batch norm, plus `extra`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from deepmtdr.baselines.hybrid_colour import to_lgi
from deepmtdr.baselines.rgb_grader import RGBGrader
from deepmtdr.baselines.vgg16 import VGG16
from deepmtdr.labels import DIABETIC_RETINOPATHY, LabelSet
from deepmtdr.model.interfaces import GradingOutput, load_pretrained
from deepmtdr.model.preprocessing import to_signed

WIDTHS = (64, 128, 256, 512, 512)
CONVOLUTIONS = (2, 2, 3, 3, 3)
"""Number of convolutions of each block."""
HIDDEN = 4096
EXTRA_KERNEL = 5
INITIAL_GAIN = 0.1
"""Gain of the extra kernels before training: the network starts close to VGG-16."""


class ExtraKernel(nn.Module):
    """5 px convolution, batch norm, ReLU."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, EXTRA_KERNEL, padding=EXTRA_KERNEL // 2, bias=False)
        self.bn = nn.BatchNorm2d(channels_out)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        """Compute the output that is added to the first layer of the block."""
        return F.relu(self.bn(self.conv(x)))


class VNXK(RGBGrader):
    """Thirteen convolutions in five blocks, an extra kernel in each block, three linear layers."""

    size: ClassVar[int] = 224
    learning_rate_factor: ClassVar[float] = VGG16.learning_rate_factor

    def __init__(
        self, labels: LabelSet = DIABETIC_RETINOPATHY, widths: tuple[int, ...] = WIDTHS, hidden: int = HIDDEN
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        self.extra = nn.ModuleList()
        before = 3
        for width, convolutions in zip(widths, CONVOLUTIONS, strict=True):
            self.extra.append(ExtraKernel(before, width))
            for _ in range(convolutions):
                layers += [nn.Conv2d(before, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
                before = width
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Linear(before * 7 * 7, hidden),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(hidden, len(labels.grades)),
        )
        self.channels = widths
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if isinstance(module, ExtraKernel):
                nn.init.constant_(module.bn.weight, INITIAL_GAIN)

    def grade(self, rgb: Float[Tensor, "b 3 s s"], lesions: Float[Tensor, "b l s s"]) -> GradingOutput:
        """Grade the image without the lesion maps."""
        x, features, layers = to_signed(to_lgi(rgb)), [], iter(self.features)
        for extra, convolutions in zip(self.extra, CONVOLUTIONS, strict=True):
            added = extra(x)
            for number in range(convolutions):
                conv, norm, relu = next(layers), next(layers), next(layers)
                x = relu(norm(conv(x)))
                if number == 0:
                    x = x + added
            features.append(x)
            x = next(layers)(x)
        pooled = F.adaptive_avg_pool2d(x, 7).flatten(1)
        return GradingOutput(self.classifier(pooled), tuple(features))

    def load_imagenet(self, state: Mapping[str, Tensor]) -> None:
        """Copy published weights of VGG-16 with batch norm; the extra kernels and the last layer keep their values."""
        load_pretrained(self, state, skip_prefixes=("extra.", "classifier.6."))
