"""Guided backpropagation (Springenberg et al., ICLR workshop 2015), Table V ("GBP").

"Striving for Simplicity: The All Convolutional Net". Published: on its way from the score to the photograph the
gradient passes a ReLU only where what went in was positive and where the gradient itself is. Assumed: the score is
y_DR; the image is what the grading subnet is shown, the lesion maps held; drawn as such gradients usually are, their
magnitude summed over the channels, as a share of its 99th percentile, held below 1 (Smilkov et al. 2017).

A network of ReLUs with standing batch norm, as in the joint stage, is linear around a photograph and such a gradient
constant: by the exact derivative, Eq. (5) would teach the ISR subnet nothing at all. So ReLU's step is taken as
Eq. (5)'s threshold is (reading R9): hard forward, a sigmoid's slope on the way back. Softplus for ReLU is how
explanations are usually made differentiable (Dombrowski et al. 2019); here it changes no value of the evidence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import checkpoint

from deepmtdr.model.deepmtdr import DeepMTDR, Prediction
from deepmtdr.model.grading import dr_score

SOFTNESS = 0.3
"""Of ReLU's step on the way back through a gradient, in units of what goes into it; 0: the exact derivative."""
FULL = 0.99
"""Share of the pixels below the magnitude that counts as 1."""
EPSILON = 1e-12

_RELUS = (F.relu, F.relu_, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_)


@dataclass(frozen=True, kw_only=True)
class GuidedBackpropagation:
    """An `Evidence`: how much each pixel speaks, along the paths on which everything speaks for the score."""

    softness: float = SOFTNESS
    """Of the ReLUs' steps, where the evidence is differentiated."""

    def __call__(
        self, model: DeepMTDR, prediction: Prediction, *, create_graph: bool = False
    ) -> Float[Tensor, "b 1 H W"]:
        """The evidence.

        Args:
            model: whose grading subnet is asked, once more.
            prediction: what it said of the photographs.
            create_graph: keep the evidence differentiable down to `prediction.sr`.
        """
        shown = grading_input(model, prediction, create_graph=create_graph)
        asked = model.grading, shown, prediction.lesions.detach()
        return gradient_magnitude(
            image_gradient(*asked, guided=True, create_graph=create_graph, softness=self.softness)
        )


def grading_input(model: DeepMTDR, prediction: Prediction, *, create_graph: bool) -> Float[Tensor, "b 3 H W"]:
    """What the grading subnet is shown, wanting a gradient; a leaf, or attached to the SR images."""
    with torch.set_grad_enabled(create_graph):
        shown = model.preprocess(prediction.sr)[1]
    return shown if shown.requires_grad else shown.detach().requires_grad_()


def image_gradient(
    grading: nn.Module,
    shown: Float[Tensor, "b 3 H W"],
    lesions: Float[Tensor, "b 4 H W"],
    *,
    guided: bool = False,
    create_graph: bool = False,
    softness: float = SOFTNESS,
) -> Float[Tensor, "b 3 H W"]:
    """dy_DR / d(image), by the ReLUs' own rule or the guided one; the network's running statistics stay as they were.

    Args:
        grading: a grading network.
        shown: what it is shown, wanting a gradient.
        lesions: the lesion maps beside it.
        guided: whether ReLUs stop what is negative on the way back.
        create_graph: keep the gradient differentiable.
        softness: of the ReLUs' steps, where it is differentiated.
    """
    with _statistics_set_aside(grading) as aside, _kept(grading), ReLUGradientMode(guided=guided, softness=softness):
        score = dr_score(functional_call(grading, aside, (shown, lesions)).logits)
        with torch.autocast(score.device.type, enabled=False):
            return torch.autograd.grad(score.sum(), shown, create_graph=create_graph)[0]


def gradient_magnitude(gradient: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b 1 H W"]:
    """Sum over the channels of the magnitude, 1 from each photograph's 99th percentile on; a gradient of 0 stays 0.

    The percentile is held where this is differentiated: it hangs on one pixel, whose noise would drown all others.
    """
    size = gradient.abs().to(torch.promote_types(gradient.dtype, torch.float32)).sum(dim=1, keepdim=True)
    ranked = size.flatten(1).sort(dim=1).values
    full, largest = ranked[:, int(FULL * (ranked.shape[1] - 1))], ranked[:, -1]
    full = torch.where(full > 0, full, largest).detach()  # the largest: evidence in fewer than 1 % of the pixels
    return (size / full.clamp_min(EPSILON)[:, None, None, None]).clamp_max(1)


@contextmanager
def _statistics_set_aside(module: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Copies of the running statistics to run with; what counts the batches is set back behind."""
    buffers = dict(module.named_buffers())
    counts = [(buffer, buffer.clone()) for buffer in buffers.values() if not buffer.is_floating_point()]
    try:
        yield {name: buffer.clone() for name, buffer in buffers.items() if buffer.is_floating_point()}
    finally:
        for buffer, before in counts:
            buffer.copy_(before)


@contextmanager
def _kept(module: nn.Module) -> Iterator[None]:
    """Inside, blocks keep what they compute: one that is computed again on the way back would not know the rule."""
    again = {m: f for m in module.modules() if getattr(f := vars(m).get("forward"), "func", None) is checkpoint}
    for block in again:
        del vars(block)["forward"]
    try:
        yield
    finally:
        for block, forward in again.items():
            vars(block)["forward"] = forward


class ReLUGradientMode(TorchFunctionMode):
    """Inside, every ReLU takes note of the rule, and what goes back through it inside goes by the rule.

    What goes back later, through the gradient that was made inside, goes by each step's own derivative.
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
        """1 where a ReLU lets the gradient pass that comes back to it, 0 elsewhere."""
        passed = (x > 0).to(gradient.dtype)
        if not self.inside:
            return passed
        if self.softness:
            soft = torch.sigmoid(x / self.softness)
            passed = passed + (soft - soft.detach())  # in this order 0 and 1 stay exact
        return passed * (gradient > 0) if self.guided else passed


class _Rectified(torch.autograd.Function):
    """ReLU under a rule, which has to be known when the gradient comes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rule: ReLUGradientMode) -> Tensor:
        ctx.save_for_backward(x)
        ctx.rule = rule
        return x.clamp_min(0)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return gradients[0] * ctx.rule.passes(x, gradients[0]), None
