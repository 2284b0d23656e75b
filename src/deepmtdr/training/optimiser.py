"""AdamW and learning-rate schedules (Sec. IV-C)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from deepmtdr.model.deepmtdr import DeepMTDR
from deepmtdr.model.interfaces import Subnet
from deepmtdr.recipe import TrainingStage

GMSV_LEARNING_RATE = 1e-2
"""Learning rate of the thresholds of Eq. (2), which are shares and rarely get a gradient."""


def one_cycle(progress: float, warm_up: float) -> float:
    """Return the share of the largest learning rate, which rises linearly, then falls along a cosine to 1 %."""
    if progress < warm_up:
        return max(progress / warm_up, 0.01)
    fall = (progress - warm_up) / max(1 - warm_up, 1e-9)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * fall))


def learning_rate_factor(progress: float, subnet: str, stage: TrainingStage) -> float:
    """Return the share of a subnet's largest learning rate, by the schedule of the stage.

    Args:
        progress: share of the stage's steps that are done.
        subnet: isr, segmentation, grading or gmsv.
        stage: the stage with the schedule.
    """
    if stage.schedule == "cosine":
        return one_cycle(progress, stage.warm_up)
    rise = max(min(progress / stage.warm_up, 1.0), 0.01) if stage.warm_up else 1.0
    return rise / (stage.decay_factors.get(subnet, 1.0) if progress >= stage.decay_at else 1.0)


def set_learning_rates(optimiser: torch.optim.Optimizer, progress: float, stage: TrainingStage) -> None:
    """Set every subnet's learning rate for the next step."""
    for group in optimiser.param_groups:
        group["lr"] = group["highest"] * learning_rate_factor(progress, group["subnet"], stage)


def has_trainable_parameters(model: DeepMTDR, stage: TrainingStage) -> bool:
    """Whether the stage trains anything: a compared method may have no parameters in its subnets."""
    return any(
        rate and any(True for _ in model.subnets[name].trained_parameters())
        for name, rate in stage.learning_rates.items()
    )


def build_optimiser(model: DeepMTDR, stage: TrainingStage) -> torch.optim.AdamW:
    """Build AdamW over the subnets of the stage, each with its learning rate; all other parameters are frozen.

    The step is fused: gradients and moments must have the memory layout of their parameters (channels last), which
    `backward` and `load_optimiser_state` ensure.
    """
    model.requires_grad_(False)
    groups = list(_parameter_groups(model, stage))
    for group in groups:
        for parameter in group["params"]:
            parameter.requires_grad_(True)
    return torch.optim.AdamW(groups, lr=0.0, weight_decay=stage.weight_decay, fused=True)


def _parameter_groups(model: DeepMTDR, stage: TrainingStage) -> Iterator[dict[str, Any]]:
    """Make the groups for PyTorch's optimiser, with the largest learning rate of each."""
    for name, rate in stage.learning_rates.items():
        subnet = model.subnets[name]
        highest = rate * subnet.learning_rate_factor
        for parameters, share in _clipped_together(subnet, stage.imagenet_lr_share):
            if highest and parameters:
                yield {"params": parameters, "highest": highest * share, "subnet": name}
    if "grading" in stage.learning_rates and model.has_grading and model.evidence_method is None:
        thresholds = list(model.gmsv.parameters())
        yield {"params": thresholds, "highest": GMSV_LEARNING_RATE, "weight_decay": 0.0, "subnet": "gmsv"}


def _clipped_together(subnet: Subnet, imagenet_share: float) -> Iterator[tuple[list[nn.Parameter], float]]:
    """Return the groups of a subnet's trained parameters that are clipped together, with factors of the learning rate.

    The groups: most parameters, those with ImageNet weights if their learning rate differs, and the discriminator.
    """
    opposed = list(subnet.discriminator.parameters()) if subnet.discriminator else []
    slower = list(subnet.imagenet_parameters()) if imagenet_share != 1 else []
    others = {id(parameter) for parameter in (*opposed, *slower)}
    yield [parameter for parameter in subnet.trained_parameters() if id(parameter) not in others], 1.0
    yield slower, imagenet_share
    yield opposed, 1.0


def optimiser_state(optimiser: torch.optim.Optimizer | None) -> Iterable[tuple[str, Tensor]]:
    """Return the moments of the optimiser, under the names that `load_optimiser_state` expects."""
    if optimiser is not None:
        for index, state in optimiser.state_dict()["state"].items():
            yield from ((f"{index}/{key}", torch.as_tensor(value)) for key, value in state.items())


def load_optimiser_state(optimiser: torch.optim.Optimizer, saved: Mapping[str, Float[Tensor, ...]]) -> None:
    """Restore the moments that `optimiser_state` gave."""
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in saved.items():
        index, name = key.split("/")
        parameter = parameters[int(index)]
        # The memory layout of the parameter, which may be channels last.
        laid_out = torch.empty_like(parameter).copy_(tensor) if tensor.shape == parameter.shape else tensor
        state.setdefault(int(index), {})[name] = laid_out
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
