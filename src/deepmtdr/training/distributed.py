"""Share a batch among several processes, with the sums, statistics and gradients of one process (Sec. IV-C).

Sums over all processes are differentiable, and every process computes the same losses from them. The mean of the
processes' gradients is then the gradient of one process with the whole batch. DDP cannot do this: a step has several
backward passes, one for each subnet, and one goes through a gradient (Eq. 5).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch import distributed as dist

from deepmtdr.losses import AllReduce
from deepmtdr.training.step_losses import SINGLE_PROCESS, Processes

if TYPE_CHECKING:
    from lightning_fabric import Fabric


class _AllReduce(torch.autograd.Function):
    """Differentiable sum over all processes."""

    @staticmethod
    def forward(ctx: object, part: Tensor) -> Tensor:
        total = part.detach().clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: object, *gradients: Tensor) -> Tensor:
        return _AllReduce.apply(gradients[0].contiguous())


def get_processes(fabric: Fabric) -> Processes:
    """Return the processes of the run."""
    return SINGLE_PROCESS if fabric.world_size == 1 else Processes(fabric.world_size, _AllReduce.apply)


def average_gradients(parameters: Iterable[nn.Parameter], processes: Processes) -> None:
    """Replace every process's gradients by their mean; all processes must have gradients of the same parameters."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    if processes.world_size == 1 or not gradients:
        return
    whole = torch.cat([gradient.reshape(-1) for gradient in gradients])
    dist.all_reduce(whole)
    whole /= processes.world_size
    for gradient, mean in zip(gradients, whole.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))


@contextmanager
def sync_batch_norm(model: nn.Module, processes: Processes) -> Iterator[None]:
    """Context manager with batch normalisation over all processes, on any device (that of PyTorch needs a GPU)."""
    norms = (
        [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)] if processes.world_size > 1 else []
    )
    for norm in norms:
        norm.forward = partial(_batch_norm, norm, processes.all_reduce)  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield
    finally:
        for norm in norms:
            del norm.forward


def _batch_norm(norm: nn.BatchNorm2d, all_reduce: AllReduce, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    if not norm.training:
        return nn.BatchNorm2d.forward(norm, x)
    values = x.float()
    count = all_reduce(values.new_tensor(float(x.numel() // x.shape[1])))
    mean = all_reduce(values.sum(dim=(0, 2, 3))) / count
    centred = values - mean[:, None, None]
    variance = all_reduce(centred.square().sum(dim=(0, 2, 3))) / count
    if norm.momentum and norm.running_mean is not None and norm.running_var is not None:
        with torch.no_grad():
            norm.running_mean.lerp_(mean, norm.momentum)
            norm.running_var.lerp_(variance * count / (count - 1), norm.momentum)
            norm.num_batches_tracked += 1  # pyright: ignore[reportOperatorIssue]
    scale = norm.weight * (variance + norm.eps).rsqrt()
    return (centred * scale[:, None, None] + norm.bias[:, None, None]).to(x.dtype)
