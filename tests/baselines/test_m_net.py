"""M-Net is Inception-ResNet-v2 at 492 px."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deepmtdr.baselines.m_net import ConvNorm, MNet, ScaledResidual, block_c
from deepmtdr.losses import GradeLabels
from deepmtdr.model.preprocessing import rgb_to_input
from deepmtdr.synthetic.drawings import draw_photograph
from deepmtdr.terms import Grade


class SmallMNet(MNet):
    """Few blocks and a small native size, for speed."""

    size: ClassVar[int] = 96

    def __init__(self) -> None:
        super().__init__(blocks=(1, 1, 1))


@pytest.fixture(scope="module")
def whole() -> MNet:
    """The network at its full depth."""
    torch.manual_seed(0)
    return MNet().eval()


@pytest.fixture
def disturbed(whole: MNet) -> MNet:
    """The network with batch norms that change their input."""
    for module in whole.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
            module.running_mean, module.running_var = torch.randn(module.num_features) / 5, torch.rand_like(module.bias)
            module.running_var += 0.5
    return whole


def photographs(side: int) -> tuple[Tensor, Tensor, Tensor]:
    """Network inputs from a drawing of every grade, empty lesion maps, the grades."""
    drawn = [
        torch.from_numpy(draw_photograph(20 + grade, grade, 128).photograph).permute(2, 0, 1) / 255 for grade in Grade
    ]
    frames = torch.cat([F.interpolate(d[None], (side, side), mode="bilinear", antialias=True) for d in drawn])
    return rgb_to_input(frames), torch.zeros(len(Grade), 4, side, side), torch.arange(len(Grade))


# Inception-ResNet-v2 written again from the published layers: their names, padding and strides.


class Reference:
    """The network as plain functions of the published state-dict."""

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        self.state = state

    def layer(self, x: Tensor, name: str, padding: int | tuple[int, int] = 0, stride: int = 1) -> Tensor:
        weight, s = self.state[f"{name}.conv.weight"], self.state
        x = F.conv2d(x, weight, None, stride, padding)
        scale = s[f"{name}.bn.weight"] / (s[f"{name}.bn.running_var"] + 0.001).sqrt()
        shift = s[f"{name}.bn.bias"] - s[f"{name}.bn.running_mean"] * scale
        return (x * scale[:, None, None] + shift[:, None, None]).clamp_min(0)

    def residual(self, x: Tensor, at: str, mixed: list[Tensor], scale: float) -> Tensor:
        return x + scale * F.conv2d(
            torch.cat(mixed, 1), self.state[f"{at}.conv2d.weight"], self.state[f"{at}.conv2d.bias"]
        )

    def block35(self, x: Tensor, at: str) -> Tensor:
        one = self.layer(x, f"{at}.branch0")
        two = self.layer(self.layer(x, f"{at}.branch1.0"), f"{at}.branch1.1", 1)
        three = self.layer(self.layer(x, f"{at}.branch2.0"), f"{at}.branch2.1", 1)
        three = self.layer(three, f"{at}.branch2.2", 1)
        return self.residual(x, at, [one, two, three], 0.17).clamp_min(0)

    def block17(self, x: Tensor, at: str) -> Tensor:
        two = self.layer(self.layer(x, f"{at}.branch1.0"), f"{at}.branch1.1", (0, 3))
        mixed = [self.layer(x, f"{at}.branch0"), self.layer(two, f"{at}.branch1.2", (3, 0))]
        return self.residual(x, at, mixed, 0.1).clamp_min(0)

    def block8(self, x: Tensor, at: str, scale: float = 0.2) -> Tensor:
        two = self.layer(self.layer(x, f"{at}.branch1.0"), f"{at}.branch1.1", (0, 1))
        mixed = [self.layer(x, f"{at}.branch0"), self.layer(two, f"{at}.branch1.2", (1, 0))]
        return self.residual(x, at, mixed, scale)

    def mixed_5b(self, x: Tensor) -> Tensor:
        layer = self.layer
        two = layer(layer(x, "mixed_5b.branch1.0"), "mixed_5b.branch1.1", 2)
        three = layer(layer(x, "mixed_5b.branch2.0"), "mixed_5b.branch2.1", 1)
        three = layer(three, "mixed_5b.branch2.2", 1)
        four = layer(F.avg_pool2d(x, 3, 1, 1, count_include_pad=False), "mixed_5b.branch3.1")
        return torch.cat([layer(x, "mixed_5b.branch0"), two, three, four], 1)

    def mixed_6a(self, x: Tensor) -> Tensor:
        two = self.layer(self.layer(x, "mixed_6a.branch1.0"), "mixed_6a.branch1.1", 1)
        two = self.layer(two, "mixed_6a.branch1.2", stride=2)
        return torch.cat([self.layer(x, "mixed_6a.branch0", stride=2), two, F.max_pool2d(x, 3, 2)], 1)

    def mixed_7a(self, x: Tensor) -> Tensor:
        layer, at = self.layer, "mixed_7a.branch"
        one, two = (layer(layer(x, f"{at}{n}.0"), f"{at}{n}.1", stride=2) for n in (0, 1))
        three = layer(layer(layer(x, f"{at}2.0"), f"{at}2.1", 1), f"{at}2.2", stride=2)
        return torch.cat([one, two, three, F.max_pool2d(x, 3, 2)], 1)

    def logits(self, rgb: Tensor) -> Tensor:
        x = self.layer(self.layer(2 * rgb - 1, "conv2d_1a", stride=2), "conv2d_2a")
        x = F.max_pool2d(self.layer(x, "conv2d_2b", 1), 3, 2)
        x = F.max_pool2d(self.layer(self.layer(x, "conv2d_3b"), "conv2d_4a"), 3, 2)
        x = self.mixed_5b(x)
        for number in range(10):
            x = self.block35(x, f"repeat.{number}")
        x = self.mixed_6a(x)
        for number in range(20):
            x = self.block17(x, f"repeat_1.{number}")
        x = self.mixed_7a(x)
        for number in range(9):
            x = self.block8(x, f"repeat_2.{number}").clamp_min(0)
        x = self.layer(self.block8(x, "block8", 1.0), "conv2d_7b").mean(dim=(2, 3))
        return x @ self.state["last_linear.weight"].T + self.state["last_linear.bias"]


def test_logits_equal_those_of_the_published_layers(disturbed: MNet) -> None:
    rgb = torch.rand(2, 3, 139, 139)
    with torch.no_grad():
        ours = disturbed.grade(rgb, torch.zeros(2, 4, 139, 139)).logits
        theirs = Reference(disturbed.state_dict()).logits(rgb)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4 * float(theirs.abs().max()))


def test_parameter_count_is_the_published_one_except_for_the_classes(whole: MNet) -> None:
    # Keras lists 55,873,736 with 1,000 classes, among them means and variances of 30,272 channels (60,544), and without
    # the gains of the batch norms (30,272), which Cadene's port has.
    with_1000_classes = 55_873_736 - 60_544 + 30_272
    assert with_1000_classes == 55_843_464 == pytest.approx(1e6 * (MNet.published_parameters or 0), rel=1e-4)
    assert sum(p.numel() for p in whole.parameters()) == with_1000_classes - (1000 - len(Grade)) * (1536 + 1)


def test_native_features_are_243_119_59_29_and_14_px_wide() -> None:
    # 492 px: 245, 243, 243; pooled 121, 119; pooled 59; 29; 14 (unpadded, stride 2: (n - 3) // 2 + 1)
    with torch.device("meta"):
        net = MNet(blocks=(1, 1, 1)).eval()
        features = net.grade(torch.rand(1, 3, net.size, net.size), torch.zeros(1, 4, net.size, net.size)).features
    assert [tuple(f.shape[1:]) for f in features] == [
        (channels, side, side) for channels, side in zip(net.channels, (243, 119, 59, 29, 14), strict=True)
    ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_any_frame_is_graded_at_492_px(dtype: torch.dtype) -> None:
    net = MNet(blocks=(1, 1, 1)).eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        graded = net(rgb_to_input(torch.rand(1, 3, 64, 64)), torch.zeros(1, 4, 64, 64))
    assert graded.logits.dtype == torch.float32 and graded.features[-1].shape[-1] == 14
    assert graded.logits.sum() == pytest.approx(0, abs=1e-5)
    assert all((feature >= 0).all() for feature in graded.features)


def test_every_parameter_gets_a_gradient_from_the_loss() -> None:
    net, (network_input, lesions, grade) = SmallMNet().train(), photographs(64)
    net.loss(net(network_input, lesions), GradeLabels(grade, torch.ones(5, dtype=torch.bool))).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    assert all(p.grad.any() for p in net.parameters() if p.grad is not None)


def test_residual_block_adds_the_scaled_branches() -> None:
    block = ScaledResidual(ConvNorm(1, 1, 1), mixed=1, channels=1, scale=0.17).eval()
    for parameter in block.parameters():
        nn.init.ones_(parameter)
    # branch of 2: (2 * 1 - 0) / sqrt(1 + 0.001) + 1 = 2.9990; back: 2.9990 + 1; block: 2 + 0.17 * 3.9990
    assert block(torch.full((1, 1, 1, 1), 2.0)).item() == pytest.approx(2.67983, abs=1e-5)
    # branch of -2: 0; back: 1; block: -2 + 0.17, which the ReLU sets to 0
    assert block(torch.full((1, 1, 1, 1), -2.0)).item() == 0
    block.relu = False
    assert block(torch.full((1, 1, 1, 1), -2.0)).item() == pytest.approx(-1.83)


def test_last_block_is_not_scaled_and_has_no_relu() -> None:
    assert (block_c(last=True).scale, block_c(last=True).relu) == (1.0, False)
    assert (block_c().scale, block_c().relu) == (0.2, True)


def test_imagenet_weights_load_except_for_the_last_layer() -> None:
    torch.manual_seed(1)
    published, net = SmallMNet(), MNet(blocks=(1, 1, 1))
    state = published.state_dict() | {
        "last_linear.weight": torch.rand(1000, 1536),
        "last_linear.bias": torch.rand(1000),
    }
    last = net.last_linear.weight.clone()
    net.load_imagenet(state)
    assert torch.equal(net.repeat_1[0].conv2d.weight, published.repeat_1[0].conv2d.weight)
    assert torch.equal(net.mixed_5b.branch3[1].conv.weight, state["mixed_5b.branch3.1.conv.weight"])
    assert torch.equal(net.last_linear.weight, last)
    del state["block8.conv2d.bias"]
    with pytest.raises(ValueError, match=r"block8\.conv2d\.bias is missing"):
        net.load_imagenet(state)
    state["block8.conv2d.bias"] = torch.zeros(3)
    with pytest.raises(ValueError, match=r"block8\.conv2d\.bias is \(3,\), expected \(2080,\)"):
        net.load_imagenet(state)


@pytest.mark.slow
def test_it_overfits_five_drawings() -> None:
    net, (network_input, lesions, grade) = SmallMNet().train(), photographs(96)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.5  # so that a few steps are enough for the running statistics
    optimiser = torch.optim.Adam(net.parameters(), 3e-4)
    for _ in range(20):
        optimiser.zero_grad()
        loss = net.loss(net(network_input, lesions), GradeLabels(grade, torch.ones(5, dtype=torch.bool)))
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.2
    with torch.no_grad():
        assert torch.equal(net.eval()(network_input, lesions).logits.argmax(dim=1), grade)
