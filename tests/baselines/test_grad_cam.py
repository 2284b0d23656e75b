"""Grad-CAM: by hand, and equal to MONAI's."""

from __future__ import annotations

from typing import cast

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deepmtdr.baselines.grad_cam import GradCAM
from deepmtdr.model.deepmtdr import DeepMTDR, ModelConfig, paper_parts
from deepmtdr.model.grading import GradingConfig, GradingSubnet, dr_score
from deepmtdr.model.interfaces import Prediction
from deepmtdr.model.isr import ISRConfig
from deepmtdr.model.segmentation import SegmentationConfig


def model_with_evidence() -> DeepMTDR:
    """A small network in which all of the last features increase the DR score."""
    model = DeepMTDR(SMALL, paper_parts(SMALL)._replace(evidence=GradCAM())).eval()
    with torch.no_grad():
        grading = cast(GradingSubnet, model.grading)
        grading.spp_fc.weight.abs_()
        grading.classifier.weight.abs_()[0].neg_()
    return model


SMALL = ModelConfig(
    isr=ISRConfig(width=4, blocks=1),
    segmentation=SegmentationConfig(width=2),
    grading=GradingConfig(width=4, hidden=8),
)


def evidence_of(features: Tensor, weights: list[float]) -> Tensor:
    """Evidence for a score that is the weighted sum of the channels' means, at the features' size."""
    features = features.requires_grad_()
    score = (features.mean(dim=(2, 3)) * torch.tensor(weights)).sum(dim=1)
    logits = torch.stack([-score, score, *[0 * score] * 3], dim=1)
    size = features.shape[-2:]
    blank = torch.zeros(len(features), 4, *size)
    prediction = Prediction(torch.zeros(len(features), 3, *size), blank, blank[:, :1], logits, (features,))
    return GradCAM()(GradingSubnet(config=SMALL.grading), prediction)


def test_two_channels_by_hand() -> None:
    # 3 A - 1 B, negative values to 0, divided by the maximum: (3 - 1, 6 - 0, 0 - 2, 3 - 3) = (2, 6, 0, 0) / 6.
    features = torch.tensor([[[[1.0, 2.0], [0.0, 1.0]], [[1.0, 0.0], [2.0, 3.0]]]])
    assert evidence_of(features, [3.0, -1.0])[0, 0].flatten().tolist() == pytest.approx([1 / 3, 1, 0, 0])


def test_features_that_lower_the_score_give_no_evidence() -> None:
    assert not evidence_of(torch.rand(1, 2, 4, 4), [-1.0, -2.0]).any()


def test_evidence_is_enlarged_to_the_frame_bilinearly() -> None:
    model = model_with_evidence()
    _, evidence = model.predict(torch.rand(1, 3, 128, 128), scale=1)
    assert evidence.shape == (1, 1, 128, 128)
    coarse = evidence[:, :, 15::32, 15::32] / 4 + evidence[:, :, 16::32, 15::32] / 4
    coarse = coarse + evidence[:, :, 15::32, 16::32] / 4 + evidence[:, :, 16::32, 16::32] / 4
    inner = F.interpolate(coarse, size=(128, 128), mode="bilinear")
    assert torch.allclose(evidence, inner, atol=0.05)


class Scored(nn.Module):
    """A grading subnet with y_DR as its only class."""

    def __init__(self, grading: nn.Module) -> None:
        super().__init__()
        self.grading = grading

    def forward(self, network_input: Tensor) -> Tensor:
        return dr_score(
            self.grading(network_input, torch.zeros(len(network_input), 4, *network_input.shape[2:])).logits
        )[:, None]


def test_map_equals_monais() -> None:
    """Without MONAI's normaliser, which inverts the map, (min, max) to (1, 0); ours is a share of the maximum."""
    visualize = pytest.importorskip("monai.visualize")
    torch.manual_seed(0)
    grading = GradingSubnet(config=GradingConfig(width=4, hidden=8)).eval()
    frame, blank = torch.randn(2, 3, 128, 128), torch.zeros(2, 4, 128, 128)
    logits, features, *_ = grading(frame, blank)
    ours = GradCAM()(grading, Prediction(frame, blank, blank[:, :1], logits, features))
    monai = visualize.GradCAM(
        Scored(grading), "grading.layer4", postprocessing=lambda x: x
    )  # does not remove its hooks
    theirs, coarse = monai(frame, class_idx=0), monai.compute_map(frame, class_idx=0)
    largest = coarse.amax(dim=(2, 3), keepdim=True)
    assert (largest > 0).all()
    assert torch.allclose(ours, theirs / largest, rtol=1e-4, atol=1e-5)


def test_evidence_depends_on_the_last_layers_weights_only_with_create_graph() -> None:
    model = model_with_evidence()
    prediction = model(torch.rand(1, 3, 32, 32))
    last = cast(GradingSubnet, model.grading).classifier.weight
    plain = torch.autograd.grad(GradCAM()(model.grading, prediction).sum(), last, allow_unused=True)
    whole = torch.autograd.grad(GradCAM()(model.grading, prediction, create_graph=True).sum(), last)
    assert plain == (None,) and whole[0].any()
