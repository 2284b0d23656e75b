"""CKML: combined kernels, multiple losses."""

from __future__ import annotations

import math
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deepmtdr.baselines.ckml import CKML, LOSS_WEIGHTS, MODULES, CombinedKernels
from deepmtdr.baselines.hybrid_colour import to_lgi
from deepmtdr.losses import GradeLabels
from deepmtdr.model.interfaces import GradingOutput
from deepmtdr.model.preprocessing import rgb_to_input
from deepmtdr.synthetic.drawings import draw_photograph
from deepmtdr.terms import Grade
from grader_checks import assert_all_parameters_get_gradients, assert_grades_any_frame

KNOWN = torch.ones(5, dtype=torch.bool)


class SmallCKML(CKML):
    """A smaller native size, for speed."""

    size: ClassVar[int] = 96


def photographs(side: int) -> tuple[Tensor, Tensor, Tensor]:
    """Network inputs from a drawing of every grade, empty lesion maps, the grades."""
    drawn = [
        torch.from_numpy(draw_photograph(20 + grade, grade, 128).photograph).permute(2, 0, 1) / 255 for grade in Grade
    ]
    frames = torch.cat([F.interpolate(d[None], (side, side), mode="bilinear", antialias=True) for d in drawn])
    return rgb_to_input(frames), torch.zeros(len(Grade), 4, side, side), torch.arange(len(Grade))


def test_channels_of_the_modules_are_googlenets() -> None:
    given = {name: one + three[1] + five[1] + pooled for name, (_, one, three, five, pooled) in MODULES.items()}
    assert given == {
        "3a": 256, "3b": 480, "4a": 512, "4b": 512, "4c": 512, "4d": 528, "4e": 832, "5a": 832, "5b": 1024,
    }  # fmt: skip


def test_parameter_count_is_googlenets_plus_the_additions() -> None:
    def modules(largest: int) -> int:
        kernels, norms = 64 * 64 + 64 * 192 * 9, 64 + 192
        for channels, one, three, five, pooled in MODULES.values():
            kernels += channels * (one + three[0] + five[0] + pooled)
            kernels += 9 * three[0] * three[1] + largest**2 * five[0] * five[1]
            norms += one + sum(three) + sum(five) + pooled
        return kernels + 2 * norms

    # torchvision lists 6,624,904: 7 px in the first layer, 3 px where the 5 px should be, 1,000 classes
    assert modules(largest=3) + 3 * 49 * 64 + 2 * 64 + (1024 + 1) * 1000 == 6_624_904
    stem = 3 * (9 * 16 + 25 * 16 + 49 * 32) + 2 * 64
    further = sum(c * 128 + 2 * 128 + (16 * 128 + 1) * 1024 + (1024 + 1) * 5 for c in (512, 528))
    ours = modules(largest=5) + stem + (1024 + 1) * 5 + further
    assert sum(p.numel() for p in CKML().parameters()) == ours == 10_323_119


def test_first_layer_combines_kernels_of_3_5_and_7_px() -> None:
    net = CKML()
    assert [branch[0].kernel_size for branch in net.stem] == [(3, 3), (5, 5), (7, 7)]
    for branch in net.stem:
        nn.init.zeros_(branch[0].weight)
        branch[0].weight.data[..., 1:-1, 1:-1] = 1.0  # a 3 px kernel has 1 px, 5 px 9, 7 px 25 left
    dot = torch.zeros(1, 3, 9, 9)
    dot[..., 4, 4] = 1
    output = net.stem.eval()(dot)[0]
    assert [int((output[channel] > 0).sum()) for channel in (0, 16, 32)] == [1, 1, 9]  # every second pixel of 1, 3, 5


def test_combined_kernels_are_concatenated() -> None:
    both = CombinedKernels([nn.Identity(), nn.ReLU()])
    assert torch.equal(both(-torch.ones(1, 1, 2, 2))[0, :, 0, 0], torch.tensor([-1.0, 0.0]))


def test_input_is_converted_to_lgi() -> None:
    net, given = SmallCKML().eval(), []
    net.stem.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    rgb = torch.rand(1, 3, 96, 96)
    net(rgb_to_input(rgb), torch.zeros(1, 4, 96, 96))
    torch.testing.assert_close(given[0], 2 * to_lgi(rgb) - 1, rtol=0, atol=1e-5)


def test_loss_is_the_weighted_sum_of_three_cross_entropies() -> None:
    # equal logits: ln 5 each; one logit of ln 4 before four zeros: -ln (4 / 8) = ln 2
    equal, certain = torch.zeros(1, 5), torch.tensor([[math.log(4), 0.0, 0.0, 0.0, 0.0]])
    grade, known, net = torch.tensor([0]), torch.tensor([True]), SmallCKML()
    loss = net.loss(GradingOutput(equal, (), (certain, equal)), GradeLabels(grade, known))
    assert loss.item() == pytest.approx(math.log(5) + 0.3 * math.log(2) + 0.3 * math.log(5), abs=1e-6)
    assert LOSS_WEIGHTS == (1.0, 0.3, 0.3)
    unknown = net.loss(GradingOutput(equal, (), (certain, equal)), GradeLabels(grade, ~known))
    assert unknown.item() == 0


def test_auxiliary_classifiers_are_used_in_training_mode_only() -> None:
    net, (network_input, lesions, _) = SmallCKML().eval(), photographs(96)
    output = net(network_input, lesions)
    assert output.extra == ()
    labels = GradeLabels(
        torch.zeros(len(network_input), dtype=torch.long), torch.ones(len(network_input), dtype=torch.bool)
    )
    assert torch.allclose(net.loss(output, labels), F.cross_entropy(output.logits, labels.grade))


def test_auxiliary_classifiers_do_not_influence_the_logits() -> None:
    net, (network_input, lesions, _) = SmallCKML().train(), photographs(96)
    outputs = []
    for _ in range(2):
        torch.manual_seed(0)
        outputs.append(net(network_input, lesions))
        nn.init.normal_(net.further[0].classifier.weight)
    before, after = outputs
    assert torch.equal(before.logits, after.logits) and not torch.equal(before.extra[0], after.extra[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("side", [64, 256])
def test_any_frame_is_graded_at_224_px(dtype: torch.dtype, side: int) -> None:
    assert_grades_any_frame(CKML(), side, dtype, (112, 56, 28, 14, 7))


def test_every_parameter_gets_a_gradient_from_the_loss() -> None:
    assert_all_parameters_get_gradients(SmallCKML(), *photographs(64))


@pytest.mark.slow
def test_it_overfits_five_drawings() -> None:
    net, (network_input, lesions, grade) = SmallCKML().train(), photographs(96)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.5  # so that a few steps are enough for the running statistics
    optimiser = torch.optim.Adam(net.parameters(), 1e-3)
    for _ in range(25):
        optimiser.zero_grad()
        net.loss(net(network_input, lesions), GradeLabels(grade, KNOWN)).backward()
        optimiser.step()
    with torch.no_grad():
        graded = net.eval()(network_input, lesions)
    assert torch.equal(graded.logits.argmax(dim=1), grade)
    assert F.cross_entropy(graded.logits, grade) < 0.5
