"""What each subnet costs: parameters and floating-point operations (Sec. IV-A; reading R4)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from deepmtdr.model.deepmtdr import DeepMTDR, ModelConfig
from deepmtdr.model.grading import dr_score
from deepmtdr.terms import FRAME


class SubnetCost(NamedTuple):
    """Of one part of the network, for one photograph."""

    name: str
    parameters: int
    flops: int
    """A multiplication and an addition are two. Convolutions and matrix products count; what costs little does not."""


def count_cost(
    config: ModelConfig, scale: int = 4, frame: int = FRAME, make: Callable[[ModelConfig], DeepMTDR] = DeepMTDR
) -> list[SubnetCost]:
    """Count on shapes alone: nothing is computed, no memory is taken.

    Args:
        config: size of the network.
        scale: 2, 4 or 8: the way into the frame; 1 skips the ISR subnet.
        frame: side of the HR frame in px.
        make: what makes the network; a compared method has its own.

    Returns:
        The subnets that there are, GMSV (whose operations are those of the gradient through the grading subnet), and
        their sum.
    """
    with FakeTensorMode():
        ghost = make(config).eval().requires_grad_(False)
        lr = torch.empty(1, 3, frame // scale, frame // scale)
        image = torch.empty(1, 3, frame, frame)
        maps = torch.empty(1, 4, frame, frame)
        costs = [_measured("isr", ghost.isr, lr, scale) if scale > 1 else SubnetCost("isr", _parameters(ghost.isr), 0)]
        if ghost.has_segmentation:
            costs.append(_measured("segmentation", ghost.segmentation, image))
        if ghost.has_grading:
            costs.append(_measured("grading", ghost.grading, image, maps))
        if ghost.has_grading and ghost.evidence_method is None:
            graded = ghost.grading(image.requires_grad_(), maps)
            costs.append(_measured("gmsv", ghost.gmsv, dr_score(graded.logits), graded.features, maps[:, :1]))
    return [*costs, SubnetCost("total", sum(c.parameters for c in costs), sum(c.flops for c in costs))]


def _measured(name: str, part: nn.Module, *inputs: Tensor | int | tuple[Tensor, ...]) -> SubnetCost:
    with FlopCounterMode(display=False) as counter:
        part(*inputs)
    return SubnetCost(name, _parameters(part), counter.get_total_flops())


def _parameters(part: nn.Module) -> int:
    return sum(parameter.numel() for parameter in part.parameters())


def count_parameters(part: nn.Module) -> int:
    """How many are trained, auxiliary classifiers too, but for an adversary."""
    return sum(p.numel() for p in trained_parameters(part))


def trained_parameters(part: nn.Module) -> list[nn.Parameter]:
    """Parameters that training changes, without those of a discriminator."""
    return [p for name, p in part.named_parameters() if not name.startswith("adversary.")]
