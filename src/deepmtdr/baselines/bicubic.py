"""Bicubic interpolation: nothing is learned (Table IV's floor)."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from deepmtdr.model.interfaces import SuperResolver
from deepmtdr.model.isr import bicubic


class Bicubic(SuperResolver):
    """The kernel by which LR images are made here, the other way (a = -1/2; the paper names none for its own)."""

    def forward(self, lr: Float[Tensor, "b 3 h w"], scale: int = 4) -> Float[Tensor, "b 3 H W"]:
        """Enlarge."""
        return bicubic(lr, scale)
