"""M-Net, the main branch of Zoom-in-Net. Tables I and II.

Source: Wang et al., "Zoom-in-Net: Deep Mining Lesions for Diabetic Retinopathy Detection", MICCAI 2017.

Published: Inception-ResNet at 492 px. The layers of version 2 are those of Szegedy et al., "Inception-v4,
Inception-ResNet and the Impact of Residual Connections on Learning", AAAI 2017, as Google released them: a stem, 10, 20
and 10 residual inception blocks scaled by 0.17, 0.1 and 0.2, global average pooling, a fifth of the units dropped;
55.84 million parameters with 1,000 classes.

Assumed: version 2 (its last grid at 492 px is 14 x 14); one linear layer to the grades; cross-entropy. The attention
and zoom branches of Zoom-in-Net are not part of M-Net. Parameter names are those of the published ImageNet state-dict
(Cadene's port of Google's weights), which expects RGB in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from deepmtdr.baselines.rgb_grader import RGBGrader
from deepmtdr.labels import DIABETIC_RETINOPATHY, LabelSet
from deepmtdr.model.interfaces import GradingOutput, load_pretrained
from deepmtdr.model.preprocessing import to_signed

BLOCKS = (10, 20, 9)
"""Residual blocks of the three stages; the last stage has one more, without a ReLU."""
SCALES = (0.17, 0.1, 0.2)
DROPOUT = 0.2


class ConvNorm(nn.Module):
    """Convolution, batch norm, ReLU; padded only with `same`."""

    def __init__(
        self, channels_in: int, channels_out: int, kernel: int | tuple[int, int], stride: int = 1, *, same: bool = False
    ) -> None:
        super().__init__()
        height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (height // 2, width // 2) if same else (0, 0)
        self.conv = nn.Conv2d(channels_in, channels_out, (height, width), stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(channels_out, eps=1e-3)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d H W"]:
        """Apply the layer."""
        return F.relu(self.bn(self.conv(x)))


def conv_chain(*channels: int, kernels: tuple[int | tuple[int, int], ...], stride: int = 1) -> nn.Module:
    """Make layers in sequence; only the last can have a stride, and is then unpadded."""
    layers = [ConvNorm(i, o, k, same=True) for i, o, k in zip(channels[:-2], channels[1:-1], kernels[:-1], strict=True)]
    last = ConvNorm(channels[-2], channels[-1], kernels[-1], stride, same=stride == 1)
    return nn.Sequential(*layers, last) if layers else last


class ParallelBranches(nn.Module):
    """Branches side by side."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        for number, branch in enumerate(branches):
            self.add_module(f"branch{number}", branch)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d H W"]:
        """Apply all branches and concatenate their outputs."""
        return torch.cat([branch(x) for branch in self.children()], dim=1)


class ScaledResidual(nn.Module):
    """Branches side by side, projected to the block's channels, scaled and added to the input."""

    def __init__(self, *branches: nn.Module, mixed: int, channels: int, scale: float, relu: bool = True) -> None:
        super().__init__()
        for number, branch in enumerate(branches):
            self.add_module(f"branch{number}", branch)
        self.conv2d = nn.Conv2d(mixed, channels, 1)
        self.scale, self.relu = scale, relu

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Apply the block."""
        *branches, back = self.children()
        x = torch.add(x, back(torch.cat([branch(x) for branch in branches], dim=1)), alpha=self.scale)
        return F.relu(x) if self.relu else x


def block_a() -> ScaledResidual:
    """Make a block Inception-ResNet-A, at an eighth of the size."""
    one, two = conv_chain(320, 32, kernels=(1,)), conv_chain(320, 32, 32, kernels=(1, 3))
    three = conv_chain(320, 32, 48, 64, kernels=(1, 3, 3))
    return ScaledResidual(one, two, three, mixed=128, channels=320, scale=SCALES[0])


def block_b() -> ScaledResidual:
    """Make a block Inception-ResNet-B, at a sixteenth of the size."""
    one, two = conv_chain(1088, 192, kernels=(1,)), conv_chain(1088, 128, 160, 192, kernels=(1, (1, 7), (7, 1)))
    return ScaledResidual(one, two, mixed=384, channels=1088, scale=SCALES[1])


def block_c(*, last: bool = False) -> ScaledResidual:
    """Make a block Inception-ResNet-C, at a 32nd of the size; the last block is not scaled and has no ReLU."""
    one, two = conv_chain(2080, 192, kernels=(1,)), conv_chain(2080, 192, 224, 256, kernels=(1, (1, 3), (3, 1)))
    return ScaledResidual(one, two, mixed=448, channels=2080, scale=1.0 if last else SCALES[2], relu=not last)


class MNet(RGBGrader):
    """Inception-ResNet-v2 with a linear layer to the grades."""

    published_parameters: ClassVar[float | None] = 55.84
    size: ClassVar[int] = 492

    def __init__(self, labels: LabelSet = DIABETIC_RETINOPATHY, blocks: tuple[int, int, int] = BLOCKS) -> None:
        super().__init__()
        self.conv2d_1a = ConvNorm(3, 32, 3, stride=2)
        self.conv2d_2a = ConvNorm(32, 32, 3)
        self.conv2d_2b = ConvNorm(32, 64, 3, same=True)
        self.conv2d_3b = ConvNorm(64, 80, 1)
        self.conv2d_4a = ConvNorm(80, 192, 3)
        pooled = nn.Sequential(nn.AvgPool2d(3, 1, 1, count_include_pad=False), ConvNorm(192, 64, 1))
        self.mixed_5b = ParallelBranches(
            conv_chain(192, 96, kernels=(1,)),
            conv_chain(192, 48, 64, kernels=(1, 5)),
            conv_chain(192, 64, 96, 96, kernels=(1, 3, 3)),
            pooled,
        )
        self.repeat = nn.Sequential(*(block_a() for _ in range(blocks[0])))
        self.mixed_6a = ParallelBranches(
            conv_chain(320, 384, kernels=(3,), stride=2),
            conv_chain(320, 256, 256, 384, kernels=(1, 3, 3), stride=2),
            nn.MaxPool2d(3, stride=2),
        )
        self.repeat_1 = nn.Sequential(*(block_b() for _ in range(blocks[1])))
        self.mixed_7a = ParallelBranches(
            conv_chain(1088, 256, 384, kernels=(1, 3), stride=2),
            conv_chain(1088, 256, 288, kernels=(1, 3), stride=2),
            conv_chain(1088, 256, 288, 320, kernels=(1, 3, 3), stride=2),
            nn.MaxPool2d(3, stride=2),
        )
        self.repeat_2 = nn.Sequential(*(block_c() for _ in range(blocks[2])))
        self.block8 = block_c(last=True)
        self.conv2d_7b = ConvNorm(2080, 1536, 1)
        self.last_linear = nn.Linear(1536, len(labels.grades))
        self.channels = (64, 192, 320, 1088, 1536)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def grade(self, rgb: Float[Tensor, "b 3 s s"], lesions: Float[Tensor, "b l s s"]) -> GradingOutput:
        """Grade the image, of 75 px or more, without the lesion maps."""
        stem = self.conv2d_2b(self.conv2d_2a(self.conv2d_1a(to_signed(rgb))))
        fourth = self.conv2d_4a(self.conv2d_3b(F.max_pool2d(stem, 3, stride=2)))
        eighth = self.repeat(self.mixed_5b(F.max_pool2d(fourth, 3, stride=2)))
        sixteenth = self.repeat_1(self.mixed_6a(eighth))
        last = self.conv2d_7b(self.block8(self.repeat_2(self.mixed_7a(sixteenth))))
        pooled = F.dropout(last.mean(dim=(2, 3)), DROPOUT, self.training)
        return GradingOutput(self.last_linear(pooled), (stem, fourth, eighth, sixteenth, last))

    def load_imagenet(self, state: Mapping[str, Tensor]) -> None:
        """Copy published weights; the last layer keeps its values."""
        load_pretrained(self, state, skip_prefixes=("last_linear.",))
