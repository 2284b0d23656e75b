"""CE-Net (Gu et al., "CE-Net: Context Encoder Network for 2D Medical Image Segmentation", TMI 2019). Table III.

Published, in words and as a layer table in the authors' released network (29.0 million parameters with one class): the
four stages of ResNet-34 with ImageNet weights; dense atrous convolution (DAC), four branches of dilations 1, 3 and 5
that share their kernels; residual multi-kernel pooling (RMP), maxima of 2, 3, 5 and 6 cells reduced to one channel
each, 516 channels in all; four decoder blocks, each added to a stage of the encoder. The loss is Dice over the classes.
The released loss for two classes also has cross-entropy, and both are used here: with Dice alone, a lesion type of few
pixels may not be learned at all.

Assumed: softmax over the lesion types and the background, starting from background everywhere; ImageNet's
normalisation; no bias before batch norm; below 192 px, pools that are larger than the map cover all of it; where the
map has an odd side, the decoder's is cropped to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from deepmtdr.labels import DIABETIC_RETINOPATHY, LabelSet
from deepmtdr.losses import LesionLabels, LossWeights, dice_loss, lesion_cross_entropy_loss
from deepmtdr.model.grading import BasicBlock
from deepmtdr.model.interfaces import DEFAULT_WEIGHTS, Segmenter, load_pretrained
from deepmtdr.model.preprocessing import input_to_rgb, normalise_imagenet
from deepmtdr.model.segmentation import init_background_prior

WIDTHS = (64, 128, 256, 512)
DEPTHS = (3, 4, 6, 3)
"""Residual blocks of ResNet-34's stages."""
KERNELS = (2, 3, 5, 6)
"""Sides of the pools in cells."""


class ResNet34(nn.Module):
    """Stem and stages, under the names of the published ImageNet state-dict."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, widths[0], 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        stages = zip((widths[0], *widths), widths, DEPTHS, (1, 2, 2, 2), strict=False)
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            nn.Sequential(BasicBlock(i, o, stride), *(BasicBlock(o, o, 1) for _ in range(1, depth)))
            for i, o, depth, stride in stages
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, rgb: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b _ _ _"]]:
        """Compute the features of the four stages, strides 4 to 32."""
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(rgb))), 3, stride=2, padding=1)
        stages = []
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = layer(x)
            stages.append(x)
        return stages


class DenseAtrousConvolution(nn.Module):
    """DAC: four cascades of dilated convolutions, with receptive fields of 3, 7, 9 and 19 cells, added to the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dilate1, self.dilate3, self.dilate5 = (
            nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation) for dilation in (1, 3, 5)
        )
        self.conv1x1 = nn.Conv2d(channels, channels, 1)
        for conv in (self.dilate1, self.dilate3, self.dilate5, self.conv1x1):
            nn.init.zeros_(conv.bias)  # pyright: ignore[reportArgumentType]

    def branches(self, x: Float[Tensor, "b c h w"]) -> list[Float[Tensor, "b c h w"]]:
        """Apply the four cascades, from narrow to wide."""
        one = self.dilate1(x)
        one_three = self.dilate3(one)
        wider = (self.dilate3(x), one_three, self.dilate5(one_three))
        return [F.relu(one), *(F.relu(self.conv1x1(cascade)) for cascade in wider)]

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Add the cascades to the input."""
        return torch.stack([x, *self.branches(x)]).sum(dim=0)


class ResidualMultiKernelPooling(nn.Module):
    """RMP: four max poolings of different sizes, one channel each, in front of the input's channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.to_one = nn.Conv2d(channels, 1, 1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c+4 h w"]:
        """Concatenate the pooled context and the input."""
        size = height, width = x.shape[-2:]
        pooled = (F.max_pool2d(x, (min(kernel, height), min(kernel, width))) for kernel in KERNELS)
        context = (F.interpolate(self.to_one(p), size=size, mode="bilinear", align_corners=False) for p in pooled)
        return torch.cat([*context, x], dim=1)


class DecoderBlock(nn.Sequential):
    """1x1 convolution to a quarter, 3x3 transposed convolution x2, 1x1 convolution; batch norm and ReLU after each."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        inner = channels_in // 4
        super().__init__(
            nn.Conv2d(channels_in, inner, 1, bias=False),
            nn.BatchNorm2d(inner),
            nn.ReLU(),
            nn.ConvTranspose2d(inner, inner, 3, stride=2, padding=1, output_padding=1, bias=False),
            nn.BatchNorm2d(inner),
            nn.ReLU(),
            nn.Conv2d(inner, channels_out, 1, bias=False),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(),
        )


class CENet(Segmenter):
    """Encoder, context extractor, decoder."""

    published_parameters: ClassVar[float | None] = 29.0

    def __init__(self, labels: LabelSet = DIABETIC_RETINOPATHY, widths: tuple[int, ...] = WIDTHS) -> None:
        super().__init__()
        self.encoder = ResNet34(widths)
        self.dac = DenseAtrousConvolution(widths[-1])
        self.rmp = ResidualMultiKernelPooling(widths[-1])
        channels_in = (widths[-1] + len(KERNELS), *widths[2:0:-1], widths[0])
        channels_out = (*widths[2::-1], widths[0])
        self.decoder = nn.ModuleList(DecoderBlock(i, o) for i, o in zip(channels_in, channels_out, strict=True))
        self.to_map = nn.Sequential(
            nn.ConvTranspose2d(widths[0], widths[0] // 2, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(widths[0] // 2, widths[0] // 2, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(widths[0] // 2, len(labels.lesions) + 1, 3, padding=1),
        )
        init_background_prior([layer for layer in self.to_map if isinstance(layer, nn.Conv2d)][-1:])

    def forward(self, network_input: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b k h w"]:
        """Segment; h and w multiples of 16."""
        *skips, x = self.encoder(normalise_imagenet(input_to_rgb(network_input)))
        x = self.rmp(self.dac(x))
        for block, skip in zip(self.decoder, skips[::-1], strict=False):
            x = block(x)[..., : skip.shape[-2], : skip.shape[-1]] + skip
        return self.to_map(self.decoder[-1](x)).float().softmax(dim=1)

    def loss(
        self, classes: Float[Tensor, "b k h w"], labels: LesionLabels, weights: LossWeights = DEFAULT_WEIGHTS
    ) -> Float[Tensor, ""]:
        """Dice, the mean over the types, plus pixel-wise cross-entropy."""
        return dice_loss(classes[:, :-1], *labels) + lesion_cross_entropy_loss(classes[:, :-1], *labels)

    def load_imagenet(self, state: Mapping[str, Tensor]) -> None:
        """Copy published weights of ResNet-34 into the encoder."""
        load_pretrained(self.encoder, state, skip_prefixes=())
