"""VNXK: VGG-16 with extra kernels."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deepmtdr.baselines.hybrid_colour import to_lgi
from deepmtdr.baselines.vnxk import INITIAL_GAIN, VNXK, ExtraKernel
from deepmtdr.losses import GradeLabels
from deepmtdr.model.preprocessing import rgb_to_input
from deepmtdr.synthetic.drawings import draw_photograph
from deepmtdr.terms import Grade
from grader_checks import assert_all_parameters_get_gradients, assert_grades_any_frame

KNOWN = torch.ones(5, dtype=torch.bool)


class SmallVNXK(VNXK):
    """Few channels and a small native size, for speed."""

    size: ClassVar[int] = 96

    def __init__(self) -> None:
        super().__init__(widths=(8, 16, 24, 32, 32), hidden=64)


def photographs(side: int) -> tuple[Tensor, Tensor, Tensor]:
    """Network inputs from a drawing of every grade, empty lesion maps, the grades."""
    drawn = [
        torch.from_numpy(draw_photograph(20 + grade, grade, 128).photograph).permute(2, 0, 1) / 255 for grade in Grade
    ]
    frames = torch.cat([F.interpolate(d[None], (side, side), mode="bilinear", antialias=True) for d in drawn])
    return rgb_to_input(frames), torch.zeros(len(Grade), 4, side, side), torch.arange(len(Grade))


def vgg16(state: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """VGG-16 with batch norm, from the indices of its layers in the published state-dict."""
    for block in ((0, 3), (7, 10), (14, 17, 20), (24, 27, 30), (34, 37, 40)):
        for at in block:
            x = F.conv2d(x, state[f"features.{at}.weight"], state[f"features.{at}.bias"], padding=1)
            norm = {part: state[f"features.{at + 1}.{part}"] for part in ("weight", "bias")}
            mean, variance = (state[f"features.{at + 1}.running_{part}"] for part in ("mean", "var"))
            x = F.batch_norm(x, mean, variance, **norm).relu()
        x = F.max_pool2d(x, 2)
    x = x.flatten(1)
    for at in (0, 3, 6):
        x = F.linear(x.relu() if at else x, state[f"classifier.{at}.weight"], state[f"classifier.{at}.bias"])
    return x


def test_without_its_extra_kernels_it_equals_vgg16() -> None:
    net = SmallVNXK().eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean, module.running_var = torch.randn(module.num_features) / 5, torch.rand_like(module.bias)
    for extra in net.extra:
        nn.init.zeros_(extra.bn.weight)
        nn.init.zeros_(extra.bn.bias)
    rgb = torch.rand(2, 3, 224, 224)  # 7 px after the fifth pooling, as published
    with torch.no_grad():
        ours = net.grade(rgb, torch.zeros(2, 4, 224, 224)).logits
        torch.testing.assert_close(ours, vgg16(net.state_dict(), 2 * to_lgi(rgb) - 1), rtol=1e-4, atol=1e-5)


def test_parameter_count_is_vgg16s_plus_the_extra_kernels() -> None:
    with torch.device("meta"):
        net = VNXK()
    extra = sum(p.numel() for p in net.extra.parameters())
    widths = (3, 64, 128, 256, 512, 512)
    assert extra == sum(25 * i * o + 2 * o for i, o in pairwise(widths)) == 10_862_144
    # 138,365,992 is the published network of 1,000 classes with batch norm (138,357,544 without)
    assert sum(p.numel() for p in net.parameters()) - extra == 138_365_992 - (1000 - len(Grade)) * (4096 + 1)


def test_extra_kernel_is_added_after_its_own_relu() -> None:
    net = SmallVNXK().eval()
    for parameter in net.parameters():
        nn.init.zeros_(parameter)
    first, extra = net.features[0], net.extra[0]
    for conv, norm in ((first, net.features[1]), (extra.conv, extra.bn)):
        nn.init.ones_(conv.weight)
        nn.init.constant_(norm.weight, (1 + 1e-5) ** 0.5)  # compensates the norm's division
    black_but_one = torch.zeros(1, 3, 32, 32)
    black_but_one[..., 8, 8] = 1  # LGI of white: 1, 1, 1; as input: 1, else -1
    given = []
    net.features[3].register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    net.grade(black_but_one, torch.zeros(1, 4, 32, 32))
    # away from the border, -21 and -69 are each set to 0 by their own ReLU: they do not offset other values
    assert given[0][0, 0, 8, 8] == 0
    nn.init.constant_(first.bias, 30.0)
    net.grade(black_but_one, torch.zeros(1, 4, 32, 32))
    assert given[1][0, 0, 8, 8].item() == pytest.approx(30 - 21, abs=1e-4)  # a sum before the ReLU would be negative
    nn.init.constant_(extra.bn.bias, 70.0)
    net.grade(black_but_one, torch.zeros(1, 4, 32, 32))
    assert given[2][0, 0, 8, 8].item() == pytest.approx(30 - 21 + 70 - 69, abs=1e-4)
    assert given[2][0, 0, 8, 6].item() == pytest.approx(
        30 - 27 + 70 - 69, abs=1e-4
    )  # 2 px away only the extra kernel reaches it


def test_extra_kernels_start_small() -> None:
    assert all(
        (module.bn.weight == INITIAL_GAIN).all() for module in SmallVNXK().modules() if isinstance(module, ExtraKernel)
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("side", [64, 256])
def test_any_frame_is_graded_at_224_px(dtype: torch.dtype, side: int) -> None:
    assert_grades_any_frame(VNXK(widths=(8, 16, 24, 32, 32), hidden=64), side, dtype, (224, 112, 56, 28, 14))


def test_every_parameter_gets_a_gradient_from_the_loss() -> None:
    assert_all_parameters_get_gradients(SmallVNXK(), *photographs(64))


def test_imagenet_weights_load_except_for_the_extra_kernels_and_the_last_layer() -> None:
    published, net = SmallVNXK(), SmallVNXK()
    state = {name: tensor for name, tensor in published.state_dict().items() if not name.startswith("extra.")}
    state |= {"classifier.6.weight": torch.rand(1000, 64), "classifier.6.bias": torch.rand(1000)}
    kept = net.extra[0].conv.weight.clone(), net.classifier[6].weight.clone()
    net.load_imagenet(state)
    assert torch.equal(net.features[40].weight, state["features.40.weight"])
    assert torch.equal(net.classifier[3].bias, state["classifier.3.bias"])
    assert torch.equal(net.extra[0].conv.weight, kept[0]) and torch.equal(net.classifier[6].weight, kept[1])
    with pytest.raises(ValueError, match=r"features\.41\.running_mean is missing"):
        net.load_imagenet({name: tensor for name, tensor in state.items() if name != "features.41.running_mean"})


def test_it_overfits_five_drawings() -> None:
    net, (network_input, lesions, grade) = SmallVNXK().train(), photographs(96)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.5  # so that a few steps are enough for the running statistics
    optimiser = torch.optim.Adam(net.parameters(), 1e-3)
    for _ in range(80):
        optimiser.zero_grad()
        net.loss(net(network_input, lesions), GradeLabels(grade, KNOWN)).backward()
        optimiser.step()
    with torch.no_grad():
        graded = net.eval()(network_input, lesions)
    assert torch.equal(graded.logits.argmax(dim=1), grade)
    assert F.cross_entropy(graded.logits, grade) < 0.5
