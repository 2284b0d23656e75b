"""Warm start for the running statistics of batch normalisation.

The statistics begin as mean 0 and variance 1, and change slowly: a network that is validated after 30 steps would still
be normalised by these values, unlike in training.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


@contextmanager
def warm_start_batch_norm(model: nn.Module) -> Iterator[None]:
    """Context manager in which running statistics are the mean over the batches so far.

    Args:
        model: the network. After many batches the mean would change more slowly than with the usual momentum; from then
            on the momentum is used. A norm that has counted batches before continues with its count. A norm whose
            statistics were set without counting uses only the momentum.
    """
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.momentum]
    usual = [norm.momentum for norm in norms]
    hooks = [norm.register_forward_pre_hook(_Weigh(norm)) for norm in norms]
    try:
        yield
    finally:
        for norm, hook, momentum in zip(norms, hooks, usual, strict=True):
            hook.remove()
            norm.momentum = momentum


class _Weigh:
    """Hook before each batch: sets the batch's weight in the running statistics."""

    def __init__(self, norm: _BatchNorm) -> None:
        self.usual = norm.momentum or 0.0
        counted = 0 if norm.num_batches_tracked is None else int(norm.num_batches_tracked)
        self.batches = counted or (0 if _untouched(norm) else ENOUGH_BATCHES)

    def __call__(self, norm: _BatchNorm, _: object) -> None:
        if norm.training and norm.momentum:  # 0 in the second computation of activation checkpointing
            self.batches += 1
            norm.momentum = max(self.usual, 1 / self.batches)


ENOUGH_BATCHES = 1_000_000
"""Number of batches after which only the momentum is used."""


def _untouched(norm: _BatchNorm) -> bool:
    mean, variance = norm.running_mean, norm.running_var
    return mean is None or variance is None or not (mean.any() or (variance != 1).any())
