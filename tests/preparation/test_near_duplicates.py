"""The perceptual hash of the same photograph at another size, brightness and compression, and of others."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from deepmtdr.photographs.field_of_view import crop_to_frame, find_fov
from deepmtdr.preparation.audit import NEAR_DUPLICATE_BITS
from deepmtdr.preparation.near_duplicates import BITS, find_near_duplicates, pack_hashes, perceptual_hash
from deepmtdr.synthetic.drawings import draw_photograph
from deepmtdr.terms import Grade


def frame(seed: int, size: int = 256) -> np.ndarray:
    pixels = draw_photograph(seed, Grade.MODERATE, 256).photograph
    return crop_to_frame(pixels, find_fov(pixels), size)


def differing(one: np.ndarray, other: np.ndarray) -> int:
    ((_, _, bits),) = find_near_duplicates(pack_hashes([perceptual_hash(one), perceptual_hash(other)]), BITS)
    return bits


def compressed(pixels: np.ndarray) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=40)
    return np.asarray(Image.open(buffer))


@pytest.mark.parametrize("seed", range(4))
def test_hash_of_a_photograph_changes_little_with_size_brightness_and_compression(seed: int) -> None:
    photograph = frame(seed)
    darker = np.asarray(ImageEnhance.Brightness(Image.fromarray(photograph)).enhance(0.7))
    others = {"smaller": frame(seed, 160), "JPEG": compressed(photograph), "darker": darker}
    assert {
        what: bits for what, other in others.items() if (bits := differing(photograph, other)) > NEAR_DUPLICATE_BITS
    } == {}


def test_hashes_of_other_photographs_differ_more() -> None:
    hashes = pack_hashes([perceptual_hash(frame(seed)) for seed in range(12)])
    assert find_near_duplicates(hashes, NEAR_DUPLICATE_BITS) == []


def test_pairs_by_hand() -> None:
    none, one, all_ = ("00" * 32, "01" + "00" * 31, "ff" * 32)
    assert find_near_duplicates(pack_hashes([none, all_, one, none]), 1) == [(0, 2, 1), (0, 3, 0), (2, 3, 1)]
    assert find_near_duplicates(pack_hashes([none, all_]), 255) == []
    assert find_near_duplicates(pack_hashes([]), 256) == []
