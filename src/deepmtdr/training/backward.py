"""Which loss trains which subnet, and how far the task-aware losses change the image (Sec. IV-C).

The gradient of each loss is computed only for the parameters that it trains (interpretation R10). The gradients of the
task-aware losses, Eqs. (4) and (5), at the SR image are up to thousands of times larger than that of the image loss,
and orthogonal to it. They are limited to a share of it (interpretation R27).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from deepmtdr.model.deepmtdr import DeepMTDR
from deepmtdr.model.interfaces import SUBNETS


class ISRTerms(NamedTuple):
    """The terms of Eq. (11), each multiplied by its lambda, whose gradients at the SR images are combined."""

    sr: Tensor
    """The SR images, attached to the ISR subnet."""
    image: Tensor
    """Eqs. (6) and (7)."""
    task_aware: Mapping[str, Tensor]
    """Eq. (4) as "sa" and Eq. (5) as "ca", those that were computed."""
    share: float
    """`LossWeights.task_aware_share`, above 0."""
    project_conflicts: bool
    """`LossWeights.project_conflicts`."""
    mean: Callable[[Tensor], Tensor] = lambda own: own
    """Function that computes the mean over the processes that share a batch, for the log."""


class StepLosses(NamedTuple):
    """The losses of one step, already weighted, by the part that they train (interpretation R10)."""

    isr: Tensor
    """Loss of Eq. (11), which trains the ISR subnet only."""
    segmentation: Tensor
    """Loss of Eqs. (8) and (9), which trains the segmentation subnet and, end to end, the ISR subnet."""
    grading: Tensor
    """Grading loss, which trains the grading subnet and, end to end, the ISR subnet."""
    xi: Tensor
    """Loss of interpretation R7, which trains the thresholds of Eq. (2) only."""
    terms: dict[str, float]
    """Unweighted value of each equation, for the log."""
    discriminator: Tensor | None = None
    """Loss that trains only the discriminator of an adversarial ISR subnet; None without a discriminator."""
    isr_terms: ISRTerms | None = None
    """Terms of `isr`, if the gradients of the task-aware ones are limited; None: `isr` is differentiated as it is."""


def backward_by_subnet(step: StepLosses, model: DeepMTDR, *, end_to_end: bool) -> dict[str, float]:
    """Compute the gradient of each loss for the parts that it trains, and for no other parts (interpretation R10).

    The segmentation and grading subnets are not trained by Eq. (11), so its gradient is not computed for them.

    Args:
        step: the losses.
        model: the network that computed them.
        end_to_end: whether the segmentation and grading losses also train the ISR subnet.

    Returns:
        For the log: `share_sa`, `share_ca`, the norms of the gradients of Eqs. (4) and (5) at the SR image before they
        are limited, relative to that of Eqs. (6) and (7), and `cosine_sa`, `cosine_ca`, their cosines with it; means
        over the photographs. Empty if no gradient is limited.
    """
    isr, segmentation, grading = (trainable_parameters(model.subnets[name]) for name in SUBNETS)
    if step.discriminator is not None and model.isr.discriminator is not None:
        opponent = trainable_parameters(model.isr.discriminator)
        isr = [p for p in isr if all(p is not other for other in opponent)]
        _backward(step.discriminator, opponent)
    shares: dict[str, float] = {}
    if step.isr_terms is None:
        _backward(step.isr, isr)
    else:
        shares = _backward_limited(step.isr_terms, isr)
    _backward(step.segmentation, segmentation + (isr if end_to_end else []))
    _backward(step.grading, grading + (isr if end_to_end else []))
    _backward(step.xi, trainable_parameters(model.gmsv))
    return shares


def trainable_parameters(part: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that are not frozen."""
    return [parameter for parameter in part.parameters() if parameter.requires_grad]


def _backward(loss: Tensor, inputs: Sequence[Tensor]) -> None:
    if loss.requires_grad and inputs:
        loss.backward(inputs=list(inputs), retain_graph=True)


def _backward_limited(terms: ISRTerms, isr: Sequence[Tensor]) -> dict[str, float]:
    """Differentiate each term at the SR images, combine the gradients, and continue into the ISR subnet."""
    image, *task_aware = (
        torch.autograd.grad(term, terms.sr, retain_graph=True)[0].float()
        for term in (terms.image, *terms.task_aware.values())
    )
    combined = combine_gradients(image, task_aware, terms.share, project_conflicts=terms.project_conflicts)
    torch.autograd.backward(terms.sr, combined.to(terms.sr.dtype), retain_graph=True, inputs=list(isr))
    return _shares(image, dict(zip(terms.task_aware, task_aware, strict=True)), terms.mean)


def combine_gradients(
    image: Float[Tensor, "b c h w"],
    task_aware: Iterable[Float[Tensor, "b c h w"]],
    share: float,
    *,
    project_conflicts: bool = False,
) -> Float[Tensor, "b c h w"]:
    """Add the task-aware gradients to that of the image loss, each limited in every photograph (interpretation R27).

    The limit is set for each photograph: a photograph with a large gradient does not weaken the others, and the result
    does not depend on how a batch is divided among processes. A gradient below the limit is not enlarged: without
    lesions and evidence it is noise.

    Args:
        image: gradient of Eqs. (6) and (7) at the SR images.
        task_aware: gradients of Eqs. (4) and (5).
        share: largest norm of each of them, relative to that of `image`.
        project_conflicts: first remove from each of them the component against `image`, if there is one.
    """
    size = _dot(image, image)
    combined = image
    for gradient in task_aware:
        if project_conflicts:
            against = _dot(gradient, image).clamp_max(0) / size.clamp_min(torch.finfo(size.dtype).tiny)
            gradient = gradient - against * image
        norm = _dot(gradient, gradient).sqrt()
        limit = share * size.sqrt()
        combined = combined + gradient * torch.where(norm > limit, limit / norm, 1.0)
    return combined


def _dot(one: Float[Tensor, "b c h w"], other: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 1 1 1"]:
    return (one * other).sum(dim=(1, 2, 3), keepdim=True)


def _shares(image: Tensor, task_aware: Mapping[str, Tensor], mean: Callable[[Tensor], Tensor]) -> dict[str, float]:
    shares: dict[str, float] = {}
    size = _dot(image, image).sqrt()
    for name, gradient in task_aware.items():
        norm = _dot(gradient, gradient).sqrt()
        share, cosine = norm / size, _dot(gradient, image) / (norm * size).clamp_min(1e-30)
        shares[f"share_{name}"], shares[f"cosine_{name}"] = float(mean(share.mean())), float(mean(cosine.mean()))
    return shares
