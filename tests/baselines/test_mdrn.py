"""MDRN: multi-scale residual blocks, one network for x2, x4 and x8."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from deepmtdr.baselines.mdrn import MDRN, MultiScaleResidualBlock
from deepmtdr.model.isr import bicubic
from deepmtdr.synthetic.drawings import draw_photograph
from deepmtdr.terms import SCALES, Grade


def small() -> MDRN:
    return MDRN(width=8, blocks=2)


def trained_a_little() -> MDRN:
    """A network whose last convolutions are no longer zero."""
    network = small()
    for parameter in network.to_rgb.parameters():
        nn.init.normal_(parameter, std=0.1)
    return network


def drawn_photographs(side: int = 64) -> Tensor:
    """Two tiny drawings."""
    drawings = (torch.tensor(draw_photograph(seed, Grade.SEVERE, 2 * side).photograph) for seed in (1, 2))
    return torch.stack([drawing[-side:, :side].permute(2, 0, 1) / 255 for drawing in drawings])


@pytest.mark.parametrize("scale", SCALES)
def test_untrained_network_is_bicubic(scale: int) -> None:
    lr = torch.rand(2, 3, 8, 12)
    sr = small()(lr, scale)
    assert sr.shape == (2, 3, 8 * scale, 12 * scale)
    assert torch.equal(sr, bicubic(lr, scale))


def test_scales_share_everything_but_their_last_convolution() -> None:
    used = {}
    for scale in SCALES:
        network = trained_a_little()
        hr = torch.rand(2, 3, 64, 64)
        network.loss(network(bicubic(hr, 1 / scale), scale), hr).backward()
        gradients = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
        assert all(gradient.isfinite().all() and gradient.any() for gradient in gradients.values())
        used[scale] = set(gradients)
    assert set.union(*used.values()) == {name for name, _ in small().named_parameters()}
    own = {scale: {f"to_rgb.{scale}.weight", f"to_rgb.{scale}.bias"} for scale in SCALES}
    assert used[2] - own[2] < used[4] - own[4] < used[8] - own[8]


def test_multi_scale_block_by_hand() -> None:
    # Two channels; both convolutions sum their window over channel 0; the fusion adds the two sums to every channel.
    block = MultiScaleResidualBlock(2)
    for parameter in block.parameters():
        nn.init.zeros_(parameter)
    with torch.no_grad():
        block.fine.weight[:, 0] = block.coarse.weight[:, 0] = 1
        block.fusion.weight[:] = 1
    point = torch.zeros(1, 2, 9, 9)
    point[0, 0, 4, 4] = 1
    assert block(point)[0, 0, 4].tolist() == [0, 0, 1, 2, 3, 2, 1, 0, 0]  # 5 px only; both; both and the pixel itself
    assert block(point)[0, 1, 4].tolist() == [0, 0, 1, 2, 2, 2, 1, 0, 0]
    assert torch.equal(block(-point), -point)  # nothing passes the ReLU: only the residual connection


def test_long_skip_adds_the_stem_to_blocks_of_zeros() -> None:
    network = small()
    for part in (network.blocks, network.tail):
        for parameter in part.parameters():
            nn.init.zeros_(parameter)
    given: list[Tensor] = []
    network.upscaling[0].register_forward_pre_hook(lambda _module, args: given.append(args[0]))
    lr = torch.rand(1, 3, 8, 8)
    network(lr, 2)
    assert torch.equal(given[0], network.stem(lr))


def test_parameter_count_by_hand() -> None:
    # No published number is known. Stem 3*9*64+64; 16 blocks of 3x3 64->32, 5x5 64->32, 1x1 64->64; tail 3x3 64->64;
    # three sub-pixel steps 3x3 64->256; three last convolutions 3x3 64->3.
    by_hand = 1792 + 16 * (18464 + 51232 + 4160) + 36928 + 3 * 147712 + 3 * 1731
    with torch.device("meta"):
        assert sum(p.numel() for p in MDRN().parameters()) == by_hand == 1_668_745


def test_loss_is_the_mean_absolute_difference() -> None:
    hr = torch.rand(2, 3, 8, 8)
    sr = hr.clone()
    sr[0] += 0.5
    assert small().loss(sr, hr).item() == pytest.approx(0.25)


def test_bf16_images_are_finite_and_reproducible() -> None:
    lr = torch.rand(1, 3, 16, 16)
    images = []
    for _ in range(2):
        torch.manual_seed(3)
        with torch.autocast("cpu", torch.bfloat16):
            images.append(trained_a_little().eval()(lr, 4))
    assert images[0].isfinite().all() and torch.equal(images[0], images[1])


def test_a_few_training_steps_are_better_than_bicubic() -> None:
    network, hr = MDRN(width=16, blocks=2), drawn_photographs()
    lr = bicubic(hr, 0.25).clamp(0, 1)
    optimiser = torch.optim.Adam(network.parameters(), 2e-3)
    for _ in range(80):
        optimiser.zero_grad()
        network.loss(network(lr, 4), hr).backward()
        optimiser.step()
    with torch.no_grad():
        assert network.loss(network(lr, 4), hr) < 0.9 * network.loss(bicubic(lr, 4), hr)


def test_another_scale_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"MDRN: scale 3, expected one of \(2, 4, 8\)"):
        small()(torch.rand(1, 3, 8, 8), 3)
