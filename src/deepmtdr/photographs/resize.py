"""Bicubic reduction, by which LR images are made (Sec. V-A): Keys' kernel with a = -1/2, widened against aliasing.

It is Pillow's BICUBIC but for the rounding between its passes; PyTorch computes it several times as fast.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import UInt8
from torch.nn import functional as F


def resize(pixels: UInt8[np.ndarray, "h w 3"], side: int) -> UInt8[np.ndarray, "side side 3"]:
    """Bring an image to a square of `side` px, antialiased bicubic.

    Args:
        pixels: RGB, 0 to 255.
        side: height and width of the result, px.
    """
    if not pixels.flags.writeable:  # torch takes no array that is read-only, though it would only read
        pixels = pixels.copy()
    image = torch.from_numpy(pixels)[None].permute(0, 3, 1, 2)  # channels-last, and so is what comes out
    resized = F.interpolate(image, (side, side), mode="bicubic", antialias=True)
    return np.ascontiguousarray(resized.permute(0, 2, 3, 1)[0].numpy())
