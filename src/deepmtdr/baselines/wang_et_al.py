"""Wang et al., the conference version of DeepMT-DR, Tables I, III and IV: one system for the three tasks.

"Deep Multi-Task Learning for Diabetic Retinopathy Grading in Fundus Images", AAAI 2021. Published, by the paper at
hand: all of DeepMT-DR but for the multi-scale feature integration of the segmentation subnet and the lesion-oriented
selection of Eq. (2). So the ISR and grading subnets, the two stages and the losses are those of DeepMT-DR, the U-shape
has one convolution where ours has 3 and 5 px side by side, and the evidence sums every channel. Assumed: widths, Eq.
(1) and the five taps are those of the journal version. (The code that the authors keep beside the conference paper has
the parallel convolutions already, and four taps; the journal calls the former new, and is followed.) Parameters: 34.5
million in the segmentation subnet at width 64; published are none.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from deepmtdr.baselines.u_net import DoubleConv
from deepmtdr.model.deepmtdr import DeepMTDR, ModelConfig, Parts, Prediction
from deepmtdr.model.grading import GradingSubnet, dr_score
from deepmtdr.model.isr import ISRSubnet
from deepmtdr.model.segmentation import CLASSES, SegmentationConfig, fuse_scales


class SingleScaleUp(nn.Module):
    """Nearest x2, conv3x3, batch norm, ReLU; the skip beside it; twice more the same convolution."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.rise = nn.Sequential(
            nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False), nn.BatchNorm2d(channels_out), nn.ReLU()
        )
        self.block = DoubleConv(2 * channels_out, channels_out)

    def forward(self, x: Float[Tensor, "b c h w"], skip: Float[Tensor, "b d H W"]) -> Float[Tensor, "b d H W"]:
        """Bring the coarse features up beside the finer ones."""
        x = F.interpolate(x, size=skip.shape[-2:], mode="nearest")
        return self.block(torch.cat([self.rise(x), skip], dim=1))


class SingleScaleSegmentation(nn.Module):
    """The segmentation subnet with 3 px convolutions alone; five maps, fused by Eq. (1)."""

    def __init__(self, config: SegmentationConfig | None = None) -> None:
        super().__init__()
        self.config = config or SegmentationConfig()
        widths = [self.config.width * 2**level for level in range(5)]
        self.down = nn.ModuleList(DoubleConv(i, o) for i, o in zip([3, *widths], widths, strict=False))
        self.up = nn.ModuleList(SingleScaleUp(i, o) for i, o in zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.to_map = nn.ModuleList(nn.Conv2d(width, CLASSES, 1) for width in widths[::-1])

    def forward(self, frame: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 5 h w"]:
        """Segment the lesions.

        Args:
            frame: super-resolved or HR images as the subnet sees them (`local_contrast`); h and w multiples of 16.

        Returns:
            Probabilities of MA, HE, EX, SE and background, summing to 1 in each pixel.

        Raises:
            ValueError: if h or w is no multiple of 16.
        """
        height, width = frame.shape[-2:]
        if height % 16 or width % 16:
            raise ValueError(f"Wang et al.: frame of {height}x{width} px, expected multiples of 16")
        skips, x = [], frame
        for level, block in enumerate(self.down):
            x = block(x if level == 0 else F.max_pool2d(x, 2))
            skips.append(x)
        maps = [self.to_map[0](x)]
        for transition, to_map, skip in zip(self.up, self.to_map[1:], skips[-2::-1], strict=True):
            x = transition(x, skip)
            maps.append(to_map(x))
        return fuse_scales(maps, self.config.gamma, (height, width))


def evidence_of_all_channels(
    model: DeepMTDR, prediction: Prediction, *, create_graph: bool = False
) -> Float[Tensor, "b 1 H W"]:
    """GMSV without Eq. (2): shown no lesion region, it keeps every channel (reading R6)."""
    nowhere = torch.zeros_like(prediction.lesion_region)
    return model.gmsv(dr_score(prediction.grade_logits), prediction.features, nowhere, create_graph=create_graph)


def parts(config: ModelConfig) -> Parts:
    """The three subnets and the evidence; task-aware as DeepMT-DR is.

    Args:
        config: size of the subnets.
    """
    return Parts(
        ISRSubnet(config.isr),
        SingleScaleSegmentation(config.segmentation),
        GradingSubnet(config.grading),
        evidence_of_all_channels,
        task_aware=True,
    )
