"""U-Net (Ronneberger et al., "Convolutional Networks for Biomedical Image Segmentation", MICCAI 2015). Table III.

Published: 64 to 1,024 channels, two 3x3 convolutions per level, 2x2 transposed convolutions for upsampling, softmax
with cross-entropy that is weighted by class and towards borders between cells, dropout at the end of the encoder. Later
implementations have 31.0 million parameters.

Assumed: batch norm and padded convolutions, as nearly every later version has them (the published network crops its
borders); cross-entropy over the lesion types and the background; background everywhere before training.

Left out: the loss weights and the dropout.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from deepmtdr.labels import DIABETIC_RETINOPATHY, LabelSet
from deepmtdr.losses import LesionLabels, LossWeights, lesion_cross_entropy_loss
from deepmtdr.model.interfaces import DEFAULT_WEIGHTS, Segmenter
from deepmtdr.model.segmentation import init_background_prior

WIDTHS = (64, 128, 256, 512, 1024)


class DoubleConv(nn.Sequential):
    """Twice: conv3x3, batch norm, ReLU."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(
            nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(),
            nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(),
        )


class TransposedUpsample(nn.ConvTranspose2d):
    """Doubles the height and width with a transposed convolution."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(channels_in, channels_out, 2, stride=2)


class UNet(Segmenter):
    """Four levels down, four up, a skip connection at each."""

    block: ClassVar[type[nn.Module]] = DoubleConv
    """Block of each level."""
    upsampling: ClassVar[type[nn.Module]] = TransposedUpsample

    def __init__(self, labels: LabelSet = DIABETIC_RETINOPATHY, widths: tuple[int, ...] = WIDTHS) -> None:
        super().__init__()
        self.down = nn.ModuleList(self.block(i, o) for i, o in zip((3, *widths), widths, strict=False))
        coarse_to_fine = list(zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.rise = nn.ModuleList(self.upsampling(i, o) for i, o in coarse_to_fine)
        self.up = nn.ModuleList(self.block(i, o) for i, o in coarse_to_fine)
        self.to_map = nn.Conv2d(widths[0], len(labels.lesions) + 1, 1)
        init_background_prior([self.to_map])

    def forward(self, network_input: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b k h w"]:
        """Segment; h and w multiples of 16."""
        skips, x = [], network_input
        for level, block in enumerate(self.down):
            x = block(x if level == 0 else F.max_pool2d(x, 2))
            skips.append(x)
        for rise, block, skip in zip(self.rise, self.up, skips[-2::-1], strict=True):
            x = block(torch.cat([skip, rise(x)], dim=1))
        return self.to_map(x).float().softmax(dim=1)

    def loss(
        self, classes: Float[Tensor, "b k h w"], labels: LesionLabels, weights: LossWeights = DEFAULT_WEIGHTS
    ) -> Float[Tensor, ""]:
        """Pixel-wise cross-entropy over the lesion types and the background."""
        return lesion_cross_entropy_loss(classes[:, :-1], *labels)
