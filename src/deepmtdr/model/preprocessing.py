"""How the segmentation and grading subnets see a frame: its local contrast (reading R21).

The paper is silent on preprocessing. Cameras differ in gain, cast and illumination far more than in what a lesion does
to its surroundings: each channel is divided by its own local mean within the field of view, so that a gain, a cast or a
shadow is gone and +0.1 means "a tenth brighter than around". Differentiable, and the same at training and use.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

WINDOW = 128
"""Side of the neighbourhood in px of the 1024 frame: about the optic disc's, far more than a microaneurysm's."""
CELL = 16
"""Local means are taken on cells of this side and brought back bilinearly: they are smooth anyway."""
GAIN = 3.0
"""Brings vessels and lesions (contrast 0.1-0.5) to about unit size."""
DARK = 16 / 255
"""A pixel whose brightest channel is darker than this is outside the field of view."""
CONTRAST_LIMIT = 3.0
"""The networks' input lies between minus this value and this value."""
CONTRAST_STEPS_PER_UNIT = 255 / (2 * CONTRAST_LIMIT)
"""8-bit steps for one unit of local contrast, when network inputs are cached on disk."""
FLOOR = 0.04
"""Added to the local mean: the blue channel of many cameras is nearly empty, and its noise is not to be blown up."""


def local_contrast(frame: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
    """Each pixel's departure from its local mean, as a share of that mean; 0 outside the field of view.

    Args:
        frame: RGB in [0, 1]; h and w multiples of 16, at least 16.

    Returns:
        GAIN * (x - mean) / (mean + FLOOR) in each channel, held between -3 and 3.
    """
    with torch.autocast(frame.device.type, enabled=False):
        frame = frame.float()
        inside = (frame.detach().amax(dim=1, keepdim=True) > DARK).float()
        mean = _local_mean(frame * inside) / _local_mean(inside).clamp_min(1e-3)
        return (GAIN * inside * (frame - mean) / (mean + FLOOR)).clamp(-CONTRAST_LIMIT, CONTRAST_LIMIT)


def _local_mean(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """Mean over about WINDOW x WINDOW px: two box filters on the coarse grid, which together fall off like a tent."""
    size, reach = x.shape[-2:], WINDOW // CELL // 2
    cells = F.avg_pool2d(x, CELL)
    for _ in range(2):
        cells = F.avg_pool2d(cells, reach + 1, stride=1, padding=reach // 2, count_include_pad=False)
    return F.interpolate(cells, size=size, mode="bilinear", align_corners=False)
