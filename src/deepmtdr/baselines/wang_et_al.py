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

from deepmtdr.baselines.u_net import DoubleConv
from deepmtdr.model.deepmtdr import DeepMTDR, ModelConfig, Parts, Prediction
from deepmtdr.model.grading import GradingSubnet, dr_score
from deepmtdr.model.isr import ISRSubnet
from deepmtdr.model.segmentation import LesionSegmentationSubnet, SegmentationConfig


class SingleScaleConv(nn.Sequential):
    """conv3x3, batch norm, ReLU: in the place of 3 and 5 px side by side."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        convolution = nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False)
        super().__init__(convolution, nn.BatchNorm2d(channels_out), nn.ReLU())


def build_single_scale_segmentation(config: SegmentationConfig | None = None) -> LesionSegmentationSubnet:
    """The segmentation subnet with 3 px convolutions alone.

    Args:
        config: its size.
    """
    return LesionSegmentationSubnet(config, SingleScaleConv, DoubleConv)


def gmsv_without_selection(
    model: DeepMTDR, prediction: Prediction, *, create_graph: bool = False
) -> Float[Tensor, "b 1 H W"]:
    """GMSV without Eq. (2): shown no lesion region, it keeps every channel (reading R6)."""
    nowhere = torch.zeros_like(prediction.lesion_region)
    return model.gmsv(dr_score(prediction.grade_logits), prediction.features, nowhere, create_graph=create_graph)


def build_parts(config: ModelConfig) -> Parts:
    """The three subnets and the evidence; task-aware as DeepMT-DR is.

    Args:
        config: size of the subnets.
    """
    return Parts(
        ISRSubnet(config.isr),
        build_single_scale_segmentation(config.segmentation),
        GradingSubnet(config.grading),
        gmsv_without_selection,
        task_aware=True,
    )
