"""Predict one photograph on the bicubic image and the HR frame too, and score lesions on its original pixels.

PSNR alone does not show whether super-resolution helps. The same network therefore predicts from SR, the bicubic image
and the HR frame, and the predictions are compared. A lesion that is detected on SR but not on HR was hallucinated; one
that is detected on HR but not on SR was missed. On annotated photographs the same is counted against the annotation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float
from scipy.ndimage import maximum_filter

from deepmtdr.datasets.sample import Sample
from deepmtdr.errors import DeepMTDRError
from deepmtdr.evaluation.config import DEFAULT_CONFIG, EvaluationConfig
from deepmtdr.evaluation.evidence import EvidenceScores, evidence_scores
from deepmtdr.evaluation.framed_photograph import FramedPhotograph, load_into_frame, to_batch
from deepmtdr.evaluation.measure import (
    LesionCurves,
    failed_result,
    lesion_probability,
    lesion_result,
    measure_in_frame,
    measure_prediction,
    predict_frame,
)
from deepmtdr.evaluation.photograph_result import Agreement, InputImage, InputResult, LesionResult, PhotographResult
from deepmtdr.grade_decision import MOST_PROBABLE, GradeDecision
from deepmtdr.labels import LabelSet
from deepmtdr.metrics import PooledCurve, label_components
from deepmtdr.model.deepmtdr import DeepMTDR, Prediction
from deepmtdr.model.isr import bicubic
from deepmtdr.photographs.geometry import map_to_photograph
from deepmtdr.terms import FRAME, LESION_THRESHOLD

MATCH_DISTANCE = 5 / FRAME
"""Largest distance of two matching lesions, as a fraction of the frame's side: half the diameter of a microaneurysm of
125 micrometres, in a field of view of 45 degrees (about 13 mm)."""

LesionMaps = Float[np.ndarray, "l f f"]


def measure_all_inputs(
    model: DeepMTDR,
    sample: Sample,
    config: EvaluationConfig = DEFAULT_CONFIG,
    *,
    frame: int = FRAME,
    decision: GradeDecision = MOST_PROBABLE,
) -> tuple[PhotographResult, Mapping[InputImage, LesionCurves]]:
    """Do what `measure` does, also for the bicubic image and the HR frame, and score the evidence.

    Args:
        model: the network, in evaluation mode.
        sample: the photograph and its labels.
        config: `as_lr`, `scale`, `bf16`, `slow_metrics` and `removal_steps` are used.
        frame: side of the network's HR frame, px.
        decision: see `Checkpoint.decision`.

    Returns:
        The result, and the fine pixel counts by image. `BICUBIC` and `HR` are missing without an HR frame, and
        `ORIGINAL` without annotation.
    """
    try:
        annotated = load_into_frame(sample, config, frame)
        framed = annotated if model.has_segmentation else annotated.without_masks()
        prediction = predict_frame(model, to_batch(framed.lr), framed.scale, bf16=config.bf16, decision=decision)
        others = _predict_other_images(model, framed, config, decision)
    except (DeepMTDRError, OSError) as error:
        return failed_result(sample, error), {}
    result, curves = measure_in_frame(
        model, sample, framed, prediction, slow_metrics=config.slow_metrics, decision=decision
    )
    results, pools = {}, {InputImage.SR: curves}
    for image, other in others.items():
        probs, decided, lesions, pools[image] = measure_prediction(other, framed, model.labels, decision=decision)
        results[image] = InputResult(probs, lesions, decided) if model.has_grading else InputResult((), lesions)
    maps = {image: _lesion_maps(one) for image, one in {InputImage.SR: prediction, **others}.items()}
    if framed.original is not None and framed.has_masks:
        lesions, pools[InputImage.ORIGINAL] = measure_on_original(maps[InputImage.SR], framed, model.labels)
        results[InputImage.ORIGINAL] = InputResult((), lesions)
    agreement = _agreement(maps, framed.inside, model.labels) if model.has_segmentation else {}
    evidence = _evidence(model, annotated, prediction, config, decision)
    with_annotation = _agreement_with_annotation(maps, framed, model.labels)
    result = replace(result, agreement=agreement, annotated_agreement=with_annotation)
    return replace(result, other_inputs=results, evidence=evidence), pools


def _predict_other_images(
    model: DeepMTDR, framed: FramedPhotograph, config: EvaluationConfig, decision: GradeDecision
) -> dict[InputImage, Prediction]:
    """Predict the bicubic image and HR; empty without an HR frame, or if the ISR subnet was skipped."""
    if framed.hr is None or framed.scale == 1:
        return {}
    images = {
        InputImage.BICUBIC: bicubic(to_batch(framed.lr), framed.scale).clamp(0, 1),
        InputImage.HR: to_batch(framed.hr),
    }
    return {name: predict_frame(model, image, 1, bf16=config.bf16, decision=decision) for name, image in images.items()}


def _evidence(
    model: DeepMTDR,
    annotated: FramedPhotograph,
    prediction: Prediction,
    config: EvaluationConfig,
    decision: GradeDecision,
) -> EvidenceScores | None:
    """Scores of the evidence; None without annotation or grading."""
    if not (annotated.lesion_masks and model.has_grading):
        return None
    return evidence_scores(
        model,
        prediction.sr,
        annotated.lesion_masks,
        annotated.counted,
        steps=config.removal_steps,
        bf16=config.bf16,
        decision=decision,
    )


def _lesion_maps(prediction: Prediction) -> LesionMaps:
    return prediction.lesions[0].float().clamp(0, 1).cpu().numpy()


def measure_on_original(
    maps: LesionMaps, framed: FramedPhotograph, labels: LabelSet
) -> tuple[dict[str, LesionResult], LesionCurves]:
    """Transform the lesion maps back to the photograph, and score them there against the masks as they were drawn.

    Args:
        maps: probabilities in the frame.
        framed: the photograph in the frame, with its `original`.
        labels: lesion types in the order of the channels.

    Returns:
        Scores and fine pixel counts by code. Pixels outside the field of view and ignored pixels do not count.
    """
    assert framed.original is not None
    fov, masks = framed.original
    height, width = masks.shape
    inside = map_to_photograph(framed.inside.astype(np.float32), fov, height, width) >= 0.5
    counted = inside if masks.ignored is None else inside & ~masks.ignored
    lesions, curves = {}, {}
    for code, mask in {**masks.lesions, **masks.unions}.items():
        probability = map_to_photograph(lesion_probability(maps, code, labels), fov, height, width).clip(0, 1)
        curves[code] = curve = PooledCurve()
        curve.update(probability, mask, counted)
        lesions[code] = lesion_result(curve)
    return lesions, curves


def _agreement(
    maps: Mapping[InputImage, LesionMaps], inside: Bool[np.ndarray, "f f"], labels: LabelSet
) -> dict[InputImage, dict[str, Agreement]]:
    """Compute the agreement of SR and of bicubic with HR for each lesion type; empty without HR."""
    if InputImage.HR not in maps:
        return {}
    on_hr = dict(zip(labels.codes, maps[InputImage.HR], strict=True))
    return {
        image: {
            code: count_agreement(probability, on_hr[code], inside)
            for code, probability in zip(labels.codes, maps[image], strict=True)
        }
        for image in (InputImage.SR, InputImage.BICUBIC)
    }


def _agreement_with_annotation(
    maps: Mapping[InputImage, LesionMaps], framed: FramedPhotograph, labels: LabelSet
) -> dict[InputImage, dict[str, Agreement]]:
    """Compute the agreement of each image with the annotated lesions; empty without HR or annotation."""
    if InputImage.HR not in maps or not framed.lesion_masks:
        return {}
    return {
        image: {
            code: count_agreement(probabilities[labels.channel(code)], mask.astype(np.float64), framed.counted)
            for code, mask in framed.lesion_masks.items()
        }
        for image, probabilities in maps.items()
    }


def count_agreement(
    probability: Float[np.ndarray, "f f"], reference: Float[np.ndarray, "f f"], inside: Bool[np.ndarray, "f f"]
) -> Agreement:
    """Count the lesions that are on only one of two maps.

    A lesion is a connected component of the pixels with p >= `LESION_THRESHOLD`. Pixels that touch at a corner are
    connected.

    Args:
        probability: probability of one lesion type on the image.
        reference: probability of the same type on the HR frame, or 1 where it is annotated and 0 elsewhere.
        inside: the pixels that count.
    """
    here, there = ((p >= LESION_THRESHOLD) & inside for p in (probability, reference))
    return Agreement(*_count_unmatched(here, there), *_count_unmatched(there, here))


def _count_unmatched(lesions: Bool[np.ndarray, "f f"], others: Bool[np.ndarray, "f f"]) -> tuple[int, int]:
    """Count the lesions, and those of them that have no lesion of `others` near them."""
    reach = 2 * max(round(MATCH_DISTANCE * lesions.shape[0]), 1) + 1
    numbers, count = label_components(lesions)
    near = np.unique(numbers[maximum_filter(others, reach) & lesions])
    return count, count - near.size
