"""One photograph read by the network and measured against what is known of it (Sec. V-B, readings R15, R16, R19)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from deepmtdr.datasets.frames import read_lesion_masks
from deepmtdr.datasets.sample import Sample
from deepmtdr.errors import CheckpointError, DeepMTDRError
from deepmtdr.evaluation.evidence import EvidenceScores
from deepmtdr.metrics import MS_SSIM_MIN_SIDE, FrocCounts, PooledCurve, count_froc, mean_ssim, ms_ssim, psnr, ssim_map
from deepmtdr.model.deepmtdr import DeepMTDR, Prediction
from deepmtdr.model.isr import bicubic
from deepmtdr.photographs.decode import (
    FieldOfView,
    choose_input_scale,
    crop_mask,
    crop_to_frame,
    find_fov,
    fov_mask,
    read_photograph,
)
from deepmtdr.photographs.resize import resize
from deepmtdr.terms import FRAME, Lesion

COARSE_TOLERANCE = 0.01
"""Tolerance of the pixel counts that are kept of each photograph."""

SR, BICUBIC, HR = "sr", "bicubic", "hr"
"""The images that the network can read: its own, the plain one, and the truth."""
ORIGINAL = "original"
"""The photograph's own pixels, onto which what was found in the frame is laid back."""

MIN_COVERAGE = 0.5
"""A pixel of the frame is truly a lesion where the annotation covers at least this share of it."""


class LesionResult(NamedTuple):
    """How one lesion type was found on one photograph, inside the field of view."""

    average_precision: float
    """Nan where the photograph has no such lesion."""
    auc: float
    """Nan where `average_precision` is."""
    prevalence: float
    dice: float
    """Of the pixels above one half; nan where neither truth nor prediction has any."""
    iou: float
    counts: PooledCurve
    """The same pixels, counted coarsely: small enough to be kept of each photograph, to be drawn by the bootstrap."""
    froc: FrocCounts | None = None
    """Lesion by lesion; None: this type was not counted so."""


class InputResult(NamedTuple):
    """What the network says of the photograph brought to it in another way, or what it says in another place."""

    probs: tuple[float, ...]
    """Of the grades 0-4; empty where only the place is another."""
    lesions: Mapping[Lesion, LesionResult]
    """The annotated types."""


class Agreement(NamedTuple):
    """Lesions seen on one image and those seen on the HR frame, which is taken for the truth here."""

    detected: int
    """On the image."""
    hallucinated: int
    """Of these, with nothing on the HR frame near them."""
    detected_on_hr: int
    missed: int
    """Of those on the HR frame, with nothing on the image near them."""


@dataclass(frozen=True, kw_only=True)
class PhotographResult:
    """What is said of one photograph; whatever could not be measured is absent."""

    dataset: str
    name: str
    patient: str
    failure: str = ""
    """Why the photograph could not be read; empty: it was."""
    fov_side: int | None = None
    """Diameter of the field of view in the photograph's own pixels."""
    lr_size: int | None = None
    scale: int | None = None
    """The way into the HR frame; 1: the ISR subnet was skipped."""
    grade: int | None = None
    """The truth; None: nobody graded it."""
    probs: tuple[float, ...] = ()
    """Of the grades 0-4."""
    grade_only: bool = False
    """Another system said a grade and no probabilities: `probs` is 1 for this grade and 0 for the others."""
    positive: bool | None = None
    """The truth where only negative and positive are told apart, as in Real-LR; None: everywhere else."""
    p_positive: float | None = None
    """The probability beside `positive`."""
    image: Mapping[str, float] = field(default_factory=dict)
    """PSNR and SSIM against the HR frame; empty without an HR frame, or if the ISR subnet was skipped."""
    lesions: Mapping[Lesion, LesionResult] = field(default_factory=dict)
    """The annotated types."""
    other_inputs: Mapping[str, InputResult] = field(default_factory=dict)
    """Of the `BICUBIC` and the `HR` image instead of SR, and of SR on the `ORIGINAL` photograph's own pixels."""
    agreement: Mapping[str, Mapping[Lesion, Agreement]] = field(default_factory=dict)
    """Of the lesions on `SR` and on `BICUBIC` with those on HR."""
    evidence: EvidenceScores | None = None
    """Of the grade, held against the annotated lesions; None: it was not asked for, or nothing was annotated."""

    def for_input(self, reading: str) -> PhotographResult:
        """The same photograph with grade and lesions from another image or place; without them if it has none."""
        if reading == SR:
            return self
        probs, lesions = self.other_inputs.get(reading, ((), {}))
        return replace(self, probs=probs, lesions=lesions, other_inputs={})


class OriginalPhotograph(NamedTuple):
    """Where the frame was taken from, for going back there."""

    fov: FieldOfView
    shape: tuple[int, int]
    """Height and width of the photograph, px."""
    lesion_masks: Mapping[Lesion, Bool[np.ndarray, "h w"]]


class FramedPhotograph(NamedTuple):
    """A photograph brought into the frame, with what is known of it there."""

    lr: UInt8[np.ndarray, "s s 3"]
    """What the network is given."""
    hr: UInt8[np.ndarray, "f f 3"] | None
    """None: the photograph has fewer pixels than the frame, so nobody knows how it looks there."""
    inside: Bool[np.ndarray, "f f"]
    """The field of view."""
    scale: int
    """The way into the frame; 1: the ISR subnet is skipped."""
    lesion_masks: Mapping[Lesion, Bool[np.ndarray, "f f"]]
    """Of the annotated types."""
    fov_side: int | None = None
    """Diameter of the field of view in the photograph's own pixels; None: not known any more."""
    original: OriginalPhotograph | None = None
    """None: not known any more."""

    def without_masks(self) -> FramedPhotograph:
        """Without its lesion masks: for a system that segments nothing."""
        return self._replace(lesion_masks={}, original=None)


LesionCurves = Mapping[Lesion, PooledCurve]
"""Fine pixel counts of the annotated types of one photograph."""


def measure(
    model: DeepMTDR,
    sample: Sample,
    *,
    frame: int = FRAME,
    as_lr: int | None = 256,
    bf16: bool = False,
    temperature: float = 1.0,
    slow_metrics: bool = True,
) -> tuple[PhotographResult, LesionCurves]:
    """Read one photograph and measure what is known of it.

    Args:
        model: the network, in evaluation mode.
        sample: the photograph and its labels.
        frame: side of the HR frame in pixels.
        as_lr: size that the field of view is reduced to first, out of a frame of 1024 px: 256 is x4. None: the way of
            reading R19, straight into the frame if the photograph fills it.
        bf16: compute convolutions in bfloat16.
        temperature: see `Checkpoint.temperature`.
        slow_metrics: see `measure_in_frame`.

    Returns:
        The measurements, and the fine pixel counts of each annotated type, to be pooled. A photograph that cannot be
        read has its reason in `failure`, and nothing else.
    """
    try:
        seen = load_into_frame(sample, frame, as_lr)
        seen = seen if model.has_segmentation else seen.without_masks()
        prediction = predict_frame(model, as_tensor(seen.lr), seen.scale, bf16, temperature)
    except (DeepMTDRError, OSError) as error:
        return failed_result(sample, error), {}
    measured, curves = measure_in_frame(sample, seen, prediction, slow_metrics=slow_metrics)
    return measured if model.has_grading else replace(measured, probs=()), curves


def predict_frame(
    model: DeepMTDR, image: Float[Tensor, "1 3 s s"], scale: int, bf16: bool, temperature: float = 1.0
) -> Prediction:
    """What the network says, at this temperature, of an image that is `scale` times smaller than the frame.

    Raises:
        CheckpointError: if it says something that is no number.
    """
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        said = model.segment_and_grade(model.super_resolve(image, scale).float().clamp(0, 1))
    if not all(bool(part.isfinite().all()) for part in (said.sr, said.lesions, said.grade_logits)):
        raise CheckpointError("the network's answer is not finite, expected numbers: these weights cannot be used")
    return said._replace(grade_logits=said.grade_logits.float() / temperature)


def failed_result(sample: Sample, error: Exception) -> PhotographResult:
    """What is said of a photograph that could not be read."""
    return PhotographResult(**_labels(sample), failure=str(error) or type(error).__name__)


def measure_in_frame(
    sample: Sample, seen: FramedPhotograph, prediction: Prediction, *, slow_metrics: bool = True
) -> tuple[PhotographResult, LesionCurves]:
    """Measure what the network said of one photograph: the part that a look while training and an evaluation share.

    Args:
        sample: the photograph's labels; its files are not read.
        seen: the photograph in the frame.
        prediction: of a batch of one, on any device; `sr` clamped to [0, 1].
        slow_metrics: False leaves out SSIM and the FROC, which take longer than all the rest.

    Returns:
        As `measure`.
    """
    probs, lesions, curves = measure_prediction(prediction, seen, froc=(Lesion.MA,) if slow_metrics else ())
    measured = PhotographResult(
        **_labels(sample),
        fov_side=seen.fov_side,
        lr_size=seen.lr.shape[0],
        scale=seen.scale,
        probs=probs,
        image=_image_scores(prediction.sr, seen, slow_metrics),
        lesions=lesions,
    )
    return measured, curves


def measure_prediction(
    prediction: Prediction, seen: FramedPhotograph, froc: Collection[Lesion] = ()
) -> tuple[tuple[float, ...], dict[Lesion, LesionResult], LesionCurves]:
    """The grades' probabilities, and how the annotated lesions were found, in the frame's field of view.

    Args:
        prediction: of a batch of one, on any device.
        seen: the photograph in the frame.
        froc: the types that are to be counted lesion by lesion too.
    """
    probs = tuple(prediction.grade_logits[0].cpu().double().softmax(dim=0).tolist())
    found = prediction.lesions[0].float().cpu().numpy()
    lesions, curves = {}, {}
    for lesion, mask in seen.lesion_masks.items():
        curves[lesion] = curve = PooledCurve()
        curve.update(found[lesion], mask, seen.inside)
        counts = count_froc(found[lesion].clip(0, 1), mask, seen.inside) if lesion in froc else None
        lesions[lesion] = lesion_result(curve, counts)
    return probs, lesions, curves


def lesion_result(curve: PooledCurve, froc: FrocCounts | None = None) -> LesionResult:
    """What is kept of one lesion type on one photograph, from the fine counts of its pixels."""
    coarse = PooledCurve(COARSE_TOLERANCE)
    coarse.merge(curve)
    scores = curve.average_precision(), curve.auc(), curve.prevalence, curve.dice(), curve.iou()
    return LesionResult(*scores, coarse, froc)


def as_tensor(image: UInt8[np.ndarray, "h w 3"]) -> Float[Tensor, "1 3 h w"]:
    """An image as the network takes it: a batch of one, RGB in [0, 1]."""
    return torch.from_numpy(image.astype(np.float32) / 255).permute(2, 0, 1)[None].contiguous()


def _labels(sample: Sample) -> dict[str, Any]:
    grade = None if sample.grade is None else int(sample.grade)
    return {"dataset": sample.dataset, "name": sample.name, "patient": sample.patient, "grade": grade}


def load_into_frame(sample: Sample, frame: int, as_lr: int | None) -> FramedPhotograph:
    """Decode, find the field of view, reduce.

    Args:
        sample: the photograph and its labels.
        frame: side of the HR frame in pixels.
        as_lr: see `measure`.

    Raises:
        DeepMTDRError: if the photograph or one of its masks cannot be read, or it has no field of view.
    """
    pixels = read_photograph(sample.photograph).pixels
    fov = find_fov(pixels)
    scale = choose_input_scale(fov.side, as_lr).scale
    in_frame = crop_to_frame(pixels, fov, frame)
    hr = in_frame if fov.side >= frame else None
    lr_size = frame // scale
    lr = crop_to_frame(pixels, fov, lr_size) if hr is None else resize(hr, lr_size)
    masks = read_lesion_masks(sample, pixels.shape[:2]) if sample.lesion_masks else {}
    in_masks = {lesion: crop_mask(mask, fov, frame) >= MIN_COVERAGE for lesion, mask in masks.items()}
    original = OriginalPhotograph(fov, pixels.shape[:2], masks)
    return FramedPhotograph(lr, hr, fov_mask(in_frame), scale, in_masks, fov.side, original)


def _image_scores(sr: Float[Tensor, "1 3 f f"], seen: FramedPhotograph, slow_metrics: bool) -> dict[str, float]:
    """PSNR, SSIM and MS-SSIM of SR and of bicubic, in the field of view and whole (reading R16)."""
    if seen.hr is None or seen.scale == 1:
        return {}
    hr = seen.hr.astype(np.float32) / 255
    scores = {}
    for name, tensor in (("sr", sr), ("bicubic", bicubic(as_tensor(seen.lr), seen.scale).clamp(0, 1))):
        image = tensor[0].permute(1, 2, 0).float().cpu().numpy()
        windows = ssim_map(image, hr) if slow_metrics else None
        for place, mask in (("fov", seen.inside), ("whole", None)):
            scores[f"psnr_{place}_{name}"] = psnr(image, hr, mask)
            if windows is not None:
                scores[f"ssim_{place}_{name}"] = mean_ssim(windows, mask)
        if slow_metrics and min(hr.shape[:2]) >= MS_SSIM_MIN_SIDE:
            scores[f"ms_ssim_fov_{name}"] = ms_ssim(image, hr, seen.inside)
    return scores
