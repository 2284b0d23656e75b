"""The DR grading subnet: ResNet-18 under its usual names, SPP, five feature layers, y_DR."""

from __future__ import annotations

from math import log

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import reference
from deepmtdr.losses import GradeLabels
from deepmtdr.model.grading import STRIDES, BasicBlock, GradingConfig, GradingSubnet, dr_score, spatial_pyramid_pooling
from deepmtdr.model.interfaces import GradingOutput

SMALL = GradingConfig(width=4, hidden=16)


def usual_listing() -> dict[str, tuple[int, ...]]:
    """Names and shapes of the usual ResNet-18 state-dict without `fc` (He et al. 2016)."""

    def bn(name: str, channels: int) -> dict[str, tuple[int, ...]]:
        listing: dict[str, tuple[int, ...]] = {
            f"{name}.{part}": (channels,) for part in ("weight", "bias", "running_mean", "running_var")
        }
        return listing | {f"{name}.num_batches_tracked": ()}

    names = {"conv1.weight": (64, 3, 7, 7)} | bn("bn1", 64)
    before = 64
    for stage, channels in enumerate((64, 128, 256, 512), start=1):
        for block in (0, 1):
            at = f"layer{stage}.{block}"
            names |= {f"{at}.conv1.weight": (channels, before, 3, 3)} | bn(f"{at}.bn1", channels)
            names |= {f"{at}.conv2.weight": (channels, channels, 3, 3)} | bn(f"{at}.bn2", channels)
            if before != channels:
                names |= {f"{at}.downsample.0.weight": (channels, before, 1, 1)} | bn(f"{at}.downsample.1", channels)
            before = channels
    return names


def imagenet_like() -> dict[str, Tensor]:
    """A state-dict as in a published ResNet-18 file, with a classifier of 1000 classes."""
    state = {
        name: torch.tensor(7) if name.endswith("tracked") else torch.randn(shape)
        for name, shape in usual_listing().items()
    }
    return state | {"fc.weight": torch.randn(1000, 512), "fc.bias": torch.randn(1000)}


@pytest.fixture(scope="module")
def subnet() -> GradingSubnet:
    """The subnet at full width."""
    return GradingSubnet()


def test_state_dict_is_the_usual_one_except_for_the_stem_and_the_head(subnet: GradingSubnet) -> None:
    ours = {name: tuple(tensor.shape) for name, tensor in subnet.state_dict().items()}
    assert ours.pop("conv1.weight") == (64, 7, 7, 7)
    head = {name for name in ours if name.startswith(("head_norm", "spp_fc", "classifier"))}
    assert head == {f"{layer}.{part}" for layer in ("head_norm", "spp_fc", "classifier") for part in ("weight", "bias")}
    assert ours["head_norm.weight"] == (512 * 21,)
    assert ours["spp_fc.weight"] == (512, 512 * 21) and ours["classifier.weight"] == (5, 512)
    usual = usual_listing()
    del usual["conv1.weight"]
    assert {name: shape for name, shape in ours.items() if name not in head} == usual


def test_residual_part_has_the_11_million_parameters_of_resnet18(subnet: GradingSubnet) -> None:
    head = ("head_norm", "spp_fc", "classifier")
    count = sum(p.numel() for n, p in subnet.named_parameters() if not n.startswith(head))
    # ResNet-18 has 11,689,512; less its fc, 512 * 1000 + 1000; four more input channels of the stem, 64 * 4 * 7 * 7.
    assert count == 11_689_512 - 513_000 + 12_544


def test_imagenet_weights_load_and_the_stem_keeps_its_lesion_channels() -> None:
    subnet, state = GradingSubnet(), imagenet_like()
    before = {name: tensor.clone() for name, tensor in subnet.state_dict().items()}
    subnet.load_imagenet(state)
    after = subnet.state_dict()
    assert torch.equal(after["conv1.weight"][:, :3], state["conv1.weight"])
    assert torch.equal(after["conv1.weight"][:, 3:], before["conv1.weight"][:, 3:])
    assert all(torch.equal(after[name], state[name]) for name in usual_listing() if name != "conv1.weight")
    assert all(torch.equal(after[n], before[n]) for n in after if n.startswith(("head_norm", "spp_fc", "classifier")))


def test_imagenet_weights_without_a_tensor_are_an_error() -> None:
    state = imagenet_like()
    del state["layer3.0.bn2.weight"]
    with pytest.raises(ValueError, match=r"layer3\.0\.bn2\.weight is missing"):
        GradingSubnet().load_imagenet(state)


def test_imagenet_weights_of_another_network_are_an_error_and_change_nothing() -> None:
    state, subnet = imagenet_like(), GradingSubnet()
    state["layer4.1.conv2.weight"] = torch.randn(512, 512, 1, 1)
    before = {name: tensor.clone() for name, tensor in subnet.state_dict().items()}
    with pytest.raises(ValueError, match=r"layer4\.1\.conv2\.weight is .*1, 1\), expected .*3, 3\)"):
        subnet.load_imagenet(state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in subnet.state_dict().items())


def test_five_feature_layers_at_strides_2_to_32() -> None:
    subnet = GradingSubnet(config=SMALL)
    logits, features, *_ = subnet(torch.rand(2, 3, 64, 96), torch.rand(2, 4, 64, 96))
    assert logits.shape == (2, 5)
    assert STRIDES == (2, 4, 8, 16, 32)
    assert [tuple(f.shape) for f in features] == [
        (2, c, 64 // s, 96 // s) for c, s in zip(subnet.channels, STRIDES, strict=True)
    ]
    assert all((f >= 0).all() for f in features), "features are after their ReLU"


def test_spp_takes_the_maximum_of_4x4_2x2_and_1x1_cells() -> None:
    # 0..15 in rows: the sixteen themselves; the corners' maxima 5 7 13 15; 15.
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert spatial_pyramid_pooling(x).tolist() == [[*range(16), 5, 7, 13, 15, 15]]


def test_spp_has_the_same_length_for_any_size_of_the_frame() -> None:
    subnet = GradingSubnet(config=SMALL).eval()
    for height, width in ((32, 32), (64, 32), (160, 96)):
        assert subnet(torch.rand(1, 3, height, width), torch.rand(1, 4, height, width)).logits.shape == (1, 5)


def test_lesion_maps_are_multiplied_by_4_at_the_input() -> None:
    """Interpretation R23; 4 is written out here, so that a change of the constant fails."""
    subnet, frame, lesions = GradingSubnet(config=SMALL).eval(), torch.rand(1, 3, 32, 32), torch.rand(1, 4, 32, 32)
    stem = subnet(frame, lesions).features[0]
    by_hand = nn.functional.conv2d(torch.cat([frame, 4 * lesions], dim=1), subnet.conv1.weight, stride=2, padding=3)
    assert torch.allclose(stem, subnet.bn1(by_hand).relu(), atol=1e-5)


def test_every_lesion_map_influences_the_grade() -> None:
    subnet, frame = GradingSubnet(config=SMALL).eval(), torch.rand(1, 3, 64, 64)
    lesions = torch.zeros(1, 4, 64, 64, requires_grad=True)
    subnet(frame, lesions).logits[0, 3].backward()
    assert lesions.grad is not None and (lesions.grad.abs().sum(dim=(0, 2, 3)) > 0).all()


def test_gradient_reaches_every_parameter_and_every_feature() -> None:
    subnet = GradingSubnet(config=SMALL)
    logits, features, *_ = subnet(torch.rand(2, 3, 128, 128), torch.rand(2, 4, 128, 128))
    for feature in features:
        feature.retain_grad()
    nn.functional.cross_entropy(logits, torch.tensor([0, 3])).backward()
    assert all(p.grad is not None and p.grad.any() for p in subnet.parameters())
    assert all(feature.grad is not None and feature.grad.any() for feature in features)


def test_dropout_is_active_in_training_only() -> None:
    subnet, frame, lesions = GradingSubnet(config=SMALL), torch.rand(2, 3, 64, 64), torch.rand(2, 4, 64, 64)
    assert not torch.equal(subnet(frame, lesions).logits, subnet(frame, lesions).logits), "dropout in training"
    subnet.eval()
    assert torch.equal(subnet(frame, lesions).logits, subnet(frame, lesions).logits)


def test_its_loss_is_the_named_form_over_the_graded_photographs_with_class_weights() -> None:
    # Probabilities 1/8, 1/8, 1/8, 1/8, 1/2: grade 4 is predicted. True grade 4 with weight 3: 3 * 1/15 * log 2.
    # True grade 2 with weight 2: 2 * 3/11 * log 8. The third photograph is not graded.
    logits = torch.tensor([[0.0, 0.0, 0.0, 0.0, log(4)]]).expand(3, 5)
    weights = torch.tensor([1.0, 1.0, 2.0, 1.0, 3.0])
    labels = GradeLabels(torch.tensor([4, 2, 0]), torch.tensor([True, True, False]), weights, form="eq10")
    subnet, graded = GradingSubnet(config=SMALL), GradingOutput(logits, ())
    assert subnet.loss(graded, labels).item() == pytest.approx((3 / 15 * log(2) + 6 / 11 * log(8)) / 2)
    entropy = subnet.loss(graded, labels._replace(form="cross-entropy"))
    assert entropy.item() == pytest.approx((3 * log(2) + 2 * log(8)) / 2)


# Interpretation R26: the head


@pytest.mark.parametrize("head_norm", [True, False])
def test_hidden_units_are_computed_from_the_pooled_vector_with_or_without_layer_norm(head_norm: bool) -> None:
    subnet = GradingSubnet(config=GradingConfig(width=4, hidden=16, head_norm=head_norm)).eval()
    graded = subnet(torch.rand(2, 3, 64, 64), torch.rand(2, 4, 64, 64))
    pooled = spatial_pyramid_pooling(graded.features[-1])
    if head_norm:
        centred = pooled - pooled.mean(dim=1, keepdim=True)
        pooled = centred / (centred.square().mean(dim=1, keepdim=True) + 1e-5).sqrt()
        pooled = pooled * 256 / (8 * 4 * 21)
    expected = (pooled @ subnet.spp_fc.weight.T + subnet.spp_fc.bias).relu()
    assert graded.hidden is not None and torch.allclose(graded.hidden, expected, atol=1e-5)
    logits = graded.hidden @ subnet.classifier.weight.T + subnet.classifier.bias
    assert torch.allclose(graded.logits, logits - logits.mean(dim=1, keepdim=True), atol=1e-5)


def test_layer_norm_of_the_head_makes_the_logits_independent_of_the_scale_of_the_last_stage() -> None:
    subnet = GradingSubnet(config=SMALL).eval()
    pooled = torch.rand(2, 4 * 8 * 21)
    assert torch.allclose(subnet.head_norm(pooled), subnet.head_norm(40 * pooled), atol=1e-3)


def test_scaling_of_the_head_changes_the_steps_of_adamw_but_not_the_first_outputs() -> None:
    hidden, moved = [], []
    for head_norm in (True, False):
        torch.manual_seed(0)
        subnet = GradingSubnet(config=GradingConfig(width=8, hidden=16, head_norm=head_norm)).eval()
        pooled = torch.randn(4, 8 * 8 * 21)
        units = subnet.spp_fc(subnet.head_gain * subnet.head_norm(pooled))
        hidden.append(units.std().item())
        units.sum().backward()
        weight = subnet.spp_fc.weight
        assert weight.grad is not None
        change = 1e-3 * weight.grad.sign()  # the first step of AdamW
        moved.append((subnet.head_gain * subnet.head_norm(pooled) @ change.T).abs().mean().item())
    assert hidden[0] == pytest.approx(hidden[1], rel=0.2)
    assert moved[0] / moved[1] == pytest.approx(256 / (8 * 8 * 21), rel=0.2)


# Interpretation R29: dropout in the joint stage


def test_training_logits_drop_hidden_units_of_a_network_in_evaluation_mode() -> None:
    subnet = GradingSubnet(config=GradingConfig(width=4, hidden=16, dropout=0.25)).eval()
    graded = subnet(torch.rand(2, 3, 64, 64), torch.rand(2, 4, 64, 64))
    drawn = torch.stack([subnet.training_logits(graded) for _ in range(4000)])
    assert drawn.std(dim=0).min() > 0
    assert torch.allclose(drawn.mean(dim=0), graded.logits, atol=0.03)  # the kept units are scaled by 1 / 0.75
    assert drawn.mean(dim=2).abs().max() < 1e-5


def test_training_logits_train_the_head_and_the_layers_before() -> None:
    subnet = GradingSubnet(config=SMALL).eval()
    torch.manual_seed(0)
    subnet.training_logits(subnet(torch.rand(2, 3, 64, 64), torch.rand(2, 4, 64, 64))).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in (subnet.conv1.weight, subnet.classifier.weight))


def test_y_dr_by_hand_is_the_sum_of_the_logits_of_grades_1_to_4() -> None:
    # Grade 0 is predicted, but does not count (footnote 2, interpretation R5): 1 - 2 + 3 + 0.5.
    assert dr_score(torch.tensor([[9.0, 1.0, -2.0, 3.0, 0.5]])).tolist() == [2.5]


def test_y_dr_equals_reference(rng: np.random.Generator) -> None:
    logits = rng.normal(size=(6, 5))
    theirs = [reference.dr_score(row) for row in logits]
    assert np.allclose(dr_score(torch.tensor(logits)).numpy(), theirs, rtol=0, atol=1e-12)


def test_y_dr_gradient_is_one_for_grades_1_to_4_and_zero_for_grade_0() -> None:
    logits = torch.randn(2, 5, requires_grad=True)
    dr_score(logits).sum().backward()
    assert logits.grad is not None and logits.grad.tolist() == [[0, 1, 1, 1, 1]] * 2


def test_logits_have_a_mean_of_zero_for_any_bias() -> None:
    subnet, frame, lesions = GradingSubnet(config=SMALL).eval(), torch.randn(2, 3, 64, 64), torch.rand(2, 4, 64, 64)
    before = subnet(frame, lesions).logits
    with torch.no_grad():
        subnet.classifier.bias += 3.0
    assert torch.allclose(subnet(frame, lesions).logits, before, atol=1e-5)
    assert before.mean(dim=1).tolist() == pytest.approx([0, 0], abs=1e-6)


def test_no_1x1_convolution_has_a_stride() -> None:
    # In channels-last order with few channels, its gradient is written past the end of memory (torch 2.13, AVX-512).
    convolutions = [module for module in GradingSubnet().modules() if isinstance(module, nn.Conv2d)]
    assert not [c for c in convolutions if c.kernel_size == (1, 1) and c.stride != (1, 1)]


def test_shortcut_equals_a_strided_convolution() -> None:
    block = BasicBlock(4, 8, 2).eval()
    assert block.downsample is not None
    x = torch.randn(2, 4, 9, 8)
    strided = torch.nn.functional.conv2d(x, block.downsample[0].weight, stride=2)
    assert torch.allclose(block.downsample[0](x[..., ::2, ::2]), strided, atol=1e-6)
    assert block(x).shape == (2, 8, 5, 4)


@pytest.mark.parametrize(("channels", "stride"), [(4, 2), (8, 1)], ids=["smaller", "wider"])
def test_shortcut_has_a_convolution_if_the_block_changes_the_size_or_the_channels(channels: int, stride: int) -> None:
    block = BasicBlock(4, channels, stride)
    assert block.downsample is not None
    assert block(torch.rand(2, 4, 8, 8)).shape == (2, channels, 8 // stride, 8 // stride)


def test_shortcut_is_the_input_itself_if_the_block_changes_neither() -> None:
    block = BasicBlock(4, 4, 1).eval()
    nn.init.zeros_(block.conv2.weight)  # the residual is 0
    x = torch.rand(2, 4, 8, 8)
    assert torch.equal(block(x), x)


def test_half_of_the_hidden_units_are_dropped_in_training() -> None:
    # 10000 units, of which 5000 +- 50 are dropped; the others are doubled.
    hidden = GradingSubnet(config=SMALL).dropout(torch.ones(10000))
    assert hidden.unique().tolist() == [0, 2]
    assert (hidden == 0).sum().item() == pytest.approx(5000, abs=250)


def test_its_loss_is_the_mean_over_the_photographs_of_all_processes() -> None:
    # This process: grade 4, predicted with 1/2: log 2 / 15. Another one: a sum of 0.9 over two photographs.
    others = [torch.tensor(0.9), torch.tensor(2.0)]
    known, logits = torch.tensor([True]), torch.tensor([[0.0, 0.0, 0.0, 0.0, log(4)]])
    labels = GradeLabels(torch.tensor([4]), known, all_reduce=lambda sum_: sum_ + others.pop(0), form="eq10")
    loss = GradingSubnet(config=SMALL).loss(GradingOutput(logits, ()), labels)
    assert loss.item() == pytest.approx((log(2) / 15 + 0.9) / 3)
