"""The ISR subnet: bicubic before training, one set of weights for x2, x4 and x8 (interpretations R1, R2, R31, R35)."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from deepmtdr.model.isr import ISRConfig, ISRSubnet, ResidualBlock, bicubic, bicubic_in_field, local_difference
from deepmtdr.terms import SCALES

SMALL = ISRConfig(width=8, blocks=2)


def trained_a_little() -> ISRSubnet:
    """A subnet whose last convolutions are no longer zero."""
    isr = ISRSubnet(SMALL)
    for last in isr.to_rgb.values():
        assert isinstance(last, nn.Conv2d)
        nn.init.normal_(last.weight, std=0.1)
    return isr


@pytest.mark.parametrize("scale", SCALES)
def test_untrained_subnet_is_the_interpolation_of_its_skip(scale: int) -> None:
    lr = torch.rand(2, 3, 12, 10)
    lr[..., :4] = 0  # a border
    sr = ISRSubnet()(lr, scale)
    assert sr.shape == (2, 3, 12 * scale, 10 * scale)
    assert torch.equal(sr, bicubic_in_field(lr, scale))
    plain = ISRSubnet(ISRConfig(skip="bicubic"))(lr, scale)
    assert torch.equal(plain, bicubic(lr, scale)) and not torch.allclose(sr, plain, atol=0.02)


def test_unknown_skip_is_a_problem() -> None:
    assert list(ISRConfig(skip="nearest").problems()) == ["skip = 'nearest', expected one of bicubic, bicubic in field"]
    assert not list(ISRConfig().problems())


@pytest.mark.parametrize("scale", [2, 4, 8, 0.25])
def test_bicubic_equals_pillow(scale: float, rng: np.random.Generator) -> None:
    # Values from 64 to 192: overshoot stays inside 8 bits; Pillow would clip it between its two passes.
    pixels = rng.integers(64, 193, (16, 24, 3), dtype=np.uint8)
    ours = bicubic(torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255, scale)[0].permute(1, 2, 0)
    size = (round(24 * scale), round(16 * scale))
    theirs = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC), dtype=float)
    assert np.abs((255 * ours).round().numpy() - theirs).max() <= 1
    # Without Pillow's two roundings to 8 bits the two kernels agree.
    exact = Image.fromarray(pixels[..., 0].astype(np.float32) / 255).resize(size, Image.Resampling.BICUBIC)
    assert np.abs(ours[..., 0].numpy() - np.asarray(exact)).max() < 1e-5


def test_bicubic_keeps_a_constant_image() -> None:
    assert torch.allclose(bicubic(torch.full((1, 3, 8, 8), 0.3), 4), torch.tensor(0.3), atol=1e-6)


# Interpolation normalised by the field of view (interpretation R31)


def fundus(side: int = 256, margin: int = 13) -> tuple[Tensor, Tensor]:
    """A round fundus with waves, 1 x 3 x side x side, and its field of view, `margin` px from the edge."""
    places = torch.arange(side) - (side - 1) / 2
    y, x = torch.meshgrid(places, places, indexing="ij")
    inside = y.square() + x.square() < (side / 2 - margin) ** 2
    waves = 0.5 + 0.1 * torch.sin(x / 9) * torch.cos(y / 7)
    return (waves * torch.tensor([1.0, 0.6, 0.3])[:, None, None] * inside)[None], inside


def psnr(image: Tensor, truth: Tensor, inside: Tensor) -> float:
    return -10 * (image - truth)[..., inside].square().mean().log10().item()


@pytest.mark.parametrize("scale", SCALES)
def test_rim_is_closer_to_the_frame_than_that_of_bicubic(scale: int) -> None:
    hr, inside = fundus()
    lr = bicubic(hr, 1 / scale).clamp(0, 1)
    plain, ours = bicubic(lr, scale), bicubic_in_field(lr, scale)
    assert psnr(ours, hr, inside) > psnr(plain, hr, inside) + 1
    everywhere = torch.ones_like(inside)
    assert psnr(ours, hr, everywhere) > psnr(plain, hr, everywhere) + 1
    middle = fundus(margin=13 + 5 * scale)[1]
    assert torch.allclose(ours[..., middle], plain[..., middle], atol=1e-5)


def test_straight_rim_by_hand() -> None:
    # Columns of 0.6, a pixel of which half is inside, and 0. At x4 its middle is between columns 17 and 18 of the
    # frame: full colour up to 2 px before it, black 2 px after it. Bicubic is 0.05 too bright before the rim.
    lr = torch.zeros(1, 3, 8, 8)
    lr[..., :4], lr[..., 4] = 0.6, 0.3
    row = bicubic_in_field(lr, 4)[0, 0, 16]
    assert row[:16].tolist() == pytest.approx([0.6] * 16, abs=1e-6)
    assert row[20:].abs().max() < 1e-6
    assert 0.3 < row[17] < 0.6 and 0 < row[18] < 0.3 and row[17] + row[18] == pytest.approx(0.6, abs=0.05)
    assert (bicubic(lr, 4)[0, 0, 16, :16] - 0.6).max() > 0.02


@pytest.mark.parametrize("scale", SCALES)
def test_without_a_border_it_is_bicubic(scale: int) -> None:
    lr = 0.1 + 0.9 * torch.rand(2, 3, 20, 28)
    assert torch.allclose(bicubic_in_field(lr, scale), bicubic(lr, scale), atol=1e-5)


def test_dark_spot_inside_the_field_of_view_is_not_a_border() -> None:
    lr = 0.5 + 0.1 * torch.rand(1, 3, 32, 32)
    lr[..., 12:18, 12:18] *= 0.05
    assert torch.allclose(bicubic_in_field(lr, 4), bicubic(lr, 4), atol=1e-5)


def test_black_image_stays_black_and_faint_light_outside_is_interpolated() -> None:
    assert not bicubic_in_field(torch.zeros(1, 3, 8, 8), 4).any()
    faint = 0.04 * torch.rand(1, 3, 8, 8)
    assert torch.allclose(bicubic_in_field(faint, 4), bicubic(faint, 4))


def test_gradient_reaches_the_inside_and_takes_the_shares_of_the_rim_as_constants() -> None:
    lr = torch.zeros(1, 3, 8, 8)
    lr[..., :4], lr[..., 4] = 0.6, 0.3
    lr.requires_grad_()
    bicubic_in_field(lr, 4).sum().backward()
    assert lr.grad is not None
    # A pixel of 0.6 spreads over 16 px; the last column before the rim lends its colour to a pixel of the rim too.
    assert lr.grad[0, 0, 4, 1].item() == pytest.approx(16, rel=0.05)
    assert (lr.grad[..., 4] == 0).all() and lr.grad[0, 0, 4, 3] > 17


def test_local_difference_by_hand() -> None:
    # One bright pixel: 4 * (1 - 1/225) there; its neighbours are -4/225; 8 px away it is out of reach.
    lr = torch.zeros(1, 3, 31, 31)
    lr[..., 15, 15] = 1.0
    found = local_difference(lr)[0, 0]
    assert found[15, 15].item() == pytest.approx(4 * 224 / 225)
    assert found[15, 22].item() == found[8, 8].item() == pytest.approx(-4 / 225) and found[15, 23] == 0
    # In the corner only the 8 x 8 px inside the image count.
    lr = torch.zeros(1, 3, 31, 31)
    lr[..., 0, 0] = 1.0
    assert local_difference(lr)[0, 0, 0, 0].item() == pytest.approx(4 * 63 / 64)


def test_brightness_has_no_effect_on_the_residual_of_local_differences() -> None:
    lr, brighter = 0.2 + 0.3 * torch.rand(1, 3, 24, 24), torch.tensor([0.1, 0.2, 0.3])[:, None, None]

    def residual(isr: ISRSubnet, lr: Tensor) -> Tensor:
        return isr(lr, 4) - bicubic_in_field(lr, 4)

    isr = trained_a_little()
    assert torch.allclose(residual(isr, lr), residual(isr, lr + brighter), atol=1e-5)
    with_brightness = ISRSubnet(dataclasses.replace(SMALL, local_difference=False))
    with_brightness.load_state_dict(isr.state_dict())
    assert not torch.allclose(residual(with_brightness, lr), residual(with_brightness, lr + brighter), atol=1e-2)
    assert not torch.allclose(isr(lr, 4), with_brightness(lr, 4), atol=1e-2)


def test_one_checkpoint_has_all_three_scales() -> None:
    one, other = trained_a_little(), ISRSubnet(SMALL)
    other.load_state_dict(one.state_dict())
    lr = torch.rand(1, 3, 8, 8)
    for scale in SCALES:
        assert torch.equal(one(lr, scale), other(lr, scale))
        assert not torch.allclose(one(lr, scale), bicubic_in_field(lr, scale))


def test_scales_share_everything_but_their_last_convolution() -> None:
    users = {scale: set() for scale in SCALES}
    for scale in SCALES:
        isr = trained_a_little()
        isr(torch.rand(1, 3, 8, 8), scale).sum().backward()
        users[scale] = {name for name, parameter in isr.named_parameters() if parameter.grad is not None}
    shared = {name for name in users[2] if not name.startswith("to_rgb.2")}
    assert any(name.startswith("blocks") for name in shared) and any(name.startswith("upscaling") for name in shared)
    assert shared < users[4] and users[4] - users[2] >= {"to_rgb.4.weight", "upscaling.1.conv.weight"}
    own = {scale: {name for name in users[scale] if name.startswith("to_rgb")} for scale in SCALES}
    assert own == {scale: {f"to_rgb.{scale}.weight", f"to_rgb.{scale}.bias"} for scale in SCALES}


def test_gradient_reaches_every_parameter_that_a_scale_uses() -> None:
    isr = trained_a_little()
    isr(torch.rand(1, 3, 8, 8), 8).square().sum().backward()
    idle = {n for n, p in isr.named_parameters() if p.grad is None or not p.grad.any()}
    assert idle == {"to_rgb.2.weight", "to_rgb.2.bias", "to_rgb.4.weight", "to_rgb.4.bias"}


def test_a_few_training_steps_are_better_than_bicubic() -> None:
    isr, frame = ISRSubnet(SMALL), torch.rand(1, 3, 32, 32)
    lr = bicubic(frame, 0.25)
    bicubic_error = (bicubic_in_field(lr, 4) - frame).abs().mean().item()
    optimiser = torch.optim.Adam(isr.parameters(), 1e-3)
    for _ in range(20):
        optimiser.zero_grad()
        loss = (isr(lr, 4) - frame).abs().mean()
        loss.backward()
        optimiser.step()
    assert loss.item() < bicubic_error


def test_five_feature_extraction_layers_and_two_upscaling_layers_at_x4() -> None:
    isr = ISRSubnet()
    assert len(isr.blocks) == 5
    ran = []
    for layer in isr.upscaling:
        layer.register_forward_hook(lambda *_: ran.append(1))
    isr(torch.rand(1, 3, 8, 8), 4)
    assert len(ran) == 2


def test_parameter_count_by_hand() -> None:
    # Stem 3*9*32+32; five blocks of two 32*9*32+32; three sub-pixel layers 32*9*128+128; three last 32*9*3+3.
    by_hand = 896 + 5 * 2 * 9248 + 3 * 36992 + 3 * 867
    assert sum(p.numel() for p in ISRSubnet().parameters()) == by_hand
    assert 100_000 < by_hand < 250_000


def test_another_scale_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"scale 3, expected one of \(2, 4, 8\)"):
        ISRSubnet(SMALL)(torch.rand(1, 3, 8, 8), 3)


def test_residual_block_adds_its_convolutions_to_the_input_by_hand() -> None:
    # One channel; the first convolution returns its input, the second twice that; a negative value passes by a tenth.
    # 3 + 2 * 3 = 9, and -3 + 2 * 0.1 * -3 = -3.6.
    block = ResidualBlock(1)
    for convolution, factor in ((block.conv1, 1.0), (block.conv2, 2.0)):
        nn.init.dirac_(convolution.weight)
        nn.init.zeros_(convolution.bias)  # pyright: ignore[reportArgumentType]
        convolution.weight.data *= factor
    assert block(torch.tensor([[[[3.0, -3.0]]]])).flatten().tolist() == pytest.approx([9, -3.6])
