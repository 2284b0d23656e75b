"""Mahapatra et al., a generative adversarial network with a saliency loss. Table IV and Fig. 4.

"Image super resolution using generative adversarial networks and local saliency maps for retinal image analysis",
MICCAI 2017.

Published, in the abstract of its preprint (arXiv 1710.04783) and the authors' repository
(BehzadBozorgtabar/Retinal_Super_Resolution): a saliency loss from local maps of each pixel's importance; a generator of
4 residual blocks of 64 channels with batch norm, and a transposed convolution for each factor of 2; a discriminator of
8 convolutions from 64 to 512 channels and 1,024 units, on crops of 96 px; squared difference and cross-entropy.

The repository has no saliency map, and the paper's text was not available. Assumed: the map is the entropy of the green
channel (16 levels, 9x9 px) as a share of its highest, and is added to the weight 1 of the squared difference. The
discriminator's last features are pooled to the 6x6 of a 96 px crop, so that it accepts any frame. SRGAN's order and
slope of activations. One generator for all factors, with a last convolution for each that starts at zero and is added
to the bicubic image.

The adversarial weight is ours. The authors' (10 beside 8-bit levels, 1.5e-4 here) belongs to a probability that passes
through a second sigmoid, which bounds it. With plain logits it moved the output away from two drawings, while with 1e-5
the output still approached them.

Left out: a perceptual term (it needs downloaded VGG weights; the authors have none), and the 50 epochs without
discriminator with which the authors start.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from deepmtdr.losses import LossWeights
from deepmtdr.model.interfaces import DEFAULT_WEIGHTS, SuperResolver
from deepmtdr.model.isr import bicubic
from deepmtdr.terms import SCALES

WIDTH, BLOCKS = 64, 4
ADVERSARIAL = 1e-5
"""Weight of the adversarial term, for differences of RGB in [0, 1]."""
LEVELS, WINDOW = 16, 9
POOLED, UNITS = 6, 1024
"""Side of the discriminator's pooled features, and units of its hidden layer."""


def local_saliency(rgb: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 1 h w"]:
    """Compute the importance of each pixel: the entropy of the green levels around the pixel.

    Args:
        rgb: RGB in [0, 1].

    Returns:
        Entropy as a share of the highest in each photograph, in [0, 1], without gradient; 0 for a constant photograph.
    """
    with torch.no_grad():
        level = (rgb[:, 1:2].float().clamp(0, 1) * LEVELS).floor().clamp_max(LEVELS - 1)
        entropy = torch.zeros_like(level)
        for each in range(LEVELS):
            share = F.avg_pool2d((level == each).float(), WINDOW, 1, WINDOW // 2, count_include_pad=False)
            entropy += torch.special.entr(share)
        return entropy / entropy.amax(dim=(2, 3), keepdim=True).clamp_min(1e-12)


class NormedResidualBlock(nn.Module):
    """conv3x3, batch norm, ReLU, conv3x3, batch norm, + x."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Add the output of the two convolutions to x."""
        return x + self.body(x)


class Discriminator(nn.Module):
    """Separates photographs from super-resolved images: one logit each, high for a photograph."""

    def __init__(self, width: int) -> None:
        super().__init__()
        widths = [width, width, 2 * width, 2 * width, 4 * width, 4 * width, 8 * width, 8 * width]
        layers: list[nn.Module] = [nn.Conv2d(3, width, 3, padding=1), nn.LeakyReLU(0.2)]
        for index, (i, o) in enumerate(pairwise(widths)):
            stride = 2 if index % 2 == 0 else 1
            layers += [nn.Conv2d(i, o, 3, stride, padding=1, bias=False), nn.BatchNorm2d(o), nn.LeakyReLU(0.2)]
        self.features = nn.Sequential(*layers)
        self.hidden = nn.Linear(widths[-1] * POOLED**2, UNITS)
        self.logit = nn.Linear(UNITS, 1)

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, " b"]:
        """Classify images of any size."""
        features = F.adaptive_avg_pool2d(self.features(image), POOLED).flatten(1)
        return self.logit(F.leaky_relu(self.hidden(features), 0.2)).float().squeeze(1)


class MahapatraEtAl(SuperResolver):
    """A generator that is trained against a discriminator, with a loss weighted by saliency."""

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.blocks = nn.Sequential(*(NormedResidualBlock(width) for _ in range(BLOCKS)))
        self.upscaling = nn.ModuleList(
            nn.ConvTranspose2d(width, width, 3, stride=2, padding=1, output_padding=1, bias=False) for _ in SCALES
        )
        self.to_rgb = nn.ModuleDict({str(scale): nn.Conv2d(width, 3, 3, padding=1) for scale in SCALES})
        for parameter in self.to_rgb.parameters():
            nn.init.zeros_(parameter)
        self.adversary = Discriminator(width)  # the name in the checkpoints

    @property
    def discriminator(self) -> nn.Module:
        """The network that the generator is trained against."""
        return self.adversary

    def forward(self, lr: Float[Tensor, "b 3 h w"], scale: int = 4) -> Float[Tensor, "b 3 H W"]:
        """Super-resolve.

        Raises:
            ValueError: if the scale is not 2, 4 or 8.
        """
        if scale not in SCALES:
            raise ValueError(f"Mahapatra et al.: scale {scale}, expected one of {SCALES}")
        x = self.blocks(F.relu(self.stem(lr)))
        for layer in self.upscaling[: SCALES.index(scale) + 1]:  # 2 = 2**1, 4 = 2**2, 8 = 2**3
            x = F.relu(layer(x))
        return bicubic(lr, scale) + self.to_rgb[str(scale)](x)

    def loss(
        self, sr: Float[Tensor, "b 3 h w"], hr: Float[Tensor, "b 3 h w"], weights: LossWeights = DEFAULT_WEIGHTS
    ) -> Float[Tensor, ""]:
        """Generator's loss: squared difference, weighted by 1 + saliency, and the adversarial term.

        `step_losses.backward_by_subnet` does not send its gradient to the discriminator.
        """
        content = ((1 + local_saliency(hr)) * (sr.float() - hr).square()).mean()
        return content + ADVERSARIAL * F.softplus(-self.adversary(sr)).mean()

    def discriminator_loss(self, sr: Float[Tensor, "b 3 h w"], hr: Float[Tensor, "b 3 h w"]) -> Float[Tensor, ""]:
        """Discriminator's loss: binary cross-entropy of photographs against super-resolved images."""
        return F.softplus(-self.adversary(hr)).mean() + F.softplus(self.adversary(sr)).mean()
