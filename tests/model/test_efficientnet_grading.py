"""Grading by EfficientNet-Lite0: its inputs, its pooling, its lesion statistics, and GMSV on its features."""

from __future__ import annotations

from math import log1p

import pytest
import torch
from torch import Tensor, nn

from deepmtdr.losses import GradeLabels, classification_aware_loss
from deepmtdr.model.efficientnet_grading import EfficientNetGradingConfig, EfficientNetLite0Grader, lesion_statistics
from deepmtdr.model.efficientnet_lite0 import EfficientNetLite0
from deepmtdr.model.gmsv import GMSV
from deepmtdr.model.grading import GradingSubnet, dr_score
from deepmtdr.model.interfaces import GradingOutput
from deepmtdr.model.preprocessing import local_contrast

PLAIN = EfficientNetGradingConfig(dropout=0.0, drop_connect=0.0)


def inputs(side: int = 64, batch: int = 1) -> tuple[Tensor, Tensor]:
    """Local contrast and lesion maps."""
    return torch.randn(batch, 3, side, side).clamp(-3, 3), torch.rand(batch, 4, side, side)


def seen_by_backbone(grader: EfficientNetLite0Grader, contrast: Tensor, lesions: Tensor) -> Tensor:
    """The input of the backbone."""
    seen: list[Tensor] = []
    hook = grader.backbone.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    grader(contrast, lesions)
    hook.remove()
    return seen[0]


@pytest.mark.parametrize("gain", [1.0, 3.0])
def test_input_is_local_contrast_times_its_gain_and_four_times_the_lesion_maps(gain: float) -> None:
    config = EfficientNetGradingConfig(reduce=1, contrast_gain=gain)
    grader, (contrast, lesions) = EfficientNetLite0Grader(config=config).eval(), inputs()
    seen = seen_by_backbone(grader, contrast, lesions)
    assert torch.equal(seen[:, :3], gain * contrast)
    assert torch.equal(seen[:, 3:], 4 * lesions)
    assert EfficientNetLite0Grader.preprocess is local_contrast


@pytest.mark.parametrize("factor", [2, 4])
def test_frame_is_reduced_by_its_mean_and_the_lesion_maps_by_their_maximum(factor: int) -> None:
    grader = EfficientNetLite0Grader(config=EfficientNetGradingConfig(reduce=factor)).eval()
    contrast, lesions = torch.zeros(1, 3, 64, 64), torch.zeros(1, 4, 64, 64)
    contrast[0, 1, 0, 0], lesions[0, 2, 5, 9] = 2.0, 0.5
    seen = seen_by_backbone(grader, *grader.reduce(contrast, lesions))
    assert seen.shape == (1, 7, 64 // factor, 64 // factor)
    assert seen[0, 1, 0, 0] == 2 / factor**2 and seen[0, 5, 5 // factor, 9 // factor] == 2.0
    assert seen.count_nonzero() == 2


def test_features_are_those_of_the_backbone_on_the_reduced_frame_from_fine_to_coarse() -> None:
    grader = EfficientNetLite0Grader().eval()
    logits, features, *_ = grader(*grader.reduce(*inputs(128, 2)))
    assert logits.shape == (2, 5)
    assert [f.shape[-1] for f in features] == [32, 16, 8, 4, 2]  # half of the frame, strides 2 to 32
    assert tuple(f.shape[1] for f in features) == grader.channels
    assert all((f >= 0).all() for f in features)


def test_logits_are_linear_in_the_normalised_mean_and_maximum_and_the_lesion_statistics() -> None:
    grader, (contrast, lesions) = EfficientNetLite0Grader(config=PLAIN).eval(), inputs()
    logits, features, *_ = grader(contrast, lesions)
    mean, highest = features[-1].mean(dim=(2, 3)), features[-1].amax(dim=(2, 3))
    norm = nn.LayerNorm(1280)
    pooled = torch.cat([norm(mean), norm(highest), lesion_statistics(lesions)], dim=1)
    expected = grader.classifier(pooled)
    assert grader.classifier.in_features == 2560 + 40
    assert torch.allclose(logits, expected - expected.mean(dim=1, keepdim=True), atol=1e-5)


def test_lesion_statistics_by_hand() -> None:
    # One map of 4 x 4 px. Upper left: mean (0.4 + 0.8) / 4 = 0.3. Lower right: 0.1 / 4. Frame: 1.3 / 16.
    maps = torch.zeros(1, 1, 4, 4)
    maps[0, 0, 0, 0], maps[0, 0, 1, 1], maps[0, 0, 3, 2] = 0.4, 0.8, 0.1
    areas = [log1p(0.3 / 1e-4), 0, 0, log1p(0.025 / 1e-4), log1p(1.3 / 16 / 1e-4)]
    assert lesion_statistics(maps)[0].tolist() == pytest.approx([*areas, 0.8, 0, 0, 0.1, 0.8], abs=1e-5)


def test_lesion_statistics_do_not_depend_on_the_size_of_the_frame() -> None:
    maps = torch.rand(1, 4, 16, 16)
    assert torch.allclose(
        lesion_statistics(maps), lesion_statistics(maps.repeat_interleave(3, 2).repeat_interleave(3, 3))
    )


def test_without_imagenet_stem_weights_lesion_maps_influence_the_grade_by_their_statistics_only() -> None:
    """At the start; the weights of the stem's lesion channels are 0, but get a gradient."""
    contrast, lesions = inputs()
    grader = EfficientNetLite0Grader(config=EfficientNetGradingConfig(lesion_statistics=False)).eval()
    assert torch.equal(grader(contrast, lesions).logits, grader(contrast, torch.zeros_like(lesions)).logits)
    grader(contrast, lesions).logits[0, 0].backward()
    gradient = grader.backbone._conv_stem.weight.grad
    assert gradient is not None and (gradient[:, 3:].abs().sum(dim=(0, 2, 3)) > 0).all()
    grader = EfficientNetLite0Grader().eval()
    assert not torch.equal(grader(contrast, lesions).logits, grader(contrast, torch.zeros_like(lesions)).logits)


def test_every_lesion_map_gets_a_gradient_from_the_grade() -> None:
    contrast, lesions = inputs()
    lesions = (0.01 * lesions).requires_grad_()
    EfficientNetLite0Grader().eval()(contrast, lesions).logits[0, 3].backward()
    assert lesions.grad is not None and (lesions.grad.abs().sum(dim=(0, 2, 3)) > 0).all()


@pytest.mark.parametrize("hidden", [0, 6])
def test_gradient_reaches_every_parameter(hidden: int) -> None:
    grader = EfficientNetLite0Grader(config=EfficientNetGradingConfig(hidden=hidden, dropout=0.0, drop_connect=0.0))
    graded = grader(*inputs(128, 4))
    known = torch.ones(4, dtype=torch.bool)
    grader.loss(graded, GradeLabels(torch.tensor([0, 3, 2, 4]), known)).backward()
    missing = [
        n for n, p in grader.named_parameters() if p.grad is None or not p.grad.any() or not p.grad.isfinite().all()
    ]
    assert missing == []
    assert (grader.hidden is None) == (hidden == 0)


def test_its_loss_is_that_of_the_papers_grading_subnet() -> None:
    logits, weights = torch.randn(3, 5), torch.tensor([1.0, 1.0, 2.0, 1.0, 3.0])
    labels = GradeLabels(torch.tensor([4, 2, 0]), torch.tensor([True, True, False]), weights)
    graded = GradingOutput(logits, ())
    assert EfficientNetLite0Grader().loss(graded, labels) == GradingSubnet().loss(graded, labels)


def test_logits_have_a_mean_of_zero_for_any_bias() -> None:
    grader, known = EfficientNetLite0Grader().eval(), inputs()
    before = grader(*known).logits
    with torch.no_grad():
        grader.classifier.bias.add_(3.0)
    assert torch.allclose(grader(*known).logits, before, atol=1e-5)
    assert before.mean().item() == pytest.approx(0, abs=1e-6)


def test_dropout_is_active_in_training_only() -> None:
    grader, known = EfficientNetLite0Grader(), inputs(64, 2)
    assert not torch.equal(grader(*known).logits, grader(*known).logits)
    grader.eval()
    assert torch.equal(grader(*known).logits, grader(*known).logits)


@pytest.mark.parametrize("hidden", [0, 8])
def test_training_logits_are_those_of_evaluation_with_dropout_on_all_but_the_lesion_statistics(hidden: int) -> None:
    grader = EfficientNetLite0Grader(config=EfficientNetGradingConfig(hidden=hidden, dropout=0.5)).eval()
    graded = grader(*inputs(64, 2))
    assert graded.hidden is None if hidden == 0 else graded.hidden.shape == (2, hidden)
    drawn = [grader.training_logits(graded) for _ in range(2)]
    assert not torch.equal(*drawn)
    assert drawn[0].mean(dim=1).tolist() == pytest.approx([0, 0], abs=1e-5)
    grader.dropout.p = 0.0
    assert torch.equal(grader.training_logits(graded), graded.logits)
    if hidden == 0:
        grader.dropout.p = 1.0
        statistics = nn.functional.linear(graded.extra[0][:, 2560:], grader.classifier.weight[:, 2560:])
        expected = statistics + grader.classifier.bias
        logits = grader.training_logits(graded)
        assert torch.allclose(logits, expected - expected.mean(dim=1, keepdim=True), atol=1e-5)


def test_imagenet_weights_load_and_the_lesion_channels_and_the_head_keep_their_values() -> None:
    grader, published = EfficientNetLite0Grader(), EfficientNetLite0()
    nn.init.ones_(grader.backbone._conv_stem.weight)
    before = {name: tensor.clone() for name, tensor in grader.state_dict().items()}
    state = {**published.state_dict(), "_fc.weight": torch.rand(1000, 1280), "_fc.bias": torch.rand(1000)}
    grader.load_imagenet(state)
    for name, tensor in grader.state_dict().items():
        if name == "backbone._conv_stem.weight":
            assert torch.equal(tensor[:, :3], state["_conv_stem.weight"]) and torch.equal(
                tensor[:, 3:], before[name][:, 3:]
            )
        else:
            own = name.startswith("backbone.")
            assert torch.equal(tensor, state[name.removeprefix("backbone.")] if own else before[name]), name
    del state["_blocks.3._bn1.running_var"]
    with pytest.raises(ValueError, match=r"_blocks\.3\._bn1\.running_var is missing"):
        grader.load_imagenet(state)


def test_classification_aware_loss_reaches_the_image_through_gmsv() -> None:
    """Eq. (5), with second derivatives of the network: the gradient weights of GMSV depend on the image too."""
    grader, (contrast, lesions) = EfficientNetLite0Grader(config=PLAIN).eval(), inputs()
    contrast.requires_grad_()
    graded, gmsv = grader(contrast, lesions), GMSV(grader.channels)
    region = torch.zeros(1, 1, 64, 64)
    region[..., 16:32, 16:32] = 1
    # For the score and for its opposite: with random weights one of them has no evidence.
    maps = [gmsv(sign * dr_score(graded.logits), graded.features, region, create_graph=True) for sign in (1, -1)]
    assert all(m.shape == (1, 1, 64, 64) and 0 <= m.min() <= m.max() <= 1 for m in maps)
    evidence = torch.cat(maps)
    loss = classification_aware_loss(evidence, torch.zeros_like(evidence), 0.5, 0.1)
    (gradient,) = torch.autograd.grad(loss, contrast)
    assert gradient.isfinite().all() and gradient.any()


def test_half_precision_gives_similar_logits() -> None:
    grader, known = EfficientNetLite0Grader().eval(), inputs(128, 2)
    with torch.no_grad():
        full = grader(*known).logits
        with torch.autocast("cpu", torch.bfloat16):
            half = grader(*known).logits
    assert half.dtype == torch.float32
    assert (half - full).abs().max() < 0.1 * full.abs().max()


def test_settings_out_of_range_are_described() -> None:
    assert list(EfficientNetGradingConfig(contrast_gain=0.0).problems()) == [
        "contrast_gain = 0.0, expected more than 0"
    ]
    assert list(EfficientNetGradingConfig(reduce=3).problems()) == ["reduce = 3, expected 1, 2 or 4"]
    assert not list(EfficientNetGradingConfig().problems())
