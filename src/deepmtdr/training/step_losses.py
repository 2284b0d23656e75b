"""What one step of each stage computes, and who learns from it (Sec. IV-C, Fig. 6, reading R10)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from deepmtdr import losses
from deepmtdr.losses import AllReduce, GradeLabels, LesionLabels, LossWeights, no_reduce
from deepmtdr.model.deepmtdr import DeepMTDR
from deepmtdr.model.isr import bicubic
from deepmtdr.training.batches import Batch, GradingBatch

SUBNETS = ("isr", "segmentation", "grading")


class Processes(NamedTuple):
    """The processes that share a batch, each with as many photographs as the others; one alone by default."""

    world_size: int = 1
    all_reduce: AllReduce = no_reduce

    def mean(self, loss: Tensor) -> Tensor:
        """Of a loss in which all photographs count alike."""
        return self.all_reduce(loss) / self.world_size


SINGLE_PROCESS = Processes()


class StepLosses(NamedTuple):
    """The losses of one step, each already weighted, by the subnet that they train (reading R10)."""

    isr: Tensor
    """Eq. (11): trains the ISR subnet only."""
    segmentation: Tensor
    """Eqs. (8), (9): the segmentation subnet, and end to end the ISR subnet."""
    grading: Tensor
    """Eq. (10): the grading subnet, and end to end the ISR subnet."""
    xi: Tensor
    """Reading R7: the thresholds of Eq. (2) only."""
    terms: dict[str, float]
    """Every equation's value, unweighted, for the log."""
    adversary: Tensor | None = None
    """Trains the adversary of an ISR subnet that is learned against one, and nothing else."""


def backward_by_subnet(step: StepLosses, model: DeepMTDR, *, end_to_end: bool) -> None:
    """Send each loss's gradient to the subnet that learns from it, and to no other (reading R10).

    The segmentation and grading subnets are frozen instruments within Eq. (11): what it would teach them is never
    computed.
    """
    isr, segmentation, grading = ([p for p in getattr(model, name).parameters() if p.requires_grad] for name in SUBNETS)
    if step.adversary is not None:
        opposed = list(getattr(model.isr, "adversary").parameters())  # noqa: B009
        isr = [p for p in isr if all(p is not other for other in opposed)]
        _backward(step.adversary, [p for p in opposed if p.requires_grad])
    thresholds = [p for p in model.gmsv.parameters() if p.requires_grad]
    _backward(step.isr, isr)
    _backward(step.segmentation, segmentation + (isr if end_to_end else []))
    _backward(step.grading, grading + (isr if end_to_end else []))
    _backward(step.xi, thresholds)


def _backward(loss: Tensor, inputs: Sequence[Tensor]) -> None:
    if loss.requires_grad and inputs:
        loss.backward(inputs=list(inputs), retain_graph=True)


def published_loss(part: object) -> Callable[..., Tensor] | None:
    """The loss that a compared method was published with; None: the paper's equations."""
    return getattr(part, "loss", None)


def restoration_losses(
    model: DeepMTDR, batch: Batch, scale: int, weights: LossWeights, processes: Processes = SINGLE_PROCESS
) -> StepLosses:
    """Stage 1a: Eqs. (4), (6), (7) for the ISR subnet, Eq. (8) for the segmentation subnet, on crops.

    Where the segmentation subnet stands still and Eq. (4) has no weight, it is not asked: the ISR subnet learns alone.
    """
    sr = model.super_resolve(bicubic(batch.degraded, 1 / scale).clamp(0, 1), scale)
    asked = model.has_segmentation and (
        weights.lambda_sa or any(p.requires_grad for p in model.segmentation.parameters())
    )
    if not model.task_aware:
        return composed_losses(model, batch, sr, scale, weights, processes, grades=False)
    if not asked:
        return _isr_losses(sr, batch.hr, scale, weights, processes)
    classes = model.segment(model.preprocess(sr)[0])
    image, variation, seg_aware = _image_losses(model, sr, classes, batch.hr, scale, weights, processes)
    labels = LesionLabels(batch.lesion_masks, batch.annotated, processes.all_reduce)
    dice = losses.dice_loss(classes[:, :4], *labels)
    entropy = losses.lesion_cross_entropy_loss(classes[:, :4], *labels)
    nothing = sr.new_zeros(())
    return StepLosses(
        losses.isr_loss(image, variation, seg_aware, nothing, weights) if scale > 1 else nothing,
        weights.dice * dice + weights.lesion_cross_entropy * entropy,
        nothing,
        nothing,
        _values(image=image, tv=variation, seg_aware=seg_aware, dice=dice, cross_entropy=entropy),
    )


def _isr_losses(sr: Tensor, hr: Tensor, scale: int, weights: LossWeights, processes: Processes) -> StepLosses:
    """Eqs. (6) and (7) alone."""
    image, variation = processes.mean(losses.image_loss(sr, hr)), processes.mean(losses.total_variation_loss(sr))
    nothing = sr.new_zeros(())
    isr = losses.isr_loss(image, variation, nothing, nothing, weights) if scale > 1 else nothing
    return StepLosses(isr, nothing, nothing, nothing, _values(image=image, tv=variation))


def _image_losses(
    model: DeepMTDR,
    sr: Tensor,
    classes_sr: Tensor,
    hr: Tensor,
    scale: int,
    weights: LossWeights,
    processes: Processes,
) -> tuple[Tensor, Tensor, Tensor]:
    """Eqs. (6), (7) and (4); the last only if it has a weight, since it costs another segmentation."""
    seg_aware = sr.new_zeros(())
    if weights.lambda_sa and scale > 1:
        with torch.no_grad():
            classes_hr = model.segment(model.preprocess(hr)[0])
        seg_aware = processes.mean(losses.segmentation_aware_loss(classes_sr[:, :4], classes_hr[:, :4]))
    image, variation = losses.image_loss(sr, hr), losses.total_variation_loss(sr)
    return processes.mean(image), processes.mean(variation), seg_aware


def grading_losses(
    model: DeepMTDR, batch: GradingBatch, weights: LossWeights, processes: Processes = SINGLE_PROCESS
) -> StepLosses:
    """Stage 1b: Eq. (10) on frames that the standing subnets have read already; xi waits for the joint stage."""
    graded = model.grading(batch.image, batch.lesions)
    logits, nothing = graded.logits, graded.logits.new_zeros(())
    loss = _grading_loss(model, graded, batch.grade, torch.ones_like(batch.grade, dtype=torch.bool), weights, processes)
    accuracy = processes.mean((logits.argmax(dim=1) == batch.grade).float().mean())
    return StepLosses(nothing, nothing, weights.grading * loss, nothing, _values(grading=loss, accuracy=accuracy))


def joint_losses(
    model: DeepMTDR, batch: Batch, scale: int, weights: LossWeights, processes: Processes = SINGLE_PROCESS
) -> StepLosses:
    """Stage 2, Fig. 6 whole: every loss of Eqs. (4)-(11) on whole frames.

    Annotated photographs give Eq. (8), the others Eq. (9), whose pseudo ground truth is the HR frame's evidence mask.
    """
    sr = model.super_resolve(bicubic(batch.degraded, 1 / scale).clamp(0, 1), scale)
    if not model.task_aware:
        return composed_losses(model, batch, sr, scale, weights, processes)
    on_sr = model.segment_and_grade(sr)
    image, variation, seg_aware = _image_losses(model, sr, on_sr.lesions, batch.hr, scale, weights, processes)
    on_hr, evidence_hr = model.predict(batch.hr, scale=1)
    cls_aware, scores_alone = sr.new_zeros(()), published_loss(model.evidence_method)
    if weights.lambda_ca and sr.requires_grad:  # Eq. (5) teaches the ISR subnet alone
        if scores_alone is None:
            evidence_sr = model.evidence(on_sr, create_graph=True)
            cls_aware = losses.classification_aware_loss(evidence_sr, evidence_hr, weights.phi_vis, weights.tau)
        else:
            cls_aware = scores_alone(on_sr, on_hr)
        cls_aware = processes.mean(cls_aware)
    all_reduce = processes.all_reduce
    labels = LesionLabels(batch.lesion_masks, batch.annotated, all_reduce)
    dice = losses.dice_loss(on_sr.lesions, *labels)
    entropy = losses.lesion_cross_entropy_loss(on_sr.lesions, *labels)
    unannotated = ~batch.annotated.any(dim=1)
    unannotated = unannotated & (scores_alone is None)  # no map, no pseudo ground truth
    pseudo = losses.unsupervised_segmentation_loss(
        on_sr.lesion_region, evidence_hr, weights.phi_vis, unannotated, all_reduce
    )
    logits, classes = on_sr.grade_logits, _class_weights(weights, on_sr.grade_logits)
    grading = losses.grading_loss(logits, batch.grade, classes, graded=batch.graded, all_reduce=all_reduce)
    xi = sr.new_zeros(())  # the thresholds are GMSV's alone
    if model.evidence_method is None:
        xi = model.gmsv.xi_loss(on_sr.features, on_sr.lesion_region, all_reduce)
    return StepLosses(
        losses.isr_loss(image, variation, seg_aware, cls_aware, weights) if scale > 1 else sr.new_zeros(()),
        weights.dice * dice + weights.lesion_cross_entropy * entropy + weights.unsupervised * pseudo,
        weights.grading * grading,
        xi,
        _values(
            image=image, tv=variation, seg_aware=seg_aware, cls_aware=cls_aware, dice=dice, cross_entropy=entropy,
            unsupervised=pseudo, grading=grading, xi=xi,
        ),
    )  # fmt: skip


def composed_losses(
    model: DeepMTDR,
    batch: Batch,
    sr: Tensor,
    scale: int,
    weights: LossWeights,
    processes: Processes,
    *,
    grades: bool = True,
) -> StepLosses:
    """Compared methods, alone or one behind the other: each part has its own loss, and nothing of Eqs. (4), (5), (9).

    Args:
        model: the parts.
        batch: photographs.
        sr: what its ISR subnet made of them.
        scale: by which they came in.
        weights: of the losses beside each other.
        processes: that share the batch.
        grades: whether the grading subnet learns too.
    """
    nothing, terms = sr.new_zeros(()), {"image": processes.mean(losses.image_loss(sr, batch.hr))}
    isr, adversary = nothing, None
    if scale > 1:
        own = published_loss(model.isr)
        isr = terms["isr"] = (
            processes.mean(own(sr, batch.hr)) if own else _plain_isr_loss(sr, batch.hr, weights, processes)
        )
        if opposed := getattr(model.isr, "discriminator_loss", None):
            adversary = terms["adversary"] = processes.mean(opposed(sr.detach(), batch.hr))
    seen, shown = model.preprocess(sr)
    classes, segmentation, grading = model.segment(seen), nothing, nothing
    if model.has_segmentation:
        own = published_loss(model.segmentation) or _segmentation_loss
        labels = LesionLabels(batch.lesion_masks, batch.annotated, processes.all_reduce)
        segmentation = terms["segmentation"] = own(classes, labels)
    if grades and model.has_grading:
        graded = model.grading(shown, classes[:, :4].detach())
        grading = _grading_loss(model, graded, batch.grade, batch.graded, weights, processes)
        terms["grading"] = grading
    return StepLosses(isr, segmentation, weights.grading * grading, nothing, _values(**terms), adversary)


def _plain_isr_loss(sr: Tensor, hr: Tensor, weights: LossWeights, processes: Processes) -> Tensor:
    """Eqs. (6) and (7): the ISR subnet before other networks than its own."""
    image, variation = (processes.mean(loss) for loss in (losses.image_loss(sr, hr), losses.total_variation_loss(sr)))
    return losses.isr_loss(image, variation, sr.new_zeros(()), sr.new_zeros(()), weights)


def _segmentation_loss(classes: Tensor, labels: LesionLabels) -> Tensor:
    lesions = classes[:, :4]
    return losses.dice_loss(lesions, *labels) + losses.lesion_cross_entropy_loss(lesions, *labels)


def _grading_loss(
    model: DeepMTDR, graded: Any, grade: Tensor, known: Tensor, weights: LossWeights, processes: Processes
) -> Tensor:
    """Eq. (10), or the method's own over the photographs that somebody graded."""
    classes = _class_weights(weights, graded.logits)
    if own := published_loss(model.grading):
        return own(graded, GradeLabels(grade, known, classes, processes.all_reduce))
    return losses.grading_loss(graded.logits, grade, classes, graded=known, all_reduce=processes.all_reduce)


def _class_weights(weights: LossWeights, like: Tensor) -> Tensor | None:
    return like.new_tensor(weights.class_weights) if weights.class_weights else None


def _values(**terms: Tensor) -> dict[str, float]:
    return {name: float(value.detach()) for name, value in terms.items()}
