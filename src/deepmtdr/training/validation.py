"""A look at the validation side while training: the scores of Sec. V-B, and what a few photographs look like.

The scores are measured by the evaluation's own functions, so that a look and an evaluation agree.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from itertools import zip_longest
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from deepmtdr.datasets.frames import Frame
from deepmtdr.datasets.prepared import COVERAGE_THRESHOLD
from deepmtdr.evaluation.grading import GRADING_SCORES
from deepmtdr.evaluation.measure import FramedPhotograph, PhotographResult, as_tensor, measure_in_frame
from deepmtdr.metrics import PooledCurve
from deepmtdr.model.deepmtdr import DeepMTDR, Prediction
from deepmtdr.photographs.field_of_view import fov_mask
from deepmtdr.photographs.resize import resize
from deepmtdr.recipe import VALIDATION_SCORES
from deepmtdr.terms import Lesion

T = TypeVar("T")
Autocast = Callable[[], AbstractContextManager[object]]


class ValidationExample(NamedTuple):
    """What one photograph looks like to the network, in the HR frame; the truth beside it, where it is known."""

    name: str
    """Data set and name."""
    lr: UInt8[np.ndarray, "h w 3"]
    """What the network was given."""
    sr: UInt8[np.ndarray, "f f 3"]
    hr: UInt8[np.ndarray, "f f 3"] | None
    """None: a low-resolution photograph, of which nobody knows how it looks there."""
    lesion_masks: UInt8[np.ndarray, "4 f f"] | None
    """Coverage, 0 to 255; None: no type was annotated."""
    annotated: tuple[bool, ...]
    """Which of the four types were annotated; elsewhere the masks say nothing."""
    lesions: Float[np.ndarray, "4 f f"]
    """Probabilities of MA, HE, EX, SE."""
    evidence: Float[np.ndarray, "f f"]
    """In [0, 1]."""
    grade: int | None
    """The truth; None: nobody graded it."""
    grade_probs: tuple[float, ...]
    """Of the grades 0-4."""


class ValidationResult(NamedTuple):
    """What one look gave."""

    scores: dict[str, float]
    """`photographs`, and those of `recipe.VALIDATION_SCORES` that are defined for them."""
    examples: list[ValidationExample]


def validate(
    model: DeepMTDR, frames: Sequence[Frame], *, scale: int = 4, max_examples: int = 4, autocast: Autocast = nullcontext
) -> ValidationResult:
    """Let the network as it stands read photographs, one at a time, and measure what is known of them.

    The model is in evaluation mode for it, and back as it was afterwards; no random number is drawn and no gradient is
    left. A photograph that fills the frame is taken for its own HR, as training takes it.

    Args:
        model: the network, on any device.
        frames: prepared photographs.
        scale: 2, 4 or 8, by which a photograph that fills the frame is reduced first; a low-resolution one comes into
            the frame by its own scale. 1 skips the ISR subnet and leaves `psnr_gain` undefined.
        shown: the first so many photographs are given back with their pictures and evidence.
        autocast: makes the context of the network's passes, such as `partial(torch.autocast, "cpu", torch.bfloat16)`.

    Returns:
        `psnr_gain` (dB, mean over the photographs with an HR frame, in the field of view), `aupr_mean` (of the pooled
        AUPR of the types that are annotated and occur), `kappa_quadratic` and `auc_referable` of the graded ones, each
        only if it is defined and finite; and the pictures.

    Raises:
        DataError: naming a prepared file that is missing or damaged.
    """
    measured: list[PhotographResult] = []
    seen: list[ValidationExample] = []
    pooled: dict[Lesion, PooledCurve] = {}
    with _evaluating(model):
        for frame in frames:
            brought = _bring(frame, scale, model.has_segmentation)
            prediction, evidence = _read(model, brought, autocast, with_evidence=len(seen) < max_examples)
            one, curves = measure_in_frame(frame.sample, brought, prediction, slow_metrics=False)
            one = one if model.has_grading else replace(one, probs=())
            measured.append(replace(one, lesions={}))  # their pixel counts are pooled, and need not be kept
            for lesion, curve in curves.items():
                pooled.setdefault(lesion, PooledCurve()).merge(curve)
            if evidence is not None:
                seen.append(_seen(frame, brought, prediction, evidence, one))
    return ValidationResult({"photographs": float(len(frames)), **_scores(measured, pooled)}, seen)


def select_validation_frames(frames: Iterable[Frame], most: int) -> list[Frame]:
    """Choose what every look is to see; the same photographs in any order give the same list.

    Args:
        frames: the validation side.
        most: photographs of one data set; 0 takes all.

    Returns:
        Those with lesion masks first, then evenly spread over the grades, from the highest down; data sets by turns,
        so that the first few show each of them.
    """
    by_dataset: dict[str, list[Frame]] = {}
    for frame in sorted(frames, key=_drawn_by_name):
        by_dataset.setdefault(frame.sample.dataset, []).append(frame)
    chosen = []
    for _, own in sorted(by_dataset.items()):
        annotated, others = ([f for f in own if bool(f.sample.lesion_masks) is known] for known in (True, False))
        ranked = [*_by_turns(_by_grade(annotated)), *_by_turns(_by_grade(others))]
        chosen.append(ranked[:most] if most else ranked)
    return list(_by_turns(chosen))


def _drawn_by_name(frame: Frame) -> tuple[str, str]:
    """An order that hangs on the name alone: neighbours by name are often one camera's, or two eyes of one patient."""
    name = f"{frame.sample.dataset}/{frame.sample.name}"
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest(), name


def _by_grade(frames: Sequence[Frame]) -> list[list[Frame]]:
    """From the highest grade down; those that nobody graded last."""
    grades: dict[int, list[Frame]] = {}
    for frame in frames:
        grades.setdefault(-1 if frame.sample.grade is None else int(frame.sample.grade), []).append(frame)
    return [grades[grade] for grade in sorted(grades, reverse=True)]


def _by_turns(groups: Iterable[Sequence[T]]) -> Iterator[T]:
    """The first of each group, the second of each, and so on."""
    nobody = object()
    for turn in zip_longest(*groups, fillvalue=nobody):
        yield from (one for one in turn if one is not nobody)  # pyright: ignore[reportReturnType]


@contextmanager
def _evaluating(model: DeepMTDR) -> Iterator[None]:
    modes = [(module, module.training) for module in model.modules()]  # a part that stands still may have its own
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def _bring(frame: Frame, scale: int, segments: bool) -> FramedPhotograph:
    """A prepared photograph as the evaluation would have brought it into the frame."""
    pixels = np.array(frame.pixels)
    hr = pixels if frame.scale == 1 else None
    lr = pixels if hr is None or scale == 1 else resize(hr, frame.size // scale)
    masks = frame.lesion_masks
    known = (
        {}
        if masks is None or not segments
        else {lesion: masks[lesion] > COVERAGE_THRESHOLD for lesion in frame.sample.lesion_masks}
    )
    inside = fov_mask(resize(pixels, frame.size) if hr is None else hr)
    return FramedPhotograph(lr, hr, inside, scale if frame.scale == 1 else frame.scale, known)


def _read(
    model: DeepMTDR, brought: FramedPhotograph, autocast: Autocast, *, with_evidence: bool
) -> tuple[Prediction, Float[Tensor, "1 1 f f"] | None]:
    """The evidence costs a pass back through the grading subnet: only who asks for it waits for it."""
    lr = as_tensor(brought.lr).to(next(model.parameters()).device)
    if with_evidence:
        with autocast():
            return model.predict(lr, brought.scale)
    with torch.inference_mode(), autocast():
        return model.segment_and_grade(model.super_resolve(lr, brought.scale).float().clamp(0, 1)), None


def _seen(
    frame: Frame,
    brought: FramedPhotograph,
    prediction: Prediction,
    evidence: Float[Tensor, "1 1 f f"],
    measured: PhotographResult,
) -> ValidationExample:
    sr = (255 * prediction.sr[0].float()).round().byte().permute(1, 2, 0).cpu()
    return ValidationExample(
        name=f"{measured.dataset} {measured.name}",
        lr=brought.lr,
        sr=sr.contiguous().numpy(),
        hr=brought.hr,
        lesion_masks=frame.lesion_masks,
        annotated=frame.sample.annotated,
        lesions=prediction.lesions[0].float().clamp(0, 1).cpu().numpy(),
        evidence=evidence[0, 0].float().clamp(0, 1).cpu().numpy(),
        grade=measured.grade,
        grade_probs=measured.probs,
    )


def _scores(measured: Sequence[PhotographResult], pooled: Mapping[Lesion, PooledCurve]) -> dict[str, float]:
    gains = [m.image["psnr_fov_sr"] - m.image["psnr_fov_bicubic"] for m in measured if m.image]
    scores = {
        "psnr_gain": _mean_of_defined(gains),
        "aupr_mean": _mean_of_defined(curve.average_precision() for curve in pooled.values()),
    }
    graded = [m for m in measured if m.grade is not None and m.probs]
    if graded:
        probs, truth = np.array([m.probs for m in graded]), np.array([m.grade for m in graded], np.int64)
        scores |= {name: GRADING_SCORES[name][0](probs, truth) for name in ("kappa_quadratic", "auc_referable")}
    return {name: scores[name] for name in VALIDATION_SCORES if math.isfinite(scores.get(name, math.nan))}


def _mean_of_defined(values: Iterable[float]) -> float:
    defined = [value for value in values if not math.isnan(value)]
    return sum(defined) / len(defined) if defined else math.nan
