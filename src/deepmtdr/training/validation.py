"""Validation while training: the scores of Sec. V-B, and pictures of a few photographs for the contact sheet.

The scores are computed by the functions of the evaluation, so that validation and evaluation agree.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from deepmtdr import metrics
from deepmtdr.datasets.frames import Frame, mask_channels
from deepmtdr.datasets.prepared import COVERAGE_THRESHOLD
from deepmtdr.evaluation.framed_photograph import FramedPhotograph, to_batch
from deepmtdr.evaluation.measure import measure_in_frame, model_device
from deepmtdr.evaluation.photograph_result import PhotographResult
from deepmtdr.labels import LabelSet
from deepmtdr.metrics.stratified import mean_over_strata
from deepmtdr.model.deepmtdr import DeepMTDR, Prediction
from deepmtdr.model.preprocessing import tensor_to_image
from deepmtdr.photographs.geometry import fov_mask
from deepmtdr.photographs.resize import resize
from deepmtdr.recipe import VALIDATION_SCORES
from deepmtdr.training.grouping import group_by, take_in_turn

Autocast = Callable[[], AbstractContextManager[object]]


class ValidationExample(NamedTuple):
    """Prediction for one photograph in the HR frame, and its labels."""

    name: str
    """Data set and name."""
    lr: UInt8[np.ndarray, "h w 3"]
    """Input of the network."""
    sr: UInt8[np.ndarray, "f f 3"]
    hr: UInt8[np.ndarray, "f f 3"] | None
    """HR image; None for a low-resolution photograph."""
    lesion_masks: UInt8[np.ndarray, "l f f"] | None
    """Lesion masks as coverage, 0 to 255; None: no lesion type is annotated."""
    annotated: tuple[bool, ...]
    """Whether each lesion type is annotated; masks of other types have no meaning."""
    lesions: Float[np.ndarray, "l f f"]
    """Predicted probabilities of the lesion types."""
    evidence: Float[np.ndarray, "f f"]
    """Evidence in [0, 1]."""
    grade: int | None
    """The true grade; None: not graded."""
    grade_probs: tuple[float, ...]
    """Predicted probabilities of the grades."""


class ValidationResult(NamedTuple):
    """Result of one validation."""

    scores: dict[str, float]
    """`photographs` (their number), the `VALIDATION_SCORES` that are defined for them, and `live_units`."""
    examples: list[ValidationExample]


def validate(
    model: DeepMTDR, frames: Sequence[Frame], *, scale: int = 4, max_examples: int = 4, autocast: Autocast = nullcontext
) -> ValidationResult:
    """Predict photographs one at a time and score the predictions.

    The model is put into evaluation mode and back. No random number is drawn and no gradient is left. A photograph of
    scale 1 is also the HR image, as in training.

    Args:
        model: the network, on any device.
        frames: prepared photographs.
        scale: 2, 4 or 8, by which a photograph of scale 1 is reduced to its LR image. A low-resolution
            photograph has a fixed scale. 1 skips the ISR subnet, and the gains are undefined.
        max_examples: number of the first photographs that are returned with their pictures and evidence.
        autocast: function that makes a context for the passes of the network, such as `partial(torch.autocast, "cpu",
            torch.bfloat16)`.

    Returns:
        `psnr_gain` and `psnr_gain_eroded` (dB, means over the photographs with an HR image, in the field of view with
        and without its rim, over plain and normalised bicubic interpolation), `aupr_mean` (mean over the
        lesion types that are annotated and occur, of the AUPR of all pixels; without union labels), `kappa_quadratic`
        and `auc_referable` of the graded photographs (means over the data sets by `mean_over_strata`, because a score
        over several cameras rewards recognising the camera), each if it is defined and finite; and the pictures.

    Raises:
        DataError: if a prepared file is missing or damaged; the message names it.
    """
    results: list[PhotographResult] = []
    live: list[Bool[Tensor, " d"]] = []
    examples: list[ValidationExample] = []
    pooled: dict[str, metrics.PooledCurve] = {}
    with _evaluation_mode(model):
        for frame in frames:
            framed = _load(frame, scale, model.has_segmentation)
            prediction, evidence = _predict(model, framed, autocast, with_evidence=len(examples) < max_examples)
            result, curves = measure_in_frame(model, frame.sample, framed, prediction, slow_metrics=False)
            results.append(replace(result, lesions={}))  # large, and pooled below
            for code, curve in curves.items():  # union labels are no part of the mean over the types
                if code not in model.labels.codes:
                    continue
                pooled.setdefault(code, metrics.PooledCurve()).merge(curve)
            if prediction.hidden is not None:
                live.append((prediction.hidden > 0).any(dim=0))
            if evidence is not None:
                examples.append(_example(frame, framed, prediction, evidence, result))
    scores = _scores(results, pooled, model.labels)
    if live:
        scores["live_units"] = float(torch.stack(live).any(dim=0).float().mean())
    return ValidationResult({"photographs": float(len(frames)), **scores}, examples)


def select_validation_frames(frames: Iterable[Frame], max_per_dataset: int) -> list[Frame]:
    """Choose the photographs of every validation; the order of `frames` does not matter.

    Args:
        frames: the validation split.
        max_per_dataset: largest number of photographs of one data set; 0: all.

    Returns:
        From each data set in turn: photographs with lesion masks first, then those without; both spread evenly over the
        grades, the highest first.
    """
    by_dataset = group_by(sorted(frames, key=_hash_order), lambda frame: frame.sample.dataset)
    chosen = []
    for _, own in sorted(by_dataset.items()):
        annotated, others = ([f for f in own if f.sample.has_masks is has_masks] for has_masks in (True, False))
        ranked = [*_spread_over_grades(annotated), *_spread_over_grades(others)]
        chosen.append(ranked[:max_per_dataset] if max_per_dataset else ranked)
    return list(take_in_turn(chosen))


def _hash_order(frame: Frame) -> tuple[str, str]:
    """Return a sort key without pattern: neighbours by name often are of one camera, or two eyes of one patient."""
    name = f"{frame.sample.dataset}/{frame.sample.name}"
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest(), name


def _spread_over_grades(frames: Sequence[Frame]) -> Iterator[Frame]:
    """Take one photograph of each grade in turn, from the highest down; no grade counts as the lowest."""
    grades = group_by(frames, lambda frame: -1 if frame.sample.grade is None else int(frame.sample.grade))
    return take_in_turn(grades[grade] for grade in sorted(grades, reverse=True))


@contextmanager
def _evaluation_mode(model: DeepMTDR) -> Iterator[None]:
    modes = [(module, module.training) for module in model.modules()]  # a frozen part may have another mode
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def _load(frame: Frame, scale: int, has_segmentation: bool) -> FramedPhotograph:
    """Load a prepared photograph like the evaluation does."""
    pixels = np.array(frame.pixels)
    hr = pixels if frame.scale == 1 else None
    lr = pixels if hr is None or scale == 1 else resize(hr, frame.size // scale)
    inside = fov_mask(resize(pixels, frame.size) if hr is None else hr)
    framed = FramedPhotograph(lr, hr, inside, scale if frame.scale == 1 else frame.scale, {})
    return _with_masks(framed, frame) if has_segmentation else framed


def _with_masks(framed: FramedPhotograph, frame: Frame) -> FramedPhotograph:
    """Add the masks of a prepared photograph, as the evaluation of the prepared set reads them."""
    sample, labels = frame.sample, frame.labels
    channels = mask_channels([frame])
    masks = frame.masks(channels)
    if masks is None:  # nothing is annotated, or without lesions
        masks = np.zeros((len(labels.lesions) + len(channels.unions), frame.size, frame.size), np.uint8)
    lesions = {code: masks[labels.channel(code)] > COVERAGE_THRESHOLD for code in sample.lesion_masks}
    first = len(labels.lesions)
    unions = {union: masks[first + n] > COVERAGE_THRESHOLD for n, union in enumerate(channels.unions)}
    return framed._replace(
        lesion_masks=lesions, union_masks=unions, ignored=masks[-1] > 0 if channels.ignored else None
    )


def _predict(
    model: DeepMTDR, framed: FramedPhotograph, autocast: Autocast, *, with_evidence: bool
) -> tuple[Prediction, Float[Tensor, "1 1 f f"] | None]:
    """Predict a photograph. The evidence needs a backward pass through the grading subnet: only on request."""
    lr = to_batch(framed.lr).to(model_device(model))
    if with_evidence:
        with autocast():
            return model.predict(lr, framed.scale)
    with torch.inference_mode(), autocast():
        return model.segment_and_grade(model.super_resolve(lr, framed.scale).float().clamp(0, 1)), None


def _example(
    frame: Frame,
    framed: FramedPhotograph,
    prediction: Prediction,
    evidence: Float[Tensor, "1 1 f f"],
    result: PhotographResult,
) -> ValidationExample:
    return ValidationExample(
        name=f"{result.dataset} {result.name}",
        lr=framed.lr,
        sr=tensor_to_image(prediction.sr[0]),
        hr=framed.hr,
        lesion_masks=frame.lesion_masks,
        annotated=frame.sample.annotated(frame.labels),
        lesions=prediction.lesions[0].float().clamp(0, 1).cpu().numpy(),
        evidence=evidence[0, 0].float().clamp(0, 1).cpu().numpy(),
        grade=result.grade,
        grade_probs=result.probs,
    )


def _scores(
    results: Sequence[PhotographResult], pooled: Mapping[str, metrics.PooledCurve], labels: LabelSet
) -> dict[str, float]:
    scores = {
        "psnr_gain": _mean_of_defined(gain for r in results if (gain := r.psnr_gain) is not None),
        "psnr_gain_eroded": _mean_of_defined(gain for r in results if (gain := r.psnr_gain_eroded) is not None),
        "aupr_mean": _mean_of_defined(curve.average_precision() for curve in pooled.values()),
    }
    graded = [result for result in results if result.grade is not None and result.probs]
    if graded:
        probs, truth = np.array([result.probs for result in graded]), np.array([r.grade for r in graded], np.int64)
        referable_from = labels.referable_from
        p_referable, strata = probs[:, referable_from:].sum(axis=1), [result.dataset for result in graded]
        scores["kappa_quadratic"] = mean_over_strata(metrics.kappa_quadratic, strata, probs.argmax(1), truth)
        scores["auc_referable"] = mean_over_strata(metrics.auc, strata, p_referable, truth >= referable_from)
    return {name: scores[name] for name in VALIDATION_SCORES if math.isfinite(scores.get(name, math.nan))}


def _mean_of_defined(values: Iterable[float]) -> float:
    defined = [value for value in values if not math.isnan(value)]
    return sum(defined) / len(defined) if defined else math.nan
