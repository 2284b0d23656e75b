"""Checks shared by the tests of the compared grading methods."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from deepmtdr.baselines.rgb_grader import cross_entropy
from deepmtdr.losses import GradeLabels
from deepmtdr.model.interfaces import Grader, GradingOutput
from deepmtdr.model.preprocessing import rgb_to_input


class PlainGrader(Grader):
    """Base of the tests' own graders: the input is the frame itself, the loss cross-entropy."""

    preprocess = staticmethod(lambda frame, local_mean=None: frame)

    def loss(self, graded: GradingOutput, labels: GradeLabels) -> Tensor:
        return cross_entropy(graded.logits, labels)


def randomise_batch_norms(made: nn.Module) -> None:
    """Give the norms random statistics and scales, so that a missing norm changes the output."""
    for norm in made.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_mean.uniform_(-0.1, 0.1)  # type: ignore[union-attr]
            norm.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.uniform_(norm.bias, -0.1, 0.1)


def assert_grades_any_frame(net: Grader, side: int, dtype: torch.dtype, widths: Sequence[int]) -> None:
    """Logits are in full precision; features have these widths and are not negative."""
    net.eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        graded = net(rgb_to_input(torch.rand(1, 3, side, side)), torch.zeros(1, 4, side, side))
    assert graded.logits.dtype == torch.float32 and graded.logits.shape == (1, 5)
    assert [tuple(feature.shape[1:]) for feature in graded.features] == [
        (channels, width, width) for channels, width in zip(net.channels, widths, strict=True)
    ]
    assert all((feature >= 0).all() for feature in graded.features)


def assert_all_parameters_get_gradients(net: Grader, network_input: Tensor, lesions: Tensor, grade: Tensor) -> None:
    """Every parameter gets a finite gradient, not zero, from the method's loss; its input gets a finite one."""
    network_input.requires_grad_()
    known = torch.ones_like(grade, dtype=torch.bool)
    net.train().loss(net(network_input, lesions), GradeLabels(grade, known)).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in net.parameters())
    assert (
        network_input.grad is not None and network_input.grad.isfinite().all()
    )  # black borders too, so that a super-resolver can be trained through it
