"""CKML Net, combined kernels with multiple losses. Tables I and II.

Source: Vo and Verma, "New Deep Neural Nets for Fine-Grained Diabetic Retinopathy Recognition on Hybrid Color Space",
ISM 2016.

Published: an improvement of GoogLeNet that combines kernels of several sizes and is trained with several losses, on the
hybrid colour space LGI (`hybrid_colour`). The layer table is not public, so this follows the description.

From GoogLeNet (Szegedy et al., CVPR 2015): the channels of its nine inception modules, and two auxiliary classifiers
after modules 4a and 4d, whose losses have the weight 0.3 and which are used in training mode only.

Assumed: kernels of 3, 5 and 7 px are combined in the first layer too, where small lesions still have a shape; batch
norm instead of local response norm; 224 px; cross-entropy. No public ImageNet state-dict fits these kernels.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from deepmtdr.baselines.hybrid_colour import to_lgi
from deepmtdr.baselines.rgb_grader import RGBGrader, cross_entropy
from deepmtdr.labels import DIABETIC_RETINOPATHY, LabelSet
from deepmtdr.losses import GradeLabels
from deepmtdr.model.interfaces import GradingOutput
from deepmtdr.model.preprocessing import to_signed

STEM = {3: 16, 5: 16, 7: 32}
"""Side of a kernel of the first layer -> its channels; GoogLeNet has 64 of 7 px."""
MODULES = {
    "3a": (192, 64, (96, 128), (16, 32), 32),
    "3b": (256, 128, (128, 192), (32, 96), 64),
    "4a": (480, 192, (96, 208), (16, 48), 64),
    "4b": (512, 160, (112, 224), (24, 64), 64),
    "4c": (512, 128, (128, 256), (24, 64), 64),
    "4d": (512, 112, (144, 288), (32, 64), 64),
    "4e": (528, 256, (160, 320), (32, 128), 128),
    "5a": (832, 256, (160, 320), (32, 128), 128),
    "5b": (832, 384, (192, 384), (48, 128), 128),
}
"""Channels of the input; of the 1 px kernel; before and of the 3 px kernel; before and of the 5 px kernel; after the
pooling."""
LOSS_WEIGHTS = (1.0, 0.3, 0.3)
"""Weights of the losses of the last classifier and of those after 4a and 4d."""
DROPOUT, AUXILIARY_DROPOUT = 0.4, 0.7


def conv(channels_in: int, channels_out: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """Make a convolution with batch norm and ReLU."""
    convolution = nn.Conv2d(channels_in, channels_out, kernel, stride, padding=kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(channels_out), nn.ReLU())


class CombinedKernels(nn.ModuleList):
    """Kernels of several sizes side by side on the same input."""

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d H W"]:
        """Apply all kernels and concatenate their outputs."""
        return torch.cat([branch(x) for branch in self], dim=1)


def inception(channels: int, one: int, three: tuple[int, int], five: tuple[int, int], pooled: int) -> CombinedKernels:
    """Make an inception module: kernels of 1, 3 and 5 px, and a maximum over 3 px; see `MODULES`."""
    return CombinedKernels(
        [
            conv(channels, one, 1),
            nn.Sequential(conv(channels, three[0], 1), conv(*three, 3)),
            nn.Sequential(conv(channels, five[0], 1), conv(*five, 5)),
            nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), conv(channels, pooled, 1)),
        ]
    )


class CKMLAuxiliaryClassifier(nn.Module):
    """Classifier in the middle of the network, with its own loss."""

    def __init__(self, channels: int, grades: int) -> None:
        super().__init__()
        self.conv = conv(channels, 128, 1)
        self.hidden = nn.Linear(128 * 4 * 4, 1024)
        self.classifier = nn.Linear(1024, grades)

    def forward(self, x: Float[Tensor, "b d h w"]) -> Float[Tensor, "b c"]:
        """Logits of the grades, from a grid of 4 x 4."""
        hidden = F.relu(self.hidden(self.conv(F.adaptive_avg_pool2d(x, 4)).flatten(1)))
        return self.classifier(F.dropout(hidden, AUXILIARY_DROPOUT, self.training))


class CKML(RGBGrader):
    """A stem and inception modules of combined kernels, three classifiers."""

    size: ClassVar[int] = 224

    def __init__(self, labels: LabelSet = DIABETIC_RETINOPATHY) -> None:
        super().__init__()
        grades = len(labels.grades)
        self.stem = CombinedKernels([conv(3, channels, kernel, stride=2) for kernel, channels in STEM.items()])
        self.second = nn.Sequential(conv(64, 64, 1), conv(64, 192, 3))
        self.inception = nn.ModuleDict({name: inception(*channels) for name, channels in MODULES.items()})
        self.further = nn.ModuleList([CKMLAuxiliaryClassifier(512, grades), CKMLAuxiliaryClassifier(528, grades)])
        self.classifier = nn.Linear(1024, grades)
        self.channels = (64, 192, 480, 832, 1024)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def grade(self, rgb: Float[Tensor, "b 3 s s"], lesions: Float[Tensor, "b l s s"]) -> GradingOutput:
        """Grade the image without the lesion maps; `extra` has the auxiliary logits in training mode."""
        stem = self.stem(to_signed(to_lgi(rgb)))
        fourth = self.second(_halved(stem))
        eighth = self._through(_halved(fourth), "3a", "3b")
        early = self._through(_halved(eighth), "4a")
        middle = self._through(early, "4b", "4c", "4d")
        sixteenth = self._through(middle, "4e")
        last = self._through(_halved(sixteenth), "5a", "5b")
        logits = self.classifier(F.dropout(last.mean(dim=(2, 3)), DROPOUT, self.training))
        heads = zip(self.further, (early, middle), strict=True)
        further = tuple(head(x) for head, x in heads) if self.training else ()
        return GradingOutput(logits, (stem, fourth, eighth, sixteenth, last), further)

    def _through(self, x: Tensor, *names: str) -> Tensor:
        for name in names:
            x = self.inception[name](x)
        return x

    def loss(self, graded: GradingOutput, labels: GradeLabels) -> Float[Tensor, ""]:
        """Weighted sum of the classifiers' cross-entropies."""
        each = (cross_entropy(x, labels) for x in (graded.logits, *graded.extra))
        return torch.stack([weight * loss for weight, loss in zip(LOSS_WEIGHTS, each, strict=False)]).sum()


def _halved(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 3, stride=2, padding=1)
