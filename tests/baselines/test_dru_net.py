"""DRU-Net: recurrent residual blocks; it learns."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from deepmtdr.baselines.dru_net import STEPS, DRUNet, RecurrentConv, RecurrentResidualBlock
from deepmtdr.baselines.u_net import WIDTHS
from deepmtdr.losses import LesionLabels
from segmenter_checks import (
    ALL_ANNOTATED,
    assert_all_parameters_get_gradients,
    assert_class_probabilities,
    overfit_precision,
)

SMALL = (8, 16, 32, 64)


def passing_on(layer: RecurrentConv) -> RecurrentConv:
    """The layer with an identity kernel, in evaluation mode, where its norms change nothing."""
    nn.init.dirac_(layer.conv.weight)
    return layer.eval()


def test_recurrent_layer_by_hand() -> None:
    # f(1) = 1, f(1 + 1) = 2, f(1 + 2) = 3: the first step and two more.
    layer = passing_on(RecurrentConv(4))
    assert torch.allclose(layer(torch.ones(1, 4, 3, 3)), torch.tensor(3.0), atol=1e-3)
    assert STEPS == 2
    assert (layer(-torch.ones(1, 4, 3, 3)) == 0).all()


def test_residual_block_by_hand() -> None:
    # 1 through one recurrent layer is 3, through the next 9; with the shortcut 10.
    block = RecurrentResidualBlock(4, 4).eval()
    nn.init.dirac_(block.entry.weight)
    nn.init.zeros_(block.entry.bias)  # pyright: ignore[reportArgumentType]
    for layer in block.layers:
        passing_on(layer)  # pyright: ignore[reportArgumentType]
    assert torch.allclose(block(torch.ones(1, 4, 3, 3)), torch.tensor(10.0), atol=1e-2)


def test_receptive_field_of_a_recurrent_layer_is_seven_pixels() -> None:
    layer = RecurrentConv(1).eval()
    nn.init.ones_(layer.conv.weight)
    impulse = torch.zeros(1, 1, 15, 15)
    impulse[..., 7, 7] = 1
    reached = layer(impulse)[0, 0] > 0
    assert reached.sum() == 7 * 7
    assert reached[4:11, 4:11].all()


def test_running_statistics_fit_every_step() -> None:
    # With one set of running means for all steps, evaluation would differ from training.
    layer, x = RecurrentConv(4), torch.randn(4, 4, 16, 16) + 1
    with torch.no_grad():
        for _ in range(100):
            layer(x)
        assert torch.allclose(layer(x), layer.eval()(x), atol=1e-2)


def test_parameter_count_is_that_of_the_public_r2u_nets() -> None:
    # 39.09 million there: biases before the norms, one norm per layer, one class, three input channels.
    ways = [*zip((3, *WIDTHS), WIDTHS, strict=False), *zip(WIDTHS[:0:-1], WIDTHS[-2::-1], strict=True)]
    blocks = sum(i * o + o + 2 * (9 * o * o + o + 2 * o) for i, o in ways)
    rise = sum(9 * i * o + o + 2 * o for i, o in ways[len(WIDTHS) :])
    public = blocks + rise + WIDTHS[0] + 1
    assert public == 39_091_393
    biases = sum(2 * o for _, o in ways) + sum(o for _, o in ways[len(WIDTHS) :])
    further_norms = sum(2 * STEPS * 2 * o for _, o in ways)
    further_classes = 4 * (WIDTHS[0] + 1)
    assert sum(p.numel() for p in DRUNet().parameters()) == public - biases + further_norms + further_classes


@pytest.mark.parametrize(("height", "width"), [(64, 64), (80, 96)])
def test_classes_sum_to_one_at_the_frames_size(height: int, width: int) -> None:
    assert_class_probabilities(DRUNet(widths=(*SMALL, 128)), height, width)


def test_every_parameter_gets_a_gradient_from_the_loss() -> None:
    assert_all_parameters_get_gradients(DRUNet(widths=(*SMALL, 128)))


def test_loss_is_cross_entropy_of_photographs_with_all_types_annotated() -> None:
    classes = torch.full((2, 5, 8, 8), 0.2)
    loss = DRUNet(widths=SMALL).loss
    assert torch.allclose(loss(classes, LesionLabels(torch.zeros(2, 4, 8, 8), ALL_ANNOTATED)), torch.tensor(5.0).log())
    assert loss(classes, LesionLabels(torch.zeros(2, 4, 8, 8), torch.tensor([[True, True, True, False]] * 2))) == 0


@pytest.mark.slow
def test_it_overfits_two_drawings() -> None:
    assert overfit_precision(DRUNet(widths=SMALL), 120, 3e-3) > 0.5
