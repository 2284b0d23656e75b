"""Predict one photograph and score the prediction against its labels (Sec. V-B, interpretations R15, R16, R19)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from deepmtdr.datasets.sample import Sample
from deepmtdr.errors import DeepMTDRError
from deepmtdr.evaluation.config import DEFAULT_CONFIG, EvaluationConfig
from deepmtdr.evaluation.framed_photograph import FramedPhotograph, load_into_frame, to_batch
from deepmtdr.evaluation.photograph_result import LesionResult, PhotographResult
from deepmtdr.evaluation.super_resolution import measure_image
from deepmtdr.grade_decision import MOST_PROBABLE, GradeDecision
from deepmtdr.labels import LabelSet
from deepmtdr.metrics import FrocCounts, PooledCurve, count_froc
from deepmtdr.model.deepmtdr import DeepMTDR, Prediction
from deepmtdr.model.value_checks import check_finite_outputs
from deepmtdr.terms import FRAME

COARSE_TOLERANCE = 0.01
"""Tolerance of the coarse pixel counts that are kept for each photograph."""

LesionCurves = Mapping[str, PooledCurve]
"""Fine pixel counts of one photograph by code, for the annotated lesion types and union labels."""


class FramePrediction(NamedTuple):
    """The scored prediction in the frame."""

    probs: tuple[float, ...]
    """Probability of each grade."""
    decided_grade: int | None
    """The predicted grade, if thresholds decide it; None: the most probable grade is predicted."""
    lesions: dict[str, LesionResult]
    curves: LesionCurves


def measure(
    model: DeepMTDR,
    sample: Sample,
    config: EvaluationConfig = DEFAULT_CONFIG,
    *,
    frame: int = FRAME,
    decision: GradeDecision = MOST_PROBABLE,
) -> tuple[PhotographResult, LesionCurves]:
    """Predict one photograph on its SR image and score the prediction.

    Args:
        model: the network, in evaluation mode.
        sample: the photograph and its labels.
        config: `as_lr`, `scale`, `bf16` and `slow_metrics` are used.
        frame: side of the network's HR frame, px.
        decision: see `Checkpoint.decision`.

    Returns:
        The result, and the fine pixel counts of each annotated lesion type for pooling. A photograph that cannot be
        read has the reason in `failure`, and no scores.
    """
    try:
        framed = load_into_frame(sample, config, frame)
        framed = framed if model.has_segmentation else framed.without_masks()
        prediction = predict_frame(model, to_batch(framed.lr), framed.scale, bf16=config.bf16, decision=decision)
    except (DeepMTDRError, OSError) as error:
        return failed_result(sample, error), {}
    return measure_in_frame(model, sample, framed, prediction, slow_metrics=config.slow_metrics, decision=decision)


def predict_frame(
    model: DeepMTDR,
    image: Float[Tensor, "1 3 s s"],
    scale: int,
    *,
    bf16: bool,
    decision: GradeDecision = MOST_PROBABLE,
) -> Prediction:
    """Predict one image on the device of the model.

    Args:
        model: the network, in evaluation mode.
        image: RGB in [0, 1], `scale` times smaller than the frame.
        scale: factor by which the image is enlarged to the frame.
        bf16: compute convolutions in bfloat16.
        decision: the grade logits are divided by its temperature, and its biases are added.

    Raises:
        PredictionError: if the network returns a value that is not finite.
    """
    device = model_device(model)
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        sr = model.super_resolve(image.to(device), scale).float().clamp(0, 1)
        prediction = model.segment_and_grade(sr)
    check_finite_outputs(
        {"SR image": prediction.sr, "lesions": prediction.lesions, "grade logits": prediction.grade_logits}
    )
    logits = prediction.grade_logits.float() / decision.temperature
    return prediction._replace(grade_logits=logits + logits.new_tensor(decision.biases) if decision.biases else logits)


def model_device(model: DeepMTDR) -> torch.device:
    """Return the device of the model's parameters; the CPU for a system without parameters."""
    parameter = next(model.parameters(), None)
    return torch.device("cpu") if parameter is None else parameter.device


def failed_result(sample: Sample, error: Exception) -> PhotographResult:
    """Make the result of a photograph without prediction."""
    return replace(labels_of(sample), failure=str(error) or type(error).__name__)


def labels_of(sample: Sample) -> PhotographResult:
    """Make a result that has only the labels of a photograph."""
    return PhotographResult(dataset=sample.dataset, name=sample.name, patient=sample.patient, grade=sample.grade)


def measure_in_frame(
    model: DeepMTDR,
    sample: Sample,
    framed: FramedPhotograph,
    prediction: Prediction,
    *,
    slow_metrics: bool = True,
    decision: GradeDecision = MOST_PROBABLE,
) -> tuple[PhotographResult, LesionCurves]:
    """Score the prediction for one photograph. Evaluation and validation during training share this function.

    Args:
        model: the network; without a grading subnet the result has no `probs`.
        sample: the photograph with its labels; its files are not read.
        framed: the photograph in the frame.
        prediction: prediction for a batch of one, on any device; `sr` in [0, 1].
        slow_metrics: False leaves out SSIM and FROC, which take longer than everything else.
        decision: its thresholds decide the grade; the logits of the prediction are calibrated already.

    Returns: The same as `measure`.
    """
    probs, decided, lesions, curves = measure_prediction(
        prediction, framed, model.labels, froc=slow_metrics, decision=decision
    )
    result = replace(
        labels_of(sample),
        fov_side=framed.fov_side,
        lr_size=framed.lr.shape[0],
        scale=framed.scale,
        probs=probs if model.has_grading else (),
        decided_grade=decided if model.has_grading else None,
        image=measure_image(prediction.sr, framed, slow_metrics=slow_metrics),
        lesions=lesions,
    )
    return result, curves


def measure_prediction(
    prediction: Prediction,
    framed: FramedPhotograph,
    labels: LabelSet,
    *,
    froc: bool = False,
    decision: GradeDecision = MOST_PROBABLE,
) -> FramePrediction:
    """Compute the probabilities of the grades, and scores of the annotated lesion types and union labels.

    The pixels of the field of view count, without the ignored ones.

    Args:
        prediction: prediction for a batch of one, on any device.
        framed: the photograph in the frame.
        labels: lesion types in the order of the channels.
        froc: count single lesions too, for the types that have `LesionType.froc`.
        decision: its thresholds decide the grade.
    """
    probs = tuple(prediction.grade_logits[0].cpu().double().softmax(dim=0).tolist())
    maps = prediction.lesions[0].float().cpu().numpy()
    lesions, curves = {}, {}
    pixels = framed.counted
    for code, mask in {**framed.lesion_masks, **framed.union_masks}.items():
        probability = lesion_probability(maps, code, labels)
        curves[code] = curve = PooledCurve()
        curve.update(probability, mask, pixels)
        counted = froc and code in framed.lesion_masks and labels.lesion(code).froc
        lesions[code] = lesion_result(curve, count_froc(probability.clip(0, 1), mask, pixels) if counted else None)
    decided = decision.grade(probs) if decision.thresholds else None
    return FramePrediction(probs, decided, lesions, curves)


def lesion_probability(maps: Float[np.ndarray, "l h w"], code: str, labels: LabelSet) -> Float[np.ndarray, "h w"]:
    """Return the map of a lesion type, or the sum of the maps of the types of a union label, at most 1."""
    channels = labels.channels(code)
    return maps[channels[0]] if len(channels) == 1 else maps[channels].sum(axis=0).clip(max=1)


def lesion_result(curve: PooledCurve, froc: FrocCounts | None = None) -> LesionResult:
    """Compute the scores of one lesion type on one photograph, from the fine counts of its pixels."""
    coarse = PooledCurve(COARSE_TOLERANCE)
    coarse.merge(curve)
    scores = curve.average_precision(), curve.auc(), curve.prevalence, curve.dice(), curve.iou()
    return LesionResult(*scores, coarse, froc)
