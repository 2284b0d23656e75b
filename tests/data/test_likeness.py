"""The perceptual hash: the same photograph at another size, tone and compression; another photograph."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from deepmtdr.data.audit import NEAR
from deepmtdr.data.likeness import BITS, near_pairs, perceptual_hash, words
from deepmtdr.data.photograph import crop_to_frame, find_fov
from deepmtdr.data.synthetic import draw
from deepmtdr.terms import Grade


def frame(seed: int, size: int = 256) -> np.ndarray:
    pixels = draw(seed, Grade.MODERATE, 256).photograph
    return crop_to_frame(pixels, find_fov(pixels), size)


def differing(one: np.ndarray, other: np.ndarray) -> int:
    ((_, _, bits),) = near_pairs(words([perceptual_hash(one), perceptual_hash(other)]), BITS)
    return bits


def compressed(pixels: np.ndarray) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=40)
    return np.asarray(Image.open(buffer))


@pytest.mark.parametrize("seed", range(4))
def test_the_same_photograph_is_near_whatever_was_done_to_the_file(seed: int) -> None:
    photograph = frame(seed)
    darker = np.asarray(ImageEnhance.Brightness(Image.fromarray(photograph)).enhance(0.7))
    others = {"smaller": frame(seed, 160), "JPEG": compressed(photograph), "darker": darker}
    assert {what: bits for what, other in others.items() if (bits := differing(photograph, other)) > NEAR} == {}


def test_other_photographs_are_far() -> None:
    hashes = words([perceptual_hash(frame(seed)) for seed in range(12)])
    assert near_pairs(hashes, NEAR) == []


def test_pairs_by_hand() -> None:
    none, one, all_ = ("00" * 32, "01" + "00" * 31, "ff" * 32)
    assert near_pairs(words([none, all_, one, none]), 1) == [(0, 2, 1), (0, 3, 0), (2, 3, 1)]
    assert near_pairs(words([none, all_]), 255) == []
    assert near_pairs(words([]), 256) == []
