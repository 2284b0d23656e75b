"""HGN: the geometric mean of two networks, each trained as it would be alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deepmtdr.baselines.hgn import DEPTHS, HGN, WIDTHS, FullyConvolutional, geometric_mean
from deepmtdr.losses import LesionLabels, lesion_cross_entropy_loss
from segmenter_checks import (
    ALL_ANNOTATED,
    assert_all_parameters_get_gradients,
    assert_class_probabilities,
    overfit_precision,
)

SMALL = (8, 16, 32, 64)


class Constant(nn.Module):
    """Gives every pixel the same probabilities."""

    def __init__(self, *classes: float) -> None:
        super().__init__()
        self.logits = torch.tensor(classes).log()[None, :, None, None]

    def forward(self, x: Tensor) -> Tensor:
        return self.logits.expand(x.shape[0], 5, *x.shape[2:])


def test_geometric_mean_by_hand() -> None:
    # MA: sqrt(0.8 * 0.2) = 0.4; HE: sqrt(0.1 * 0.4) = 0.2; EX and SE: sqrt(0.04 * 0.01) = 0.02; the background gets
    # the remaining 0.36; its own mean would be sqrt(0.02 * 0.38) = 0.087.
    net = HGN(widths=SMALL)
    net.full_size, net.half_size = Constant(0.8, 0.1, 0.04, 0.04, 0.02), Constant(0.2, 0.4, 0.01, 0.01, 0.38)  # pyright: ignore[reportAttributeAccessIssue]
    network_input = torch.rand(1, 3, 16, 16)
    in_use, in_training = (net.train(mode)(network_input)[0, :, 3, 5] for mode in (False, True))
    assert torch.allclose(in_use, torch.tensor([0.4, 0.2, 0.02, 0.02, 0.36]))
    assert torch.allclose(in_training, torch.tensor([0.4, 0.2, 0.02, 0.02, 0.0076**0.5]))


def test_a_lesion_needs_both_networks() -> None:
    net = HGN(widths=SMALL).eval()
    net.full_size, net.half_size = Constant(0.99, *[0.0025] * 4), Constant(*[0.0025] * 4, 0.99)  # pyright: ignore[reportAttributeAccessIssue]
    classes = net(torch.rand(1, 3, 16, 16))
    assert (classes[:, 0] < 0.05).all()
    assert (classes[:, 4] > 0.9).all()


def test_inputs_are_the_photograph_and_the_photograph_at_half_its_size() -> None:
    net, given = HGN(widths=SMALL).eval(), {}
    for name in ("full_size", "half_size"):
        getattr(net, name).register_forward_pre_hook(lambda _, args, name=name: given.update({name: args[0]}))
    network_input = torch.rand(1, 3, 32, 32)
    net(network_input)
    assert torch.equal(given["full_size"], network_input)
    assert torch.allclose(given["half_size"][0, 1, 3, 2], network_input[0, 1, 6:8, 4:6].mean())
    assert given["half_size"].shape == (1, 3, 16, 16)


def test_loss_is_the_mean_of_both_networks_losses() -> None:
    logits, others = torch.randn(2, 5, 8, 8), torch.randn(2, 5, 8, 8)
    masks = F.one_hot(torch.randint(5, (2, 8, 8)), 5).permute(0, 3, 1, 2)[:, :4].float()
    own = [lesion_cross_entropy_loss(z.softmax(dim=1)[:, :4], masks, ALL_ANNOTATED) for z in (logits, others)]
    ours = HGN(widths=SMALL).loss(geometric_mean(logits, others), LesionLabels(masks, ALL_ANNOTATED))
    assert torch.allclose(ours, (own[0] + own[1]) / 2)


def test_gradient_of_one_network_does_not_depend_on_the_other() -> None:
    # The same gradient for any output of the other network.
    masks = (torch.rand(2, 4, 8, 8) > 0.95).float()
    logits, gradients = torch.randn(2, 5, 8, 8, requires_grad=True), []
    for _ in range(2):
        loss = HGN(widths=SMALL).loss(
            geometric_mean(logits, torch.randn(2, 5, 8, 8)), LesionLabels(masks, ALL_ANNOTATED)
        )
        gradients += torch.autograd.grad(loss, logits)
    assert torch.allclose(*gradients)


def test_gradients_are_independent_in_the_joint_stage_too() -> None:
    # The joint stage uses evaluation mode; the background must stay a geometric mean.
    net, network_input = HGN(widths=SMALL).eval(), torch.rand(1, 3, 32, 32)
    nn.init.normal_(net.half_size.to_map[0].bias)  # so that they do not agree
    with torch.no_grad():
        assert torch.allclose(net(network_input).sum(dim=1), torch.tensor(1.0))
    assert net(network_input).sum(dim=1).max() < 0.99


def test_photographs_without_all_types_annotated_do_not_count() -> None:
    classes = torch.full((2, 5, 8, 8), 0.2, requires_grad=True)
    known = torch.tensor([[True, True, True, True], [True, True, True, False]])
    loss = HGN(widths=SMALL).loss(classes, LesionLabels(torch.zeros(2, 4, 8, 8), known))
    assert torch.allclose(loss, torch.tensor(5.0).log())
    (gradient,) = torch.autograd.grad(loss, classes)
    assert gradient[0].any()
    assert not gradient[1].any()


def test_parameter_count_is_twice_that_of_vgg_16s_first_ten_convolutions() -> None:
    # VGG-16's have 7,635,264 with their 2,688 biases; here twice as many for the norms, and a map from each stage.
    widths = [w for w, depth in zip(WIDTHS, DEPTHS, strict=True) for _ in range(depth)]
    assert sum(9 * i * o + o for i, o in zip((3, *widths), widths, strict=False)) == 7_635_264
    expected = 7_635_264 + sum(widths) + 5 * (sum(WIDTHS) + len(WIDTHS))
    assert sum(p.numel() for p in FullyConvolutional(5, WIDTHS).parameters()) == expected
    assert sum(p.numel() for p in HGN().parameters()) == 2 * expected


@pytest.mark.parametrize(("height", "width"), [(64, 64), (80, 96)])
def test_classes_sum_to_one_at_the_frames_size(height: int, width: int) -> None:
    assert_class_probabilities(HGN(widths=SMALL), height, width)


def test_every_parameter_gets_a_gradient_from_the_loss() -> None:
    assert_all_parameters_get_gradients(HGN(widths=SMALL))


def test_it_overfits_two_drawings() -> None:
    assert overfit_precision(HGN(widths=SMALL), 100, 1e-2) > 0.5


def test_ignored_pixels_do_not_count() -> None:
    classes = torch.rand(2, 5, 8, 8).softmax(dim=1).requires_grad_()
    masks, ignored = (torch.rand(2, 4, 8, 8) > 0.9).float(), torch.rand(2, 1, 8, 8) > 0.5
    ignored[1] = True
    loss = HGN(widths=SMALL).loss(classes, LesionLabels(masks, ALL_ANNOTATED, ignored=ignored))
    kept = ~ignored[0, 0]
    whole = HGN(widths=SMALL).loss(
        classes[:1, :, kept][..., None], LesionLabels(masks[:1, :, kept][..., None], ALL_ANNOTATED[:1])
    )
    assert torch.allclose(loss, whole)
    (gradient,) = torch.autograd.grad(loss, classes)
    assert torch.equal((gradient != 0).any(dim=1, keepdim=True), ~ignored)
