"""Antialiased bicubic resampling, which makes the LR images (Sec. V-A): Keys' kernel with a = -1/2.

There are two implementations, whose results are equal in every bit. PyTorch's is twenty times as fast and is used if
the process has loaded PyTorch already. The other one needs NumPy and SciPy only, for inference engines without PyTorch.
Both are Pillow's BICUBIC but for the rounding of the kernel's weights.
"""

from __future__ import annotations

import sys

import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray
from scipy import sparse

KEYS_A = -0.5
"""Parameter of the kernel (R. G. Keys, 1981)."""


def resize(pixels: UInt8[np.ndarray, "h w 3"], side: int) -> UInt8[np.ndarray, "side side 3"]:
    """Resize an image to a square of `side` px, antialiased bicubic.

    Args:
        pixels: RGB, 0 to 255.
        side: height and width of the result, px.
    """
    return resize_by_torch(pixels, side) if "torch" in sys.modules else resize_by_numpy(pixels, side)


def resize_by_torch(pixels: UInt8[np.ndarray, "h w 3"], side: int) -> UInt8[np.ndarray, "side side 3"]:
    """Resize with PyTorch; see `resize`."""
    import torch
    from torch.nn import functional as F

    if not pixels.flags.writeable:  # torch.from_numpy warns of read-only arrays
        pixels = pixels.copy()
    image = torch.from_numpy(pixels)[None].permute(0, 3, 1, 2)  # channels-last, as is the result
    resized = F.interpolate(image, (side, side), mode="bicubic", antialias=True)
    return np.ascontiguousarray(resized.permute(0, 2, 3, 1)[0].numpy())


def resize_by_numpy(pixels: UInt8[np.ndarray, "h w 3"], side: int) -> UInt8[np.ndarray, "side side 3"]:
    """Resize with NumPy; see `resize`. First along the rows, then along the columns, rounded to 8 bits after each."""
    by_column = _resize_rows(pixels.swapaxes(0, 1), side)
    return _resize_rows(by_column.swapaxes(0, 1), side)


def _resize_rows(pixels: NDArray[np.uint8], count: int) -> NDArray[np.uint8]:
    """Resample the first axis to `count` rows, in integers as PyTorch does."""
    weights = [_weights(len(pixels), count, row) for row in range(count)]
    bits = _precision(max(float(own.max()) for _, own in weights))
    values = np.concatenate([own for _, own in weights]) * 2**bits
    values = np.trunc(values + np.copysign(0.5, values)).astype(np.int32)
    columns = np.concatenate([first + np.arange(len(own)) for first, own in weights])
    ends = np.cumsum([0, *(len(own) for _, own in weights)])
    matrix = sparse.csr_array((values, columns, ends), shape=(count, len(pixels)))
    sums = matrix @ pixels.reshape(len(pixels), -1).astype(np.int32)
    rounded = (sums + (1 << bits >> 1)) >> bits
    return rounded.clip(0, 255).astype(np.uint8).reshape(count, *pixels.shape[1:])


def _weights(length: int, count: int, row: int) -> tuple[int, NDArray[np.float64]]:
    """For each row of the result: the first source row that it depends on, and the weights from that row on."""
    scale = length / count
    width = max(scale, 1.0)  # the kernel is widened where the image shrinks, against aliasing
    centre = scale * (row + 0.5)
    first, end = max(int(centre - 2 * width + 0.5), 0), min(int(centre + 2 * width + 0.5), length)
    x = np.abs(np.arange(first, end) - centre + 0.5) / width
    near = ((KEYS_A + 2) * x - (KEYS_A + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * KEYS_A
    weights = np.where(x < 1, near, np.where(x < 2, far, 0.0))
    return first, weights / weights.sum()


def _precision(largest: float) -> int:
    """Number of fractional bits of the weights: as many as fit the largest weight into a signed 16-bit integer."""
    bits = 0
    while bits < 21 and int(0.5 + largest * 2 ** (bits + 1)) < 1 << 15:
        bits += 1
    return bits
