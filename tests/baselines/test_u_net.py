"""U-Net: its parameter count, its skip connections, its initial output."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from deepmtdr.baselines.u_net import WIDTHS, UNet
from deepmtdr.losses import LesionLabels
from deepmtdr.model.segmentation import LESION_PRIOR
from segmenter_checks import (
    ALL_ANNOTATED,
    assert_all_parameters_get_gradients,
    assert_class_probabilities,
    overfit_precision,
)

SMALL = (8, 16, 32, 64, 128)


def test_parameter_count_is_that_of_later_implementations() -> None:
    # Nine levels of two 3x3 convolutions with a norm each; a 2x2 transposed convolution with bias before each level of
    # the decoder; the last layer.
    def double(i: int, o: int) -> int:
        return 9 * i * o + 9 * o * o + 4 * o

    down = sum(double(i, o) for i, o in zip((3, *WIDTHS), WIDTHS, strict=False))
    up = sum(double(i, i // 2) + 4 * i * (i // 2) + i // 2 for i in WIDTHS[1:])
    assert sum(p.numel() for p in UNet().parameters()) == down + up + 5 * 64 + 5 == 31_037_893


@pytest.mark.parametrize("level", range(4))
def test_each_level_has_a_skip_connection(level: int) -> None:
    torch.manual_seed(0)
    net, network_input = UNet(widths=SMALL).eval(), torch.rand(1, 3, 32, 32)
    given_to_block: list[torch.Tensor] = []
    net.up[3 - level].register_forward_pre_hook(lambda _, given: given_to_block.append(given[0]))
    with torch.no_grad():
        net(network_input)
        skip = network_input
        for number, block in enumerate(net.down[: level + 1]):
            skip = block(skip if number == 0 else F.max_pool2d(skip, 2))
    assert torch.equal(given_to_block[0][:, : SMALL[level]], skip)


def test_untrained_network_predicts_background_everywhere() -> None:
    torch.manual_seed(0)
    with torch.no_grad():
        classes = UNet(widths=SMALL)(torch.rand(2, 3, 64, 64))
    assert (1 - classes[:, -1]).mean().item() == pytest.approx(LESION_PRIOR, rel=0.2)


def test_loss_is_cross_entropy_of_photographs_with_all_types_annotated() -> None:
    classes, masks = torch.full((2, 5, 8, 8), 0.2), torch.zeros(2, 4, 8, 8)
    assert torch.allclose(UNet(widths=SMALL).loss(classes, LesionLabels(masks, ALL_ANNOTATED)), torch.tensor(5.0).log())
    some = torch.tensor([[True, True, True, False]] * 2)
    assert UNet(widths=SMALL).loss(classes, LesionLabels(masks, some)) == 0


@pytest.mark.parametrize(("height", "width"), [(64, 64), (80, 96)])
def test_classes_sum_to_one_at_the_frames_size(height: int, width: int) -> None:
    assert_class_probabilities(UNet(widths=SMALL), height, width)


def test_every_parameter_gets_a_gradient_from_the_loss() -> None:
    assert_all_parameters_get_gradients(UNet(widths=SMALL))


def test_it_overfits_two_drawings() -> None:
    assert overfit_precision(UNet(widths=SMALL), 100, 3e-3) > 0.5
