"""Wang et al., the conference version of DeepMT-DR: one system for the three tasks. Tables I, III and IV.

"Deep Multi-Task Learning for Diabetic Retinopathy Grading in Fundus Images", AAAI 2021.

Published, in the DeepMT-DR paper: all of DeepMT-DR without the multi-scale feature integration of the segmentation
subnet and without the lesion-oriented selection of Eq. (2). So the ISR and grading subnets, the two stages and the
losses are those of DeepMT-DR; the segmentation subnet has one convolution where ours has 3 and 5 px side by side; and
the evidence is the sum over every channel.

Assumed: widths, Eq. (1) and the five feature layers are those of the journal version. (The authors' code for the
conference paper already has the parallel convolutions, and four feature layers. The journal calls the parallel
convolutions new, and this file follows the journal.) Parameters: 34.5 million in the segmentation subnet at width 64;
none are published.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from deepmtdr.baselines.u_net import DoubleConv
from deepmtdr.labels import DIABETIC_RETINOPATHY, LabelSet
from deepmtdr.model.deepmtdr import ModelConfig, Parts
from deepmtdr.model.gmsv import gradient_weighted_evidence
from deepmtdr.model.grading import GradingSubnet, dr_score
from deepmtdr.model.interfaces import EvidenceMethod, Grader, Prediction
from deepmtdr.model.isr import ISRSubnet
from deepmtdr.model.segmentation import LesionSegmentationSubnet, SegmentationConfig


class SingleScaleConv(nn.Sequential):
    """conv3x3, batch norm, ReLU, instead of 3 and 5 px side by side."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        convolution = nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False)
        super().__init__(convolution, nn.BatchNorm2d(channels_out), nn.ReLU())


def build_single_scale_segmentation(
    labels: LabelSet = DIABETIC_RETINOPATHY, config: SegmentationConfig | None = None
) -> LesionSegmentationSubnet:
    """Build the segmentation subnet with 3 px convolutions only.

    Args:
        labels: lesion types that the network segments.
        config: size of the network.
    """
    return LesionSegmentationSubnet(labels, config, SingleScaleConv, DoubleConv)


class GMSVWithoutSelection(EvidenceMethod):
    """GMSV without Eq. (2): every channel is used, as without a predicted lesion region (interpretation R6)."""

    def __call__(
        self, grader: Grader, prediction: Prediction, *, create_graph: bool = False
    ) -> Float[Tensor, "b 1 H W"]:
        """Compute the evidence from all features."""
        return gradient_weighted_evidence(
            dr_score(prediction.grade_logits),
            prediction.features,
            prediction.sr.shape[-2:],
            create_graph=create_graph,
        )


def build_parts(config: ModelConfig, labels: LabelSet = DIABETIC_RETINOPATHY) -> Parts:
    """Build the three subnets and the evidence method, with the task-aware losses of DeepMT-DR.

    Args:
        config: size of the subnets.
        labels: lesion types and grades.
    """
    return Parts(
        ISRSubnet(config.isr),
        build_single_scale_segmentation(labels, config.segmentation),
        GradingSubnet(labels, config.grading),
        GMSVWithoutSelection(),
        task_aware=True,
    )
