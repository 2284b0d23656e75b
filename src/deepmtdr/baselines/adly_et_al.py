"""Adly et al., a binary tree of CNNs. Tables I and II.

M. M. Adly, A. S. Ghoneim, A. A. Youssif, "On the Grading of Diabetic Retinopathies Using a Binary-Tree-Based Multiclass
Classifier of CNNs", IJCSIS 17(1), 2019.

Published: a binary tree whose nodes are CNNs separates the five grades. Its layers, sizes and tree were not available,
so this follows the description.

Assumed: the tree of `build_tree`, 224 px, and VGG-like nodes of five stages, each two conv3x3 with 32 to 512 channels,
averaged to one logit. Group norm, so that the photographs of a batch do not influence each other: a node learns only
from the grades below it. The probability of a grade is the product of the decisions on the path to it.

The nodes share no parameters and no statistics, so training them at the same time, each by its own loss, gives the same
steps as training them one after another (except for a common gradient clipping and number of steps). They are computed
as the groups of grouped convolutions.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from deepmtdr.baselines.rgb_grader import RGBGrader
from deepmtdr.labels import DIABETIC_RETINOPATHY, LabelSet
from deepmtdr.losses import GradeLabels, masked_mean
from deepmtdr.model.interfaces import GradingOutput
from deepmtdr.model.preprocessing import normalise_imagenet

Node = tuple[tuple[int, ...], tuple[int, ...]]
"""The grades that a node separates: the grades of decision 0, and the grades of decision 1."""

WIDTHS = (32, 64, 128, 256, 512)
"""Number of channels of the stages of a node."""
NORM_GROUP = 16
"""Largest number of channels that are normalised together."""


def build_tree(grades: int) -> tuple[Node, ...]:
    """Make the nodes of the tree for grades 0 to `grades` - 1.

    First grade 0 against all other grades, then the highest grade against those between, then each grade against the
    higher grades. For five grades: any retinopathy, proliferative, more than mild, severe.
    """
    highest = grades - 1
    tree: list[Node] = [((0,), tuple(range(1, grades)))]
    if grades > 2:
        tree.append((tuple(range(1, highest)), (highest,)))
    tree += [((grade,), tuple(range(grade + 1, highest))) for grade in range(1, highest - 1)]
    return tuple(tree)


class NodeStage(nn.Sequential):
    """Twice conv3x3, group norm, ReLU, for all nodes. The first stage gives all nodes the same photograph."""

    def __init__(self, channels_in: int, width: int, nodes: int) -> None:
        out = nodes * width
        groups = nodes * max(1, width // NORM_GROUP)
        super().__init__(
            nn.Conv2d(channels_in, out, 3, padding=1, groups=1 if channels_in == 3 else nodes, bias=False),
            nn.GroupNorm(groups, out),
            nn.ReLU(),
            nn.Conv2d(out, out, 3, padding=1, groups=nodes, bias=False),
            nn.GroupNorm(groups, out),
            nn.ReLU(),
        )


class AdlyEtAl(RGBGrader):
    """Binary CNNs at the nodes of a tree: four for five grades."""

    size: ClassVar[int] = 224

    def __init__(self, labels: LabelSet = DIABETIC_RETINOPATHY, widths: tuple[int, ...] = WIDTHS) -> None:
        super().__init__()
        self.tree = build_tree(len(labels.grades))
        nodes = len(self.tree)
        self.channels = tuple(nodes * width for width in widths)
        self.stages = nn.ModuleList(NodeStage(i, o, nodes) for i, o in zip((3, *self.channels), widths, strict=False))
        self.decide = nn.Conv2d(self.channels[-1], nodes, 1, groups=nodes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def grade(self, rgb: Float[Tensor, "b 3 s s"], lesions: Float[Tensor, "b l s s"]) -> GradingOutput:
        """Grade the image without the lesion maps; `extra` has the nodes' logits."""
        x, features = normalise_imagenet(rgb), []
        for number, stage in enumerate(self.stages):
            x = stage(x if number == 0 else F.max_pool2d(x, 2))
            features.append(x)
        nodes = self.decide(x.mean(dim=(2, 3), keepdim=True)).flatten(1).float()
        return GradingOutput(tree_log_probabilities(nodes, self.tree), tuple(features), (nodes,))

    def loss(self, graded: GradingOutput, labels: GradeLabels) -> Float[Tensor, ""]:
        """Sum of the nodes' binary cross-entropies, each over the photographs whose grade is below the node."""
        (nodes,) = graded.extra
        loss = nodes.new_zeros(())
        for logit, (zero, one) in zip(nodes.unbind(dim=1), self.tree, strict=True):
            right = torch.isin(labels.grade, labels.grade.new_tensor(one))
            below = labels.known & (right | torch.isin(labels.grade, labels.grade.new_tensor(zero)))
            each = F.binary_cross_entropy_with_logits(logit, right.to(logit.dtype), reduction="none")
            if labels.class_weights is not None:
                highest = len(labels.class_weights) - 1
                each = each * labels.class_weights[labels.grade.clamp(0, highest).long()]
            loss = loss + masked_mean(each, below, labels.all_reduce)
        return loss


def tree_log_probabilities(nodes: Float[Tensor, "b n"], tree: tuple[Node, ...]) -> Float[Tensor, "b c"]:
    """Compute the log-probability of each grade: the sum of the log-decisions on the path to the grade.

    Args:
        nodes: logits of decision 1 of each node.
        tree: the nodes.
    """
    log_one, log_zero = F.logsigmoid(nodes), F.logsigmoid(-nodes)
    grades = []
    for grade in sorted({grade for node in tree for decision in node for grade in decision}):
        steps = [
            (log_one if grade in one else log_zero)[:, number]
            for number, (zero, one) in enumerate(tree)
            if grade in zero or grade in one
        ]
        grades.append(torch.stack(steps).sum(dim=0))
    return torch.stack(grades, dim=1)
