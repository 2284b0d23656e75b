"""Who learns how fast: AdamW over the subnets of a stage, and the schedules of its learning rates (Sec. IV-C)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from deepmtdr.model.deepmtdr import DeepMTDR
from deepmtdr.recipe import Stage
from deepmtdr.training.step_losses import SUBNETS

STAGE_SUBNETS = {"restoration": ("isr", "segmentation"), "grading": ("grading",), "joint": SUBNETS}
"""The subnets of each stage."""


def one_cycle(progress: float, warm_up: float) -> float:
    """Share of the largest learning rate: up linearly, down by a cosine to 1 %."""
    if progress < warm_up:
        return max(progress / warm_up, 0.01)
    fall = (progress - warm_up) / max(1 - warm_up, 1e-9)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * fall))


def learning_rate_factor(progress: float, subnet: str, stage: Stage) -> float:
    """Share of a subnet's largest learning rate, by the stage's schedule.

    Args:
        progress: share of the stage's steps that are done.
        subnet: isr, segmentation, grading or gmsv.
        stage: whose `schedule` it is.
    """
    if stage.schedule == "cosine":
        return one_cycle(progress, stage.warm_up)
    rise = max(min(progress / stage.warm_up, 1.0), 0.01) if stage.warm_up else 1.0
    return rise / (stage.falls_by.get(subnet, 1.0) if progress >= stage.falls_at else 1.0)


def set_learning_rates(optimiser: torch.optim.Optimizer, progress: float, stage: Stage) -> None:
    """Give every subnet its learning rate of the moment."""
    for group in optimiser.param_groups:
        group["lr"] = group["highest"] * learning_rate_factor(progress, group["subnet"], stage)


def has_trainable_parameters(model: DeepMTDR, name: str, stage: Stage) -> bool:
    """Whether anything would learn in a stage: a compared method may have nothing there."""
    return any(
        bool(list(getattr(model, subnet).parameters())) and getattr(stage, f"lr_{subnet}")
        for subnet in STAGE_SUBNETS[name]
    )


def build_optimiser(model: DeepMTDR, name: str, stage: Stage) -> torch.optim.AdamW:
    """AdamW over the subnets of the stage, each with its own learning rate; the others stand still.

    A compared method may have an `lr_factor`, by which that of the recipe is multiplied.

    Its step is fused: gradients and moments must lie in memory as their parameters do (channels last), as `backward`
    and `load_optimiser_state` leave them.
    """
    trained = STAGE_SUBNETS[name]
    model.requires_grad_(False)
    groups = []
    for subnet in trained:
        part = getattr(model, subnet)
        highest, parameters = getattr(stage, f"lr_{subnet}") * getattr(part, "lr_factor", 1.0), list(part.parameters())
        opposed = {id(parameter) for parameter in getattr(part, "adversary", torch.nn.Module()).parameters()}
        for against in (False, True):  # an adversary's gradient is clipped by itself
            own = [parameter for parameter in parameters if (id(parameter) in opposed) == against]
            if highest and own:
                groups.append({"params": own, "highest": highest, "subnet": subnet})
    if "grading" in trained and model.has_grading and model.evidence_method is None:
        thresholds = {"params": list(model.gmsv.parameters()), "highest": 1e-2, "weight_decay": 0.0}
        groups.append({**thresholds, "subnet": "gmsv"})
    for group in groups:
        for parameter in group["params"]:
            parameter.requires_grad_(True)
    return torch.optim.AdamW(groups, lr=0.0, weight_decay=stage.weight_decay, fused=True)


def optimiser_state(optimiser: torch.optim.Optimizer | None) -> Iterable[tuple[str, Tensor]]:
    """What the optimiser remembers, under the names by which `load_optimiser_state` gives it back; None remembers nothing."""
    if optimiser is not None:
        for index, state in optimiser.state_dict()["state"].items():
            yield from ((f"{index}/{key}", torch.as_tensor(value)) for key, value in state.items())


def load_optimiser_state(optimiser: torch.optim.Optimizer, kept: Mapping[str, Float[Tensor, ...]]) -> None:
    """Give an optimiser the memory that `moments` took."""
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in kept.items():
        index, name = key.split("/")
        parameter = parameters[int(index)]
        as_it_lies = torch.empty_like(parameter).copy_(tensor) if tensor.shape == parameter.shape else tensor
        state.setdefault(int(index), {})[name] = as_it_lies
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
