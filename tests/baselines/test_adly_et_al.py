"""Adly et al.: a binary tree of CNNs, each trained on the grades below it."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from deepmtdr.baselines.adly_et_al import WIDTHS, AdlyEtAl, build_tree, tree_log_probabilities
from deepmtdr.losses import GradeLabels
from deepmtdr.model.interfaces import GradingOutput
from deepmtdr.model.preprocessing import rgb_to_input
from deepmtdr.synthetic.drawings import draw_photograph
from deepmtdr.terms import Grade

NARROW = (4, 8, 8, 16, 16)
TREE = build_tree(5)


@pytest.fixture(scope="module")
def narrow() -> AdlyEtAl:
    torch.manual_seed(0)
    return AdlyEtAl(widths=NARROW)


def no_lesions(frame: Tensor) -> Tensor:
    return torch.zeros(len(frame), 4, *frame.shape[2:])


def photographs(grades: tuple[int, ...], side: int = 96) -> Tensor:
    drawn = [torch.from_numpy(draw_photograph(2 * seed, Grade(g), 96).photograph) for seed, g in enumerate(grades)]
    shaped = [F.interpolate(d.permute(2, 0, 1)[None].float() / 255, (side, side), mode="area") for d in drawn]
    return rgb_to_input(torch.cat(shaped))


def nodes_loss(
    nodes: Tensor, grades: list[int], known: list[bool] | None = None, weights: Tensor | None = None
) -> Tensor:
    graded = GradingOutput(torch.zeros(len(grades), 5), (), (nodes,))
    mask = torch.tensor(known or [True] * len(grades))
    return AdlyEtAl(widths=(1,)).loss(graded, GradeLabels(torch.tensor(grades), mask, weights))


def test_tree_separates_all_grades() -> None:
    assert sorted(TREE[0][0] + TREE[0][1]) == list(range(5))
    sides = [side for node in TREE for side in node]
    assert sorted(side[0] for side in sides if len(side) == 1) == list(range(5))
    for zero, one in TREE[1:]:
        assert tuple(sorted(zero + one)) in [tuple(sorted(side)) for side in sides]


def test_probability_of_a_grade_is_the_product_of_the_decisions_on_its_path() -> None:
    """Probabilities of decision 1: 0.8, 0.25, 0.5, 0.9."""
    ones = torch.tensor([[0.8, 0.25, 0.5, 0.9]])
    found = tree_log_probabilities(ones.logit(), TREE).exp()[0]
    expected = [0.2, 0.8 * 0.75 * 0.5, 0.8 * 0.75 * 0.5 * 0.1, 0.8 * 0.75 * 0.5 * 0.9, 0.8 * 0.25]
    assert found.tolist() == pytest.approx(expected, abs=1e-6)
    assert found.sum().item() == pytest.approx(1)


def test_prediction_is_the_likeliest_grade_not_the_path_of_likeliest_decisions() -> None:
    """Retinopathy at 0.55, divided among four grades, is less likely than none at 0.45."""
    even = torch.tensor([[0.55, 0.5, 0.5, 0.5]]).logit()
    assert tree_log_probabilities(even, TREE).argmax().item() == 0


def test_centring_of_the_logits_does_not_change_the_probabilities(narrow: AdlyEtAl) -> None:
    frame = photographs((0, 3))
    with torch.no_grad():
        graded = narrow.eval()(frame, no_lesions(frame))
    expected = tree_log_probabilities(graded.extra[0], TREE).exp()
    torch.testing.assert_close(graded.logits.softmax(dim=1), expected)
    torch.testing.assert_close(graded.logits.mean(dim=1), torch.zeros(2), atol=1e-6, rtol=0)


def test_loss_of_an_undecided_node_with_a_photograph_is_log_2() -> None:
    assert nodes_loss(torch.zeros(1, 4), [0]).item() == pytest.approx(math.log(2))
    assert nodes_loss(torch.zeros(1, 4), [4]).item() == pytest.approx(2 * math.log(2))
    assert nodes_loss(torch.zeros(3, 4), [0, 3, 3]).item() == pytest.approx(4 * math.log(2))


def test_loss_of_one_photograph_is_minus_the_log_probability_of_its_grade() -> None:
    nodes = torch.tensor([[0.3, -1.0, 2.0, 0.7]])
    for grade in range(5):
        expected = -tree_log_probabilities(nodes, TREE)[0, grade]
        assert nodes_loss(nodes, [grade]).item() == pytest.approx(expected.item(), abs=1e-6)


def test_node_is_trained_on_the_grades_below_it_only() -> None:
    nodes = torch.zeros(3, 4, requires_grad=True)
    nodes_loss(nodes, [0, 4, 2]).backward()
    below = torch.tensor([[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 1]], dtype=torch.bool)
    assert nodes.grad is not None
    assert torch.equal(nodes.grad != 0, below)


def test_ungraded_photographs_and_empty_nodes_have_no_gradient() -> None:
    nodes = torch.zeros(2, 4, requires_grad=True)
    loss = nodes_loss(nodes, [0, 3], [False, False])
    loss.backward()
    assert loss.item() == 0
    assert nodes.grad is not None
    assert not nodes.grad.any()


def test_class_weights_count_at_every_node_of_the_path() -> None:
    weights = torch.tensor([1.0, 1.0, 1.0, 5.0, 1.0])
    assert nodes_loss(torch.zeros(1, 4), [3], weights=weights).item() == pytest.approx(5 * 4 * math.log(2))


def test_nodes_share_neither_parameters_nor_statistics(narrow: AdlyEtAl) -> None:
    """A node's logit depends on its own quarter of every parameter, and not on other photographs of the batch."""
    frame = photographs((1, 4))
    for node in range(4):
        narrow.train().zero_grad()
        narrow(frame, no_lesions(frame)).extra[0][:, node].sum().backward()
        for parameter in narrow.parameters():
            assert parameter.grad is not None
            quarters = parameter.grad.unflatten(0, (4, -1)).flatten(1).any(dim=1)
            assert quarters.tolist() == [n == node for n in range(4)]
    together, alone_ = (narrow(f, no_lesions(f)).extra[0][:1] for f in (frame, frame[:1]))
    torch.testing.assert_close(together, alone_)


def test_training_all_nodes_together_equals_training_one_alone() -> None:
    """Three steps with the losses of all nodes give the same first node as three steps with its own loss only."""
    frame, grade, known = photographs((0, 4)), torch.tensor([0, 4]), torch.ones(2, dtype=torch.bool)
    ends = []
    for only_first in (False, True):
        torch.manual_seed(0)
        model = AdlyEtAl(widths=NARROW)
        optimiser = torch.optim.Adam(model.parameters(), 1e-3)
        for _ in range(3):
            optimiser.zero_grad()
            graded = model(frame, no_lesions(frame))
            own = F.binary_cross_entropy_with_logits(graded.extra[0][:, 0], (grade > 0).float())
            (own if only_first else model.loss(graded, GradeLabels(grade, known))).backward()
            optimiser.step()
        ends.append([p.detach()[: len(p) // 4] for p in model.parameters()])
    torch.testing.assert_close(ends[0], ends[1])


def test_parameter_count_is_four_times_a_nodes() -> None:
    """A node: in each stage two conv3x3 with scale and shift of their group norms; one logit."""
    pairs = zip((3, *WIDTHS), WIDTHS, strict=False)
    node = sum(9 * i * o + 9 * o * o + 4 * o for i, o in pairs) + WIDTHS[-1] + 1
    assert sum(p.numel() for p in AdlyEtAl().parameters()) == 4 * node == 18_858_884


def test_features_are_after_a_relu_and_half_as_wide_each(narrow: AdlyEtAl) -> None:
    frame = photographs((2,), 64)
    with torch.no_grad():
        features = narrow.eval()(frame, no_lesions(frame)).features
    assert [f.shape[-1] for f in features] == [224, 112, 56, 28, 14]
    assert tuple(f.shape[1] for f in features) == narrow.channels
    assert all((f >= 0).all() for f in features)


def test_every_parameter_gets_a_finite_gradient_in_bfloat16_too(narrow: AdlyEtAl) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        narrow.train().zero_grad()
        with torch.autocast("cpu", dtype, enabled=dtype is torch.bfloat16):
            graded = narrow(photographs((0, 3)), torch.zeros(2, 4, 96, 96))
        assert graded.logits.dtype is torch.float32
        narrow.loss(graded, GradeLabels(torch.tensor([0, 3]), torch.ones(2, dtype=torch.bool))).backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in narrow.parameters())


@pytest.mark.slow
def test_it_overfits_five_drawn_photographs_of_different_grades() -> None:
    class Small(AdlyEtAl):
        size = 64

    torch.manual_seed(0)
    model = Small(widths=(8, 16, 16, 32, 32)).train()
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    frame, grade, logits = photographs((0, 1, 2, 3, 4), 64), torch.arange(5), torch.zeros(5, 5)
    for _ in range(60):
        optimiser.zero_grad()
        graded = model(frame, no_lesions(frame))
        model.loss(graded, GradeLabels(grade, torch.ones(5, dtype=torch.bool))).backward()
        optimiser.step()
        logits = graded.logits
    assert logits.argmax(dim=1).tolist() == grade.tolist()
