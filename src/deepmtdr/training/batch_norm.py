"""Running statistics of batch normalisation that are the batches' own from the first step on.

By themselves they begin as mean 0 and variance 1 and forget that slowly: after 30 steps networks are scored with norms
that they were not trained with, of which a short run has few others.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


@contextmanager
def warm_start_batch_norm(model: nn.Module) -> Iterator[None]:
    """Inside, statistics are the mean over the first batches, as long as that is fewer than the norm's momentum takes.

    Args:
        model: whose norms; those that have counted batches before go on from there, and those whose statistics are not
            the first ones any more, though nobody has counted, by their momentum alone.
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
    """Before each batch: its weight in the norm's statistics."""

    def __init__(self, norm: _BatchNorm) -> None:
        self.usual = norm.momentum or 0.0
        counted = 0 if norm.num_batches_tracked is None else int(norm.num_batches_tracked)
        self.batches = counted or (0 if _untouched(norm) else ENOUGH_BATCHES)

    def __call__(self, norm: _BatchNorm, _: object) -> None:
        if norm.training and norm.momentum:  # recomputed features are not counted again
            self.batches += 1
            norm.momentum = max(self.usual, 1 / self.batches)


ENOUGH_BATCHES = 1_000_000
"""Batches after which none is a first one."""


def _untouched(norm: _BatchNorm) -> bool:
    mean, variance = norm.running_mean, norm.running_var
    return mean is None or variance is None or not (mean.any() or (variance != 1).any())
