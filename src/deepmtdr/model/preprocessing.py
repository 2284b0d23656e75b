"""Value ranges of images and network inputs, and local contrast (interpretation R21).

Images are RGB in [0, 1]. The segmentation and grading networks take an input between -`CONTRAST_LIMIT` and
`CONTRAST_LIMIT`: local contrast for the paper's subnets, scaled RGB for the compared methods.

The paper does not describe preprocessing. Cameras differ in gain, colour cast and illumination far more than a lesion
differs from its surroundings. Local contrast divides each channel by its local mean within the field of view. This
removes a gain, a cast or a shadow, and +0.1 means "10 % brighter than around". It is differentiable, and the same in
training and inference.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

WINDOW = 128
"""Side of the neighbourhood in px of the 1024 px frame: about the size of the optic disc."""
CELL = 16
"""Local means are computed on cells of this side in px and interpolated bilinearly, since they are smooth."""
GAIN = 3.0
"""Factor that scales vessels and lesions (contrast 0.1-0.5) to about 1."""
DARK = 16 / 255
"""A pixel whose brightest channel is darker than this is outside the field of view."""
FLOOR = 0.04
"""Constant added to the local mean: the blue channel of many cameras is nearly empty; its noise must not be
amplified.
"""
CONTRAST_LIMIT = 3.0
"""Network inputs lie between minus this value and this value."""
CONTRAST_STEPS_PER_UNIT = 255 / (2 * CONTRAST_LIMIT)
"""8-bit steps for one unit of network input, when inputs are cached on disk."""
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_SD = (0.229, 0.224, 0.225)


def local_contrast(frame: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
    """Compute the difference of each pixel from its local mean, as a share of that mean; 0 outside the field of view.

    Args:
        frame: RGB in [0, 1]; h and w multiples of 16, at least 16.

    Returns:
        GAIN * (x - mean) / (mean + FLOOR) in each channel, clamped to [-3, 3].
    """
    with torch.autocast(frame.device.type, enabled=False):
        frame = frame.float()
        inside = (frame.detach().amax(dim=1, keepdim=True) > DARK).float()
        mean = _local_mean(frame * inside) / _local_mean(inside).clamp_min(1e-3)
        return (GAIN * inside * (frame - mean) / (mean + FLOOR)).clamp(-CONTRAST_LIMIT, CONTRAST_LIMIT)


def _local_mean(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """Mean over about WINDOW x WINDOW px: two box filters on a coarse grid, which together are a triangular filter."""
    size, reach = x.shape[-2:], WINDOW // CELL // 2
    cells = F.avg_pool2d(x, CELL)
    for _ in range(2):
        cells = F.avg_pool2d(cells, reach + 1, stride=1, padding=reach // 2, count_include_pad=False)
    return F.interpolate(cells, size=size, mode="bilinear", align_corners=False)


def rgb_to_input(frame: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
    """Scale RGB in [0, 1] to [-3, 3], the range of network inputs; `input_to_rgb` is the inverse."""
    return CONTRAST_LIMIT * (2 * frame.float().clamp(0, 1) - 1)


def input_to_rgb(network_input: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
    """Scale an input that `rgb_to_input` made back to RGB in [0, 1]."""
    return (network_input / CONTRAST_LIMIT + 1) / 2


def to_signed(image: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """Scale values in [0, 1] to [-1, 1], as networks with Google's ImageNet weights expect them."""
    return 2 * image - 1


def normalise_imagenet(rgb: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
    """Normalise RGB in [0, 1] by ImageNet's mean and standard deviation."""
    mean, sd = (rgb.new_tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_SD))
    return (rgb - mean) / sd


def resize_frame(image: Float[Tensor, "b c h w"], side: int) -> Float[Tensor, "b c side side"]:
    """Resize a square frame to a network's native size, antialiased bilinear."""
    if image.shape[-1] == side:
        return image
    with torch.autocast(image.device.type, enabled=False):
        return F.interpolate(image.float().contiguous(), (side, side), mode="bilinear", antialias=True)


def image_to_tensor(image: UInt8[np.ndarray, "h w 3"]) -> Float[Tensor, "3 h w"]:
    """Convert an 8-bit RGB image to a tensor in [0, 1]."""
    return torch.from_numpy(np.array(image.transpose(2, 0, 1), order="C")).float() / 255


def tensor_to_image(rgb: Float[Tensor, "3 h w"]) -> UInt8[np.ndarray, "h w 3"]:
    """Convert an RGB tensor in [0, 1] to an 8-bit image."""
    return (255 * rgb.detach().float()).round().byte().permute(1, 2, 0).contiguous().cpu().numpy()


def input_to_uint8(network_input: Float[Tensor, "*shape"]) -> UInt8[Tensor, "*shape"]:
    """Convert network inputs in [-3, 3] to 0 to 255, to be cached on disk."""
    return ((network_input.float() + CONTRAST_LIMIT) * CONTRAST_STEPS_PER_UNIT).round().byte()


def uint8_to_input(cached: UInt8[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Convert the result of `input_to_uint8` back to network inputs in [-3, 3]."""
    return cached.float() / CONTRAST_STEPS_PER_UNIT - CONTRAST_LIMIT
