"""Value ranges of images and network inputs, and local contrast (interpretations R21 and R30).

Images are RGB in [0, 1]. The segmentation and grading networks take an input between -`CONTRAST_LIMIT` and
`CONTRAST_LIMIT`: local contrast for the paper's subnets, scaled RGB for the compared methods.

The paper does not describe preprocessing. Cameras differ in gain, colour cast and illumination far more than a lesion
differs from its surroundings. Local contrast divides each channel by its local mean within the field of view. This
removes a gain, a cast or a shadow, and +0.1 means "10 % brighter than around". It is differentiable, and the same in
training and inference.

The neighbourhood is a fixed share of the frame, whatever its size in pixels. A crop gets the local means of the frame
that it was cut from (interpretation R30): its own pixels do not contain the neighbourhood.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from deepmtdr.model.value_checks import check_8_bit_rgb

CELLS = 64
"""Local means are computed on a grid of this many cells along the longer side (cells of 16 px in a frame of 1024 px)
and interpolated bilinearly, since they are smooth.
"""
BOX = 5
"""Side of the box filter in cells. Two of them reach about 4 cells to each side: a neighbourhood of 1/8 of the frame's
side (128 px of 1024 px), about the size of the optic disc.
"""
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


class Preprocess(Protocol):
    """Function that makes the input of a network from an image; `rgb_to_input` and `local_contrast` are such."""

    def __call__(
        self, frame: Float[Tensor, "b 3 h w"], local_mean: Float[Tensor, "b 3 h w"] | None = None
    ) -> Float[Tensor, "b 3 h w"]:
        """Convert RGB in [0, 1] to a network input; `local_mean` is needed for crops, see `local_contrast`."""
        ...


class LocalMeanGrid(NamedTuple):
    """Local means of a frame on a coarse grid, from which those of its pixels or of a crop are interpolated."""

    light: Float[Tensor, "b 3 g k"]
    """Mean over the neighbourhood, with 0 outside the field of view."""
    share: Float[Tensor, "b 1 g k"]
    """Share of the neighbourhood inside the field of view."""


def local_contrast(
    frame: Float[Tensor, "b 3 h w"], local_mean: Float[Tensor, "b 3 h w"] | None = None
) -> Float[Tensor, "b 3 h w"]:
    """Compute the difference of each pixel from its local mean, as a share of that mean; 0 outside the field of view.

    Args:
        frame: a whole frame, or crops; RGB in [0, 1].
        local_mean: local means of the frame at the pixels of the crops, from `local_mean_at`; None: `frame` is a whole
            frame, and its local means are computed.

    Returns:
        GAIN * (x - mean) / (mean + FLOOR) in each channel, clamped to [-3, 3].
    """
    with torch.autocast(frame.device.type, enabled=False):
        frame = frame.float()
        inside = in_field(frame)
        mean = _local_mean(frame, inside) if local_mean is None else local_mean.float()
        return (GAIN * inside * (frame - mean) / (mean + FLOOR)).clamp(-CONTRAST_LIMIT, CONTRAST_LIMIT)


def in_field(image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 1 h w"]:
    """Return 1 for the pixels inside the field of view, which are brighter than `DARK`, else 0; without gradient."""
    return (image.detach().amax(dim=1, keepdim=True) > DARK).float()


def _local_mean(frame: Float[Tensor, "b 3 h w"], inside: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b 3 h w"]:
    light, share = (
        F.interpolate(grid, size=frame.shape[-2:], mode="bilinear", align_corners=False)
        for grid in local_mean_grid(frame, inside)
    )
    return light / share.clamp_min(1e-3)


def local_mean_grid(frame: Float[Tensor, "b 3 h w"], inside: Float[Tensor, "b 1 h w"]) -> LocalMeanGrid:
    """Average a whole frame over its neighbourhoods: two box filters on cells, together a triangular filter.

    Args:
        frame: RGB in [0, 1].
        inside: 1 inside the field of view, 0 outside.

    Returns:
        `CELLS` cells along the longer side. If the side is not a multiple of `CELLS`, cells overlap by a pixel or, in a
        frame of less than 64 px, several cells have the same pixel.
    """
    return LocalMeanGrid(_smooth_cells(frame * inside), _smooth_cells(inside))


def _smooth_cells(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c g k"]:
    cells = reduce_to_cells(x)
    for _ in range(2):
        cells = F.avg_pool2d(cells, BOX, stride=1, padding=BOX // 2, count_include_pad=False)
    return cells


def reduce_to_cells(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c g k"]:
    """Average the pixels of each cell."""
    height, width = x.shape[-2:]
    cell, rest = divmod(max(height, width), CELLS)
    if not (rest or height % cell or width % cell):
        return F.avg_pool2d(x, cell)
    rows, columns = (max(1, round(CELLS * side / max(height, width))) for side in (height, width))
    return F.adaptive_avg_pool2d(x, (rows, columns))


def local_mean_at(frame: Float[Tensor, "b 3 h w"], positions: Float[Tensor, "b 2 s t"]) -> Float[Tensor, "b 3 s t"]:
    """Compute the local means of a frame at the pixels of a crop, for `local_contrast` of the crop.

    Args:
        frame: the whole frame, RGB in [0, 1]; it may be reduced, because the neighbourhood is a share of its side.
        positions: x and y of each pixel of the crop in the frame, from -1 (left, top edge) to 1.
    """
    places = positions.permute(0, 2, 3, 1)
    light, share = (
        F.grid_sample(grid, places, mode="bilinear", padding_mode="border", align_corners=False)
        for grid in local_mean_grid(frame, in_field(frame))
    )
    return light / share.clamp_min(1e-3)


def rgb_to_input(
    frame: Float[Tensor, "b 3 h w"], local_mean: Float[Tensor, "b 3 h w"] | None = None
) -> Float[Tensor, "b 3 h w"]:
    """Scale RGB in [0, 1] to [-3, 3], the range of network inputs; `input_to_rgb` is the inverse.

    `local_mean` has no effect; it is there so that this function can replace `local_contrast`.
    """
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
    """Convert an 8-bit RGB image to a tensor in [0, 1].

    Raises:
        ValueError: if the array is something else.
    """
    check_8_bit_rgb(image)
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
