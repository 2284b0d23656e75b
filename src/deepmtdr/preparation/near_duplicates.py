"""Find near duplicates by a perceptual hash of the field of view (Sec. V-A)."""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray
from PIL import Image
from scipy import fft, ndimage

_SIDE = 64
_FREQUENCIES = 17

BITS = 256


def perceptual_hash(frame: UInt8[np.ndarray, "s s 3"]) -> str:
    """Compute a hash that changes little with size, brightness or compression of the photograph.

    The green channel is reduced to 64 px. Its local contrast depends on vessels and lesions, not on the illumination or
    the circle. Each bit states whether one of its lowest frequencies is above their median.

    Args:
        frame: a photograph cropped to its field of view, RGB.

    Returns:
        256 bits, hexadecimal.
    """
    green = Image.fromarray(np.ascontiguousarray(frame[..., 1])).resize((_SIDE, _SIDE), Image.Resampling.BOX)
    light = np.asarray(green, np.float32)
    offset = np.arange(_SIDE) - (_SIDE - 1) / 2
    inside = (offset[:, None] ** 2 + offset**2 < (0.45 * _SIDE) ** 2).astype(np.float32)
    around = ndimage.gaussian_filter(light * inside, 6) / np.maximum(ndimage.gaussian_filter(inside, 6), 1e-3)
    contrast = np.arcsinh((light - around) / (0.05 * around + 1)) * inside
    waves = np.asarray(fft.dctn(contrast, norm="ortho"))[1:_FREQUENCIES, 1:_FREQUENCIES]
    return np.packbits(waves > np.median(waves)).tobytes().hex()


def find_near_duplicates(hashes: NDArray[np.uint64], within: int) -> list[tuple[int, int, int]]:
    """Pairs of photographs whose hashes differ in at most `within` bits.

    Args:
        hashes: n x 4 words, see `pack_hashes`.
        within: bits of 256.

    Returns:
        (first, second, bits that differ) by index, first < second.
    """
    found = []
    for first in range(len(hashes) - 1):
        differ = np.bitwise_count(hashes[first + 1 :] ^ hashes[first]).sum(axis=1)
        found.extend((first, first + 1 + int(i), int(differ[i])) for i in np.flatnonzero(differ <= within))
    return found


def pack_hashes(hashes: list[str]) -> NDArray[np.uint64]:
    """Hexadecimal hashes as rows of four 64-bit words."""
    return np.frombuffer(bytes.fromhex("".join(hashes)), np.uint64).reshape(-1, BITS // 64)
