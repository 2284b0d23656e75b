"""Without maps: DR scores in Eq. (5) instead of evidence."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from deepmtdr.baselines.without_maps import WithoutMaps
from deepmtdr.losses import LossWeights, classification_aware_loss
from deepmtdr.model.deepmtdr import DeepMTDR, ModelConfig, paper_parts
from deepmtdr.model.grading import GradingConfig
from deepmtdr.model.interfaces import Prediction
from deepmtdr.model.isr import ISRConfig, bicubic
from deepmtdr.model.segmentation import SegmentationConfig
from deepmtdr.training.batches import Batch
from deepmtdr.training.step_losses import joint_losses

SMALL = ModelConfig(
    isr=ISRConfig(width=4, blocks=1),
    segmentation=SegmentationConfig(width=2),
    grading=GradingConfig(width=4, hidden=8, dropout=0.0),
)
WAY = WithoutMaps()


def predictions(*scores: float) -> Prediction:
    """Predictions with these DR scores, differentiable."""
    y = torch.tensor(scores)
    logits = torch.stack([-y, y, 0 * y, 0 * y, 0 * y], dim=1).requires_grad_()
    blank = torch.zeros(len(scores), 4, 32, 32)
    return Prediction(blank[:, :3], blank, blank[:, :1], logits, ())


@pytest.fixture
def model() -> DeepMTDR:
    return DeepMTDR(SMALL, paper_parts(SMALL)._replace(evidence=WAY)).eval()


def test_evidence_is_the_score_in_every_pixel(model: DeepMTDR) -> None:
    evidence = WAY(model.grading, predictions(0.0, 1.0))
    assert evidence.shape == (2, 1, 32, 32)
    assert evidence.amin(dim=(1, 2, 3)).tolist() == evidence.amax(dim=(1, 2, 3)).tolist()
    assert evidence[:, 0, 0, 0].tolist() == pytest.approx([0.5, 0.7310586])


def test_loss_by_hand() -> None:
    # sigmoid(0) = 1/2, sigmoid(ln 3) = 3/4: squared difference 1/16; 0 for the other photograph.
    ln3 = torch.tensor(3.0).log().item()
    assert WAY.loss(predictions(0.0, 2.0), predictions(ln3, 2.0)).item() == pytest.approx(1 / 32)


def test_loss_of_equal_scores_is_0_and_hr_is_the_target() -> None:
    on_sr, on_hr = predictions(0.3), predictions(-0.7)
    assert WAY.loss(on_sr, on_sr).item() == 0
    WAY.loss(on_sr, on_hr).backward()
    assert on_sr.grade_logits.grad is not None and on_sr.grade_logits.grad.any()
    assert on_hr.grade_logits.grad is None


def test_scores_on_one_side_of_the_threshold_have_a_gradient_and_their_masks_do_not(model: DeepMTDR) -> None:
    on_sr, on_hr = predictions(1.0), predictions(2.0)
    as_masks = classification_aware_loss(WAY(model.grading, on_sr), WAY(model.grading, on_hr))
    masked = torch.autograd.grad(as_masks, on_sr.grade_logits)[0]
    direct = torch.autograd.grad(WAY.loss(on_sr, on_hr), on_sr.grade_logits)[0]
    assert as_masks.item() == 0 and not masked.any()
    assert direct.any()


def test_joint_step_compares_scores_and_has_no_pseudo_ground_truth(model: DeepMTDR) -> None:
    hr, unknown = torch.rand(2, 3, 64, 64), torch.zeros(2, dtype=torch.bool)
    batch = Batch(hr, hr, torch.zeros(2, 4, 64, 64), unknown[:, None].expand(2, 4), torch.tensor([0, 1]), ~unknown)
    step = joint_losses(model, batch, 4, LossWeights())
    on_hr, _ = model.predict(hr, scale=1)
    expected = WAY.loss(model(bicubic(hr, 0.25).clamp(0, 1), 4), on_hr).item()
    assert step.terms["cls_aware"] == pytest.approx(expected) and expected > 0
    assert step.terms["unsupervised"] == 0
    model.evidence_method = None
    assert joint_losses(model, batch, 4, LossWeights()).terms["unsupervised"] > 0


def learned(module: torch.nn.Module) -> bool:
    return any(p.grad is not None and bool(p.grad.any()) for p in module.parameters())


def test_loss_trains_the_isr_subnet_through_frozen_subnets(model: DeepMTDR) -> None:
    model.segmentation.requires_grad_(False)
    model.grading.requires_grad_(False)
    hr: Tensor = torch.rand(2, 3, 64, 64)
    on_hr, _ = model.predict(hr, scale=1)
    loss = WAY.loss(model(bicubic(hr, 0.25), 4), on_hr)
    loss.backward()
    assert loss > 0
    assert learned(model.isr) and not learned(model.grading) and not learned(model.segmentation)
