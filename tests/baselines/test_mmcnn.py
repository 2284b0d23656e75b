"""MMCNN: one more cell for each larger size, two tasks, the class is the prediction."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from deepmtdr.baselines.m_net import MNet
from deepmtdr.baselines.mmcnn import MMCNN
from deepmtdr.losses import GradeLabels
from deepmtdr.model.interfaces import GradingOutput
from deepmtdr.model.preprocessing import rgb_to_input
from deepmtdr.synthetic.drawings import draw_photograph
from deepmtdr.terms import Grade

BLOCKS, SIZES = (1, 1, 1), (80, 112, 144)
KNOWN = torch.ones(2, dtype=torch.bool)


@pytest.fixture(scope="module")
def small() -> MMCNN:
    torch.manual_seed(0)
    return MMCNN(blocks=BLOCKS, sizes=SIZES)


def no_lesions(frame: Tensor) -> Tensor:
    return torch.zeros(len(frame), 4, *frame.shape[2:])


def photographs(grades: tuple[int, ...], side: int) -> Tensor:
    drawn = [torch.from_numpy(draw_photograph(2 * seed, Grade(g), 96).photograph) for seed, g in enumerate(grades)]
    shaped = [F.interpolate(d.permute(2, 0, 1)[None].float() / 255, (side, side), mode="area") for d in drawn]
    return rgb_to_input(torch.cat(shaped))


@pytest.mark.parametrize(("side", "size", "cells"), [(64, 224, 0), (447, 224, 0), (448, 448, 1), (1024, 720, 2)])
def test_size_and_number_of_cells_for_a_frame(side: int, size: int, cells: int) -> None:
    model = MMCNN(blocks=(0, 0, 0))
    assert model.count_cells(side) == cells
    assert model.sizes[cells] == size


def test_last_grid_has_about_the_same_width_at_every_size() -> None:
    """224: 111 109 54 52 25 12 5, unpadded; 448: 12 at stride 32, halved; 720: 21, twice halved."""
    model = MMCNN(blocks=(0, 0, 0)).eval()
    widths = []
    with torch.no_grad():
        for side in (224, 448, 720):
            frame = torch.zeros(1, 3, side, side)
            graded = model(frame, no_lesions(frame))
            widths.append(graded.features[-1].shape[-1])
            assert tuple(f.shape[1] for f in graded.features) == model.channels
            assert all(a.shape[-1] >= b.shape[-1] for a, b in zip(graded.features, graded.features[1:], strict=False))
            assert all((f >= 0).all() for f in graded.features)
    assert widths == [5, 6, 6]


def test_parameter_count_is_m_nets_plus_two_cells_and_a_regressor() -> None:
    """A cell: a 1x1 of 192; a 1x1, 1x3, 3x1 of 192, 224, 256; their batch norms; the last 1x1 with its bias."""
    convolutions = 2080 * 192 * 2 + 192 * 224 * 3 + 224 * 256 * 3
    cell = convolutions + 2 * (192 + 192 + 224 + 256) + 448 * 2080 + 2080
    counts = [sum(p.numel() for p in model.parameters()) for model in (MMCNN(), MNet())]
    assert counts[0] == counts[1] + 2 * cell + 1536 + 1


def test_below_the_second_size_it_equals_m_net(small: MMCNN) -> None:
    m_net = small.base.eval()
    frame = photographs((0, 3), 80)
    with torch.no_grad():
        expected = m_net.grade((frame / 3 + 1) / 2, no_lesions(frame)).logits
        found = small.eval()(frame, no_lesions(frame)).logits
    torch.testing.assert_close(found, expected - expected.mean(dim=1, keepdim=True))


def test_untrained_cell_equals_its_pooling(small: MMCNN) -> None:
    x = torch.rand(1, 2080, 3, 3)
    torch.testing.assert_close(small.cells[0].eval()(x), x)


def test_every_parameter_gets_a_finite_gradient_at_the_largest_size(small: MMCNN) -> None:
    small.train().zero_grad()
    frame = photographs((1, 4), 144)
    grade = torch.tensor([1, 4])
    graded = small(frame, no_lesions(frame))
    small.loss(graded, GradeLabels(grade, KNOWN)).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in small.parameters())


def test_smaller_frame_does_not_use_the_cells(small: MMCNN) -> None:
    small.train().zero_grad()
    frame = photographs((1, 4), 96)
    small.loss(small(frame, no_lesions(frame)), GradeLabels(torch.tensor([1, 4]), KNOWN)).backward()
    assert all(p.grad is None for p in small.cells.parameters())


def test_loss_is_cross_entropy_plus_squared_error_of_the_graded_photographs(small: MMCNN) -> None:
    """Even logits: log 5 = 1.6094; the number 2.5 for grade 4: 2.25. The second photograph is not graded."""
    graded = GradingOutput(torch.zeros(2, 5), (), (torch.tensor([2.5, 100.0]),))
    known = torch.tensor([True, False])
    loss = small.loss(graded, GradeLabels(torch.tensor([4, 0]), known))
    assert loss.item() == pytest.approx(1.6094 + 2.25, abs=1e-4)
    assert small.loss(graded, GradeLabels(torch.tensor([4, 0]), ~torch.ones_like(known))).item() == 0


def test_class_weights_count_in_the_cross_entropy_only(small: MMCNN) -> None:
    graded = GradingOutput(torch.zeros(2, 5), (), (torch.tensor([2.0, 2.0]),))
    weights = torch.tensor([1.0, 1.0, 1.0, 1.0, 3.0])
    loss = small.loss(graded, GradeLabels(torch.tensor([4, 4]), KNOWN, weights))
    assert loss.item() == pytest.approx(3 * 1.6094 + 4, abs=1e-3)


def test_imagenet_weights_load_into_the_base_only(small: MMCNN) -> None:
    state = {name: torch.full_like(tensor, 0.25) for name, tensor in MNet(blocks=BLOCKS).state_dict().items()}
    other = MMCNN(blocks=BLOCKS, sizes=SIZES)
    cells = {name: tensor.clone() for name, tensor in other.cells.state_dict().items()}
    other.load_imagenet(state)
    assert (other.base.conv2d_1a.conv.weight == 0.25).all()
    assert all(torch.equal(cells[name], tensor) for name, tensor in other.cells.state_dict().items())
    with pytest.raises(ValueError, match=r"conv2d_7b\.conv\.weight is missing"):
        other.load_imagenet({name: tensor for name, tensor in state.items() if name != "conv2d_7b.conv.weight"})


def test_bfloat16_autocast_grades_as_float32(small: MMCNN) -> None:
    frame = photographs((2,), 112)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        half = small.eval()(frame, no_lesions(frame))
    assert half.logits.dtype is half.extra[0].dtype is torch.float32
    assert half.logits.isfinite().all()


def test_it_overfits_four_drawn_photographs_in_both_tasks() -> None:
    torch.manual_seed(0)
    model = MMCNN(blocks=(0, 0, 0), sizes=(80, 96)).train()
    optimiser = torch.optim.Adam(model.parameters(), 3e-4)
    grade, known = torch.tensor([0, 2, 3, 4]), torch.ones(4, dtype=torch.bool)
    frame = photographs((0, 2, 3, 4), 96)
    losses, logits, number = [], torch.zeros(4, 5), torch.zeros(4)
    for _ in range(25):
        optimiser.zero_grad()
        graded = model(frame, no_lesions(frame))
        loss = model.loss(graded, GradeLabels(grade, known))
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
        logits, (number,) = graded.logits, graded.extra
    assert losses[-1] < 0.2 * losses[0]
    assert logits.argmax(dim=1).tolist() == grade.tolist()
    assert (number - grade).abs().max() < 1
