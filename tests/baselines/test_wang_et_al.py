"""Wang et al.: DeepMT-DR without the multi-scale blocks and without Eq. (2)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from deepmtdr.baselines.wang_et_al import GMSVWithoutSelection, build_parts, build_single_scale_segmentation
from deepmtdr.losses import LossWeights
from deepmtdr.model.deepmtdr import DeepMTDR, ModelConfig
from deepmtdr.model.gmsv import GMSV, GMSVConfig
from deepmtdr.model.grading import GradingConfig, GradingSubnet, dr_score
from deepmtdr.model.interfaces import Prediction
from deepmtdr.model.isr import ISRConfig, ISRSubnet
from deepmtdr.model.segmentation import LesionSegmentationSubnet, SegmentationConfig
from deepmtdr.recipe import JointStage
from deepmtdr.synthetic.drawings import draw_photograph
from deepmtdr.terms import Grade
from deepmtdr.training.backward import StepLosses, backward_by_subnet
from deepmtdr.training.batches import Batch
from deepmtdr.training.optimiser import build_optimiser
from deepmtdr.training.step_losses import joint_losses, restoration_losses

SMALL = ModelConfig(
    isr=ISRConfig(width=8, blocks=2),
    segmentation=SegmentationConfig(width=4),
    grading=GradingConfig(width=4, hidden=8, dropout=0.0, head_norm=False),
)
WEIGHTS = LossWeights(phi_vis=0.9, task_aware_share=0.0)  # an untrained network has evidence nearly everywhere


def system(config: ModelConfig = SMALL) -> DeepMTDR:
    """A small system whose last stage has positive weights for DR, so that there is evidence."""
    found = build_parts(config)
    assert isinstance(found.grading, GradingSubnet)
    with torch.no_grad():
        found.grading.spp_fc.weight.abs_()
        found.grading.classifier.weight.abs_()[0].neg_()
    return DeepMTDR(config, found)


def drawn_batch(side: int = 64) -> Batch:
    """Two tiny drawings: one annotated, both graded."""
    drawings = [draw_photograph(seed, grade, 2 * side) for seed, grade in ((1, Grade.SEVERE), (2, Grade.NEGATIVE))]
    hr = torch.stack([torch.tensor(d.photograph)[-side:, :side].permute(2, 0, 1) / 255 for d in drawings])
    masks = torch.stack([torch.tensor(d.lesion_masks)[:, -side:, :side].float() for d in drawings])
    annotated = torch.tensor([True, False])[:, None].expand(2, 4)
    return Batch(hr, hr, masks, annotated, torch.tensor([3, 0]), torch.ones(2, dtype=torch.bool))


def with_a_lesion_region(model: DeepMTDR) -> Prediction:
    """A prediction in which a quarter of the frame is a lesion."""
    prediction = model.eval().segment_and_grade(torch.rand(2, 3, 64, 64))
    region = torch.zeros(2, 1, 64, 64)
    region[..., :32, :32] = 1
    return prediction._replace(lesion_region=region)


def test_it_differs_from_deepmt_dr_in_the_segmentation_subnet_and_the_evidence_only() -> None:
    found = build_parts(SMALL)
    assert (type(found.isr), type(found.segmentation), type(found.grading)) == (
        ISRSubnet, LesionSegmentationSubnet, GradingSubnet,
    )  # fmt: skip
    assert found.task_aware and isinstance(found.evidence, GMSVWithoutSelection)


def test_segmentation_has_the_widths_of_ours_and_only_3_px_kernels() -> None:
    ours, plain = (
        LesionSegmentationSubnet(config=SMALL.segmentation),
        build_single_scale_segmentation(config=SMALL.segmentation),
    )

    def widths(subnet: nn.Module) -> list[int]:
        return [m.num_features for m in subnet.modules() if isinstance(m, nn.BatchNorm2d)]

    assert widths(plain) == widths(ours)
    kernels = {m.kernel_size for m in plain.modules() if isinstance(m, nn.Conv2d)}
    assert kernels == {(3, 3), (1, 1)}
    assert {m.kernel_size for m in ours.modules() if isinstance(m, nn.Conv2d)} == {(3, 3), (5, 5), (1, 1)}


def test_parameter_count_by_hand_is_a_third_less_than_ours() -> None:
    # No count is published. Batch norm has 2 for each channel, a 3x3 convolution 9 i o, a map 5 i + 5.
    def conv(i: int, o: int) -> int:
        return 9 * i * o + 2 * o

    widths = [64, 128, 256, 512, 1024]
    down = sum(conv(i, o) + conv(o, o) for i, o in zip([3, *widths], widths, strict=False))
    up = sum(conv(2 * o, o) + conv(2 * o, o) + conv(o, o) for o in widths[:-1])
    by_hand = down + up + sum(5 * o + 5 for o in widths)
    with torch.device("meta"):
        plain, ours = (
            sum(p.numel() for p in s().parameters())
            for s in (build_single_scale_segmentation, LesionSegmentationSubnet)
        )
    assert plain == by_hand == 34_530_073
    assert plain < 0.7 * ours


def test_segmentation_gives_five_probabilities_and_a_gradient_to_every_parameter() -> None:
    subnet = build_single_scale_segmentation(config=SMALL.segmentation)
    classes = subnet(torch.rand(2, 3, 32, 48))
    assert classes.shape == (2, 5, 32, 48) and torch.allclose(classes.sum(dim=1), torch.tensor(1.0), atol=1e-6)
    classes[:, 2].square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in subnet.parameters())


def test_evidence_uses_every_channel_for_any_lesion_region() -> None:
    model = system()
    prediction = with_a_lesion_region(model)
    evidence = model.evidence(prediction)
    elsewhere = model.evidence(prediction._replace(lesion_region=1 - prediction.lesion_region))
    assert torch.equal(evidence, elsewhere) and evidence.amax() > 0.5
    # theta_seg below 0 selects every channel; the paper's value does not.
    score, region = dr_score(prediction.grade_logits), prediction.lesion_region
    channels = [feature.shape[1] for feature in prediction.features]
    everything, selected = GMSV(channels, GMSVConfig(theta_seg=-1.0)), GMSV(channels)
    assert torch.equal(evidence, everything(score, prediction.features, region))
    assert not torch.allclose(evidence, selected(score, prediction.features, region))


def test_evidence_is_algorithm_1_over_all_channels() -> None:
    model = system()
    prediction = with_a_lesion_region(model)
    gradients = torch.autograd.grad(dr_score(prediction.grade_logits).sum(), prediction.features, retain_graph=True)
    above: Tensor | None = None
    for feature, gradient in zip(prediction.features[::-1], gradients[::-1], strict=True):
        layer, total = torch.zeros(2, *feature.shape[2:]), torch.zeros(2)
        for channel in range(feature.shape[1]):
            weight = gradient[:, channel].mean(dim=(1, 2))
            layer, total = layer + weight[:, None, None] * feature[:, channel], total + weight
        if above is not None:
            lifted = nn.functional.interpolate(above[:, None], size=layer.shape[-2:], mode="bilinear")[:, 0]
            layer = lifted + total[:, None, None] * layer
        above = layer
    assert above is not None
    expected = above.relu()[:, None]
    expected = expected / expected.amax(dim=(2, 3), keepdim=True)
    expected = nn.functional.interpolate(expected, size=(64, 64), mode="bilinear")
    assert torch.allclose(model.evidence(prediction), expected, atol=1e-5)


def test_classification_aware_loss_trains_the_isr_subnet_through_the_evidence() -> None:
    silent = {name: 0.0 for name in ("lambda_img", "lambda_tv", "lambda_sa", "dice", "lesion_cross_entropy",
                                     "unsupervised", "grading")}  # fmt: skip
    model = system().eval()
    step = joint_losses(model, drawn_batch(), 4, replace(WEIGHTS, **silent, lambda_ca=10.0))
    assert step.terms["cls_aware"] > 0
    backward_by_subnet(step, model, end_to_end=True)
    last = dict(model.isr.named_parameters())["to_rgb.4.weight"].grad
    assert last is not None and last.any()


def test_thresholds_of_eq2_are_not_trained() -> None:
    model = system()
    build_optimiser(model, JointStage(steps=1, lr_isr=1e-3, lr_segmentation=1e-3, lr_grading=1e-3))
    assert not any(p.requires_grad for p in model.gmsv.parameters())
    backward_by_subnet(joint_losses(model, drawn_batch(), 4, WEIGHTS), model, end_to_end=True)
    assert all(p.grad is None for p in model.gmsv.parameters())


def test_a_few_steps_of_each_stage_improve_all_three_tasks() -> None:
    model, batch = system(replace(SMALL, isr=ISRConfig(width=16, blocks=2))), drawn_batch()
    weights = replace(WEIGHTS, lambda_sa=0.0, lambda_ca=0.0)

    def learned(steps: int, stage: Callable[..., StepLosses], rate: float) -> tuple[dict[str, float], dict[str, float]]:
        optimiser, terms = torch.optim.AdamW(model.parameters(), rate), []
        for _ in range(steps):
            optimiser.zero_grad()
            step = stage(model, batch, 4, weights)
            backward_by_subnet(step, model, end_to_end=False)
            optimiser.step()
            terms.append(step.terms)
        return terms[0], terms[-1]

    first, last = learned(60, restoration_losses, 2e-3)
    for name, share in {"image": 0.97, "dice": 0.9, "cross_entropy": 0.9}.items():
        assert last[name] < share * first[name], (name, first, last)
    first, last = learned(10, joint_losses, 2e-3)
    assert last["grading"] < 0.9 * first["grading"], (first, last)


def test_prediction_in_bf16_is_finite() -> None:
    model = system().eval()
    with torch.autocast("cpu", torch.bfloat16):
        prediction, evidence = model.predict(torch.rand(1, 3, 16, 16), 4)
    assert prediction.lesions.shape == (1, 4, 64, 64) and evidence.shape == (1, 1, 64, 64)
    assert all(part.isfinite().all() for part in (prediction.sr, prediction.lesions, prediction.grade_logits, evidence))


def test_a_frame_that_is_no_multiple_of_16_px_is_an_error() -> None:
    with pytest.raises(ValueError, match="24x32 px, expected multiples of 16"):
        build_single_scale_segmentation(config=SMALL.segmentation)(torch.rand(1, 3, 24, 32))
