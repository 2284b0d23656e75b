"""The losses of one training step in each stage, and the parts that their gradients train (Sec. IV-C, Fig. 6)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from deepmtdr import losses
from deepmtdr.losses import AllReduce, GradeLabels, LesionLabels, LossWeights, no_reduce
from deepmtdr.model.deepmtdr import DeepMTDR
from deepmtdr.model.interfaces import SUBNETS, GradingOutput, Prediction, ScoreOnlyEvidence
from deepmtdr.model.isr import bicubic
from deepmtdr.training.batches import Batch, GradingBatch

__all__ = [
    "SINGLE_PROCESS",
    "SUBNETS",
    "Processes",
    "StepLosses",
    "backward_by_subnet",
    "composed_losses",
    "grading_losses",
    "joint_losses",
    "restoration_losses",
]


class Processes(NamedTuple):
    """The processes that share a batch, each with the same number of photographs; by default only one."""

    world_size: int = 1
    all_reduce: AllReduce = no_reduce

    def mean(self, loss: Tensor) -> Tensor:
        """Compute the mean over the processes, for a loss in which all photographs have the same weight."""
        return self.all_reduce(loss) / self.world_size


SINGLE_PROCESS = Processes()


class StepLosses(NamedTuple):
    """The losses of one step, already weighted, by the part that they train (interpretation R10)."""

    isr: Tensor
    """Loss of Eq. (11), which trains the ISR subnet only."""
    segmentation: Tensor
    """Loss of Eqs. (8) and (9), which trains the segmentation subnet and, end to end, the ISR subnet."""
    grading: Tensor
    """Loss of Eq. (10), which trains the grading subnet and, end to end, the ISR subnet."""
    xi: Tensor
    """Loss of interpretation R7, which trains the thresholds of Eq. (2) only."""
    terms: dict[str, float]
    """Unweighted value of each equation, for the log."""
    discriminator: Tensor | None = None
    """Loss that trains only the discriminator of an adversarial ISR subnet; None without a discriminator."""


def backward_by_subnet(step: StepLosses, model: DeepMTDR, *, end_to_end: bool) -> None:
    """Compute the gradient of each loss for the parts that it trains, and for no other parts (interpretation R10).

    The segmentation and grading subnets are not trained by Eq. (11), so its gradient is not computed for them.

    Args:
        step: the losses.
        model: the network that computed them.
        end_to_end: whether the segmentation and grading losses also train the ISR subnet.
    """
    isr, segmentation, grading = (_trainable(model.subnets[name]) for name in SUBNETS)
    if step.discriminator is not None and model.isr.discriminator is not None:
        opponent = _trainable(model.isr.discriminator)
        isr = [p for p in isr if all(p is not other for other in opponent)]
        _backward(step.discriminator, opponent)
    _backward(step.isr, isr)
    _backward(step.segmentation, segmentation + (isr if end_to_end else []))
    _backward(step.grading, grading + (isr if end_to_end else []))
    _backward(step.xi, _trainable(model.gmsv))


def _trainable(part: torch.nn.Module) -> list[torch.nn.Parameter]:
    return [parameter for parameter in part.parameters() if parameter.requires_grad]


def _backward(loss: Tensor, inputs: Sequence[Tensor]) -> None:
    if loss.requires_grad and inputs:
        loss.backward(inputs=list(inputs), retain_graph=True)


def restoration_losses(
    model: DeepMTDR, batch: Batch, scale: int, weights: LossWeights, processes: Processes = SINGLE_PROCESS
) -> StepLosses:
    """Stage 1a, on crops: Eqs. (4), (6), (7) for the ISR subnet, Eq. (8) for the segmentation subnet.

    The segmentation subnet is not run if it is frozen and Eq. (4) has no weight.

    Args:
        model: the network.
        batch: crops.
        scale: of the LR images; 1 skips the ISR subnet.
        weights: of the losses.
        processes: the processes that share the batch.
    """
    sr = _super_resolve(model, batch, scale)
    if not model.task_aware:
        return composed_losses(model, batch, sr, scale, weights, processes, grades=False)
    none = seg_aware = sr.new_zeros(())
    classes = None
    if model.has_segmentation and (weights.lambda_sa or _trainable(model.segmentation)):
        classes = model.segment(model.preprocess(sr, batch.local_mean)[0])
    image, variation = _image_terms(sr, batch.hr, processes)
    if classes is None:
        isr = _isr_loss(image, variation, none, none, scale, weights)
        return StepLosses(isr, none, none, none, _values(image=image, tv=variation))
    if weights.lambda_sa and scale > 1:
        with torch.no_grad():
            classes_hr = model.segment(model.preprocess(batch.hr, batch.local_mean)[0])
        seg_aware = processes.mean(losses.segmentation_aware_loss(classes[:, :-1], classes_hr[:, :-1]))
    # A slice for each loss: autograd sums gradients in this order, which earlier versions had, bit for bit.
    labels = _lesion_labels(batch, processes)
    dice = losses.dice_loss(classes[:, :-1], *labels)
    entropy = losses.lesion_cross_entropy_loss(classes[:, :-1], *labels)
    return StepLosses(
        _isr_loss(image, variation, seg_aware, none, scale, weights),
        losses.segmentation_loss(dice, entropy, none, weights),
        none,
        none,
        _values(image=image, tv=variation, seg_aware=seg_aware, dice=dice, cross_entropy=entropy),
    )


def grading_losses(
    model: DeepMTDR, batch: GradingBatch, weights: LossWeights, processes: Processes = SINGLE_PROCESS
) -> StepLosses:
    """Stage 1b: the grading loss on the cached outputs of the frozen subnets; xi is trained in the joint stage.

    Args:
        model: the network.
        batch: cached inputs of the grading subnet.
        weights: of the losses.
        processes: the processes that share the batch.
    """
    graded = model.grade(batch.image, batch.lesions)
    known = torch.ones_like(batch.grade, dtype=torch.bool)
    loss = model.grading.loss(graded, _grade_labels(batch.grade, known, graded, weights, processes))
    accuracy = processes.mean((graded.logits.argmax(dim=1) == batch.grade).float().mean())
    none = graded.logits.new_zeros(())
    return StepLosses(none, none, weights.grading * loss, none, _values(grading=loss, accuracy=accuracy))


def joint_losses(
    model: DeepMTDR, batch: Batch, scale: int, weights: LossWeights, processes: Processes = SINGLE_PROCESS
) -> StepLosses:
    """Stage 2, the whole of Fig. 6 on whole frames: every loss of Eqs. (4)-(11).

    Eq. (8) is computed for annotated photographs. Eq. (9) is computed for the other photographs, with the evidence mask
    of the HR frame as pseudo ground truth.

    Args:
        model: the network.
        batch: whole frames.
        scale: of the LR images; 1 skips the ISR subnet.
        weights: of the losses.
        processes: the processes that share the batch.
    """
    sr = _super_resolve(model, batch, scale)
    if not model.task_aware:
        return composed_losses(model, batch, sr, scale, weights, processes)
    on_sr = model.segment_and_grade(sr)
    on_hr, evidence_hr = model.predict(batch.hr, scale=1)
    image, variation = _image_terms(sr, batch.hr, processes)
    seg_aware = cls_aware = xi = sr.new_zeros(())
    if weights.lambda_sa and scale > 1:
        seg_aware = processes.mean(losses.segmentation_aware_loss(on_sr.lesions, on_hr.lesions))
    if weights.lambda_ca and sr.requires_grad:  # Eq. (5) trains only the ISR subnet
        cls_aware = processes.mean(_classification_aware_loss(model, on_sr, on_hr, evidence_hr, weights))
    labels = _lesion_labels(batch, processes)
    dice = losses.dice_loss(on_sr.lesions, *labels)
    entropy = losses.lesion_cross_entropy_loss(on_sr.lesions, *labels)
    pseudo = losses.unsupervised_segmentation_loss(
        on_sr.lesion_region,
        evidence_hr,
        weights.phi_vis,
        _has_pseudo_mask(model, batch),
        processes.all_reduce,
        batch.ignored,
    )
    graded = GradingOutput(on_sr.grade_logits, on_sr.features)
    grading = model.grading.loss(graded, _grade_labels(batch.grade, batch.graded, graded, weights, processes))
    if model.evidence_method is None:  # only GMSV has thresholds
        xi = model.gmsv.xi_loss(on_sr.features, on_sr.lesion_region, processes.all_reduce)
    return StepLosses(
        _isr_loss(image, variation, seg_aware, cls_aware, scale, weights),
        losses.segmentation_loss(dice, entropy, pseudo, weights),
        weights.grading * grading,
        xi,
        _values(
            image=image,
            tv=variation,
            seg_aware=seg_aware,
            cls_aware=cls_aware,
            dice=dice,
            cross_entropy=entropy,
            unsupervised=pseudo,
            grading=grading,
            xi=xi,
        ),
    )


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
    """Losses of a compared system: each part has its own loss; Eqs. (4), (5) and (9) are not used.

    Args:
        model: the network.
        batch: photographs.
        sr: their super-resolved images.
        scale: of the LR images; 1 skips the ISR subnet.
        weights: of the losses.
        processes: the processes that share the batch.
        grades: whether the grading subnet is trained too.
    """
    isr = segmentation = grading = none = sr.new_zeros(())
    discriminator, terms = None, {"image": processes.mean(losses.image_loss(sr, batch.hr))}
    if scale > 1:
        isr = terms["isr"] = processes.mean(model.isr.loss(sr, batch.hr, weights))
        if model.isr.discriminator is not None:
            discriminator = processes.mean(model.isr.discriminator_loss(sr.detach(), batch.hr))
            terms["adversary"] = discriminator
    segmentation_input, grading_input = model.preprocess(sr, batch.local_mean)
    classes = model.segment(segmentation_input)
    if model.has_segmentation:
        labels = _lesion_labels(batch, processes)
        segmentation = terms["segmentation"] = model.segmentation.loss(classes, labels, weights)
    if grades and model.has_grading:
        graded = model.grade(grading_input, classes[:, :-1].detach())
        labels = _grade_labels(batch.grade, batch.graded, graded, weights, processes)
        grading = terms["grading"] = model.grading.loss(graded, labels)
    return StepLosses(isr, segmentation, weights.grading * grading, none, _values(**terms), discriminator)


def _super_resolve(model: DeepMTDR, batch: Batch, scale: int) -> Tensor:
    """Compute SR images from the degraded photographs (interpretation R24)."""
    return model.super_resolve(bicubic(batch.degraded, 1 / scale).clamp(0, 1), scale)


def _image_terms(sr: Tensor, hr: Tensor, processes: Processes) -> tuple[Tensor, Tensor]:
    """Compute Eqs. (6) and (7)."""
    return processes.mean(losses.image_loss(sr, hr)), processes.mean(losses.total_variation_loss(sr))


def _isr_loss(
    image: Tensor, variation: Tensor, seg_aware: Tensor, cls_aware: Tensor, scale: int, weights: LossWeights
) -> Tensor:
    """Compute Eq. (11); 0 if the ISR subnet was skipped."""
    if scale == 1:
        return image.new_zeros(())
    return losses.isr_loss(image, variation, seg_aware, cls_aware, weights)


def _classification_aware_loss(
    model: DeepMTDR, on_sr: Prediction, on_hr: Prediction, evidence_hr: Tensor, weights: LossWeights
) -> Tensor:
    """Compute Eq. (5), or the loss of a method whose evidence has no location."""
    if isinstance(model.evidence_method, ScoreOnlyEvidence):
        return model.evidence_method.loss(on_sr, on_hr)
    evidence_sr = model.evidence(on_sr, create_graph=True)
    return losses.classification_aware_loss(evidence_sr, evidence_hr, weights.phi_vis, weights.tau)


def _has_pseudo_mask(model: DeepMTDR, batch: Batch) -> Tensor:
    """Return the photographs of Eq. (9): those without annotation, if the evidence has a location."""
    return ~batch.has_masks & (not isinstance(model.evidence_method, ScoreOnlyEvidence))


def _lesion_labels(batch: Batch, processes: Processes) -> LesionLabels:
    return LesionLabels(
        batch.lesion_masks, batch.annotated, processes.all_reduce, batch.ignored, batch.union_masks, batch.unions
    )


def _grade_labels(
    grade: Tensor, known: Tensor, graded: GradingOutput, weights: LossWeights, processes: Processes
) -> GradeLabels:
    class_weights = graded.logits.new_tensor(weights.class_weights) if weights.class_weights else None
    return GradeLabels(grade, known, class_weights, processes.all_reduce, weights.grading_form)


def _values(**terms: Tensor) -> dict[str, float]:
    return {name: float(value.detach()) for name, value in terms.items()}
