"""SRCNN (Dong et al., "Image Super-Resolution Using Deep Convolutional Networks", TPAMI 2016), Table IV.

The paper's [6] is its first form, ECCV 2014. Published: three convolutions of 9, 1 and 5 px with 64 and 32 channels on
the bicubic image, mean squared error, 8,032 weights on the luminance alone. Here it sees and gives RGB: the paper's
PSNR is taken on RGB (reading R16). Assumed: one set of weights for all scales, padding in place of lost borders, and a
last layer that starts at zero beside the bicubic image, so that it begins where the published one arrives after very
many steps.
"""

from __future__ import annotations

from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from deepmtdr.model.interfaces import SuperResolver
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
        """Sharpen the bicubic image."""
        image = bicubic(lr, scale)
        return image + self.reconstruction(F.relu(self.mapping(F.relu(self.extraction(image)))))
