"""The ISR subnet: super-resolution of a photograph into the HR frame (Sec. IV-A, Fig. 6, R1, R2, R31, R35)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from deepmtdr.losses import LossWeights, image_loss, isr_loss, total_variation_loss
from deepmtdr.model.interfaces import DEFAULT_WEIGHTS, SuperResolver, find_wrong_sizes
from deepmtdr.model.preprocessing import in_field
from deepmtdr.terms import SCALES


def bicubic(image: Float[Tensor, "b c h w"], scale: int | float) -> Float[Tensor, "b c H W"]:
    """Resize by bicubic interpolation with Pillow's kernel (a = -0.5, not torch's -0.75), antialiased when shrinking.

    Args:
        image: RGB in [0, 1].
        scale: 4.0 makes the image four times as large, 0.25 four times as small.

    Returns:
        The resized image in float32; overshoot at edges is not clamped.
    """
    size = [round(side * scale) for side in image.shape[-2:]]
    with torch.autocast(image.device.type, enabled=False):
        # Contiguous first: channels-last has no fast antialiased kernel.
        return F.interpolate(image.float().contiguous(), size=size, mode="bicubic", antialias=True)


CLOSED_REACH = 4
"""Dark regions inside the field of view that are at most twice this wide, px of the LR image, count as inside."""


def bicubic_in_field(image: Float[Tensor, "b 3 h w"], scale: int) -> Float[Tensor, "b 3 H W"]:
    """Enlarge by bicubic interpolation without mixing the black border into the rim of the field of view (R31).

    A pixel at the rim is partly black: its share inside the field of view is its light divided by that of its
    neighbours inside. Colours are interpolated from the inside, shares separately. The enlarged share, made steeper,
    is the rim; colours are multiplied by it. Without a border the result is that of `bicubic`.

    Args:
        image: RGB in [0, 1], a frame or a crop.
        scale: 2, 4 or 8.

    Returns:
        The enlarged image in float32, not clamped; outside the field of view that of `bicubic`. Differentiable in the
        image, with the field of view and the shares as constants.
    """
    with torch.autocast(image.device.type, enabled=False):
        image = image.float()
        rim = _find_rim(image)
        inner = torch.where(rim.inner, image, 0.0)
        neighbours = _sum_of_neighbours(inner) / rim.inner_count.clamp_min(1)
        colour = torch.where(rim.pixels, neighbours, inner)
        share = rim.inner + rim.pixels * (image.mean(1, True) / neighbours.mean(1, True).clamp_min(1e-3)).clamp(0, 1)
        known = (rim.inner | rim.pixels).float()
        weights = bicubic(torch.cat([known, share.detach()], dim=1), scale)
        # A rim that the camera blurs by 1 to 2 px of the frame is scale times wider in the enlarged share.
        steep = ((weights[:, 1:2] - 0.5) * (1 + 3 * scale / 8) + 0.5).clamp(0, 1)
        return bicubic(colour, scale) / weights[:, :1].clamp_min(0.05) * steep + bicubic(image * (1 - known), scale)


class _Rim(NamedTuple):
    """The pixels at the border of the field of view."""

    inner: Bool[Tensor, "b 1 h w"]
    """Inside, and all eight neighbours too."""
    pixels: Bool[Tensor, "b 1 h w"]
    """Not `inner`, but next to such a pixel."""
    inner_count: Float[Tensor, "b 1 h w"]
    """Number of `inner` pixels among each pixel and its neighbours."""


def _find_rim(image: Float[Tensor, "b 3 h w"]) -> _Rim:
    inside = in_field(image)
    inside = 1 - _dilate(1 - _dilate(F.pad(inside, (CLOSED_REACH,) * 4), CLOSED_REACH), CLOSED_REACH)
    inside = inside[..., CLOSED_REACH:-CLOSED_REACH, CLOSED_REACH:-CLOSED_REACH]
    inner = 1 - _dilate(1 - inside, 1)
    count = _sum_of_neighbours(inner)
    return _Rim(inner > 0, (count > 0) & (inner == 0), count)


def _dilate(mask: Float[Tensor, "b 1 h w"], reach: int) -> Float[Tensor, "b 1 h w"]:
    """Maximum over a square of 2 reach + 1 px."""
    rows = F.max_pool2d(mask, (2 * reach + 1, 1), 1, (reach, 0))
    return F.max_pool2d(rows, (1, 2 * reach + 1), 1, (0, reach))


def _sum_of_neighbours(image: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """Sum over 3x3 px; 0 outside the image."""
    return F.avg_pool2d(image, 3, 1, 1, divisor_override=1)


SKIPS = {"bicubic": bicubic, "bicubic in field": bicubic_in_field}
"""Names and functions of the interpolation to which the ISR subnet adds its residual."""


LOCAL_BOX = 15
"""Side of the neighbourhood of `local_difference`, px of the LR image."""
LOCAL_GAIN = 4.0
"""Factor that scales edges of vessels and lesions in `local_difference` to about 1."""


def local_difference(lr: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
    """Subtract the mean of each pixel's neighbourhood, so that brightness and colour cast have no effect (R35)."""
    return LOCAL_GAIN * (lr - F.avg_pool2d(lr, LOCAL_BOX, 1, LOCAL_BOX // 2, count_include_pad=False))


@dataclass(frozen=True, kw_only=True)
class ISRConfig:
    """Size of the ISR subnet, its input, and the interpolation that it starts from."""

    width: int = 32
    """Channels of every hidden layer (the authors' 32)."""
    blocks: int = 5
    """Number of feature extraction layers, each a residual block (Sec. IV-A: 5)."""
    skip: str = "bicubic in field"
    """Interpolation to which the residual is added: `bicubic` (interpretation R2), or `bicubic in field`, which is
    normalised by the field of view (interpretation R31).
    """
    local_difference: bool = True
    """The first convolution has the difference of X from its local mean as input (interpretation R35), else X."""

    def problems(self) -> Iterator[str]:
        """Describe each setting that is out of range, and what was expected."""
        yield from find_wrong_sizes(width=self.width, blocks=self.blocks)
        if self.skip not in SKIPS:
            yield f"skip = {self.skip!r}, expected one of {', '.join(SKIPS)}"


class ResidualBlock(nn.Module):
    """conv3x3, LeakyReLU, conv3x3, + x."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Add the output of the two convolutions to x."""
        return x + self.conv2(F.leaky_relu(self.conv1(x), 0.1))


class UpscalingLayer(nn.Module):
    """Enlargement by 2 with a sub-pixel convolution (interpretation R2)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, 4 * width, 3, padding=1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c 2*h 2*w"]:
        """Double the height and width."""
        return F.leaky_relu(F.pixel_shuffle(self.conv(x), 2), 0.1)


class ISRSubnet(SuperResolver):
    """Image super-resolution by 2, 4 or 8 from one set of features.

    The feature extraction and up-scaling layers are shared between the scales; each scale has a separate last
    convolution (interpretation R1). The output is an interpolation of X plus a residual whose last convolution starts
    at zero (interpretations R2 and R31): the untrained subnet is that interpolation.
    """

    def __init__(self, config: ISRConfig | None = None) -> None:
        super().__init__()
        config = config or ISRConfig()
        self.interpolate = SKIPS[config.skip]
        self.local_difference = config.local_difference
        self.stem = nn.Conv2d(3, config.width, 3, padding=1)
        self.blocks = nn.Sequential(*(ResidualBlock(config.width) for _ in range(config.blocks)))
        self.upscaling = nn.ModuleList(UpscalingLayer(config.width) for _ in SCALES)
        self.to_rgb = nn.ModuleDict({str(scale): nn.Conv2d(config.width, 3, 3, padding=1) for scale in SCALES})
        for parameter in self.to_rgb.parameters():
            nn.init.zeros_(parameter)

    def forward(self, lr: Float[Tensor, "b 3 h w"], scale: int = 4) -> Float[Tensor, "b 3 H W"]:
        """Super-resolve.

        Args:
            lr: low-resolution photographs X, RGB in [0, 1].
            scale: 2, 4 or 8.

        Returns:
            The super-resolved images, `scale` times as large; not clamped to [0, 1]: training needs the gradient.

        Raises:
            ValueError: if the scale is not 2, 4 or 8.
        """
        if scale not in SCALES:
            raise ValueError(f"ISR subnet: scale {scale}, expected one of {SCALES}")
        x = F.leaky_relu(self.stem(local_difference(lr) if self.local_difference else lr), 0.1)
        x = self.blocks(x) + x
        for layer in self.upscaling[: SCALES.index(scale) + 1]:  # 2 = 2**1, 4 = 2**2, 8 = 2**3
            x = layer(x)
        return self.interpolate(lr, scale) + self.to_rgb[str(scale)](x)

    def loss(
        self, sr: Float[Tensor, "b 3 h w"], hr: Float[Tensor, "b 3 h w"], weights: LossWeights = DEFAULT_WEIGHTS
    ) -> Float[Tensor, ""]:
        """Compute Eq. (11) without its task-aware terms: Eqs. (6) and (7)."""
        none = sr.new_zeros(())
        return isr_loss(image_loss(sr, hr), total_variation_loss(sr), none, none, weights)
