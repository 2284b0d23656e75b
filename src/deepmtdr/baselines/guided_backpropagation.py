"""Guided backpropagation (Springenberg et al., ICLR workshop 2015). Table V ("GBP").

"Striving for Simplicity: The All Convolutional Net".

Published: in the backward pass from the score to the photograph, a ReLU passes the gradient only where both its input
and the gradient are positive.

Assumed: the score is y_DR; the image is the input of the grading subnet, with constant lesion maps. As such gradients
are usually shown, the map is their magnitude summed over the channels, as a share of its 99th percentile, clamped to 1
(Smilkov et al. 2017).

With frozen batch norm, as in the joint stage, a network of ReLUs is piecewise linear and this gradient is constant
around a photograph: by the exact derivative, Eq. (5) would train nothing in the ISR subnet. So the step of a ReLU is
treated like the threshold of Eq. (5) (interpretation R9): hard in the forward pass, a sigmoid's slope in the backward
pass. Explanations are usually made differentiable by softplus instead of ReLU (Dombrowski et al. 2019); the method used
here does not change the value of the evidence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import checkpoint

from deepmtdr.model.grading import dr_score
from deepmtdr.model.interfaces import EvidenceMethod, Grader, Prediction

SOFTNESS = 0.3
"""Softness of ReLU's step when a gradient is differentiated, in units of its input; 0: the exact derivative."""
FULL = 0.99
"""Quantile of the magnitude that is scaled to 1."""
EPSILON = 1e-12

_RELUS = (F.relu, F.relu_, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_)


@dataclass(frozen=True, kw_only=True)
class GuidedBackpropagation(EvidenceMethod):
    """Influence of each pixel on the score, along the paths on which every layer increases it."""

    softness: float = SOFTNESS
    """Softness of the ReLUs' steps, where the evidence is differentiated."""

    def __call__(
        self, grader: Grader, prediction: Prediction, *, create_graph: bool = False
    ) -> Float[Tensor, "b 1 H W"]:
        """Compute the evidence, with one more pass through the grading network."""
        image = grading_input(grader, prediction, create_graph=create_graph)
        gradient = image_gradient(
            grader,
            image,
            prediction.lesions.detach(),
            guided=True,
            create_graph=create_graph,
            softness=self.softness,
        )
        return gradient_magnitude(gradient)


def grading_input(grader: Grader, prediction: Prediction, *, create_graph: bool) -> Float[Tensor, "b 3 H W"]:
    """Return the input of the grading network, requiring a gradient: a leaf, or attached to the SR images."""
    with torch.set_grad_enabled(create_graph):
        image = grader.preprocess(prediction.sr)
    return image if image.requires_grad else image.detach().requires_grad_()


def image_gradient(
    grader: Grader,
    image: Float[Tensor, "b 3 H W"],
    lesions: Float[Tensor, "b l H W"],
    *,
    guided: bool = False,
    create_graph: bool = False,
    softness: float = SOFTNESS,
) -> Float[Tensor, "b 3 H W"]:
    """Compute dy_DR / d(image), with the usual or the guided rule for ReLUs; running statistics do not change.

    Args:
        grader: the grading network.
        image: its input, requiring a gradient.
        lesions: its lesion maps.
        guided: whether ReLUs block negative gradients.
        create_graph: keep the gradient differentiable.
        softness: softness of the ReLUs' steps, where the gradient is differentiated.
    """
    mode = ReLUGradientMode(guided=guided, softness=softness)
    with _copied_statistics(grader) as statistics, _without_checkpointing(grader), mode:
        score = dr_score(functional_call(grader, statistics, (image, lesions)).logits)
        with torch.autocast(score.device.type, enabled=False):
            return torch.autograd.grad(score.sum(), image, create_graph=create_graph)[0]


def gradient_magnitude(gradient: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b 1 H W"]:
    """Sum the magnitude over the channels, as a share of each photograph's 99th percentile, clamped to 1.

    A gradient of 0 stays 0. The percentile is treated as constant when this is differentiated: it depends on a single
    pixel, whose noise would dominate all other pixels.
    """
    size = gradient.abs().to(torch.promote_types(gradient.dtype, torch.float32)).sum(dim=1, keepdim=True)
    ranked = size.flatten(1).sort(dim=1).values
    full, largest = ranked[:, int(FULL * (ranked.shape[1] - 1))], ranked[:, -1]
    full = torch.where(full > 0, full, largest).detach()  # the largest, if fewer than 1 % of the pixels have evidence
    return (size / full.clamp_min(EPSILON)[:, None, None, None]).clamp_max(1)


@contextmanager
def _copied_statistics(module: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Context manager with copies of the running statistics, for one pass; restores the batch counters afterwards."""
    buffers = dict(module.named_buffers())
    counts = [(buffer, buffer.clone()) for buffer in buffers.values() if not buffer.is_floating_point()]
    try:
        yield {name: buffer.clone() for name, buffer in buffers.items() if buffer.is_floating_point()}
    finally:
        for buffer, before in counts:
            buffer.copy_(before)


@contextmanager
def _without_checkpointing(module: nn.Module) -> Iterator[None]:
    """Context manager without activation checkpointing: a block that is computed later would not use the ReLU rule."""
    checkpointed = {}
    for block in module.modules():
        forward = vars(block).get("forward")
        if isinstance(forward, partial) and forward.func is checkpoint:
            checkpointed[block] = forward
    for block in checkpointed:
        del vars(block)["forward"]
    try:
        yield
    finally:
        for block, forward in checkpointed.items():
            vars(block)["forward"] = forward


class ReLUGradientMode(TorchFunctionMode):
    """Context manager in which every ReLU is computed by `_Rectified`, so that gradients follow the rule.

    Gradients that are computed later, through a gradient from this context, use the derivative of each step.
    """

    def __init__(self, *, guided: bool, softness: float) -> None:
        super().__init__()
        self.guided, self.softness = guided, softness
        self.inside = False

    def __enter__(self) -> ReLUGradientMode:
        super().__enter__()
        self.inside = True
        return self

    def __exit__(self, *error: Any) -> None:
        self.inside = False
        super().__exit__(*error)

    def __torch_function__(
        self, func: Callable, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _RELUS:
            return _Rectified.apply(args[0] if args else kwargs["input"], self)
        return func(*args, **kwargs)

    def passes(self, x: Tensor, gradient: Tensor) -> Tensor:
        """Return the factor of the incoming gradient at a ReLU: 1 where the gradient passes, 0 elsewhere."""
        passed = (x > 0).to(gradient.dtype)
        if not self.inside:
            return passed
        if self.softness:
            soft = torch.sigmoid(x / self.softness)
            passed = passed + (soft - soft.detach())  # in this order 0 and 1 stay exact
        return passed * (gradient > 0) if self.guided else passed


class _Rectified(torch.autograd.Function):
    """ReLU whose backward pass follows a rule."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rule: ReLUGradientMode) -> Tensor:
        ctx.save_for_backward(x)
        ctx.rule = rule
        return x.clamp_min(0)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return gradients[0] * ctx.rule.passes(x, gradients[0]), None
