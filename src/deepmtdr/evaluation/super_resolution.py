"""Scores of the super-resolved image: PSNR and SSIM, of the whole frame (Table IV) and in the field of view (R16)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from deepmtdr.evaluation.photograph_result import InputImage, PhotographResult
from deepmtdr.evaluation.scores import Bootstrap, Score, ScoreKey, ScoreTable, group_by_dataset
from deepmtdr.metrics.intervals import nan_mean

IMAGE_SCORES = ("psnr_fov", "ssim_fov", "ms_ssim_fov", "psnr_whole", "ssim_whole")
GAIN = "gain"
"""Subject of the differences SR - bicubic."""


def super_resolution_scores(measured: Sequence[PhotographResult], bootstrap: Bootstrap) -> list[Score]:
    """Compute mean scores of SR, of bicubic, and of their difference, over the photographs with an HR frame."""
    return [
        ScoreKey(ScoreTable.SUPER_RESOLUTION, dataset, subject).row(
            name, bootstrap.interval(nan_mean, having, values), having, "no pixel counts, or none was measured"
        )
        for dataset, group in group_by_dataset(measured)
        if (having := [m for m in group if m.image])
        for subject, name, values in _image_values(having)
    ]


def _image_values(having: list[PhotographResult]) -> Iterator[tuple[str, str, np.ndarray]]:
    for name in IMAGE_SCORES:
        if any(f"{name}_{InputImage.SR}" in m.image for m in having):
            sr, plain = (image_scores(having, name, image) for image in (InputImage.SR, InputImage.BICUBIC))
            yield InputImage.SR, name, sr
            yield InputImage.BICUBIC, name, plain
            yield GAIN, name, sr - plain


def image_scores(measured: Sequence[PhotographResult], name: str, image: InputImage) -> np.ndarray:
    """Return one score of one image for each photograph; nan where it was not measured."""
    return np.array([m.image.get(f"{name}_{image}", np.nan) for m in measured])
