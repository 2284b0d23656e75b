"""Features computed again on the way back instead of kept: less memory for more time (`Stage.recompute`)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint

from deepmtdr.errors import RecipeError
from deepmtdr.model.grading import BasicBlock
from deepmtdr.model.isr import ResidualBlock, UpscalingLayer
from deepmtdr.model.segmentation import MultiScaleBlock

_BLOCKS = (ResidualBlock, UpscalingLayer, MultiScaleBlock, BasicBlock)


@contextmanager
def checkpoint_activations(model: nn.Module, wanted: bool = True) -> Iterator[None]:
    """Inside, the blocks of the paper's subnets keep their inputs alone; results and running statistics stay the same.

    Raises:
        RecipeError: if it is wanted of a network that has none of these blocks.
    """
    blocks = [module for module in model.modules() if isinstance(module, _BLOCKS)] if wanted else []
    if wanted and not blocks:
        raise RecipeError("recompute is for the paper's subnets, this network has none; expected recompute = false")
    for block in blocks:
        again = partial(_contexts, block)
        block.forward = partial(checkpoint, block.forward, use_reentrant=False, context_fn=again)
    try:
        yield
    finally:
        for block in blocks:
            del block.forward


def _contexts(block: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    return nullcontext(), _StatisticsKept(block)


class _StatisticsKept(AbstractContextManager[None]):
    """The second time a block is computed its statistics have been counted already; entered once for each way back."""

    def __init__(self, block: nn.Module) -> None:
        self.norms = [module for module in block.modules() if isinstance(module, nn.BatchNorm2d) and module.training]
        self.before = [(norm.momentum, norm.num_batches_tracked) for norm in self.norms]

    def __enter__(self) -> None:
        for norm in self.norms:
            norm.momentum, norm.num_batches_tracked = 0.0, None

    def __exit__(self, *error: object) -> None:
        for norm, (momentum, batches) in zip(self.norms, self.before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, batches
