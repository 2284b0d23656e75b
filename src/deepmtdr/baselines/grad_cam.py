"""Grad-CAM (Selvaraju et al., ICCV 2017; IJCV 2020). Table V and Sec. III.

"Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization".

Published: ReLU of the sum of the last convolutional features, each weighted by the mean of the score's gradient in it,
enlarged to the photograph's size bilinearly.

Assumed: the score is y_DR; the features are the grading subnet's last (stride 32 in ResNet-18); the map is divided by
its maximum, as GMSV's is (interpretation R8). This equals Algorithm 1 of the last layer alone, without Eq. (2).
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from deepmtdr.model.gmsv import gradient_weighted_evidence
from deepmtdr.model.grading import dr_score
from deepmtdr.model.interfaces import EvidenceMethod, Grader, Prediction


class GradCAM(EvidenceMethod):
    """The last features that increase the DR score."""

    def __call__(
        self, grader: Grader, prediction: Prediction, *, create_graph: bool = False
    ) -> Float[Tensor, "b 1 H W"]:
        """Evidence; with `create_graph` it is differentiable through the weights too, not only through the features."""
        return gradient_weighted_evidence(
            dr_score(prediction.grade_logits),
            prediction.features[-1:],
            prediction.sr.shape[-2:],
            create_graph=create_graph,
        )
