"""Mahapatra et al., a generative adversarial network with a saliency loss, Table IV and Fig. 4.

"Image super resolution using generative adversarial networks and local saliency maps for retinal image analysis",
MICCAI 2017. Published, by the abstract of its preprint (arXiv 1710.04783) and the authors' repository
(BehzadBozorgtabar/Retinal_Super_Resolution): a saliency loss in the cost, from local maps of each pixel's importance;
generator of 4 residual blocks of 64 channels with batch norm, a transposed convolution for each factor of 2; adversary
of 8 convolutions from 64 to 512 channels and 1,024 units, on crops of 96 px; squared difference and cross-entropy. The
repository has no saliency map and the paper's text was not at hand. Assumed: the map is the entropy of the green
channel (16 levels, 9x9 px) as a share of its highest, and counts beside the plain squared difference; the adversary's
last features are pooled to the 6x6 of a crop of 96 px, so that it sees any frame; SRGAN's order and slope of
activations; one generator for all factors, with a last convolution each that starts at zero beside the bicubic image.
The adversarial weight is ours: theirs (10 beside 8-bit levels, 1.5e-4 here) goes with a probability that passes through
a second sigmoid, which bounds it; beside plain logits it drew the image away from two drawings that 1e-5 still let it
come nearer to. Left out: a perceptual term (it needs downloaded VGG weights; theirs has none), and the 50 epochs
without adversary that theirs begin with.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from deepmtdr.model.interfaces import SuperResolver
from deepmtdr.model.isr import bicubic
from deepmtdr.terms import SCALES

WIDTH, BLOCKS = 64, 4
ADVERSARIAL = 1e-5
"""Weight of the adversarial term, beside differences of RGB in [0, 1]."""
LEVELS, WINDOW = 16, 9
POOLED, UNITS = 6, 1024
"""Side of the adversary's last features, and units behind them."""


def local_saliency(rgb: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 1 h w"]:
    """How important each pixel is: the entropy of the green levels around it.

    Args:
        rgb: RGB in [0, 1].

    Returns:
        Shares of the highest entropy in each photograph, in [0, 1]; 0 all over for a constant one. No gradient.
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
            nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width),
        )  # fmt: skip

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Add what the two convolutions learned."""
        return x + self.body(x)


class Discriminator(nn.Module):
    """Tells photographs from super-resolved images: a logit each, high for a photograph."""

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
        """Judge images of any size."""
        features = F.adaptive_avg_pool2d(self.features(image), POOLED).flatten(1)
        return self.logit(F.leaky_relu(self.hidden(features), 0.2)).float().squeeze(1)


class MahapatraEtAl(SuperResolver):
    """A generator that is trained against an adversary, and looks where the saliency is."""

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
        self.adversary = Discriminator(width)

    def forward(self, lr: Float[Tensor, "b 3 h w"], scale: int = 4) -> Float[Tensor, "b 3 H W"]:
        """Super-resolve.

        Raises:
            ValueError: if the scale is none of 2, 4, 8.
        """
        if scale not in SCALES:
            raise ValueError(f"Mahapatra et al.: scale {scale}, expected one of {SCALES}")
        x = self.blocks(F.relu(self.stem(lr)))
        for layer in self.upscaling[: SCALES.index(scale) + 1]:  # 2 = 2**1, 4 = 2**2, 8 = 2**3
            x = F.relu(layer(x))
        return bicubic(lr, scale) + self.to_rgb[str(scale)](x)

    def loss(self, sr: Float[Tensor, "b 3 h w"], hr: Float[Tensor, "b 3 h w"]) -> Float[Tensor, ""]:
        """Of the generator: squared difference, the same weighed by saliency, and to be taken for a photograph.

        `stages.route` keeps its gradient from the adversary.
        """
        content = ((1 + local_saliency(hr)) * (sr.float() - hr).square()).mean()
        return content + ADVERSARIAL * F.softplus(-self.adversary(sr)).mean()

    def discriminator_loss(self, sr: Float[Tensor, "b 3 h w"], hr: Float[Tensor, "b 3 h w"]) -> Float[Tensor, ""]:
        """Of the adversary: binary cross-entropy of photographs against super-resolved images."""
        return F.softplus(-self.adversary(hr)).mean() + F.softplus(self.adversary(sr)).mean()
