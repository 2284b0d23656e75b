"""ResNet-18 (He et al., "Deep Residual Learning for Image Recognition", CVPR 2016). Tables I and II, Figs. 3 to 5.

Published: 11.69 million parameters with 1,000 classes (11.18 without the last layer).

Assumed: 224 px, its native size; cross-entropy. Parameter names are those of the published ImageNet state-dict.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from deepmtdr.baselines.rgb_grader import RGBGrader
from deepmtdr.labels import DIABETIC_RETINOPATHY, LabelSet
from deepmtdr.model.grading import BasicBlock
from deepmtdr.model.interfaces import GradingOutput, load_pretrained
from deepmtdr.model.preprocessing import normalise_imagenet

WIDTHS = (64, 128, 256, 512)


class ResNet18(RGBGrader):
    """A stem and four stages of two basic blocks; global average pooling; one linear layer."""

    published_parameters: ClassVar[float | None] = 11.69
    size: ClassVar[int] = 224

    def __init__(self, labels: LabelSet = DIABETIC_RETINOPATHY) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, WIDTHS[0], 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        stages = zip((WIDTHS[0], *WIDTHS), WIDTHS, (1, 2, 2, 2), strict=False)
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            nn.Sequential(BasicBlock(i, o, stride), BasicBlock(o, o, 1)) for i, o, stride in stages
        )
        self.fc = nn.Linear(WIDTHS[-1], len(labels.grades))
        self.channels = (WIDTHS[0], *WIDTHS)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def grade(self, rgb: Float[Tensor, "b 3 s s"], lesions: Float[Tensor, "b l s s"]) -> GradingOutput:
        """Grade the image without the lesion maps."""
        features = [F.relu(self.bn1(self.conv1(normalise_imagenet(rgb))))]
        x = F.max_pool2d(features[0], 3, stride=2, padding=1)
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = layer(x)
            features.append(x)
        return GradingOutput(self.fc(x.mean(dim=(2, 3))), tuple(features))

    def load_imagenet(self, state: Mapping[str, Tensor]) -> None:
        """Copy published weights; the last layer keeps its values."""
        load_pretrained(self, state, skip_prefixes=("fc.",))
