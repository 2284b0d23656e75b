"""Bicubic interpolation, which is not trained: the baseline of Table IV."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from deepmtdr.losses import LossWeights
from deepmtdr.model.interfaces import DEFAULT_WEIGHTS, SuperResolver
from deepmtdr.model.isr import bicubic


class Bicubic(SuperResolver):
    """Enlarges with the kernel that also makes the LR images (a = -1/2; the paper does not name its kernel)."""

    def forward(self, lr: Float[Tensor, "b 3 h w"], scale: int = 4) -> Float[Tensor, "b 3 H W"]:
        """Enlarge by bicubic interpolation."""
        return bicubic(lr, scale)

    def loss(
        self, sr: Float[Tensor, "b 3 h w"], hr: Float[Tensor, "b 3 h w"], weights: LossWeights = DEFAULT_WEIGHTS
    ) -> Float[Tensor, ""]:
        """Compute the mean squared error, only for the log: there is nothing to train."""
        return F.mse_loss(sr, hr)
