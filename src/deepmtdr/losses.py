"""The losses of the paper as pure functions of tensors (Sec. IV-C, Eqs. 4-11; Eq. 10 is in `grading_losses`).

All are means over pixels, channels and batch, so that the lambdas do not depend on the image size (interpretation R13).
Some losses count only a part of the photographs. These take `all_reduce`, which sums over all processes when several
processes share a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

EPSILON = 1e-6

GRADING_FORMS = ("cumulative", "eq10", "eq10-literal", "cross-entropy")
"""Forms of the grading loss, see `grading_losses.grade_loss`."""

AllReduce = Callable[[Tensor], Tensor]
"""Function that sums a tensor over all processes, differentiable."""


def no_reduce(sum_: Tensor) -> Tensor:
    """Sum over a single process: returns the tensor."""
    return sum_


def masked_mean(
    values: Float[Tensor, " b"], counted: Bool[Tensor, " b"], all_reduce: AllReduce = no_reduce
) -> Float[Tensor, ""]:
    """Compute the mean over the photographs that count; 0 (with a gradient of 0) if there is none."""
    known = counted.to(values.dtype)
    return all_reduce((values * known).sum()) / all_reduce(known.sum()).clamp_min(1)


class LesionLabels(NamedTuple):
    """Lesion annotation of a batch; `*labels` are the last arguments of the supervised segmentation losses."""

    masks: Float[Tensor, "b l h w"]
    """Lesion masks in [0, 1]; values of types that were not annotated are not used."""
    annotated: Bool[Tensor, "b l"]
    """Whether each lesion type was annotated on each photograph."""
    all_reduce: AllReduce = no_reduce
    ignored: Bool[Tensor, "b 1 h w"] | None = None
    """Pixels that count for nothing (interpretation R32); None: all pixels count."""
    union_masks: Float[Tensor, "b u h w"] | None = None
    """Masks in [0, 1] of union labels: lesions of several types that were annotated together (interpretation R32)."""
    unions: Bool[Tensor, "b u l"] | None = None
    """The lesion types of each union label; all False: the photograph does not have this union label."""


class GradeLabels(NamedTuple):
    """Grades of a batch."""

    grade: Int[Tensor, " b"]
    """Grades, 0 to C-1; values of photographs without a known grade are not used."""
    known: Bool[Tensor, " b"]
    class_weights: Float[Tensor, " c"] | None = None
    """Weight of each true grade; None: 1 for all grades."""
    all_reduce: AllReduce = no_reduce
    form: str = "cumulative"
    """One of `GRADING_FORMS`, for graders that are trained by `grading_losses.grade_loss`."""

    def mean(self, each: Float[Tensor, " b"]) -> Float[Tensor, ""]:
        """Mean over the photographs whose grade is known."""
        return masked_mean(each, self.known, self.all_reduce)


@dataclass(frozen=True, kw_only=True)
class LossWeights:
    """The lambdas of Eq. (11), the weights of the other losses, and the threshold of the evidence."""

    lambda_img: float = 1.0
    """Weight of the image loss, Eq. (6)."""
    lambda_tv: float = 1e-6
    """Weight of the total variation loss, Eq. (7) (the authors' 1e-6)."""
    lambda_sa: float = 1.0
    """Weight of the segmentation-aware loss, Eq. (4) (the authors' 1 in the joint stage)."""
    lambda_ca: float = 10.0
    """Weight of the classification-aware loss, Eq. (5) (the authors' 10)."""
    task_aware_share: float = 0.3
    """Largest norm of the gradients of Eqs. (4) and (5) at the SR image, each relative to that of Eqs. (6) and (7) in
    the same photograph (interpretation R27); 0: not limited.
    """
    project_conflicts: bool = False
    """Whether the component of these gradients that is opposed to that of Eqs. (6) and (7) is removed before."""
    dice: float = 1.0
    """Weight of the supervised segmentation loss, Eq. (8)."""
    lesion_cross_entropy: float = 1.0
    """Weight of the pixel-wise cross-entropy added to Dice (the authors' code has a focal term instead)."""
    unsupervised: float = 0.3
    """Weight of the unsupervised segmentation loss, Eq. (9) (the authors' 0.3)."""
    grading: float = 1.0
    """Weight of the grading loss."""
    grading_form: str = "cumulative"
    """Form of the grading loss (interpretation R26): "cumulative", a strictly proper ordinal loss; "eq10", Eq. (10) by
    interpretation R12; "eq10-literal", Eq. (10) as printed; "cross-entropy".
    """
    class_weights: tuple[float, ...] = ()
    """Weight of each true grade within the grading loss; empty: all equal."""
    phi_vis: float = 0.5
    """Threshold that makes a mask of the evidence, Eqs. (5) and (9)."""
    tau: float = 0.1
    """Softness of `phi_vis` in the backward pass (interpretation R9)."""

    def problems(self) -> Iterator[str]:
        """Describe each setting that is out of range, and what was expected."""
        if self.task_aware_share < 0:
            yield f"task_aware_share = {self.task_aware_share}, expected 0 or more"
        if self.grading_form not in GRADING_FORMS:
            yield f"grading_form = {self.grading_form!r}, expected one of {', '.join(GRADING_FORMS)}"


def evidence_mask(
    evidence: Float[Tensor, "b 1 h w"], phi_vis: float = 0.5, tau: float = 0.1
) -> Float[Tensor, "b 1 h w"]:
    """Mask of the pixels whose evidence V = Vis(Y) exceeds phi_vis (interpretation R9).

    A straight-through estimator: a step in the forward pass, the slope of sigmoid((V - phi_vis) / tau) in the backward
    pass.
    """
    soft = torch.sigmoid((evidence - phi_vis) / tau)
    return (evidence > phi_vis).to(soft.dtype) + (soft - soft.detach())  # in this order 0 and 1 stay exact


def segmentation_aware_loss(
    lesions_sr: Float[Tensor, "b l h w"], lesions_hr: Float[Tensor, "b l h w"]
) -> Float[Tensor, ""]:
    """Eq. (4): mean squared difference of the lesion maps of the super-resolved and of the HR image.

    Args:
        lesions_sr: lesion maps of the super-resolved image.
        lesions_hr: lesion maps of the HR image: the target, detached.
    """
    return F.mse_loss(lesions_sr, lesions_hr.detach())


def classification_aware_loss(
    evidence_sr: Float[Tensor, "b 1 h w"],
    evidence_hr: Float[Tensor, "b 1 h w"],
    phi_vis: float = 0.5,
    tau: float = 0.1,
) -> Float[Tensor, ""]:
    """Eq. (5): mean squared difference of the evidence masks of the super-resolved and of the HR image.

    Args:
        evidence_sr: Vis(SR) in [0, 1], differentiable (`create_graph=True`).
        evidence_hr: Vis(HR) in [0, 1]: the target, detached (interpretation R9).
        phi_vis: threshold.
        tau: softness of the threshold in the backward pass.
    """
    return F.mse_loss(evidence_mask(evidence_sr, phi_vis, tau), (evidence_hr.detach() > phi_vis).to(evidence_sr.dtype))


def image_loss(sr: Float[Tensor, "b 3 h w"], hr: Float[Tensor, "b 3 h w"]) -> Float[Tensor, ""]:
    """Eq. (6): mean absolute difference of the super-resolved and the HR image, RGB in [0, 1]."""
    return F.l1_loss(sr, hr)


def total_variation_loss(sr: Float[Tensor, "b 3 h w"]) -> Float[Tensor, ""]:
    """Eq. (7): spatial smoothness of the super-resolved image.

    Args:
        sr: super-resolved image, RGB in [0, 1].

    Returns:
        Mean squared difference of neighbours, vertical plus horizontal (interpretation R13); 0 for a constant image.

    Raises:
        ValueError: if h or w is smaller than 2.
    """
    if min(sr.shape[-2:]) < 2:
        raise ValueError(f"total variation: found an image of {tuple(sr.shape[-2:])} px, expected at least 2x2")
    return sr.diff(dim=-2).square().mean() + sr.diff(dim=-1).square().mean()


def dice_loss(
    lesions: Float[Tensor, "b l h w"],
    lesion_masks: Float[Tensor, "b l h w"],
    annotated: Bool[Tensor, "b l"],
    all_reduce: AllReduce = no_reduce,
    ignored: Bool[Tensor, "b 1 h w"] | None = None,
    union_masks: Float[Tensor, "b u h w"] | None = None,
    unions: Bool[Tensor, "b u l"] | None = None,
) -> Float[Tensor, ""]:
    """Eq. (8): 1 - 2 |S~ o S| / (|S~| + |S|) per lesion type over the batch (interpretation R11).

    A union label counts as a further type, whose probability is the sum of those of its types (interpretation R32).

    Args:
        lesions: predicted probabilities S~.
        lesion_masks: annotation S in [0, 1]; values of types that were not annotated are not used.
        annotated: which types of which photograph were annotated.
        all_reduce: sum over processes, see the module's docstring.
        ignored: pixels that do not count; None: all count.
        union_masks: masks of union labels in [0, 1]; None: there are none.
        unions: the types of each union label; all False: a photograph does not have this label.

    Returns:
        Mean over the types and union labels annotated anywhere in the batch; 0 (with a gradient of 0) if none is.
    """
    lesions, lesion_masks, annotated = _append_unions(lesions, lesion_masks, annotated, union_masks, unions)
    known = annotated[:, :, None, None].to(lesions.dtype)
    if ignored is not None:
        known = known * ~ignored
    overlap = all_reduce((lesions * lesion_masks * known).sum(dim=(0, 2, 3)))
    both = all_reduce(((lesions + lesion_masks) * known).sum(dim=(0, 2, 3)))
    losses = 1 - (2 * overlap + EPSILON) / (both + EPSILON)
    present = all_reduce(annotated.any(dim=0).to(losses.dtype)).clamp_max(1)
    return (losses * present).sum() / present.sum().clamp_min(1)


def lesion_cross_entropy_loss(
    lesions: Float[Tensor, "b l h w"],
    lesion_masks: Float[Tensor, "b l h w"],
    annotated: Bool[Tensor, "b l"],
    all_reduce: AllReduce = no_reduce,
    ignored: Bool[Tensor, "b 1 h w"] | None = None,
    union_masks: Float[Tensor, "b u h w"] | None = None,
    unions: Bool[Tensor, "b u l"] | None = None,
) -> Float[Tensor, ""]:
    """Pixel-wise cross-entropy over the lesion types and the background; added to Eq. (8), which has no pixel terms.

    On a photograph with a union label (interpretation R32), P is the sum of the probabilities of its types: a pixel
    inside its mask adds -log P, any other pixel -log (1 - P), which includes the background and types that are not
    annotated.

    Args:
        lesions: predicted probabilities S~; 1 - their sum is the probability of the background.
        lesion_masks: annotation S in [0, 1]; overlapping types are scaled to sum to 1.
        annotated: photographs count that have all types annotated, or a union label: elsewhere the background is
            unknown.
        all_reduce: sum over processes, see the module's docstring.
        ignored: pixels that do not count; None: all count.
        union_masks: masks of union labels in [0, 1]; None: there are none.
        unions: the types of each union label; all False: a photograph does not have this label.

    Returns:
        Mean over the photographs that count of the mean over their pixels; 0 (with a gradient of 0) if there is none.
    """
    counted = annotated.all(dim=1)
    if unions is not None:
        counted = counted | unions.any(dim=(1, 2))
        lesions, lesion_masks, known = _append_unions(lesions, lesion_masks, annotated, union_masks, unions)
        lesions, lesion_masks = (each * known[:, :, None, None] for each in (lesions, lesion_masks))
    target = lesion_masks / lesion_masks.sum(dim=1, keepdim=True).clamp_min(1)
    background = (1 - lesions.sum(dim=1)).clamp_min(EPSILON).log() * (1 - target.sum(dim=1))
    surprise = -(target * lesions.clamp_min(EPSILON).log()).sum(dim=1) - background
    if ignored is not None:
        counted = counted & ~ignored.all(dim=(1, 2, 3))
    return masked_mean(pixel_mean(surprise[:, None], ignored), counted, all_reduce)


def _append_unions(
    lesions: Float[Tensor, "b l h w"],
    lesion_masks: Float[Tensor, "b l h w"],
    annotated: Bool[Tensor, "b l"],
    union_masks: Float[Tensor, "b u h w"] | None,
    unions: Bool[Tensor, "b u l"] | None,
) -> tuple[Float[Tensor, "b k h w"], Float[Tensor, "b k h w"], Bool[Tensor, "b k"]]:
    """Append the union labels to the lesion types: probabilities, masks, and whether they were annotated."""
    if union_masks is None or unions is None:
        return lesions, lesion_masks, annotated
    sums = (lesions[:, None] * unions[..., None, None]).sum(dim=2)
    return (
        torch.cat([lesions, sums], dim=1),
        torch.cat([lesion_masks, union_masks], dim=1),
        torch.cat([annotated, unions.any(dim=2)], dim=1),
    )


def pixel_mean(values: Float[Tensor, "b 1 h w"], ignored: Bool[Tensor, "b 1 h w"] | None) -> Float[Tensor, " b"]:
    """Compute the mean of each photograph over the pixels that are not ignored; 0 if all are ignored."""
    if ignored is None:
        return values.mean(dim=(1, 2, 3))
    counted = (~ignored).to(values.dtype)
    return (values * counted).sum(dim=(1, 2, 3)) / counted.sum(dim=(1, 2, 3)).clamp_min(1)


def unsupervised_segmentation_loss(
    lesion_region: Float[Tensor, "b 1 h w"],
    evidence: Float[Tensor, "b 1 h w"],
    phi_vis: float = 0.5,
    unannotated: Bool[Tensor, " b"] | None = None,
    all_reduce: AllReduce = no_reduce,
    ignored: Bool[Tensor, "b 1 h w"] | None = None,
) -> Float[Tensor, ""]:
    """Eq. (9): mean squared difference of the lesion region and the evidence mask, the pseudo ground truth.

    Args:
        lesion_region: 1 - P(background), compared as one map (interpretation R9).
        evidence: Vis(Y) in [0, 1]: the target, detached.
        phi_vis: threshold.
        unannotated: True for the photographs without annotation, for which this loss is computed; None: all.
        all_reduce: sum over processes, see the module's docstring.
        ignored: pixels that do not count (interpretation R32); None: all count.
    """
    pseudo = (evidence.detach() > phi_vis).to(lesion_region.dtype)
    each = pixel_mean((lesion_region - pseudo).square(), ignored)
    return masked_mean(each, _all(each) if unannotated is None else unannotated, all_reduce)


def segmentation_loss(
    dice: Float[Tensor, ""], cross_entropy: Float[Tensor, ""], unsupervised: Float[Tensor, ""], weights: LossWeights
) -> Float[Tensor, ""]:
    """Loss of the segmentation subnet: Eq. (8), pixel-wise cross-entropy and Eq. (9), weighted."""
    return weights.dice * dice + weights.lesion_cross_entropy * cross_entropy + weights.unsupervised * unsupervised


def _all(each: Float[Tensor, " b"]) -> Bool[Tensor, " b"]:
    return torch.ones_like(each, dtype=torch.bool)


def isr_loss(
    image: Float[Tensor, ""],
    total_variation: Float[Tensor, ""],
    segmentation_aware: Float[Tensor, ""],
    classification_aware: Float[Tensor, ""],
    weights: LossWeights,
) -> Float[Tensor, ""]:
    """Eq. (11): loss of the ISR subnet, the four terms weighted by their lambdas."""
    return (
        weights.lambda_img * image
        + weights.lambda_tv * total_variation
        + weights.lambda_sa * segmentation_aware
        + weights.lambda_ca * classification_aware
    )
