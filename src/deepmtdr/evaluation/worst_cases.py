"""The photographs whose grade is furthest off, and small pictures of them."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence

from PIL import Image

from deepmtdr.datasets.sample import Sample
from deepmtdr.errors import DeepMTDRError
from deepmtdr.evaluation.grading import GRADE_TASK
from deepmtdr.evaluation.measure import PhotographResult
from deepmtdr.photographs.decode import crop_to_frame, find_fov, read_photograph
from deepmtdr.terms import Grade

MAX_CASES = 10
THUMBNAIL_SIDE = 160
"""Of a picture, px."""


def predicted_grade(measured: PhotographResult) -> Grade:
    """The most probable grade, the lower one of equals."""
    return max(Grade, key=lambda grade: measured.probs[grade])


def worst_cases(measured: Iterable[PhotographResult], most: int = MAX_CASES) -> list[PhotographResult]:
    """The photographs that are graded wrong: furthest off first, then the lowest probability of the true grade."""
    wrong = [m for m in measured if GRADE_TASK.is_scored(m) and predicted_grade(m) != m.grade]
    return sorted(wrong, key=_how_right)[:most]


def _how_right(measured: PhotographResult) -> tuple[int, float]:
    truth = measured.grade or 0
    return -abs(predicted_grade(measured) - truth), measured.probs[truth]


def make_thumbnails(samples: Sequence[Sample], cases: Iterable[PhotographResult]) -> dict[tuple[str, str], bytes]:
    """Read the photographs of a few cases again and make a small JPEG picture of each field of view.

    Args:
        samples: among which the cases are found by data set and name.
        cases: photographs that were read before; one that cannot be read any more has no picture.

    Returns:
        Data set and name -> a JPEG file.
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
    pixels = read_photograph(sample.photograph).pixels
    file = io.BytesIO()
    Image.fromarray(crop_to_frame(pixels, find_fov(pixels), THUMBNAIL_SIDE)).save(file, "JPEG", quality=80)
    return file.getvalue()
