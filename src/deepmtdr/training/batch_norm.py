"""Running statistics of batch normalisation: their start, and a new estimate at the end of a stage.

The statistics begin as mean 0 and variance 1, and change slowly: a network that is validated after 30 steps would still
be normalised by these values, unlike in training. At the end of a stage they belong to other weights than the averaged
ones, and in the grading stage to frames of another size, if it began on small frames (interpretation R29).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

T = TypeVar("T")


def reestimate_batch_norm(part: nn.Module, run: Callable[[T], object], inputs: Iterable[T]) -> None:
    """Replace running statistics by the mean and variance over the given batches, which have equal weights.

    The variance includes that between the batches. Nothing else of the network changes. A layer with frozen weights
    keeps its statistics.

    Args:
        part: the network whose statistics are estimated; other networks that `run` calls keep theirs.
        run: function that passes a batch through the network.
        inputs: the batches; without any, the statistics stay as they are.
    """
    norms = [n for n in part.modules() if isinstance(n, _BatchNorm) and n.running_mean is not None and _is_trained(n)]
    usual = [(norm.training, norm.momentum) for norm in norms]
    moments = [[torch.zeros_like(moment) for moment in _moments(norm)] for norm in norms]
    batches = 0
    try:
        for norm in norms:
            norm.train()
            norm.momentum = 1.0  # the running statistics are then those of the batch
        with torch.no_grad():
            for batch in inputs if norms else ():
                run(batch)
                batches += 1
                for sums, norm in zip(moments, norms, strict=True):
                    first, second = _moments(norm)
                    sums[0] += first
                    sums[1] += second
    finally:
        for norm, (training, momentum) in zip(norms, usual, strict=True):
            norm.train(training)
            norm.momentum = momentum
    for (first, second), norm in zip(moments, norms, strict=True) if batches else ():
        _set_moments(norm, first / batches, second / batches)


def _is_trained(norm: _BatchNorm) -> bool:
    return norm.weight is None or norm.weight.requires_grad


def _set_moments(norm: _BatchNorm, first: torch.Tensor, second: torch.Tensor) -> None:
    assert norm.running_mean is not None and norm.running_var is not None
    norm.running_mean.copy_(first)
    norm.running_var.copy_((second - first.square()).clamp_min(0))


def _moments(norm: _BatchNorm) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the first and second moment that the running statistics describe."""
    assert norm.running_mean is not None and norm.running_var is not None
    mean = norm.running_mean.double()
    return mean, norm.running_var.double() + mean.square()


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
