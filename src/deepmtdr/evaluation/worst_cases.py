"""The photographs with the worst predicted grades, and small pictures of them."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence

from PIL import Image

from deepmtdr.datasets.frames import read_sample
from deepmtdr.datasets.sample import Sample
from deepmtdr.errors import DeepMTDRError
from deepmtdr.evaluation.photograph_result import PhotographResult
from deepmtdr.photographs.field_of_view import crop_to_frame, find_fov

MAX_CASES = 10
THUMBNAIL_SIDE = 160
"""Side of a picture, px."""


def worst_cases(measured: Iterable[PhotographResult], most: int = MAX_CASES) -> list[PhotographResult]:
    """List the photographs with a wrong grade: largest error first, then lowest probability of the true grade."""
    wrong = [m for m in measured if m.grade is not None and m.predicted_grade not in (None, m.grade)]
    return sorted(wrong, key=_rank)[:most]


def _rank(measured: PhotographResult) -> tuple[int, float]:
    truth, predicted = measured.grade or 0, measured.predicted_grade or 0
    return -abs(predicted - truth), measured.probs[truth]


def make_thumbnails(samples: Sequence[Sample], cases: Iterable[PhotographResult]) -> dict[tuple[str, str], bytes]:
    """Read a few photographs again and make a small JPEG picture of each field of view.

    Args:
        samples: photographs that include the cases.
        cases: photographs to be shown; one that can no longer be read has no picture.

    Returns:
        Data set and name -> JPEG file.
    """
    wanted = {(case.dataset, case.name) for case in cases}
    pictures = {}
    for sample in samples:
        if (key := (sample.dataset, sample.name)) in wanted:
            try:
                pictures[key] = _thumbnail(sample)
            except (DeepMTDRError, OSError):
                continue
    return pictures


def _thumbnail(sample: Sample) -> bytes:
    pixels = read_sample(sample).pixels
    file = io.BytesIO()
    Image.fromarray(crop_to_frame(pixels, find_fov(pixels), THUMBNAIL_SIDE)).save(file, "JPEG", quality=80)
    return file.getvalue()
