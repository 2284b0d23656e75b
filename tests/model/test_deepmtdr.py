"""DeepMTDR, the whole network (Fig. 6), and which subnet each loss trains (interpretation R10)."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from deepmtdr.grading_losses import grading_loss
from deepmtdr.losses import classification_aware_loss
from deepmtdr.model.deepmtdr import DeepMTDR, ModelConfig
from deepmtdr.model.grading import GradingConfig
from deepmtdr.model.isr import ISRConfig, bicubic
from deepmtdr.model.preprocessing import local_contrast
from deepmtdr.model.segmentation import SegmentationConfig
from deepmtdr.terms import SCALES

SMALL = ModelConfig(
    isr=ISRConfig(width=8, blocks=1),
    segmentation=SegmentationConfig(width=4),
    grading=GradingConfig(width=4, hidden=8, head_norm=False),
)


@pytest.fixture
def model() -> DeepMTDR:
    """A small network in evaluation mode whose last stage has a positive weight for DR, so that there is evidence."""
    model = DeepMTDR(SMALL).eval()
    with torch.no_grad():
        model.grading.spp_fc.weight.abs_()
        model.grading.classifier.weight.abs_()[0].neg_()
    return model


def learned(module: nn.Module) -> bool:
    """Whether any parameter of the module got a gradient that is not zero."""
    return any(p.grad is not None and bool(p.grad.any()) for p in module.parameters())


@pytest.mark.parametrize("scale", SCALES)
def test_every_scale_gives_outputs_in_the_hr_frame(model: DeepMTDR, scale: int) -> None:
    prediction = model(torch.rand(2, 3, 64 // scale, 96 // scale), scale)
    assert prediction.sr.shape == (2, 3, 64, 96)
    assert prediction.lesions.shape == (2, 4, 64, 96)
    assert prediction.lesion_region.shape == (2, 1, 64, 96)
    assert prediction.grade_logits.shape == (2, 5)
    assert [f.shape[2] for f in prediction.features] == [32, 16, 8, 4, 2]
    assert model.evidence(prediction).shape == (2, 1, 64, 96)


def test_scale_1_skips_super_resolution(model: DeepMTDR) -> None:
    frame = torch.rand(1, 3, 64, 64)
    assert torch.equal(model(frame, 1).sr, frame)


def test_untrained_network_predicts_from_the_bicubic_image(model: DeepMTDR) -> None:
    lr = 0.2 + 0.6 * torch.rand(1, 3, 16, 16)  # all pixels are inside the field of view
    through, direct = model(lr, 4), model.segment_and_grade(bicubic(lr, 4))
    assert torch.allclose(through.sr, direct.sr, atol=1e-6)
    assert torch.allclose(through.grade_logits, direct.grade_logits, atol=1e-4)


def test_lesions_are_the_first_four_classes_and_the_region_is_1_minus_background(model: DeepMTDR) -> None:
    frame = torch.rand(1, 3, 64, 64)
    classes, prediction = model.segmentation(local_contrast(frame)), model.segment_and_grade(frame)
    assert torch.equal(prediction.lesions, classes[:, :4])
    assert torch.allclose(prediction.lesion_region, classes[:, :4].sum(dim=1, keepdim=True), atol=1e-6)


def test_grade_probabilities_sum_to_one(model: DeepMTDR) -> None:
    assert torch.allclose(model(torch.rand(3, 3, 16, 16)).grade_probs.sum(dim=1), torch.ones(3))


def test_prediction_does_not_depend_on_the_rest_of_the_batch(model: DeepMTDR) -> None:
    lr = torch.rand(3, 3, 16, 16)
    together, evidence = model.predict(lr)
    for i in range(3):
        alone, evidence_alone = model.predict(lr[i : i + 1])
        assert torch.allclose(alone.grade_logits[0], together.grade_logits[i], atol=1e-5)
        assert torch.allclose(alone.lesions[0], together.lesions[i], atol=1e-5)
        assert torch.allclose(evidence_alone[0], evidence[i], atol=1e-4)


def test_predict_equals_forward_and_evidence_and_leaves_no_graph(model: DeepMTDR) -> None:
    lr = 0.2 + 0.6 * torch.rand(2, 3, 16, 16)
    used, evidence = model.predict(lr)
    trained = model(lr)
    assert used.sr.min() >= 0 and used.sr.max() <= 1
    assert torch.allclose(used.sr, trained.sr.clamp(0, 1))
    assert torch.allclose(used.grade_logits, trained.grade_logits, atol=1e-4)
    assert torch.allclose(evidence, model.evidence(trained), atol=1e-4)
    tensors = [used.sr, used.lesions, used.lesion_region, used.grade_logits, *used.features, evidence]
    assert not any(t.requires_grad for t in tensors)
    assert not learned(model)


def test_predict_clamps_the_frame_before_it_is_segmented_and_graded(model: DeepMTDR) -> None:
    lr = torch.rand(1, 3, 16, 16)
    nn.init.constant_(model.isr.to_rgb["4"].bias, 0.5)  # pyright: ignore[reportArgumentType, reportIndexIssue]
    used, _ = model.predict(lr)
    clamped = model.segment_and_grade((bicubic(lr, 4) + 0.5).clamp(0, 1))
    assert used.sr.max() == 1
    assert torch.allclose(used.lesions, clamped.lesions, atol=1e-5)
    assert torch.allclose(used.grade_logits, clamped.grade_logits, atol=1e-4)


def test_evidence_is_between_0_and_1_and_not_empty(model: DeepMTDR) -> None:
    _, evidence = model.predict(torch.rand(2, 3, 16, 16))
    assert evidence.min() >= 0 and evidence.max() <= 1
    assert (evidence.amax(dim=(1, 2, 3)) > 0.5).all()


# Interpretation R10: which subnet each loss trains


def classification_aware(model: DeepMTDR, frame: Tensor) -> Tensor:
    """Eq. (5) for a frame and its super-resolved version at x4."""
    evidence_sr = model.evidence(model(bicubic(frame, 0.25), 4), create_graph=True)
    _, evidence_hr = model.predict(frame, scale=1)
    # 0.9: an untrained network has evidence nearly everywhere.
    return classification_aware_loss(evidence_sr, evidence_hr, phi_vis=0.9)


def test_eq5_trains_the_isr_subnet_through_frozen_subnets(model: DeepMTDR) -> None:
    model.segmentation.requires_grad_(False)
    model.grading.requires_grad_(False)
    loss = classification_aware(model, torch.rand(1, 3, 64, 64))
    loss.backward()
    assert loss > 0
    assert learned(model.isr)
    assert not learned(model.grading) and not learned(model.segmentation) and not learned(model.gmsv)


def test_eq5_gradient_reaches_every_layer_of_the_isr_subnet(model: DeepMTDR) -> None:
    nn.init.normal_(model.isr.to_rgb["4"].weight, std=0.01)  # pyright: ignore[reportArgumentType]
    classification_aware(model, torch.rand(1, 3, 64, 64)).backward()
    assert learned(model.isr.stem) and learned(model.isr.blocks) and learned(model.isr.upscaling[1])


def test_evidence_depends_on_the_weights_of_the_score_only_with_create_graph(model: DeepMTDR) -> None:
    prediction = model(torch.rand(1, 3, 16, 16))
    last = model.grading.classifier.weight  # influences V only through the gradient of Eq. (3)
    (gradient,) = torch.autograd.grad(model.evidence(prediction, create_graph=True).sum(), last)
    assert gradient.any()
    plain = model.evidence(prediction).sum()
    assert torch.autograd.grad(plain, last, allow_unused=True) == (None,)


def test_eq5_gradient_of_the_isr_subnet_needs_no_create_graph_in_evaluation_mode(model: DeepMTDR) -> None:
    # With ReLU, maxima and frozen batch norm, dy_DR / dF of Eq. (3) is locally constant: V changes only with F.
    gradients = []
    for create_graph in (True, False):
        evidence = model.evidence(model(torch.full((1, 3, 16, 16), 0.5).cumsum(3) / 16), create_graph=create_graph)
        gradients.append(torch.autograd.grad(evidence.square().sum(), model.isr.to_rgb["4"].weight)[0])  # pyright: ignore
    assert gradients[0].any() and torch.allclose(*gradients, rtol=1e-5, atol=1e-6)


def test_lesion_maps_are_attached_in_the_grading_network_so_that_a_loss_of_the_grade_reaches_all_subnets(
    model: DeepMTDR,
) -> None:
    # Interpretation R27. Which of them a loss trains is decided by `backward_by_subnet`.
    grading_loss(model(torch.rand(1, 3, 16, 16)).grade_logits, torch.tensor([2])).backward()
    assert learned(model.grading) and learned(model.isr) and learned(model.segmentation)
    assert not learned(model.gmsv)


def test_lesion_maps_train_the_segmentation_and_isr_subnets_but_not_the_grading(model: DeepMTDR) -> None:
    model(torch.rand(1, 3, 16, 16)).lesions.square().mean().backward()
    assert learned(model.segmentation) and learned(model.isr)
    assert not learned(model.grading) and not learned(model.gmsv)


def test_evidence_depends_on_the_image_through_the_lesion_maps_but_not_through_the_selected_region(
    model: DeepMTDR,
) -> None:
    prediction = model(torch.rand(1, 3, 16, 16))
    evidence = model.evidence(prediction).sum()
    through_maps, through_region = torch.autograd.grad(
        evidence, (prediction.lesions, prediction.lesion_region), allow_unused=True
    )
    assert through_maps is not None and through_maps.any() and through_region is None


def test_predict_builds_no_graph_of_the_segmentation(model: DeepMTDR, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Tensor] = []
    grade = model.grading.forward
    monkeypatch.setattr(model.grading, "forward", lambda image, maps: given.append(maps) or grade(image, maps))
    model.predict(torch.rand(1, 3, 16, 16), turns=2)
    assert len(given) == 2 and not any(maps.requires_grad for maps in given)
