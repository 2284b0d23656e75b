"""GMSV: the evidence for the disease from all layers of the grading subnet (Sec. IV-B, Eqs. 2-3, Algorithm 1).

1. Lesion-oriented feature selection, Eq. (2): keep the channels that overlap the predicted lesion region.
2. Gradient-weighted feature combination, Eq. (3) and Algorithm 1: sum them, coarse to fine, weighted by importance.

Everything is differentiable with `create_graph=True`, so that a loss can use the evidence (interpretation R8).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

REGION_THRESHOLD = 0.5
"""A pixel belongs to the lesion region where 1 - P(background) exceeds this."""
EPSILON = 1e-12


@dataclass(frozen=True, kw_only=True)
class GMSVConfig:
    """Constants of the selection."""

    theta_seg: float = 0.5
    """A channel is selected if its IoU exceeds this share of the best IoU of the layer, Eq. (2) (interpretation R7)."""
    tau: float = 0.1
    """Softness of the threshold when xi is learned (interpretation R7)."""


def _full(x: Tensor) -> Tensor:
    """Convert to at least float32: half precision is too coarse here; float64 is kept, for gradient checks."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def normalise_channels(features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """Divide each channel by its maximum (interpretation R6); a channel of zeros stays zero."""
    features = _full(features)
    return features / features.amax(dim=(2, 3), keepdim=True).clamp_min(EPSILON)


def iou(mask: Float[Tensor, "b c h w"], lesion_region: Float[Tensor, "b 1 H W"]) -> Float[Tensor, "b c"]:
    """Compute the IoU of each channel's mask with the binary lesion region, on the channel's grid (interpretation R6).

    Returns:
        Values in [0, 1]; 0 where there is no lesion region.
    """
    height, width = mask.shape[-2:]
    region = F.adaptive_avg_pool2d((lesion_region > REGION_THRESHOLD).float(), (height, width))
    intersection = (mask * region).mean(dim=(2, 3))
    union = (mask + region - mask * region).mean(dim=(2, 3))
    return intersection / union.clamp_min(EPSILON)


def select_features(
    features: Float[Tensor, "b c h w"],
    lesion_region: Float[Tensor, "b 1 H W"],
    xi: Float[Tensor, " c"],
    theta_seg: float,
) -> Bool[Tensor, "b c"]:
    """Eq. (2): select the channels whose IoU with the lesion region exceeds theta_seg times the best of the layer.

    Args:
        features: features of one layer, after its ReLU.
        lesion_region: 1 - P(background) at the frame's size.
        xi: threshold of each channel.
        theta_seg: share of the best IoU.

    Returns:
        The selected set U; all channels for a photograph without a predicted lesion region (interpretation R6).
    """
    mask = (normalise_channels(features.detach()) > xi[:, None, None]).float()
    overlap = iou(mask, lesion_region)
    best = overlap.amax(dim=1, keepdim=True)
    return (overlap > theta_seg * best) | (best == 0)


def importance(gradients: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c"]:
    """Eq. (3): the weight of each channel is the mean of dy_DR / dF over its grid."""
    return _full(gradients).mean(dim=(2, 3))


def combine_features(
    features: Sequence[Float[Tensor, "b _ _ _"]], weights: Sequence[Float[Tensor, "b _"]]
) -> Float[Tensor, "b 1 h w"]:
    """Algorithm 1: weighted sums of the layers, from the coarsest to the finest.

    V^j is multiplied by the layer's weight a second time when it is added, as printed (interpretation R8).

    Args:
        features: features of each layer, fine to coarse, each half the size of the one before.
        weights: importance of each channel of each layer, 0 for those not selected.

    Returns:
        V on the finest layer's grid: after ReLU, divided by its maximum (0 stays 0).
    """
    sums = [(w[:, :, None, None] * _full(f)).sum(dim=1, keepdim=True) for w, f in zip(weights, features, strict=True)]
    evidence = sums[-1]
    for weight, layer in zip(weights[-2::-1], sums[-2::-1], strict=True):
        evidence = F.interpolate(evidence, size=layer.shape[-2:], mode="bilinear", align_corners=False)
        evidence = evidence + weight.sum(dim=1)[:, None, None, None] * layer
    evidence = evidence.relu()
    return evidence / evidence.amax(dim=(2, 3), keepdim=True).clamp_min(EPSILON)


def gradient_weighted_evidence(
    score: Float[Tensor, " b"],
    features: Sequence[Float[Tensor, "b _ _ _"]],
    size: Sequence[int],
    selected: Sequence[Bool[Tensor, "b _"]] | None = None,
    *,
    create_graph: bool = False,
) -> Float[Tensor, "b 1 H W"]:
    """Eq. (3) and Algorithm 1, without the selection of Eq. (2).

    Args:
        score: y_DR of each photograph (`dr_score`), still attached to the features.
        features: features of each layer, fine to coarse.
        size: height and width of the evidence.
        selected: the channels of each layer that count; None: all.
        create_graph: keep the evidence differentiable through its gradient weights, too.

    Returns:
        Evidence V in [0, 1].
    """
    with torch.autocast(score.device.type, enabled=False):
        gradients = torch.autograd.grad(score.sum(), features, create_graph=create_graph, retain_graph=True)
        weights = [importance(gradient) for gradient in gradients]
        if selected is not None:
            weights = [weight * chosen for weight, chosen in zip(weights, selected, strict=True)]
        evidence = combine_features(features, weights)
        return F.interpolate(evidence, size=list(size), mode="bilinear", align_corners=False)


class GMSV(nn.Module):
    """The evidence map of a grade, with the learned thresholds xi of Eq. (2)."""

    def __init__(self, channels: Sequence[int], config: GMSVConfig | None = None) -> None:
        super().__init__()
        self.config = config or GMSVConfig()
        self.xi = nn.ParameterList(nn.Parameter(torch.full((c,), 0.5)) for c in channels)

    def forward(
        self,
        score: Float[Tensor, " b"],
        features: Sequence[Float[Tensor, "b _ _ _"]],
        lesion_region: Float[Tensor, "b 1 H W"],
        *,
        create_graph: bool = False,
    ) -> Float[Tensor, "b 1 H W"]:
        """Compute the evidence for diabetic retinopathy.

        Args:
            score: y_DR of each photograph (`dr_score`), still attached to the features.
            features: features of each layer, fine to coarse.
            lesion_region: 1 - P(background): selects the channels, and sets the size of the result.
            create_graph: keep the evidence differentiable through its gradient weights, too, for the
                classification-aware loss.

        Returns:
            Evidence V in [0, 1], at the size of the lesion region.
        """
        with torch.autocast(score.device.type, enabled=False):
            selected = [
                select_features(feature, lesion_region, xi, self.config.theta_seg)
                for feature, xi in zip(features, self.xi, strict=True)
            ]
        return gradient_weighted_evidence(
            score, features, lesion_region.shape[-2:], selected, create_graph=create_graph
        )

    def xi_loss(
        self,
        features: Sequence[Float[Tensor, "b _ _ _"]],
        lesion_region: Float[Tensor, "b 1 H W"],
        all_reduce: Callable[[Tensor], Tensor] = lambda sum_: sum_,
    ) -> Float[Tensor, ""]:
        """1 - mean soft IoU of every channel with the lesion region; only xi gets a gradient (interpretation R7).

        Args:
            features: features of each layer.
            lesion_region: 1 - P(background).
            all_reduce: function that sums over the processes that share the batch.

        Returns:
            A value in [0, 1]; 0 with zero gradient for a batch without any lesion region.
        """
        present = (lesion_region > REGION_THRESHOLD).flatten(1).any(dim=1).float()
        photographs = all_reduce(present.sum()).clamp_min(1)
        misses = []
        for feature, xi in zip(features, self.xi, strict=True):
            soft = torch.sigmoid((normalise_channels(feature.detach()) - xi[:, None, None]) / self.config.tau)
            missed = (1 - iou(soft, lesion_region.detach())).mean(dim=1)
            misses.append(all_reduce((missed * present).sum()) / photographs)
        return torch.stack(misses).mean()
