"""The lesion segmentation subnet: Eq. (1) and the U-Net of Fig. 6."""

from __future__ import annotations

from math import exp, log

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import reference
from deepmtdr.losses import LesionLabels, LossWeights
from deepmtdr.model.segmentation import (
    LesionSegmentationSubnet,
    MultiScaleBlock,
    MultiScaleConv,
    SegmentationConfig,
    fuse_scales,
)

GAMMA = (0.4, 0.2, 0.2, 0.2, 1.0)
SMALL = SegmentationConfig(width=4)


def maps_of_zeros() -> list[Tensor]:
    """Intermediate maps of a 16 px frame, coarse to fine: 1, 2, 4, 8, 16 px."""
    return [torch.zeros(1, 5, side, side) for side in (1, 2, 4, 8, 16)]


@pytest.mark.parametrize("i", range(5))
def test_eq1_gamma_of_each_scale_by_hand(i: int) -> None:
    # Only S_i is not zero: 1 for MA everywhere. Softmax gives e^gamma_i / (e^gamma_i + 4).
    maps = maps_of_zeros()
    maps[i][:, 0] = 1
    fused = fuse_scales(maps, GAMMA, (16, 16))
    expected = exp(GAMMA[i]) / (exp(GAMMA[i]) + 4)
    assert torch.allclose(fused[:, 0], torch.tensor(expected))
    assert torch.allclose(fused[:, 1:], torch.tensor((1 - expected) / 4))


def test_eq1_gammas_are_the_authors_from_coarse_to_fine() -> None:
    assert SegmentationConfig().gamma == GAMMA


def test_eq1_equals_reference(rng: np.random.Generator) -> None:
    maps = [rng.normal(size=(5, side, side)) for side in (1, 2, 4, 8, 16)]
    ours = fuse_scales([torch.tensor(m)[None].float() for m in maps], GAMMA, (16, 16))
    assert np.abs(ours[0].numpy() - reference.fuse_scales(maps, GAMMA)).max() < 1e-6


def test_eq1_gradient_reaches_every_scale() -> None:
    maps = [torch.randn(1, 5, side, side, requires_grad=True) for side in (1, 2, 4, 8, 16)]
    fuse_scales(maps, GAMMA, (16, 16))[:, 0].sum().backward()
    assert all(m.grad is not None and m.grad.any() for m in maps)


def test_subnet_fuses_five_maps_from_stride_16_to_stride_1() -> None:
    subnet, sides = LesionSegmentationSubnet(config=SMALL), []
    for to_map in subnet.to_map:
        to_map.register_forward_hook(lambda _module, _args, out: sides.append(tuple(out.shape[1:])))
    subnet(torch.rand(1, 3, 32, 48))
    assert sides == [(5, 2, 3), (5, 4, 6), (5, 8, 12), (5, 16, 24), (5, 32, 48)]


def test_probabilities_of_four_lesions_and_background_sum_to_one() -> None:
    out = LesionSegmentationSubnet(config=SMALL)(torch.rand(2, 3, 32, 32))
    assert out.shape == (2, 5, 32, 32)
    assert (out > 0).all() and torch.allclose(out.sum(dim=1), torch.tensor(1.0), atol=1e-6)


def test_its_loss_is_dice_and_cross_entropy_with_their_weights() -> None:
    # Every class has the probability 0.2; the first type is annotated in one of two pixels, the others nowhere.
    # Dice: 1 - 2 * 0.2 / (0.4 + 1) for the first type, 1 for the others. Cross-entropy: log 5 in both pixels.
    classes, masks = torch.full((1, 5, 1, 2), 0.2), torch.zeros(1, 4, 1, 2)
    masks[0, 0, 0, 0] = 1
    labels = LesionLabels(masks, torch.ones(1, 4, dtype=torch.bool))
    loss = LesionSegmentationSubnet(config=SMALL).loss(classes, labels, LossWeights(dice=3.0, lesion_cross_entropy=7.0))
    assert loss.item() == pytest.approx(3 * (1 - 0.4 / 1.4 / 4) + 7 * log(5), rel=1e-5)


def test_five_down_and_four_up_transitions() -> None:
    subnet = LesionSegmentationSubnet(config=SMALL)
    assert (len(subnet.down), len(subnet.up)) == (5, 4)


def test_every_block_starts_with_3x3_and_5x5_with_half_the_channels_each() -> None:
    blocks = [m for m in LesionSegmentationSubnet(config=SMALL).modules() if isinstance(m, MultiScaleBlock)]
    assert len(blocks) == 9
    for block in blocks:
        opening, then = block[0], block[1]
        assert isinstance(opening, MultiScaleConv) and isinstance(then, nn.Conv2d)
        branches = [m for m in opening.modules() if isinstance(m, nn.Conv2d)]
        assert [b.kernel_size for b in branches] == [(3, 3), (5, 5)]
        assert [b.out_channels for b in branches] == [then.out_channels // 2] * 2
        assert then.kernel_size == (3, 3)


def test_gradient_reaches_every_parameter_and_the_frame() -> None:
    subnet, frame = LesionSegmentationSubnet(config=SMALL), torch.rand(2, 3, 32, 32, requires_grad=True)
    subnet(frame)[:, 2].square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in subnet.parameters())
    assert frame.grad is not None and frame.grad.any()


def test_a_few_training_steps_segment_a_bright_square() -> None:
    frame, square = torch.zeros(1, 3, 32, 32), torch.zeros(1, 32, 32)
    frame[..., 8:16, 8:16] = square[..., 8:16, 8:16] = 1
    subnet = LesionSegmentationSubnet(config=SMALL)
    optimiser = torch.optim.Adam(subnet.parameters(), 1e-2)
    for _ in range(40):
        optimiser.zero_grad()
        nn.functional.nll_loss(subnet(frame).log(), torch.where(square > 0, 2, 4)).backward()
        optimiser.step()
    found = subnet(frame)[:, 2] > 0.5
    assert (found & (square > 0)).sum() / (found | (square > 0)).sum() > 0.8


def test_about_51_million_parameters_at_the_authors_width() -> None:
    with torch.device("meta"):
        count = sum(p.numel() for p in LesionSegmentationSubnet(config=SegmentationConfig(width=64)).parameters())
    assert 50e6 < count < 52e6


@pytest.mark.parametrize(("height", "width"), [(24, 32), (32, 40), (8, 8)])
def test_a_frame_that_is_no_multiple_of_16_px_is_an_error(height: int, width: int) -> None:
    with pytest.raises(ValueError, match=f"{height}x{width} px, expected multiples of 16"):
        LesionSegmentationSubnet(config=SMALL)(torch.rand(1, 3, height, width))


def test_number_of_parameters_by_hand() -> None:
    # Only the last layers have biases: the others are followed by batch norm, which has two parameters per channel.
    def opening(i: int, o: int) -> int:
        return (9 + 25) * i * o // 2 + 2 * o

    def block(i: int, o: int) -> int:
        return opening(i, o) + 9 * o * o + 2 * o

    down = block(3, 4) + block(4, 8) + block(8, 16) + block(16, 32) + block(32, 64)
    up = sum(opening(2 * o, o) + block(2 * o, o) for o in (4, 8, 16, 32))
    maps = 5 * (64 + 32 + 16 + 8 + 4) + 5 * 5
    assert down + up + maps == 201_769
    assert sum(p.numel() for p in LesionSegmentationSubnet(config=SMALL).parameters()) == 201_769
