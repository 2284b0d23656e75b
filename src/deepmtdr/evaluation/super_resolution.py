"""The scores of the super-resolved image: PSNR and SSIM as Table IV, and inside the field of view (reading R16)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from deepmtdr.evaluation.measure import PhotographResult
from deepmtdr.evaluation.scores import Bootstrap, Score, ScoreKey, group_by_dataset, nan_mean

TASK = "super-resolution"
IMAGE_SCORES = ("psnr_fov", "ssim_fov", "ms_ssim_fov", "psnr_whole", "ssim_whole")


def super_resolution_scores(measured: Sequence[PhotographResult], bootstrap: Bootstrap) -> list[Score]:
    """Mean scores of SR, of bicubic, and the gain from one to the other, over photographs with an HR frame."""
    return [
        ScoreKey(TASK, dataset, subject).row(
            name, bootstrap.interval(nan_mean, having, values), having, "no pixel counts, or none was measured"
        )
        for dataset, group in group_by_dataset(measured)
        if (having := [m for m in group if m.image])
        for subject, name, values in _image_values(having)
    ]


def _image_values(having: list[PhotographResult]) -> Iterator[tuple[str, str, np.ndarray]]:
    for name in IMAGE_SCORES:
        if any(f"{name}_sr" in m.image for m in having):
            sr, plain = (
                np.array([m.image.get(f"{name}_{image}", np.nan) for m in having]) for image in ("sr", "bicubic")
            )
            yield from (("sr", name, sr), ("bicubic", name, plain), ("gain", name, sr - plain))
