"""Cost of each subnet: parameters and floating-point operations (Sec. IV-A; interpretation R4)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from deepmtdr.model.deepmtdr import DeepMTDR, ModelConfig
from deepmtdr.model.grading import dr_score
from deepmtdr.model.interfaces import Subnet
from deepmtdr.terms import FRAME


class SubnetCost(NamedTuple):
    """Cost of one subnet for one photograph."""

    name: str
    parameters: int
    flops: int
    """Number of floating-point operations of convolutions and matrix products; a multiplication and an addition are
    two.
    """


def count_cost(
    config: ModelConfig, scale: int = 4, frame: int = FRAME, make: Callable[[ModelConfig], DeepMTDR] = DeepMTDR
) -> list[SubnetCost]:
    """Count parameters and operations from the shapes: nothing is computed, and no memory is allocated.

    Args:
        config: size of the network.
        scale: 2, 4 or 8; 1 skips the ISR subnet.
        frame: side of the HR frame in px.
        make: function that makes the network; another one for a compared method.

    Returns:
        The subnets that exist, GMSV (its operations are those of the gradient through the grading subnet), and the
        total.
    """
    with FakeTensorMode():
        model = make(config).eval().requires_grad_(False)
        lr = torch.empty(1, 3, frame // scale, frame // scale)
        image = torch.empty(1, 3, frame, frame)
        maps = torch.empty(1, len(model.labels.lesions), frame, frame)
        costs = [_measure("isr", model.isr, lr, scale) if scale > 1 else SubnetCost("isr", _parameters(model.isr), 0)]
        if model.has_segmentation:
            costs.append(_measure("segmentation", model.segmentation, image))
        if model.has_grading:
            costs.append(_measure("grading", model.grading, image, maps))
        if model.has_grading and model.evidence_method is None:
            graded = model.grading(image.requires_grad_(), maps)
            costs.append(_measure("gmsv", model.gmsv, dr_score(graded.logits), graded.features, maps[:, :1]))
    return [*costs, SubnetCost("total", sum(c.parameters for c in costs), sum(c.flops for c in costs))]


def _measure(name: str, part: nn.Module, *inputs: Tensor | int | tuple[Tensor, ...]) -> SubnetCost:
    with FlopCounterMode(display=False) as counter:
        part(*inputs)
    return SubnetCost(name, _parameters(part), counter.get_total_flops())


def _parameters(part: nn.Module) -> int:
    return sum(parameter.numel() for parameter in part.parameters())


def count_parameters(part: Subnet) -> int:
    """Count the trained parameters, with auxiliary classifiers, without a discriminator."""
    return sum(parameter.numel() for parameter in trained_parameters(part))


def trained_parameters(part: Subnet) -> list[nn.Parameter]:
    """Return the parameters that training changes, without those of a discriminator."""
    excluded = set() if part.discriminator is None else {id(p) for p in part.discriminator.parameters()}
    return [parameter for parameter in part.trained_parameters() if id(parameter) not in excluded]
