"""DRU-Net (Kou et al., Journal of Medical Imaging 2019), Table III; after the description.

"Microaneurysms segmentation with a U-Net based on recurrent residual convolutional neural network". Published: residual
connections and recurrent convolutions in the blocks of a U-Net. Its layer table and its loss could not be had: the
block is that of the family, R2U-Net (Alom et al. 2018), with t = 2: the input by a 1x1 convolution, two recurrent
layers of a first and t further steps, the input added to what comes out.

Assumed: the widths of U-Net; one kernel for all steps of a layer, as the public R2U-Nets have it (39.09 million
parameters at these widths and one class); nearest x2 and conv3x3 on the way up; softmax with cross-entropy. Unlike
there, each step has its own batch norm: its statistics are not those of the step before, and one set of running means
would fit none of them in evaluation.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from deepmtdr.baselines.slots import Segmenter
from deepmtdr.losses import lesion_cross_entropy_loss
from deepmtdr.model.segmentation import CLASSES

WIDTHS = (64, 128, 256, 512, 1024)
STEPS = 2
"""Recurrent steps after the first (the family's t)."""


class RecurrentConv(nn.Module):
    """conv3x3, batch norm, ReLU; then `STEPS` times the same convolution of the input plus what it gave last."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels) for _ in range(STEPS + 1))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """The state after the last step."""
        state = torch.zeros_like(x)
        for norm in self.norms:
            state = F.relu(norm(self.conv(x + state)))
        return state


class RecurrentResidualBlock(nn.Module):
    """1x1 convolution to the width; two recurrent layers beside a shortcut."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.entry = nn.Conv2d(channels_in, channels_out, 1)
        self.layers = nn.Sequential(RecurrentConv(channels_out), RecurrentConv(channels_out))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        """The residual block."""
        x = self.entry(x)
        return x + self.layers(x)


class UpConv(nn.Sequential):
    """Nearest x2, conv3x3, batch norm, ReLU."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(
            nn.Upsample(scale_factor=2),
            nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(),
        )


class DRUNet(Segmenter):
    """U-Net's four levels down and up, a recurrent residual block in place of each pair of convolutions."""

    def __init__(self, widths: tuple[int, ...] = WIDTHS) -> None:
        super().__init__()
        self.down = nn.ModuleList(RecurrentResidualBlock(i, o) for i, o in zip((3, *widths), widths, strict=False))
        coarse_to_fine = list(zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.rise = nn.ModuleList(UpConv(i, o) for i, o in coarse_to_fine)
        self.up = nn.ModuleList(RecurrentResidualBlock(i, o) for i, o in coarse_to_fine)
        self.to_map = nn.Conv2d(widths[0], CLASSES, 1)

    def forward(self, seen: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 5 h w"]:
        """Segment; h and w multiples of 16."""
        skips, x = [], seen
        for level, block in enumerate(self.down):
            x = block(x if level == 0 else F.max_pool2d(x, 2))
            skips.append(x)
        for rise, block, skip in zip(self.rise, self.up, skips[-2::-1], strict=True):
            x = block(torch.cat([skip, rise(x)], dim=1))
        return self.to_map(x).float().softmax(dim=1)

    def loss(
        self,
        classes: Float[Tensor, "b 5 h w"],
        lesion_masks: Float[Tensor, "b 4 h w"],
        annotated: Bool[Tensor, "b 4"],
        total: Callable[[Tensor], Tensor],
    ) -> Float[Tensor, ""]:
        """Pixel-wise cross-entropy over five classes."""
        return lesion_cross_entropy_loss(classes[:, :4], lesion_masks, annotated, total)
