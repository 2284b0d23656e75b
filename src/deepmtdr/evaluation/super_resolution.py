"""Scores of the super-resolved image: PSNR and SSIM, of the whole frame (Table IV) and in the field of view (R16)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

from deepmtdr.evaluation.framed_photograph import FramedPhotograph, to_batch
from deepmtdr.evaluation.photograph_result import InputImage, PhotographResult
from deepmtdr.evaluation.scores import Bootstrap, Score, ScoreKey, ScoreTable, group_by_dataset
from deepmtdr.metrics import MS_SSIM_MIN_SIDE, erode_field, mean_ssim, ms_ssim, psnr, ssim_map
from deepmtdr.metrics.intervals import nan_mean
from deepmtdr.model.isr import bicubic, bicubic_in_field
from deepmtdr.model.preprocessing import image_to_tensor
from deepmtdr.terms import FRAME

IMAGE_SCORES = (
    "psnr_fov",
    "psnr_fov_eroded",
    "ssim_fov",
    "ssim_fov_eroded",
    "ms_ssim_fov",
    "psnr_whole",
    "ssim_whole",
)
ERODED = 8 / FRAME
"""Width of the rim that the eroded field of view lacks, as a fraction of the frame's side."""
SCORED_IMAGES = (InputImage.SR, InputImage.BICUBIC, InputImage.NORMALISED_BICUBIC)
GAIN = "gain"
"""Subject of the differences SR - bicubic."""
GAIN_OVER_NORMALISED = "gain over normalised bicubic"
"""Subject of the differences SR - bicubic normalised by the field of view."""
DIFFERENCES = {GAIN: InputImage.BICUBIC, GAIN_OVER_NORMALISED: InputImage.NORMALISED_BICUBIC}
"""Subject -> the image whose score is subtracted from that of SR."""

Mask = Bool[np.ndarray, "f f"]


def measure_image(
    sr: Float[Tensor, "1 3 f f"], framed: FramedPhotograph, *, slow_metrics: bool = True
) -> dict[str, float]:
    """Compute PSNR, SSIM and MS-SSIM of SR, of bicubic and of bicubic normalised by the field of view (R16, R31).

    Args:
        sr: the super-resolved photograph, RGB in [0, 1].
        framed: the photograph in the frame.
        slow_metrics: False leaves out SSIM and MS-SSIM.

    Returns:
        Score and image, such as `psnr_fov_sr` -> value; empty without an HR frame, and if the ISR subnet was skipped.
        MS-SSIM is left out in a frame of less than 176 px.
    """
    if framed.hr is None or framed.scale == 1:
        return {}
    lr, hr = to_batch(framed.lr), np.ascontiguousarray(image_to_tensor(framed.hr).permute(1, 2, 0).numpy())
    images = sr, bicubic(lr, framed.scale).clamp(0, 1), bicubic_in_field(lr, framed.scale).clamp(0, 1)
    eroded = erode_field(framed.inside, round(ERODED * hr.shape[0]))
    places = {"fov": framed.inside, "fov_eroded": eroded, "whole": None}
    scores: dict[str, float] = {}
    for name, tensor in zip(SCORED_IMAGES, images, strict=True):
        image = tensor[0].permute(1, 2, 0).float().cpu().numpy()
        own = _scores_at(image, hr, places, slow_metrics)
        if slow_metrics and min(hr.shape[:2]) >= MS_SSIM_MIN_SIDE:
            own["ms_ssim_fov"] = ms_ssim(image, hr, framed.inside)
        scores |= {f"{score}_{name}": value for score, value in own.items()}
    return scores


def _scores_at(
    image: Float[np.ndarray, "f f 3"],
    hr: Float[np.ndarray, "f f 3"],
    places: Mapping[str, Mask | None],
    slow_metrics: bool,
) -> dict[str, float]:
    scores = {f"psnr_{place}": psnr(image, hr, mask) for place, mask in places.items()}
    if slow_metrics:
        windows = ssim_map(image, hr)
        scores |= {f"ssim_{place}": mean_ssim(windows, mask) for place, mask in places.items()}
    return scores


def super_resolution_scores(measured: Sequence[PhotographResult], bootstrap: Bootstrap) -> list[Score]:
    """Compute mean scores of SR, of both interpolations, and of the differences, over photographs with an HR frame."""
    return [
        ScoreKey(ScoreTable.SUPER_RESOLUTION, dataset, subject).row(
            name, bootstrap.interval(nan_mean, having, values), having, "no pixel counts, or none was measured"
        )
        for dataset, group in group_by_dataset(measured)
        if (having := [m for m in group if m.image])
        for subject, name, values in _image_values(having)
    ]


def _image_values(having: list[PhotographResult]) -> Iterator[tuple[str, str, np.ndarray]]:
    """Yield subject, score and the values of the photographs, for each score and image that was measured."""
    for name in IMAGE_SCORES:
        measured = [image for image in SCORED_IMAGES if any(f"{name}_{image}" in m.image for m in having)]
        values = {image: image_scores(having, name, image) for image in measured}
        yield from ((image, name, own) for image, own in values.items())
        for subject, other in DIFFERENCES.items():
            if InputImage.SR in values and other in values:
                yield subject, name, values[InputImage.SR] - values[other]


def image_scores(measured: Sequence[PhotographResult], name: str, image: InputImage) -> np.ndarray:
    """Return one score of one image for each photograph; nan where it was not measured."""
    return np.array([m.image.get(f"{name}_{image}", np.nan) for m in measured])
