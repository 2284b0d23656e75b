"""Grad-CAM (Selvaraju et al., ICCV 2017; IJCV 2020), Table V and Sec. III.

"Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization". Published: ReLU of the sum of the
last convolutional features, each weighted by the mean of the score's gradient in it, brought to the photograph's size
bilinearly. Assumed: the score is y_DR; the last of the grading subnet's features (stride 32 in ResNet-18); the map
divided by its maximum, as GMSV's (reading R8). Algorithm 1 of the last layer alone, without Eq. (2), is Grad-CAM.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from deepmtdr.model.deepmtdr import DeepMTDR, Prediction
from deepmtdr.model.gmsv import combine_features, importance
from deepmtdr.model.grading import dr_score


def grad_cam(model: DeepMTDR, prediction: Prediction, *, create_graph: bool = False) -> Float[Tensor, "b 1 H W"]:
    """The evidence: where the last features lie that spoke for the score.

    Args:
        model: not asked again.
        prediction: what it said of the photographs; its features still carry their graph.
        create_graph: keep the evidence differentiable through the weights too, not through the features alone.
    """
    score, features = dr_score(prediction.grade_logits), prediction.features[-1]
    with torch.autocast(score.device.type, enabled=False):
        (gradient,) = torch.autograd.grad(score.sum(), features, create_graph=create_graph, retain_graph=True)
        evidence = combine_features([features], [importance(gradient)])
        return F.interpolate(evidence, size=prediction.sr.shape[-2:], mode="bilinear", align_corners=False)
