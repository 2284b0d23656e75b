"""The lesion segmentation subnet: a U-Net of multi-scale blocks, its five scales fused (Sec. IV-A, Eq. 1, Fig. 6)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from deepmtdr.labels import DIABETIC_RETINOPATHY, LabelSet
from deepmtdr.losses import (
    LesionLabels,
    LossWeights,
    dice_loss,
    lesion_cross_entropy_loss,
    segmentation_loss,
)
from deepmtdr.model.interfaces import DEFAULT_WEIGHTS, Segmenter, find_wrong_sizes
from deepmtdr.model.preprocessing import local_contrast

LayerFactory = Callable[[int, int], nn.Module]
"""Function that makes a layer from its numbers of input and output channels."""


@dataclass(frozen=True, kw_only=True)
class SegmentationConfig:
    """Size of the lesion segmentation subnet."""

    width: int = 64
    """Channels at stride 1; doubled at each of the strides 2, 4, 8, 16 (the authors' 64; interpretation R4)."""
    gamma: tuple[float, float, float, float, float] = (0.4, 0.2, 0.2, 0.2, 1.0)
    """Weights of the five scales in Eq. (1), from stride 16 to stride 1."""

    def problems(self) -> Iterator[str]:
        """Describe each setting that is out of range, and what was expected."""
        yield from find_wrong_sizes(width=self.width)


class MultiScaleConv(nn.Sequential):
    """Parallel 3x3 and 5x5 convolutions, half of the channels each; batch norm; ReLU."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(
            _Parallel(
                nn.Conv2d(channels_in, channels_out // 2, 3, padding=1, bias=False),
                nn.Conv2d(channels_in, channels_out // 2, 5, padding=2, bias=False),
            ),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(),
        )


class _Parallel(nn.Module):
    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], dim=1)


class MultiScaleBlock(nn.Sequential):
    """Multi-scale feature integration, then conv3x3, batch norm, ReLU."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(
            MultiScaleConv(channels_in, channels_out),
            nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(),
        )


class UpTransition(nn.Module):
    """Nearest x2, multi-scale convolution, concatenation with the skip, multi-scale block."""

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        conv: LayerFactory,
        block: LayerFactory,
        skip_channels: int | None = None,
    ) -> None:
        """Make the layers.

        Args:
            channels_in: channels of the coarse features.
            channels_out: channels of the result.
            conv: convolution after the enlargement.
            block: block after the concatenation.
            skip_channels: channels of the finer features; None: `channels_out`.
        """
        super().__init__()
        self.rise = conv(channels_in, channels_out)
        self.block = block(channels_out + (skip_channels or channels_out), channels_out)

    def forward(self, x: Float[Tensor, "b c h w"], skip: Float[Tensor, "b s H W"]) -> Float[Tensor, "b d H W"]:
        """Enlarge the coarse features and combine them with the finer features."""
        x = F.interpolate(x, size=skip.shape[-2:], mode="nearest")
        return self.block(torch.cat([self.rise(x), skip], dim=1))


def fuse_scales(
    maps: list[Float[Tensor, "b k _ _"]], gamma: tuple[float, ...], size: tuple[int, int]
) -> Float[Tensor, "b k H W"]:
    r"""Eq. (1): softmax(sum_i gamma_i UP(S_i, 2^(5-i))), i from coarse to fine, UP bilinear (interpretation R3).

    Args:
        maps: the intermediate segmentation maps, logits, coarse to fine.
        gamma: weight of each map.
        size: height and width of the result.

    Returns:
        Probabilities over the classes, in float32.
    """
    with torch.autocast(maps[0].device.type, enabled=False):
        lifted = (
            weight * F.interpolate(m.float(), size=size, mode="bilinear", align_corners=False)
            for weight, m in zip(gamma, maps, strict=True)
        )
        return torch.stack(list(lifted)).sum(dim=0).softmax(dim=1)


LESION_PRIOR = 0.01
"""Probability of any lesion in an untrained segmentation network: about the share of pixels that show one."""


def init_background_prior(maps: Iterable[nn.Conv2d], weight: float = 1.0, prior: float = LESION_PRIOR) -> None:
    """Initialise the last layers so that the untrained network predicts background nearly everywhere.

    Starting from equal classes, a short training learns little else. Biases become the logarithm of the prior; weights
    are divided by 10.

    Args:
        maps: the last layers, which give the logits of the lesion types and, last, the background.
        weight: sum of the factors with which the logits of these layers are added.
        prior: probability of any lesion.
    """
    with torch.no_grad():
        for to_map in maps:
            types = to_map.out_channels - 1
            to_map.weight.mul_(0.1)
            # On the CPU, although the layers may be on "meta": there, `log` imports the compiler of PyTorch.
            probabilities = torch.tensor([prior / types] * types + [1 - prior], device="cpu")
            to_map.bias.copy_(probabilities.log() / weight)  # pyright: ignore[reportOptionalMemberAccess]


def check_multiple(network_input: Float[Tensor, "b 3 h w"], stride: int) -> tuple[int, int]:
    """Return height and width, which must be multiples of the coarsest stride.

    Raises:
        ValueError: if one of them is not.
    """
    height, width = network_input.shape[-2:]
    if height % stride or width % stride:
        raise ValueError(f"segmentation subnet: frame of {height}x{width} px, expected multiples of {stride}")
    return height, width


def supervised_loss(classes: Float[Tensor, "b k h w"], labels: LesionLabels, weights: LossWeights) -> Float[Tensor, ""]:
    """Compute Eq. (8) and pixel-wise cross-entropy from the output of a segmentation subnet, weighted."""
    lesions = classes[:, :-1]
    dice, cross_entropy = dice_loss(lesions, *labels), lesion_cross_entropy_loss(lesions, *labels)
    return segmentation_loss(dice, cross_entropy, classes.new_zeros(()), weights)


class LesionSegmentationSubnet(Segmenter):
    """Five down-transitions, four up-transitions; a segmentation map from the last down- and each up-transition."""

    preprocess = staticmethod(local_contrast)

    def __init__(
        self,
        labels: LabelSet = DIABETIC_RETINOPATHY,
        config: SegmentationConfig | None = None,
        conv: LayerFactory = MultiScaleConv,
        block: LayerFactory = MultiScaleBlock,
    ) -> None:
        """Build the U-Net.

        Args:
            labels: lesion types that the network segments.
            config: size of the network.
            conv: convolution of the up-transitions; changed only for comparisons.
            block: block of each level; changed only for comparisons.
        """
        super().__init__()
        self.config = config or SegmentationConfig()
        widths = [self.config.width * 2**level for level in range(5)]
        coarse_to_fine = zip(widths[:0:-1], widths[-2::-1], strict=True)
        self.down = nn.ModuleList(block(i, o) for i, o in zip([3, *widths], widths, strict=False))
        self.up = nn.ModuleList(UpTransition(i, o, conv, block) for i, o in coarse_to_fine)
        maps = [nn.Conv2d(width, len(labels.lesions) + 1, 1) for width in widths[::-1]]
        init_background_prior(maps, sum(self.config.gamma))
        self.to_map = nn.ModuleList(maps)

    def forward(self, network_input: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b k h w"]:
        """Segment the lesions.

        Args:
            network_input: local contrast of SR or HR images; h and w multiples of 16.

        Returns:
            Probabilities of the lesion types and, last, the background (interpretation R3); their sum is 1 in each
            pixel.

        Raises:
            ValueError: if h or w is no multiple of 16.
        """
        size = check_multiple(network_input, 16)
        skips, x = [], network_input
        for level, block in enumerate(self.down):
            x = block(x if level == 0 else F.max_pool2d(x, 2))
            skips.append(x)
        maps = [self.to_map[0](x)]
        for transition, to_map, skip in zip(self.up, self.to_map[1:], skips[-2::-1], strict=True):
            x = transition(x, skip)
            maps.append(to_map(x))
        return fuse_scales(maps, self.config.gamma, size)

    def loss(
        self, classes: Float[Tensor, "b k h w"], labels: LesionLabels, weights: LossWeights = DEFAULT_WEIGHTS
    ) -> Float[Tensor, ""]:
        """Compute Eq. (8) and pixel-wise cross-entropy."""
        return supervised_loss(classes, labels, weights)
