"""SRCNN (Dong et al., "Image Super-Resolution Using Deep Convolutional Networks", TPAMI 2016), Table IV.

The paper's [6] is its first version, ECCV 2014.

Published: three convolutions of 9, 1 and 5 px with 64 and 32 channels on the bicubic image; mean squared error; 8,032
    weights, on the luminance only.

Different here: input and output are RGB, since the paper's PSNR is computed on RGB (interpretation R16).

Assumed: one set of weights for all scales; padding, so that no border is lost; a last layer that starts at zero and is
added to the bicubic image, so that training starts where the published network arrives after very many steps.
"""

from __future__ import annotations

from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from deepmtdr.losses import LossWeights
from deepmtdr.model.interfaces import DEFAULT_WEIGHTS, SuperResolver
from deepmtdr.model.isr import bicubic


class SRCNN(SuperResolver):
    """Patch extraction, non-linear mapping, reconstruction."""

    published_parameters: ClassVar[float | None] = 0.008

    def __init__(self) -> None:
        super().__init__()
        self.extraction = nn.Conv2d(3, 64, 9, padding=4)
        self.mapping = nn.Conv2d(64, 32, 1)
        self.reconstruction = nn.Conv2d(32, 3, 5, padding=2)
        nn.init.zeros_(self.reconstruction.weight)
        nn.init.zeros_(self.reconstruction.bias)  # pyright: ignore[reportArgumentType]

    def forward(self, lr: Float[Tensor, "b 3 h w"], scale: int = 4) -> Float[Tensor, "b 3 H W"]:
        """Enlarge by bicubic interpolation, then sharpen."""
        image = bicubic(lr, scale)
        return image + self.reconstruction(F.relu(self.mapping(F.relu(self.extraction(image)))))

    def loss(
        self, sr: Float[Tensor, "b 3 h w"], hr: Float[Tensor, "b 3 h w"], weights: LossWeights = DEFAULT_WEIGHTS
    ) -> Float[Tensor, ""]:
        """Mean squared error."""
        return F.mse_loss(sr, hr)
