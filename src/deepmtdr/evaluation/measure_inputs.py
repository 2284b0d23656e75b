"""What a thorough measurement adds: other images in the place of SR, and lesions laid back on the photograph.

Whether super-resolution helps is not said by PSNR: the same network reads SR, the bicubic image and the HR frame, and
its grades and lesions are scored side by side. What it sees on SR and not on HR was invented, and the other way lost.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from scipy.ndimage import label, maximum_filter

from deepmtdr.datasets.sample import Sample
from deepmtdr.errors import DeepMTDRError
from deepmtdr.evaluation.evidence import evidence_scores
from deepmtdr.evaluation.measure import (
    BICUBIC,
    HR,
    ORIGINAL,
    SR,
    Agreement,
    FramedPhotograph,
    InputResult,
    LesionCurves,
    LesionResult,
    PhotographResult,
    as_tensor,
    failed_result,
    lesion_result,
    load_into_frame,
    measure_in_frame,
    measure_prediction,
    predict_frame,
)
from deepmtdr.metrics import PooledCurve
from deepmtdr.model.deepmtdr import DeepMTDR, Prediction
from deepmtdr.model.isr import bicubic
from deepmtdr.photographs.decode import map_to_photograph
from deepmtdr.terms import FRAME, LESION_THRESHOLD, Lesion

MATCH_DISTANCE = 5 / FRAME
"""Two lesions are one if no more than this share of the frame's side is between them: half of a microaneurysm of 125
micrometres, in a field of view of 45 degrees (about 13 mm)."""


def measure_all_inputs(
    model: DeepMTDR,
    sample: Sample,
    *,
    frame: int = FRAME,
    as_lr: int | None = 256,
    bf16: bool = False,
    temperature: float = 1.0,
    removal: int = 0,
) -> tuple[PhotographResult, Mapping[str, LesionCurves]]:
    """Read one photograph as `measure` does, its bicubic image and HR frame beside it, and score the evidence.

    Args:
        model: the network, in evaluation mode.
        sample: the photograph and its labels.
        frame: see `measure`.
        as_lr: see `measure`.
        bf16: see `measure`.
        temperature: see `measure`.
        removal: steps of deletion and insertion on annotated photographs, three readings each; 0: none.

    Returns:
        The measurements, and the fine pixel counts by reading (`SR`, `BICUBIC`, `HR`, `ORIGINAL`), as far as there is
        an HR frame and an annotation.
    """
    try:
        seen = load_into_frame(sample, frame, as_lr)
        annotated, seen = seen, seen if model.has_segmentation else seen.without_masks()
        prediction = predict_frame(model, as_tensor(seen.lr), seen.scale, bf16, temperature)
        # There is an HR frame, and the ISR subnet was not skipped.
        others = {} if seen.hr is None or seen.scale == 1 else _read_others(model, seen, bf16, temperature)
    except (DeepMTDRError, OSError) as error:
        return failed_result(sample, error), {}
    measured, curves = measure_in_frame(sample, seen, prediction)
    beside, pools, maps = {}, {SR: curves}, {SR: _maps(prediction)}
    for name, other in others.items():
        probs, lesions, pools[name] = measure_prediction(other, seen)
        beside[name], maps[name] = InputResult(probs if model.has_grading else (), lesions), _maps(other)
    if seen.original is not None and seen.lesion_masks:
        lesions, pools[ORIGINAL] = measure_on_original(maps[SR], seen)
        beside[ORIGINAL] = InputResult((), lesions)
    evidence = None
    if annotated.lesion_masks and model.has_grading:
        how: dict[str, Any] = {"steps": removal, "bf16": bf16, "temperature": temperature}
        evidence = evidence_scores(model, prediction.sr, annotated.lesion_masks, seen.inside, **how)
    agreement = _agreement(maps, seen.inside) if model.has_segmentation else {}
    measured = replace(measured, other_inputs=beside, agreement=agreement, evidence=evidence)
    return measured if model.has_grading else replace(measured, probs=()), pools


def _read_others(model: DeepMTDR, seen: FramedPhotograph, bf16: bool, temperature: float) -> dict[str, Prediction]:
    assert seen.hr is not None
    images = {BICUBIC: bicubic(as_tensor(seen.lr), seen.scale).clamp(0, 1), HR: as_tensor(seen.hr)}
    return {name: predict_frame(model, image, 1, bf16, temperature) for name, image in images.items()}


def _maps(prediction: Prediction) -> Float[np.ndarray, "4 f f"]:
    return prediction.lesions[0].float().clamp(0, 1).cpu().numpy()


def measure_on_original(
    maps: Float[np.ndarray, "4 f f"], seen: FramedPhotograph
) -> tuple[dict[Lesion, LesionResult], LesionCurves]:
    """Lay the lesions back on the photograph, and measure them there, pixel by pixel, against the masks as drawn.

    Args:
        maps: probabilities in the frame.
        seen: the photograph in the frame, with its `original`.

    Returns:
        As `measure_prediction`; pixels outside the field of view do not count.
    """
    assert seen.original is not None
    fov, (height, width), masks = seen.original
    inside = map_to_photograph(seen.inside.astype(np.float32), fov, height, width) >= 0.5
    lesions, curves = {}, {}
    for lesion, mask in masks.items():
        curves[lesion] = curve = PooledCurve()
        curve.update(map_to_photograph(maps[lesion], fov, height, width).clip(0, 1), mask, inside)
        lesions[lesion] = lesion_result(curve)
    return lesions, curves


def _agreement(
    maps: Mapping[str, Float[np.ndarray, "4 f f"]], inside: Bool[np.ndarray, "f f"]
) -> dict[str, dict[Lesion, Agreement]]:
    if HR not in maps:
        return {}
    return {
        name: {lesion: count_agreement(maps[name][lesion], maps[HR][lesion], inside) for lesion in Lesion}
        for name in (SR, BICUBIC)
    }


def count_agreement(
    probability: Float[np.ndarray, "f f"], on_hr: Float[np.ndarray, "f f"], inside: Bool[np.ndarray, "f f"]
) -> Agreement:
    """Count the lesions (8-connected, from `LESION_THRESHOLD` on) that an image and the HR frame do not share.

    Args:
        probability: of one lesion type, seen on the image.
        on_hr: of the same type, seen on HR.
        inside: the field of view.
    """
    here, there = ((p >= LESION_THRESHOLD) & inside for p in (probability, on_hr))
    (seen, invented), (known, lost) = _apart(here, there), _apart(there, here)
    return Agreement(seen, invented, known, lost)


def _apart(lesions: Bool[np.ndarray, "f f"], others: Bool[np.ndarray, "f f"]) -> tuple[int, int]:
    """How many lesions there are, and how many of them have none of the others near."""
    reach = 2 * max(round(MATCH_DISTANCE * lesions.shape[0]), 1) + 1
    numbers, count = np.zeros(lesions.shape, np.int32), 0
    count = int(label(lesions, np.ones((3, 3)), output=numbers))  # pyright: ignore[reportArgumentType]
    near = np.unique(numbers[maximum_filter(others, reach) & lesions])
    return count, count - near.size
