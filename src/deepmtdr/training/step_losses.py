"""The losses of one training step in each stage (Sec. IV-C, Fig. 6). `backward` computes their gradients."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from deepmtdr import losses
from deepmtdr.losses import AllReduce, GradeLabels, LesionLabels, LossWeights, no_reduce
from deepmtdr.model.deepmtdr import DeepMTDR
from deepmtdr.model.interfaces import GradingOutput, Prediction, ScoreOnlyEvidence
from deepmtdr.model.isr import bicubic
from deepmtdr.model.stable_evidence import StableEvidenceConfig
from deepmtdr.training.backward import ISRTerms, StepLosses, trainable_parameters
from deepmtdr.training.batches import Batch, GradingBatch

__all__ = [
    "SINGLE_PROCESS",
    "Processes",
    "composed_losses",
    "grading_losses",
    "joint_losses",
    "restoration_losses",
    "super_resolve",
]


class Processes(NamedTuple):
    """The processes that share a batch, each with the same number of photographs; by default only one."""

    world_size: int = 1
    all_reduce: AllReduce = no_reduce

    def mean(self, loss: Tensor) -> Tensor:
        """Compute the mean over the processes, for a loss in which all photographs have the same weight."""
        return self.all_reduce(loss) / self.world_size


SINGLE_PROCESS = Processes()

DEFAULT_EVIDENCE = StableEvidenceConfig()


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
    sr = super_resolve(model, batch, scale)
    if not model.task_aware:
        return composed_losses(model, batch, sr, scale, weights, processes, grades=False)
    none = seg_aware = sr.new_zeros(())
    classes = None
    if model.has_segmentation and (weights.lambda_sa or trainable_parameters(model.segmentation)):
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
        isr_terms=_isr_terms(sr, image, variation, seg_aware, none, weights, processes),
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
    graded = model.grading(batch.image, batch.lesions)
    known = torch.ones_like(batch.grade, dtype=torch.bool)
    loss = model.grading.loss(graded, _grade_labels(batch.grade, known, graded, weights, processes))
    accuracy = processes.mean((graded.logits.argmax(dim=1) == batch.grade).float().mean())
    none = graded.logits.new_zeros(())
    return StepLosses(none, none, weights.grading * loss, none, _values(grading=loss, accuracy=accuracy))


def joint_losses(
    model: DeepMTDR,
    batch: Batch,
    scale: int,
    weights: LossWeights,
    processes: Processes = SINGLE_PROCESS,
    evidence: StableEvidenceConfig = DEFAULT_EVIDENCE,
    *,
    dropout: bool = True,
) -> StepLosses:
    """Stage 2, the whole of Fig. 6 on whole frames: every loss of Eqs. (4)-(11).

    Eq. (8) is computed for annotated photographs. Eq. (9) is computed for the other photographs, with the evidence mask
    of the HR frame as pseudo ground truth. The lesion maps are attached to the image in the grading network: the
    gradient of Eq. (5) at the image includes the paths through them (interpretation R27).

    Args:
        model: the network.
        batch: whole frames.
        scale: of the LR images; 1 skips the ISR subnet.
        weights: of the losses.
        processes: the processes that share the batch.
        evidence: how masks are made of the evidence.
        dropout: whether the grading loss gets logits with dropout, though the network is in evaluation mode.
    """
    sr = super_resolve(model, batch, scale)
    if not model.task_aware:
        return composed_losses(model, batch, sr, scale, weights, processes)
    on_sr = model.segment_and_grade(sr)
    on_hr, evidence_hr = model.predict_unchecked(batch.hr, scale=1)
    image, variation = _image_terms(sr, batch.hr, processes)
    seg_aware = cls_aware = xi = sr.new_zeros(())
    if weights.lambda_sa and scale > 1:
        seg_aware = processes.mean(losses.segmentation_aware_loss(on_sr.lesions, on_hr.lesions))
    if weights.lambda_ca and sr.requires_grad:  # Eq. (5) trains only the ISR subnet
        cls_aware = processes.mean(_classification_aware_loss(model, on_sr, on_hr, evidence_hr, weights, evidence))
    labels = _lesion_labels(batch, processes)
    dice = losses.dice_loss(on_sr.lesions, *labels)
    entropy = losses.lesion_cross_entropy_loss(on_sr.lesions, *labels)
    has_pseudo_mask = _has_pseudo_mask(model, batch)
    if weights.unsupervised and has_pseudo_mask.any():
        evidence_hr = model.average_evidence(on_hr, evidence_hr, evidence.turns)
    pseudo = losses.unsupervised_segmentation_loss(
        on_sr.lesion_region,
        evidence.prepare(evidence_hr),
        weights.phi_vis,
        has_pseudo_mask,
        processes.all_reduce,
        batch.ignored,
    )
    graded = on_sr.graded
    if dropout:
        graded = graded._replace(logits=model.grading.training_logits(graded))
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
        isr_terms=_isr_terms(sr, image, variation, seg_aware, cls_aware, weights, processes),
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


def super_resolve(model: DeepMTDR, batch: Batch, scale: int) -> Tensor:
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


def _isr_terms(
    sr: Tensor,
    image: Tensor,
    variation: Tensor,
    seg_aware: Tensor,
    cls_aware: Tensor,
    weights: LossWeights,
    processes: Processes,
) -> ISRTerms | None:
    """Return the terms of Eq. (11), if the gradients of its task-aware terms are limited; None if there are none."""
    weighted = {"sa": weights.lambda_sa * seg_aware, "ca": weights.lambda_ca * cls_aware}
    task_aware = {name: term for name, term in weighted.items() if term.requires_grad}
    if not (task_aware and sr.requires_grad and weights.task_aware_share):
        return None
    fidelity = weights.lambda_img * image + weights.lambda_tv * variation
    return ISRTerms(sr, fidelity, task_aware, weights.task_aware_share, weights.project_conflicts, processes.mean)


def _classification_aware_loss(
    model: DeepMTDR,
    on_sr: Prediction,
    on_hr: Prediction,
    evidence_hr: Tensor,
    weights: LossWeights,
    evidence: StableEvidenceConfig,
) -> Tensor:
    """Compute Eq. (5), or the loss of a method whose evidence has no location."""
    if isinstance(model.evidence_method, ScoreOnlyEvidence):
        return model.evidence_method.loss(on_sr, on_hr)
    # A method that is itself a gradient at the image would have none otherwise.
    create_graph = evidence.create_graph or model.evidence_method is not None
    evidence_sr = model.evidence(on_sr, create_graph=create_graph)
    both = evidence.prepare(evidence_sr), evidence.prepare(evidence_hr)
    return losses.classification_aware_loss(*both, weights.phi_vis, weights.tau)


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
