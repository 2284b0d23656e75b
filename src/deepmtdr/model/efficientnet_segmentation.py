"""Lesion segmentation with an EfficientNet-Lite0 encoder with ImageNet weights (interpretation R33).

The decoder is that of the paper: up-transitions of multi-scale blocks, a segmentation map at five scales, and their
fusion by Eq. (1). The encoder begins at stride 2, and so does the finest map: an LR photograph of 256 px has no detail
that is finer than 2 px of the frame.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from deepmtdr.labels import DIABETIC_RETINOPATHY, LabelSet
from deepmtdr.losses import LesionLabels, LossWeights
from deepmtdr.model.efficientnet_lite0 import EfficientNetLite0
from deepmtdr.model.interfaces import DEFAULT_WEIGHTS, Segmenter, find_wrong_sizes
from deepmtdr.model.preprocessing import local_contrast
from deepmtdr.model.segmentation import (
    MultiScaleBlock,
    MultiScaleConv,
    UpTransition,
    check_multiple,
    fuse_scales,
    init_background_prior,
    supervised_loss,
)

CONTRAST_GAIN = 0.5
"""Factor from local contrast to the input of the ImageNet stem."""
STRIDE = 32
"""Stride of the coarsest features: frames are a multiple of it."""


@dataclass(frozen=True, kw_only=True)
class EfficientNetSegmentationConfig:
    """Size of the segmentation subnet with an EfficientNet-Lite0 encoder."""

    widths: tuple[int, int, int, int] = (96, 64, 48, 32)
    """Channels of the up-transitions at the strides 16, 8, 4 and 2."""
    gamma: tuple[float, float, float, float, float] = (0.4, 0.2, 0.2, 0.2, 1.0)
    """Weights of the five scales in Eq. (1), from stride 32 to stride 2."""

    def problems(self) -> Iterator[str]:
        """Describe each setting that is out of range, and what was expected."""
        for number, width in enumerate(self.widths):
            yield from find_wrong_sizes(**{f"widths[{number}]": width})


class EfficientNetSegmentationSubnet(Segmenter):
    """EfficientNet-Lite0 as encoder, four up-transitions of multi-scale blocks, and five segmentation maps."""

    preprocess = staticmethod(local_contrast)

    def __init__(
        self, labels: LabelSet = DIABETIC_RETINOPATHY, config: EfficientNetSegmentationConfig | None = None
    ) -> None:
        super().__init__()
        self.config = config = config or EfficientNetSegmentationConfig()
        self.encoder = EfficientNetLite0(drop_connect=0.0, has_last_convolution=False)
        *skips, coarsest = self.encoder.output_channels
        widths = (coarsest, *config.widths)
        self.up = nn.ModuleList(
            UpTransition(below, width, MultiScaleConv, MultiScaleBlock, skip)
            for below, width, skip in zip(widths, config.widths, skips[::-1], strict=False)
        )
        maps = [nn.Conv2d(width, len(labels.lesions) + 1, 1) for width in widths]
        init_background_prior(maps, sum(config.gamma))
        self.to_map = nn.ModuleList(maps)

    def forward(self, network_input: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b k h w"]:
        """Segment the lesions.

        Args:
            network_input: local contrast of SR or HR images; h and w multiples of 32.

        Returns:
            Probabilities of the lesion types and, last, the background (interpretation R3); their sum is 1 in each
            pixel.

        Raises:
            ValueError: if h or w is no multiple of 32.
        """
        size = check_multiple(network_input, STRIDE)
        *skips, x = self.encoder.stage_outputs(CONTRAST_GAIN * network_input)
        maps = [self.to_map[0](x)]
        for transition, to_map, skip in zip(self.up, self.to_map[1:], skips[::-1], strict=True):
            x = transition(x, skip)
            maps.append(to_map(x))
        return fuse_scales(maps, self.config.gamma, size)

    def loss(
        self, classes: Float[Tensor, "b k h w"], labels: LesionLabels, weights: LossWeights = DEFAULT_WEIGHTS
    ) -> Float[Tensor, ""]:
        """Compute Eq. (8) and pixel-wise cross-entropy."""
        return supervised_loss(classes, labels, weights)

    def imagenet_parameters(self) -> Iterator[nn.Parameter]:
        """Return the parameters of the encoder."""
        return self.encoder.parameters()

    def load_imagenet(self, state: Mapping[str, Tensor]) -> None:
        """Copy the weights of a published EfficientNet-Lite0 into the encoder.

        Args:
            state: state-dict of the package efficientnet-lite-pytorch; `_conv_head`, `_bn1` and `_fc` are not used.

        Raises:
            ValueError: if a tensor is missing or has another shape.
        """
        self.encoder.load_imagenet(state)
