"""Bicubic interpolation: nothing is learned (Table IV's floor)."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from deepmtdr.baselines.slots import SuperResolver
from deepmtdr.model.isr import bicubic


class Bicubic(SuperResolver):
    """The kernel by which the paper makes its LR images, the other way (a = -1/2)."""

    def forward(self, lr: Float[Tensor, "b 3 h w"], scale: int = 4) -> Float[Tensor, "b 3 H W"]:
        """Enlarge."""
        return bicubic(lr, scale)
