"""Activation checkpointing: features are computed again in the backward pass, which saves memory and costs time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint

from deepmtdr.errors import RecipeError
from deepmtdr.model.efficientnet_lite0 import MBConvBlock
from deepmtdr.model.grading import BasicBlock
from deepmtdr.model.isr import ResidualBlock, UpscalingLayer
from deepmtdr.model.segmentation import MultiScaleBlock

_BLOCKS = (ResidualBlock, UpscalingLayer, MultiScaleBlock, BasicBlock, MBConvBlock)


@contextmanager
def checkpoint_activations(model: nn.Module, wanted: bool = True) -> Iterator[None]:
    """Context manager in which the blocks of the paper's subnets keep only their inputs; results do not change.

    Args:
        model: the network.
        wanted: False: nothing is changed.

    Raises:
        RecipeError: if the network has none of these blocks.
    """
    blocks = [module for module in model.modules() if isinstance(module, _BLOCKS)] if wanted else []
    if wanted and not blocks:
        raise RecipeError(
            "found activation_checkpointing = true in a system without the paper's subnets, expected false"
        )
    for block in blocks:
        contexts = partial(_contexts, block)
        block.forward = partial(checkpoint, block.forward, use_reentrant=False, context_fn=contexts)
    try:
        yield
    finally:
        for block in blocks:
            del block.forward


def _contexts(block: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Make the contexts of the forward pass, and of the second computation in the backward pass."""
    return nullcontext(), _FrozenStatistics(block)


class _FrozenStatistics(AbstractContextManager[None]):
    """Context manager in which batch normalisation does not update its statistics: the forward pass has done it."""

    def __init__(self, block: nn.Module) -> None:
        self.norms = [module for module in block.modules() if isinstance(module, nn.BatchNorm2d) and module.training]
        self.before = [(norm.momentum, norm.num_batches_tracked) for norm in self.norms]

    def __enter__(self) -> None:
        for norm in self.norms:
            norm.momentum, norm.num_batches_tracked = 0.0, None

    def __exit__(self, *error: object) -> None:
        for norm, (momentum, batches) in zip(self.norms, self.before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, batches
