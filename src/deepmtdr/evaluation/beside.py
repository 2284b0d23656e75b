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

from deepmtdr.data.photograph import lay_back
from deepmtdr.data.sample import Sample
from deepmtdr.errors import DeepMTDRError
from deepmtdr.evaluation.evidence import evidence_scores
from deepmtdr.evaluation.measure import (
    BICUBIC,
    HR,
    ORIGINAL,
    SR,
    Agreement,
    Curves,
    InFrame,
    LesionPixels,
    Measured,
    Reading,
    as_tensor,
    bring,
    failed,
    lesion_pixels,
    measure_in_frame,
    measure_reading,
    read_frame,
)
from deepmtdr.metrics import PooledCurve
from deepmtdr.model.deepmtdr import DeepMTDR, Prediction
from deepmtdr.model.isr import bicubic
from deepmtdr.terms import FRAME, PRESENT, Lesion

NEAR = 5 / FRAME
"""Two lesions are one if no more than this share of the frame's side is between them: half of a microaneurysm of 125
micrometres, in a field of view of 45 degrees (about 13 mm)."""


def measure_thoroughly(
    model: DeepMTDR,
    sample: Sample,
    *,
    frame: int = FRAME,
    as_lr: int | None = 256,
    bf16: bool = False,
    temperature: float = 1.0,
    removal: int = 0,
) -> tuple[Measured, Mapping[str, Curves]]:
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
        seen = bring(sample, frame, as_lr)
        annotated, seen = seen, seen if model.segments else seen.unannotated()
        prediction = read_frame(model, as_tensor(seen.lr), seen.scale, bf16, temperature)
        # There is an HR frame, and the ISR subnet was not skipped.
        others = {} if seen.hr is None or seen.scale == 1 else _read_others(model, seen, bf16, temperature)
    except (DeepMTDRError, OSError) as error:
        return failed(sample, error), {}
    measured, curves = measure_in_frame(sample, seen, prediction)
    beside, pools, maps = {}, {SR: curves}, {SR: _maps(prediction)}
    for name, other in others.items():
        probs, lesions, pools[name] = measure_reading(other, seen)
        beside[name], maps[name] = Reading(probs if model.grades else (), lesions), _maps(other)
    if seen.original is not None and seen.lesion_masks:
        lesions, pools[ORIGINAL] = measure_on_original(maps[SR], seen)
        beside[ORIGINAL] = Reading((), lesions)
    evidence = None
    if annotated.lesion_masks and model.grades:
        how: dict[str, Any] = {"steps": removal, "bf16": bf16, "temperature": temperature}
        evidence = evidence_scores(model, prediction.sr, annotated.lesion_masks, seen.inside, **how)
    agreement = _agreement(maps, seen.inside) if model.segments else {}
    measured = replace(measured, beside=beside, agreement=agreement, evidence=evidence)
    return measured if model.grades else replace(measured, probs=()), pools


def _read_others(model: DeepMTDR, seen: InFrame, bf16: bool, temperature: float) -> dict[str, Prediction]:
    assert seen.hr is not None
    images = {BICUBIC: bicubic(as_tensor(seen.lr), seen.scale).clamp(0, 1), HR: as_tensor(seen.hr)}
    return {name: read_frame(model, image, 1, bf16, temperature) for name, image in images.items()}


def _maps(prediction: Prediction) -> Float[np.ndarray, "4 f f"]:
    return prediction.lesions[0].float().clamp(0, 1).cpu().numpy()


def measure_on_original(maps: Float[np.ndarray, "4 f f"], seen: InFrame) -> tuple[dict[Lesion, LesionPixels], Curves]:
    """Lay the lesions back on the photograph, and measure them there, pixel by pixel, against the masks as drawn.

    Args:
        maps: probabilities in the frame.
        seen: the photograph in the frame, with its `original`.

    Returns:
        As `measure_reading`; pixels outside the field of view do not count.
    """
    assert seen.original is not None
    fov, (height, width), masks = seen.original
    inside = lay_back(seen.inside.astype(np.float32), fov, height, width) >= 0.5
    lesions, curves = {}, {}
    for lesion, mask in masks.items():
        curves[lesion] = curve = PooledCurve()
        curve.update(lay_back(maps[lesion], fov, height, width).clip(0, 1), mask, inside)
        lesions[lesion] = lesion_pixels(curve)
    return lesions, curves


def _agreement(
    maps: Mapping[str, Float[np.ndarray, "4 f f"]], inside: Bool[np.ndarray, "f f"]
) -> dict[str, dict[Lesion, Agreement]]:
    if HR not in maps:
        return {}
    return {
        name: {lesion: agree(maps[name][lesion], maps[HR][lesion], inside) for lesion in Lesion}
        for name in (SR, BICUBIC)
    }


def agree(
    probability: Float[np.ndarray, "f f"], on_hr: Float[np.ndarray, "f f"], inside: Bool[np.ndarray, "f f"]
) -> Agreement:
    """Count the lesions (8-connected, from `PRESENT` on) that an image and the HR frame do not share.

    Args:
        probability: of one lesion type, seen on the image.
        on_hr: of the same type, seen on HR.
        inside: the field of view.
    """
    here, there = ((p >= PRESENT) & inside for p in (probability, on_hr))
    (seen, invented), (known, lost) = _apart(here, there), _apart(there, here)
    return Agreement(seen, invented, known, lost)


def _apart(lesions: Bool[np.ndarray, "f f"], others: Bool[np.ndarray, "f f"]) -> tuple[int, int]:
    """How many lesions there are, and how many of them have none of the others near."""
    reach = 2 * max(round(NEAR * lesions.shape[0]), 1) + 1
    numbers, count = np.zeros(lesions.shape, np.int32), 0
    count = int(label(lesions, np.ones((3, 3)), output=numbers))  # pyright: ignore[reportArgumentType]
    near = np.unique(numbers[maximum_filter(others, reach) & lesions])
    return count, count - near.size
