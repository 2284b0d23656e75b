"""The ISR subnet: super-resolution of a photograph into the HR frame (Sec. IV-A, Fig. 6, interpretations R1 and R2)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from deepmtdr.losses import LossWeights, image_loss, isr_loss, total_variation_loss
from deepmtdr.model.interfaces import DEFAULT_WEIGHTS, SuperResolver
from deepmtdr.terms import SCALES


def bicubic(image: Float[Tensor, "b 3 h w"], scale: int | float) -> Float[Tensor, "b 3 H W"]:
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


@dataclass(frozen=True, kw_only=True)
class ISRConfig:
    """Size of the ISR subnet."""

    width: int = 32
    """Channels of every hidden layer (the authors' 32)."""
    blocks: int = 5
    """Number of feature extraction layers, each a residual block (Sec. IV-A: 5)."""


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
    convolution (interpretation R1). The output is bicubic(X) plus a residual whose last convolution starts at zero
    (interpretation R2): the untrained subnet is bicubic interpolation.
    """

    def __init__(self, config: ISRConfig | None = None) -> None:
        super().__init__()
        config = config or ISRConfig()
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
        x = F.leaky_relu(self.stem(lr), 0.1)
        x = self.blocks(x) + x
        for layer in self.upscaling[: SCALES.index(scale) + 1]:  # 2 = 2**1, 4 = 2**2, 8 = 2**3
            x = layer(x)
        return bicubic(lr, scale) + self.to_rgb[str(scale)](x)

    def loss(
        self, sr: Float[Tensor, "b 3 h w"], hr: Float[Tensor, "b 3 h w"], weights: LossWeights = DEFAULT_WEIGHTS
    ) -> Float[Tensor, ""]:
        """Compute Eq. (11) without its task-aware terms: Eqs. (6) and (7)."""
        none = sr.new_zeros(())
        return isr_loss(image_loss(sr, hr), total_variation_loss(sr), none, none, weights)
