"""DRU-Net (Kou et al., Journal of Medical Imaging 2019). Table III.

"Microaneurysms segmentation with a U-Net based on recurrent residual convolutional neural network" (PMC6582229).

Published: residual connections and recurrent convolutions in the blocks of a U-Net. The text was not available, so this
follows the description. The block is that of R2U-Net (Alom et al. 2018) with t = 2: a 1x1 convolution of the input, two
recurrent layers of one first and t further steps, and the input added to the output.

Assumed: the widths of U-Net; one kernel for all steps of a layer, as in the public R2U-Nets (39.09 million parameters
at these widths and one class); nearest x2 and conv3x3 for upsampling; softmax with cross-entropy.

Different here: each step has its own batch norm. The statistics of a step differ from those of the step before, and one
set of running means would fit none of them in evaluation.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from deepmtdr.baselines.u_net import UNet

STEPS = 2
"""Recurrent steps after the first (t of R2U-Net)."""


class RecurrentConv(nn.Module):
    """conv3x3, batch norm, ReLU; then `STEPS` times the same convolution of the input plus the last output."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels) for _ in range(STEPS + 1))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Apply all steps; returns the output of the last step."""
        state = torch.zeros_like(x)
        for norm in self.norms:
            state = F.relu(norm(self.conv(x + state)))
        return state


class RecurrentResidualBlock(nn.Module):
    """1x1 convolution to the width; two recurrent layers with a shortcut."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.entry = nn.Conv2d(channels_in, channels_out, 1)
        self.layers = nn.Sequential(RecurrentConv(channels_out), RecurrentConv(channels_out))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        """Apply the residual block."""
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


class DRUNet(UNet):
    """U-Net's four levels down and up, with a recurrent residual block instead of each pair of convolutions."""

    block: ClassVar[type[nn.Module]] = RecurrentResidualBlock
    upsampling: ClassVar[type[nn.Module]] = UpConv
