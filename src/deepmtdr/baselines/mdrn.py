"""MDRN, the multi-scale residual network of Ren et al. Table IV; in Table I it super-resolves for the graders.

"Towards efficient medical lesion image super-resolution based on deep residual networks", Signal Processing: Image
Communication 75, 2019.

Published: the DeepMT-DR paper describes it as "a multi-scale ISR structure with deep residual connections". Its layer
table, loss and parameter count were not available, so this follows the description.

Assumed: "multi-scale" has both meanings: 3 and 5 px convolutions side by side in each block, and one set of features
for all factors. 16 blocks of 64 channels without batch norm and one long skip around them, the size of EDSR's baseline
(Lim et al. 2017). Sub-pixel steps that the factors share, with a last convolution for each. Mean absolute difference.
The last convolutions start at zero and are added to the bicubic image, as those of SRCNN and of our ISR subnet
(interpretation R2).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from deepmtdr.losses import LossWeights
from deepmtdr.model.interfaces import DEFAULT_WEIGHTS, SuperResolver
from deepmtdr.model.isr import UpscalingLayer, bicubic
from deepmtdr.terms import SCALES

WIDTH, BLOCKS = 64, 16


class MultiScaleResidualBlock(nn.Module):
    """3 and 5 px convolutions side by side, half of the channels each; ReLU; a 1x1 convolution fuses them; + x."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fine = nn.Conv2d(width, width // 2, 3, padding=1)
        self.coarse = nn.Conv2d(width, width // 2, 5, padding=2)
        self.fusion = nn.Conv2d(width, width, 1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Add the fused output of both convolutions to x."""
        return x + self.fusion(F.relu(torch.cat([self.fine(x), self.coarse(x)], dim=1)))


class MDRN(SuperResolver):
    """Multi-scale residual blocks on the LR image, then sub-pixel steps of 2."""

    def __init__(self, width: int = WIDTH, blocks: int = BLOCKS) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.blocks = nn.Sequential(*(MultiScaleResidualBlock(width) for _ in range(blocks)))
        self.tail = nn.Conv2d(width, width, 3, padding=1)
        self.upscaling = nn.ModuleList(UpscalingLayer(width) for _ in SCALES)
        self.to_rgb = nn.ModuleDict({str(scale): nn.Conv2d(width, 3, 3, padding=1) for scale in SCALES})
        for parameter in self.to_rgb.parameters():
            nn.init.zeros_(parameter)

    def forward(self, lr: Float[Tensor, "b 3 h w"], scale: int = 4) -> Float[Tensor, "b 3 H W"]:
        """Super-resolve.

        Raises:
            ValueError: if the scale is not 2, 4 or 8.
        """
        if scale not in SCALES:
            raise ValueError(f"MDRN: scale {scale}, expected one of {SCALES}")
        shallow = self.stem(lr)
        x = shallow + self.tail(self.blocks(shallow))
        for layer in self.upscaling[: SCALES.index(scale) + 1]:  # 2 = 2**1, 4 = 2**2, 8 = 2**3
            x = layer(x)
        return bicubic(lr, scale) + self.to_rgb[str(scale)](x)

    def loss(
        self, sr: Float[Tensor, "b 3 h w"], hr: Float[Tensor, "b 3 h w"], weights: LossWeights = DEFAULT_WEIGHTS
    ) -> Float[Tensor, ""]:
        """Compute the mean absolute difference."""
        return F.l1_loss(sr, hr)
