"""Adly et al., a binary tree of CNNs. Tables I and II.

M. M. Adly, A. S. Ghoneim, A. A. Youssif, "On the Grading of Diabetic Retinopathies Using a Binary-Tree-Based Multiclass
Classifier of CNNs", IJCSIS 17(1), 2019. Published: the five grades are told apart by a binary tree whose nodes are
CNNs. Its layers, sizes and tree were not to be found: after the description. Assumed: the tree below, 224 px, and
VGG-like nodes of five stages, twice conv3x3 each, 32 to 512 channels, averaged to one logit; group norm, under which a
photograph never touches another, since each node may learn only from those that belong below it. The probability of a
grade is the product of the decisions on the way to it.

The nodes share no parameter and no statistic, so none sees whether another has learned: side by side, each by its own
loss, they take the steps that they would take one after another (but for a common clipping of gradients and length of
training). They stand side by side as the groups of one grouped convolution.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from deepmtdr.losses import GradeLabels, masked_mean
from deepmtdr.model.interfaces import Grader, GradingOutput, normalise_imagenet

TREE = (
    ((0,), (1, 2, 3, 4)),
    ((1, 2, 3), (4,)),
    ((1,), (2, 3)),
    ((2,), (3,)),
)
"""Each node's grades on its 0 and on its 1 side: any retinopathy, proliferative, more than mild, severe."""
WIDTHS = (32, 64, 128, 256, 512)
"""Channels of a node."""
NORM_GROUP = 16
"""Channels that are normalised together, at most."""


class Stage(nn.Sequential):
    """Twice in every node: conv3x3, group norm, ReLU. The first stage shows all nodes the same photograph."""

    def __init__(self, channels_in: int, width: int) -> None:
        nodes, out = len(TREE), len(TREE) * width
        groups = nodes * max(1, width // NORM_GROUP)
        super().__init__(
            nn.Conv2d(channels_in, out, 3, padding=1, groups=1 if channels_in == 3 else nodes, bias=False),
            nn.GroupNorm(groups, out), nn.ReLU(),
            nn.Conv2d(out, out, 3, padding=1, groups=nodes, bias=False),
            nn.GroupNorm(groups, out), nn.ReLU(),
        )  # fmt: skip


class AdlyEtAl(Grader):
    """Four binary CNNs and the tree that they make."""

    size: ClassVar[int] = 224

    def __init__(self, widths: tuple[int, ...] = WIDTHS) -> None:
        super().__init__()
        self.channels = tuple(len(TREE) * width for width in widths)
        self.stages = nn.ModuleList(Stage(i, o) for i, o in zip((3, *self.channels), widths, strict=False))
        self.decide = nn.Conv2d(self.channels[-1], len(TREE), 1, groups=len(TREE))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def grade(self, rgb: Float[Tensor, "b 3 s s"], lesions: Float[Tensor, "b 4 s s"]) -> GradingOutput:
        """Ask every node and go down the tree; the lesion maps are not looked at. `extra` has the nodes' logits."""
        x, features = normalise_imagenet(rgb), []
        for number, stage in enumerate(self.stages):
            x = stage(x if number == 0 else F.max_pool2d(x, 2))
            features.append(x)
        nodes = self.decide(x.mean(dim=(2, 3), keepdim=True)).flatten(1).float()
        return GradingOutput(tree_log_probabilities(nodes), tuple(features), (nodes,))

    def loss(self, graded: GradingOutput, labels: GradeLabels) -> Float[Tensor, ""]:
        """Each node's binary cross-entropy over the graded photographs that belong below it, summed."""
        (nodes,) = graded.extra
        loss = nodes.new_zeros(())
        for logit, (zero, one) in zip(nodes.unbind(dim=1), TREE, strict=True):
            right = torch.isin(labels.grade, labels.grade.new_tensor(one))
            below = labels.known & (right | torch.isin(labels.grade, labels.grade.new_tensor(zero)))
            each = F.binary_cross_entropy_with_logits(logit, right.to(logit.dtype), reduction="none")
            if labels.class_weights is not None:
                each = each * labels.class_weights[labels.grade.clamp(0, 4).long()]
            loss = loss + masked_mean(each, below, labels.all_reduce)
        return loss


def tree_log_probabilities(nodes: Float[Tensor, "b n"]) -> Float[Tensor, "b 5"]:
    """Log-probabilities of the grades: sums, along the way to each, of the nodes' log-decisions."""
    log_one, log_zero = F.logsigmoid(nodes), F.logsigmoid(-nodes)
    grades = []
    for grade in sorted({grade for node in TREE for side in node for grade in side}):
        steps = [
            (log_one if grade in one else log_zero)[:, number]
            for number, (zero, one) in enumerate(TREE)
            if grade in zero or grade in one
        ]
        grades.append(torch.stack(steps).sum(dim=0))
    return torch.stack(grades, dim=1)
