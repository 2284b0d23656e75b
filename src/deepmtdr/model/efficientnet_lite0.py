"""EfficientNet-Lite0 without its classifier: a stem, 16 inverted residual blocks and a last convolution.

EfficientNet (Tan and Le, ICML 2019) at its smallest size; the Lite form has no squeeze-and-excitation, and ReLU6 in
place of swish. Parameter names, batch norm and padding are those of the PyPI package efficientnet-lite-pytorch, so that
its published ImageNet weights load.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from deepmtdr.model.interfaces import load_pretrained

STEM = 32
"""Channels of the first convolution."""
LAST = 1280
"""Channels of the last convolution."""
EPSILON = 1e-3
"""Constant added to the variance in batch norm, with which the published weights were trained."""
MOMENTUM = 0.01
"""Weight of a batch in the running statistics of batch norm."""


class Stage(NamedTuple):
    """Blocks of the same kind; only the first has the stride."""

    blocks: int
    kernel: int
    stride: int
    expansion: int
    """Factor of the channels between the first and the last 1x1 convolution of a block."""
    channels: int
    """Output channels."""


STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)
CHANNELS = (96, 144, 240, 672, LAST)
"""Channels of the five features, strides 2, 4, 8, 16 and 32."""


class SamePaddedConv2d(nn.Conv2d):
    """Convolution without bias whose output has ceil(size / stride) pixels a side: TensorFlow's "SAME" padding.

    If the padding is odd, the right and lower side get one more, so a stride of 2 is not the same as with PyTorch's
    symmetric padding. For sides that are multiples of 32 it equals the fixed padding of efficientnet-lite-pytorch.
    """

    def __init__(self, channels_in: int, channels_out: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(channels_in, channels_out, kernel, stride, groups=groups, bias=False)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d H W"]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Pad and convolve."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        height, width = (_same_padding(size, kernel, stride) for size in x.shape[-2:])
        if height % 2 or width % 2:
            x = F.pad(x, (width // 2, width - width // 2, height // 2, height - height // 2))
            height = width = 0
        return F.conv2d(x, self.weight, None, self.stride, (height // 2, width // 2), groups=self.groups)


def _same_padding(size: int, kernel: int, stride: int) -> int:
    """Return the rows of padding of both sides together."""
    return max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)


class MBConvBlock(nn.Module):
    """Inverted residual block: 1x1 convolution to more channels, depthwise convolution, 1x1 convolution to fewer."""

    def __init__(self, channels_in: int, stage: Stage, stride: int, drop_connect: float) -> None:
        super().__init__()
        inside = channels_in * stage.expansion
        self.stride, self.drop_connect = stride, drop_connect
        self.has_shortcut = stride == 1 and channels_in == stage.channels
        self._expand_conv = SamePaddedConv2d(channels_in, inside, 1) if stage.expansion > 1 else None
        self._bn0 = nn.BatchNorm2d(inside, eps=EPSILON, momentum=MOMENTUM) if stage.expansion > 1 else None
        self._depthwise_conv = SamePaddedConv2d(inside, inside, stage.kernel, stride, groups=inside)
        self._bn1 = nn.BatchNorm2d(inside, eps=EPSILON, momentum=MOMENTUM)
        self._project_conv = SamePaddedConv2d(inside, stage.channels, 1)
        self._bn2 = nn.BatchNorm2d(stage.channels, eps=EPSILON, momentum=MOMENTUM)

    def forward(self, x: Float[Tensor, "b c h w"]) -> tuple[Float[Tensor, "b e h w"], Float[Tensor, "b d H W"]]:
        """Return the activations after the first ReLU6, and the output, which has no ReLU6."""
        expanded = x
        if self._expand_conv is not None and self._bn0 is not None:
            expanded = F.relu6(self._bn0(self._expand_conv(x)))
        y = F.relu6(self._bn1(self._depthwise_conv(expanded)))
        y = self._bn2(self._project_conv(y))
        return expanded, self._drop(y) + x if self.has_shortcut else y

    def _drop(self, y: Float[Tensor, "b d h w"]) -> Float[Tensor, "b d h w"]:
        """In training, leave the block out for a random share of the batch, and scale up the rest."""
        if not (self.training and self.drop_connect):
            return y
        kept = torch.rand(len(y), 1, 1, 1, device=y.device) >= self.drop_connect
        return y * kept.to(y.dtype) / (1 - self.drop_connect)


class EfficientNetLite0(nn.Module):
    """The network up to the last convolution."""

    output_channels = (16, 24, 40, 112, 320)
    """Channels of the `stage_outputs`, strides 2, 4, 8, 16 and 32."""

    def __init__(
        self, extra_channels: int = 0, drop_connect: float = 0.2, *, has_last_convolution: bool = True
    ) -> None:
        """Make the layers.

        Args:
            extra_channels: further input channels of the stem after RGB; their weights start at 0.
            drop_connect: probability with which the last block is left out for a photograph in training; it falls
                linearly to 0 at the first block (published: 0.2).
            has_last_convolution: False leaves out the last convolution, which `stage_outputs` does not need.
        """
        super().__init__()
        self._conv_stem = SamePaddedConv2d(3 + extra_channels, STEM, 3, stride=2)
        self._bn0 = nn.BatchNorm2d(STEM, eps=EPSILON, momentum=MOMENTUM)
        self._blocks = nn.ModuleList(_make_blocks(drop_connect))
        if has_last_convolution:
            self._conv_head = SamePaddedConv2d(STAGES[-1].channels, LAST, 1)
            self._bn1 = nn.BatchNorm2d(LAST, eps=EPSILON, momentum=MOMENTUM)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        with torch.no_grad():
            self._conv_stem.weight[:, 3:] = 0

    def forward(self, x: Float[Tensor, "b c h w"]) -> tuple[Float[Tensor, "b _ _ _"], ...]:
        """Compute the features.

        Args:
            x: RGB normalised by `preprocessing.normalise_imagenet`, then the extra channels.

        Returns:
            The last activations after a ReLU6 at each of the strides 2, 4, 8, 16 and 32 (interpretation R33).
        """
        x = F.relu6(self._bn0(self._conv_stem(x)))
        features: list[Tensor] = []
        for block in self._blocks:
            expanded, y = block(x)
            if block.stride == 2:
                features.append(expanded)
            x = y
        return (*features, F.relu6(self._bn1(self._conv_head(x))))

    def stage_outputs(self, x: Float[Tensor, "b c h w"]) -> tuple[Float[Tensor, "b _ _ _"], ...]:
        """Compute the outputs of the last blocks at the strides 2, 4, 8, 16 and 32, which have no ReLU6.

        Args:
            x: as for `forward`.
        """
        x = F.relu6(self._bn0(self._conv_stem(x)))
        outputs: list[Tensor] = []
        for block in self._blocks:
            if block.stride == 2:
                outputs.append(x)
            x = block(x)[1]
        return (*outputs, x)

    def load_imagenet(self, state: Mapping[str, Tensor]) -> None:
        """Copy the published weights; extra channels of the stem keep their values.

        Args:
            state: state-dict of efficientnet-lite-pytorch; `_fc.*`, the classifier, is not used.

        Raises:
            ValueError: if a tensor is missing or has another shape; nothing is changed then.
        """
        load_pretrained(self, state, skip_prefixes=(), rgb_stem="_conv_stem.weight")


def _make_blocks(drop_connect: float) -> Iterator[MBConvBlock]:
    """Make the 16 blocks; the probability of leaving one out rises from 0 at the first."""
    channels, count, index = STEM, sum(stage.blocks for stage in STAGES), 0
    for stage in STAGES:
        for n in range(stage.blocks):
            yield MBConvBlock(channels, stage, stage.stride if n == 0 else 1, drop_connect * index / count)
            channels, index = stage.channels, index + 1
