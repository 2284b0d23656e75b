"""Grad-CAM (Selvaraju et al., ICCV 2017; IJCV 2020). Table V and Sec. III.

"Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization".

Published: ReLU of the sum of the last convolutional features, each channel weighted by the mean over its pixels of the
    gradient of the score, enlarged to the photograph's size bilinearly.

Assumed: the score is y_DR; the features are the last features of the grading subnet (stride 32 in ResNet-18); the map
    is divided by its maximum, as in GMSV (interpretation R8). This is Algorithm 1 with only the last layer, without Eq.
    (2).
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from deepmtdr.model.gmsv import gradient_weighted_evidence
from deepmtdr.model.grading import dr_score
from deepmtdr.model.interfaces import EvidenceMethod, Grader, Prediction


class GradCAM(EvidenceMethod):
    """Grad-CAM: evidence from the last convolutional features, weighted by the gradient of the DR score."""

    def __call__(
        self, grader: Grader, prediction: Prediction, *, create_graph: bool = False
    ) -> Float[Tensor, "b 1 H W"]:
        """Compute the evidence. With `create_graph` it is differentiable through the weights and the features."""
        return gradient_weighted_evidence(
            dr_score(prediction.grade_logits),
            prediction.features[-1:],
            prediction.sr.shape[-2:],
            create_graph=create_graph,
        )
