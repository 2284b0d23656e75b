"""HGN (Sarhan et al., MICCAI 2019). Table III.

"Multi-scale Microaneurysms Segmentation Using Embedding Triplet Loss" (arXiv 1904.12732).

Published: the hypothesis generation network is the first of two stages. (The second, a patch-wise refinement network
with a triplet loss, is not what the paper compares with.) Fully convolutional networks are trained on patches, one at
the photograph's scale and one at half of it, separately. For a whole photograph, the geometric mean of their
probabilities counts (AUPR on the authors' test set: 0.337 at 1x, 0.341 at 0.5x, 0.362 for the mean). Here the crops of
the first training stage are the patches.

The text was not available, so this follows the description. Assumed: VGG-16's first ten convolutions with batch norm,
strides 1 to 8, since a microaneurysm has few pixels; a map from each stride, summed from coarse to fine as in FCN (Long
et al. 2015); half the scale as the mean of 2x2 pixels; cross-entropy over the lesion types and the background;
background everywhere before training.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from deepmtdr.labels import DIABETIC_RETINOPATHY, LabelSet
from deepmtdr.losses import EPSILON, LesionLabels, LossWeights, masked_mean, pixel_mean
from deepmtdr.model.interfaces import DEFAULT_WEIGHTS, Segmenter
from deepmtdr.model.segmentation import init_background_prior

WIDTHS = (64, 128, 256, 512)
DEPTHS = (2, 2, 3, 3)
"""Number of convolutions at each stride."""


class ConvStage(nn.Sequential):
    """`depth` times: conv3x3, batch norm, ReLU."""

    def __init__(self, channels_in: int, channels_out: int, depth: int) -> None:
        layers: list[nn.Module] = []
        for i, o in pairwise((channels_in, *[channels_out] * depth)):
            layers += [nn.Conv2d(i, o, 3, padding=1, bias=False), nn.BatchNorm2d(o), nn.ReLU()]
        super().__init__(*layers)


class FullyConvolutional(nn.Module):
    """The network of one scale."""

    def __init__(self, classes: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        stages = zip((3, *widths), widths, DEPTHS, strict=False)
        self.stages = nn.ModuleList(ConvStage(i, o, depth) for i, o, depth in stages)
        maps = [nn.Conv2d(width, classes, 1) for width in widths]
        init_background_prior(maps, float(len(maps)))
        self.to_map = nn.ModuleList(maps)

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b k h w"]:
        """Compute logits; h and w multiples of 8."""
        maps = []
        for level, (stage, to_map) in enumerate(zip(self.stages, self.to_map, strict=True)):
            x = stage(x if level == 0 else F.max_pool2d(x, 2))
            maps.append(to_map(x))
        logits = maps.pop()
        while maps:
            logits = maps.pop() + _doubled(logits)
        return logits


def _doubled(logits: Float[Tensor, "b k h w"]) -> Float[Tensor, "b k H W"]:
    return F.interpolate(logits, scale_factor=2, mode="bilinear", align_corners=False)


def geometric_mean(logits: Float[Tensor, "b k h w"], others: Float[Tensor, "b k h w"]) -> Float[Tensor, "b k h w"]:
    """Compute sqrt(p q) of two networks' class probabilities; the sum over the classes is below 1 where they differ."""
    return ((logits.float().log_softmax(dim=1) + others.float().log_softmax(dim=1)) / 2).exp()


class HGN(Segmenter):
    """Two networks: one for the photograph, one for the photograph at half its size."""

    def __init__(self, labels: LabelSet = DIABETIC_RETINOPATHY, widths: tuple[int, ...] = WIDTHS) -> None:
        super().__init__()
        classes = len(labels.lesions) + 1
        self.full_size, self.half_size = FullyConvolutional(classes, widths), FullyConvolutional(classes, widths)

    def forward(self, network_input: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b k h w"]:
        """Segment; h and w multiples of 16.

        Returns:
            The geometric means. In inference the background is 1 minus the sum of the lesion types; where a gradient is
            needed it stays a geometric mean too, see `loss`.
        """
        classes = geometric_mean(
            self.full_size(network_input), _doubled(self.half_size(F.avg_pool2d(network_input, 2)))
        )
        if self.training or classes.requires_grad:
            return classes
        return torch.cat([classes[:, :-1], 1 - classes[:, :-1].sum(dim=1, keepdim=True)], dim=1)

    def loss(
        self, classes: Float[Tensor, "b k h w"], labels: LesionLabels, weights: LossWeights = DEFAULT_WEIGHTS
    ) -> Float[Tensor, ""]:
        """Pixel-wise cross-entropy over all classes, for the photographs with all types annotated.

        Ignored pixels do not count. Union labels (interpretation R32) are not used: for the sum of several classes the
        next sentence would not hold.

        -log sqrt(p q) is the mean of -log p and -log q: each network is trained as if there were no other.
        """
        target = labels.masks / labels.masks.sum(dim=1, keepdim=True).clamp_min(1)
        target = torch.cat([target, 1 - target.sum(dim=1, keepdim=True)], dim=1)
        surprise = -(target * classes.clamp_min(EPSILON).log()).sum(dim=1)
        counted = labels.annotated.all(dim=1)
        if labels.ignored is not None:
            counted = counted & ~labels.ignored.all(dim=(1, 2, 3))
        return masked_mean(pixel_mean(surprise[:, None], labels.ignored), counted, labels.all_reduce)
