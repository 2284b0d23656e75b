"""EfficientNet-Lite0: equal to the PyPI package efficientnet-lite-pytorch in names, numbers and padding."""

from __future__ import annotations

import hashlib
from math import prod
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from deepmtdr.model.efficientnet_lite0 import CHANNELS, STAGES, EfficientNetLite0, MBConvBlock, SamePaddedConv2d, Stage
from deepmtdr.model.preprocessing import normalise_imagenet, resize_frame

CATS = {281, 282, 285}
"""Indices of the classes "tabby", "tiger cat" and "Egyptian cat" among the 1,000 of ImageNet."""


def shapes_of(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def seeded_state(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Weights that were given to the package too, drawn in the order of the sorted names."""
    rng, state = np.random.default_rng(0), {}
    for name, shape in sorted(shapes.items()):
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(7)
            continue
        if name.endswith("running_var") or (name.endswith(".weight") and len(shape) == 1):
            values = rng.uniform(0.5, 1.5, shape)
        else:
            values = rng.normal(0, (2 / prod(shape[1:])) ** 0.5 if len(shape) == 4 else 0.1, shape)
        state[name] = torch.tensor(values, dtype=torch.float32)
    return state


@pytest.fixture(scope="module")
def seeded() -> EfficientNetLite0:
    """The network with the weights of `seeded_state`, in evaluation mode."""
    model = EfficientNetLite0()
    model.load_imagenet(seeded_state(shapes_of(model)))
    return model.eval()


def test_names_and_shapes_are_those_of_the_package() -> None:
    """SHA-256 of the lines "name shape" of the package's state-dict without `_fc` and the batch counters."""
    lines = sorted(f"{k} {v}" for k, v in shapes_of(EfficientNetLite0()).items() if not k.endswith("tracked"))
    assert len(lines) == 245
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest().startswith("d8ce2e902bc29e76")


def test_parameter_count_is_the_published_one_with_a_thousand_classes() -> None:
    count = sum(parameter.numel() for parameter in EfficientNetLite0().parameters())
    assert count + 1280 * 1000 + 1000 == 4_652_008


def test_features_equal_those_that_the_package_computed(seeded: EfficientNetLite0) -> None:
    # efficientnet-lite-pytorch 0.1.0 with the same weights and input: mean, and three channels of the last pixel.
    x = torch.tensor(np.random.default_rng(1).normal(size=(1, 3, 64, 64)), dtype=torch.float32)
    with torch.no_grad():
        features = seeded(x)
    expected = [
        (0.80464, [1.16905, 0.0, 0.32102]),
        (1.54356, [1.65610, 0.0, 0.59223]),
        (1.94928, [1.48781, 6.0, 1.24802]),
        (1.94598, [1.90487, 6.0, 0.0]),
        (1.40649, [0.32164, 1.35366, 0.0]),
    ]
    for feature, (mean, corner) in zip(features, expected, strict=True):
        assert feature.mean().item() == pytest.approx(mean, abs=2e-5)
        assert feature[0, :3, -1, -1].tolist() == pytest.approx(corner, abs=1e-4)


@pytest.mark.parametrize("side", [32, 96])
def test_features_have_strides_2_to_32_and_are_after_their_relu6(seeded: EfficientNetLite0, side: int) -> None:
    with torch.no_grad():
        features = seeded(torch.randn(2, 3, side, 2 * side))
    sides = [tuple(feature.shape) for feature in features]
    assert sides == [(2, c, side // s, 2 * side // s) for c, s in zip(CHANNELS, (2, 4, 8, 16, 32), strict=True)]
    assert all(feature.min() == 0 and feature.max() <= 6 for feature in features)


def test_a_size_that_is_not_a_multiple_of_32_is_rounded_up_at_each_stride(seeded: EfficientNetLite0) -> None:
    with torch.no_grad():
        assert [feature.shape[-1] for feature in seeded(torch.randn(1, 3, 45, 45))] == [23, 12, 6, 3, 2]
        assert [feature.shape[-1] for feature in seeded(torch.randn(1, 3, 8, 8))] == [4, 2, 1, 1, 1]


def test_padding_of_a_stride_of_2_is_larger_on_the_right_and_below() -> None:
    # 3 px, stride 2, 4 px wide: one column of zeros, on the right. Sums of columns 0-2 and of columns 2-3.
    conv = SamePaddedConv2d(1, 1, 3, stride=2)
    nn.init.ones_(conv.weight)
    row = torch.tensor([1.0, 10.0, 100.0, 1000.0]).expand(1, 1, 4, 4)
    assert conv(row)[0, 0].tolist() == [[333.0, 3300.0], [222.0, 2200.0]]


@pytest.mark.parametrize(("kernel", "stride", "side"), [(3, 1, 7), (5, 1, 8), (3, 2, 8), (5, 2, 8), (5, 2, 7)])
def test_padding_is_tensorflows_same(kernel: int, stride: int, side: int) -> None:
    conv, x = SamePaddedConv2d(2, 2, kernel, stride, groups=2), torch.randn(1, 2, side, side)
    outputs = -(-side // stride)
    total = max((outputs - 1) * stride + kernel - side, 0)
    padded = torch.zeros(1, 2, side + total, side + total)
    padded[..., total // 2 : total // 2 + side, total // 2 : total // 2 + side] = x
    assert torch.allclose(conv(x), F.conv2d(padded, conv.weight, stride=stride, groups=2), atol=1e-6)
    assert conv(x).shape[-1] == outputs


def test_block_with_shortcut_adds_its_input_after_its_last_batch_norm() -> None:
    block = MBConvBlock(16, Stage(1, 3, 1, 6, 16), 1, 0.0).eval()
    nn.init.zeros_(block._project_conv.weight)
    x = torch.randn(1, 16, 8, 8)
    expanded, y = block(x)
    assert torch.equal(y, x)
    assert expanded.shape == (1, 96, 8, 8) and expanded.min() == 0


def test_only_blocks_that_change_neither_size_nor_channels_have_a_shortcut() -> None:
    blocks = [block for block in EfficientNetLite0()._blocks if isinstance(block, MBConvBlock)]
    assert [n for n, block in enumerate(blocks) if block.has_shortcut] == [2, 4, 6, 7, 9, 10, 12, 13, 14]
    assert [n for n, block in enumerate(blocks) if block.stride == 2] == [1, 3, 5, 11]


def test_batch_norm_has_the_settings_of_the_published_weights() -> None:
    norms = [module for module in EfficientNetLite0().modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) == 49
    assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-3, 0.01)}


def test_probability_of_leaving_a_block_out_rises_linearly_from_0() -> None:
    blocks = [block for block in EfficientNetLite0(drop_connect=0.2)._blocks if isinstance(block, MBConvBlock)]
    assert [block.drop_connect for block in blocks] == pytest.approx([0.2 * n / 16 for n in range(16)])
    assert len(blocks) == sum(stage.blocks for stage in STAGES)


def test_a_block_is_left_out_for_a_share_of_the_batch_in_training_only() -> None:
    block, y = MBConvBlock(4, Stage(1, 3, 1, 2, 4), 1, 0.25), torch.ones(4000, 1, 1, 1)
    dropped = block._drop(y)
    assert dropped.unique().tolist() == pytest.approx([0, 4 / 3])
    assert dropped.mean().item() == pytest.approx(1, abs=0.05)
    assert torch.equal(block.eval()._drop(y), y)


def test_extra_channels_begin_without_influence_and_keep_their_weights_when_imagenet_is_loaded() -> None:
    model = EfficientNetLite0(extra_channels=2).eval()
    x = torch.randn(1, 5, 32, 32)
    without = torch.cat([x[:, :3], torch.zeros(1, 2, 32, 32)], dim=1)
    assert torch.equal(model(x)[-1], model(without)[-1])
    nn.init.ones_(model._conv_stem.weight)
    state = seeded_state(shapes_of(EfficientNetLite0()))
    model.load_imagenet(state)
    assert torch.equal(model._conv_stem.weight[:, :3], state["_conv_stem.weight"])
    assert torch.equal(model._conv_stem.weight[:, 3:], torch.ones(32, 2, 3, 3))


def test_half_precision_weights_are_converted() -> None:
    model, state = EfficientNetLite0(), seeded_state(shapes_of(EfficientNetLite0()))
    model.load_imagenet({name: t.half() if t.is_floating_point() else t for name, t in state.items()})
    loaded = model.state_dict()
    assert all(torch.equal(loaded[n], t.half().float()) for n, t in state.items() if t.is_floating_point())
    assert loaded["_conv_head.weight"].dtype == torch.float32


def test_weights_of_another_network_are_an_error_and_change_nothing() -> None:
    model = EfficientNetLite0()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = seeded_state(shapes_of(model))
    with pytest.raises(ValueError, match=r"_bn1\.bias is missing, expected a state-dict for EfficientNetLite0"):
        model.load_imagenet({name: tensor for name, tensor in state.items() if name != "_bn1.bias"})
    with pytest.raises(ValueError, match=r"_conv_head\.weight is \(1,\), expected \(1280, 320, 1, 1\)"):
        model.load_imagenet({**state, "_conv_head.weight": torch.zeros(1)})
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.fixture(scope="module")
def imagenet(root: Path) -> dict[str, Tensor]:
    """The published ImageNet weights; the test is skipped without them."""
    path = root.parent / "shared" / "weights" / "efficientnet_lite0_imagenet.safetensors"
    if not path.exists():
        pytest.skip(f"no ImageNet weights: {path} does not exist")
    return load_file(path)


def imagenet_logits(state: dict[str, Tensor], x: Tensor) -> Tensor:
    """Logits of the 1,000 classes."""
    model = EfficientNetLite0().eval()
    model.load_imagenet(state)
    with torch.no_grad():
        return F.linear(model(x)[-1].mean(dim=(2, 3)), state["_fc.weight"].float(), state["_fc.bias"].float())


@pytest.mark.data
def test_published_imagenet_weights_give_the_logits_of_the_package(imagenet: dict[str, Tensor]) -> None:
    x = torch.tensor(np.random.default_rng(1).normal(size=(1, 3, 224, 224)), dtype=torch.float32)
    # efficientnet-lite-pytorch 0.1.0 with the same file.
    assert imagenet_logits(imagenet, x)[0, [0, 1, 985]].tolist() == pytest.approx(
        [-2.49042, 0.37831, 2.03073], abs=1e-4
    )


@pytest.mark.data
def test_published_imagenet_weights_recognise_a_cat(imagenet: dict[str, Tensor]) -> None:
    cat = torch.from_numpy(skimage.data.chelsea()[:, 75:375]).permute(2, 0, 1)[None] / 255
    logits = imagenet_logits(imagenet, normalise_imagenet(resize_frame(cat, 224)))
    assert set(logits[0].topk(3).indices.tolist()) == CATS
