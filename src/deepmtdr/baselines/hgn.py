"""HGN (Sarhan et al., MICCAI 2019), Table III; after the description.

"Multi-scale Microaneurysms Segmentation Using Embedding Triplet Loss" (arXiv 1904.12732). Published: the hypothesis
generation network is the first of two stages (the second, a patch-wise refinement network with a triplet loss, is not
what the paper compares with). A fully convolutional network is trained on patches, one at the photograph's scale and
one at half of it, each by itself; for a whole photograph the geometric mean of their probabilities counts (on its own
test set AUPR 0.337 at 1x, 0.341 at 0.5x, 0.362 by the mean). Here the crops of the first stage of training are the
patches.

Its text was not at hand. Assumed: VGG-16's first ten convolutions with batch norm, strides 1 to 8, a microaneurysm
having few pixels; a map from each stride, summed from coarse to fine as in FCN (Long et al. 2015); half the scale by
the mean of 2x2 pixels; cross-entropy over the four types and the background, from background everywhere.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from deepmtdr.losses import EPSILON, LesionLabels, masked_mean
from deepmtdr.model.interfaces import Segmenter
from deepmtdr.model.segmentation import CLASSES, init_background_prior

WIDTHS = (64, 128, 256, 512)
DEPTHS = (2, 2, 3, 3)
"""Convolutions at each stride."""


class ConvStage(nn.Sequential):
    """A number of times: conv3x3, batch norm, ReLU."""

    def __init__(self, channels_in: int, channels_out: int, depth: int) -> None:
        widths = (channels_in, *[channels_out] * depth)
        super().__init__(
            *(
                layer
                for i, o in pairwise(widths)
                for layer in (nn.Conv2d(i, o, 3, padding=1, bias=False), nn.BatchNorm2d(o), nn.ReLU())
            )
        )


class FullyConvolutional(nn.Module):
    """A network of one scale."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        stages = zip((3, *widths), widths, DEPTHS, strict=False)
        self.stages = nn.ModuleList(ConvStage(i, o, depth) for i, o, depth in stages)
        maps = [nn.Conv2d(width, CLASSES, 1) for width in widths]
        init_background_prior(maps, float(len(maps)))
        self.to_map = nn.ModuleList(maps)

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 5 h w"]:
        """Logits; h and w multiples of 8."""
        maps = []
        for level, (stage, to_map) in enumerate(zip(self.stages, self.to_map, strict=True)):
            x = stage(x if level == 0 else F.max_pool2d(x, 2))
            maps.append(to_map(x))
        logits = maps.pop()
        while maps:
            logits = maps.pop() + _doubled(logits)
        return logits


def _doubled(logits: Float[Tensor, "b 5 h w"]) -> Float[Tensor, "b 5 H W"]:
    return F.interpolate(logits, scale_factor=2, mode="bilinear", align_corners=False)


def geometric_mean(logits: Float[Tensor, "b 5 h w"], others: Float[Tensor, "b 5 h w"]) -> Float[Tensor, "b 5 h w"]:
    """sqrt(p q) of two networks' probabilities, class by class; it sums to 1 only where they agree, else to less."""
    return ((logits.float().log_softmax(dim=1) + others.float().log_softmax(dim=1)) / 2).exp()


class HGN(Segmenter):
    """Two networks: one sees the photograph, one sees it at half the size."""

    def __init__(self, widths: tuple[int, ...] = WIDTHS) -> None:
        super().__init__()
        self.full_size, self.half_size = FullyConvolutional(widths), FullyConvolutional(widths)

    def forward(self, seen: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 5 h w"]:
        """Segment; h and w multiples of 16.

        Returns:
            The geometric means. In use the background takes what those of the lesions leave of 1; where there is a
            gradient it stays a mean too: see `loss`.
        """
        classes = geometric_mean(self.full_size(seen), _doubled(self.half_size(F.avg_pool2d(seen, 2))))
        if self.training or classes.requires_grad:
            return classes
        return torch.cat([classes[:, :4], 1 - classes[:, :4].sum(dim=1, keepdim=True)], dim=1)

    def loss(self, classes: Float[Tensor, "b 5 h w"], labels: LesionLabels) -> Float[Tensor, ""]:
        """Pixel-wise cross-entropy over five classes, of the photographs with all types annotated.

        -log sqrt(p q) is the mean of -log p and -log q: each network learns as it would by itself.
        """
        target = labels.masks / labels.masks.sum(dim=1, keepdim=True).clamp_min(1)
        target = torch.cat([target, 1 - target.sum(dim=1, keepdim=True)], dim=1)
        surprise = -(target * classes.clamp_min(EPSILON).log()).sum(dim=1)
        return masked_mean(surprise.mean(dim=(1, 2)), labels.annotated.all(dim=1), labels.all_reduce)
