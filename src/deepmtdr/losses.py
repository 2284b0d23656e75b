"""The losses of the paper as pure functions of tensors (Sec. IV-C, Eqs. 4-11).

All are means over pixels, channels and batch, so that the lambdas do not depend on the image size (interpretation R13).
Some losses count only a part of the photographs. These take `all_reduce`, which sums over all processes when several
processes share a batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

EPSILON = 1e-6

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


class GradeLabels(NamedTuple):
    """Grades of a batch."""

    grade: Int[Tensor, " b"]
    """Grades, 0 to C-1; values of photographs without a known grade are not used."""
    known: Bool[Tensor, " b"]
    class_weights: Float[Tensor, " c"] | None = None
    """Weight of each true grade; None: 1 for all grades."""
    all_reduce: AllReduce = no_reduce

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
    dice: float = 1.0
    """Weight of the supervised segmentation loss, Eq. (8)."""
    lesion_cross_entropy: float = 1.0
    """Weight of the pixel-wise cross-entropy added to Dice (the authors' code has a focal term instead)."""
    unsupervised: float = 0.3
    """Weight of the unsupervised segmentation loss, Eq. (9) (the authors' 0.3)."""
    grading: float = 1.0
    """Weight of the grading loss, Eq. (10)."""
    class_weights: tuple[float, ...] = ()
    """Weight of each true grade within Eq. (10) (interpretation R12); empty: all equal."""
    phi_vis: float = 0.5
    """Threshold that makes a mask of the evidence, Eqs. (5) and (9)."""
    tau: float = 0.1
    """Softness of `phi_vis` in the backward pass (interpretation R9)."""


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
) -> Float[Tensor, ""]:
    """Eq. (8): 1 - 2 |S~ o S| / (|S~| + |S|) per lesion type over the batch (interpretation R11).

    Args:
        lesions: predicted probabilities S~.
        lesion_masks: annotation S in [0, 1]; values of types that were not annotated are not used.
        annotated: which types of which photograph were annotated.
        all_reduce: sum over processes, see the module's docstring.

    Returns:
        Mean over the types annotated anywhere in the batch; 0 (with a gradient of 0) if none is.
    """
    known = annotated[:, :, None, None].to(lesions.dtype)
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
) -> Float[Tensor, ""]:
    """Pixel-wise cross-entropy over the lesion types and the background; added to Eq. (8), which has no pixel terms.

    Args:
        lesions: predicted probabilities S~; 1 - their sum is the probability of the background.
        lesion_masks: annotation S in [0, 1]; overlapping types are scaled to sum to 1.
        annotated: only photographs with all types annotated count: elsewhere the background is unknown.
        all_reduce: sum over processes, see the module's docstring.

    Returns:
        Mean over the pixels of those photographs; 0 (with a gradient of 0) if there is none.
    """
    target = lesion_masks / lesion_masks.sum(dim=1, keepdim=True).clamp_min(1)
    background = (1 - lesions.sum(dim=1)).clamp_min(EPSILON).log() * (1 - target.sum(dim=1))
    surprise = -(target * lesions.clamp_min(EPSILON).log()).sum(dim=1) - background
    return masked_mean(surprise.mean(dim=(1, 2)), annotated.all(dim=1), all_reduce)


def unsupervised_segmentation_loss(
    lesion_region: Float[Tensor, "b 1 h w"],
    evidence: Float[Tensor, "b 1 h w"],
    phi_vis: float = 0.5,
    unannotated: Bool[Tensor, " b"] | None = None,
    all_reduce: AllReduce = no_reduce,
) -> Float[Tensor, ""]:
    """Eq. (9): mean squared difference of the lesion region and the evidence mask, the pseudo ground truth.

    Args:
        lesion_region: 1 - P(background), compared as one map (interpretation R9).
        evidence: Vis(Y) in [0, 1]: the target, detached.
        phi_vis: threshold.
        unannotated: True for the photographs without annotation, for which this loss is computed; None: all.
        all_reduce: sum over processes, see the module's docstring.
    """
    pseudo = (evidence.detach() > phi_vis).to(lesion_region.dtype)
    each = (lesion_region - pseudo).square().mean(dim=(1, 2, 3))
    return masked_mean(each, _all(each) if unannotated is None else unannotated, all_reduce)


def segmentation_loss(
    dice: Float[Tensor, ""], cross_entropy: Float[Tensor, ""], unsupervised: Float[Tensor, ""], weights: LossWeights
) -> Float[Tensor, ""]:
    """Loss of the segmentation subnet: Eq. (8), pixel-wise cross-entropy and Eq. (9), weighted."""
    return weights.dice * dice + weights.lesion_cross_entropy * cross_entropy + weights.unsupervised * unsupervised


def grading_loss(
    grade_logits: Float[Tensor, "b c"],
    grade: Int[Tensor, " b"],
    class_weights: Float[Tensor, " c"] | None = None,
    *,
    literal: bool = False,
    graded: Bool[Tensor, " b"] | None = None,
    all_reduce: AllReduce = no_reduce,
) -> Float[Tensor, ""]:
    """Eq. (10): cross-entropy, weighted by the distance of the predicted grade from the true one (interpretation R12).

    Args:
        grade_logits: logits of the C grades.
        grade: true grades, 0 to C-1.
        class_weights: weight of each true grade; None: 1 for all grades.
        literal: Eq. (10) as printed, whose weight |l~ - l| is 0 for every correctly graded photograph.
        graded: the photographs whose grade is known; None: all.
        all_reduce: sum over processes, see the module's docstring.

    Returns:
        Mean over the graded photographs of (|l~ - l| + 1) / sum_i (|i - l| + 1) * cross-entropy.

    Raises:
        ValueError: if a grade is out of range.
    """
    classes = grade_logits.shape[1]
    if grade.numel() and not 0 <= int(grade.min()) <= int(grade.max()) < classes:
        raise ValueError(f"grading loss: found the grades {grade.tolist()}, expected 0 to {classes - 1}")
    distance = (grade_logits.detach().argmax(dim=1) - grade).abs().to(grade_logits.dtype)
    each = torch.arange(classes, device=grade.device)
    weight = (distance if literal else distance + 1) / ((each - grade[:, None]).abs() + 1).sum(dim=1)
    losses = weight * F.cross_entropy(grade_logits, grade.long(), class_weights, reduction="none")
    return masked_mean(losses, _all(losses) if graded is None else graded, all_reduce)


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
