"""Inception-v3 (Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", CVPR 2016). Table I.

Table II names a GoogLeNet, without a separate reference.

Published: 299 px, factorised convolutions in eleven mixed blocks, batch norm everywhere, an auxiliary classifier on the
17x17 grid, labels smoothed by 0.1; 27.16 million parameters with 1,000 classes and the auxiliary classifier, 23.83
without ("less than 25 million").

Assumed, from the authors' released training code: the auxiliary loss has the weight 0.4; a fifth of the last features
is dropped. The auxiliary classifier is used in training mode only, so not in the joint stage, whose batch norms are
frozen. Parameter names are those of the published ImageNet state-dict, which expects RGB in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from deepmtdr.baselines.rgb_grader import RGBGrader, cross_entropy
from deepmtdr.labels import DIABETIC_RETINOPATHY, LabelSet
from deepmtdr.losses import GradeLabels
from deepmtdr.model.interfaces import GradingOutput, load_pretrained
from deepmtdr.model.preprocessing import to_signed

AUXILIARY = 0.4
"""Weight of the auxiliary classifier's loss."""
SMOOTHING = 0.1
"""Share of a label that is spread over all grades."""

Step = tuple[str, int, tuple[int, int]]
"""A convolution: the end of its name, channels, kernel."""
Branch = tuple[Step, ...]
"""Convolutions in sequence; one whose name ends with `TWIN` has the same input as the next."""
TWIN = "a"

DOT, ROW3, COLUMN3, ROW7, COLUMN7 = (1, 1), (1, 3), (3, 1), (1, 7), (7, 1)
SQUARE3, SQUARE5 = (3, 3), (5, 5)


def _grid_35(pool: int) -> tuple[Branch, ...]:
    """Figure 5 of the Inception-v3 paper; the last branch begins with pooling."""
    return (
        (("1x1", 64, DOT),),
        (("5x5_1", 48, DOT), ("5x5_2", 64, SQUARE5)),
        (("3x3dbl_1", 64, DOT), ("3x3dbl_2", 96, SQUARE3), ("3x3dbl_3", 96, SQUARE3)),
        (("_pool", pool, DOT),),
    )


def _grid_17(width: int) -> tuple[Branch, ...]:
    """Figure 6 of the Inception-v3 paper."""
    return (
        (("1x1", 192, DOT),),
        (("7x7_1", width, DOT), ("7x7_2", width, ROW7), ("7x7_3", 192, COLUMN7)),
        (
            ("7x7dbl_1", width, DOT),
            ("7x7dbl_2", width, COLUMN7),
            ("7x7dbl_3", width, ROW7),
            ("7x7dbl_4", width, COLUMN7),
            ("7x7dbl_5", 192, ROW7),
        ),
        (("_pool", 192, DOT),),
    )


GRID_8: tuple[Branch, ...] = (
    (("1x1", 320, DOT),),
    (("3x3_1", 384, DOT), ("3x3_2a", 384, ROW3), ("3x3_2b", 384, COLUMN3)),
    (("3x3dbl_1", 448, DOT), ("3x3dbl_2", 384, SQUARE3), ("3x3dbl_3a", 384, ROW3), ("3x3dbl_3b", 384, COLUMN3)),
    (("_pool", 192, DOT),),
)
"""Figure 7 of the Inception-v3 paper."""
TO_17: tuple[Branch, ...] = (
    (("3x3", 384, SQUARE3),),
    (("3x3dbl_1", 64, DOT), ("3x3dbl_2", 96, SQUARE3), ("3x3dbl_3", 96, SQUARE3)),
    (),
)
TO_8: tuple[Branch, ...] = (
    (("3x3_1", 192, DOT), ("3x3_2", 320, SQUARE3)),
    (("7x7x3_1", 192, DOT), ("7x7x3_2", 192, ROW7), ("7x7x3_3", 192, COLUMN7), ("7x7x3_4", 192, SQUARE3)),
    (),
)
"""Figure 10 of the Inception-v3 paper: the last convolution of each branch halves the grid; the last branch is a
pooling.
"""

MIXED: dict[str, tuple[Branch, ...]] = {
    "Mixed_5b": _grid_35(32),
    "Mixed_5c": _grid_35(64),
    "Mixed_5d": _grid_35(64),
    "Mixed_6a": TO_17,
    "Mixed_6b": _grid_17(128),
    "Mixed_6c": _grid_17(160),
    "Mixed_6d": _grid_17(160),
    "Mixed_6e": _grid_17(192),
    "Mixed_7a": TO_8,
    "Mixed_7b": GRID_8,
    "Mixed_7c": GRID_8,
}
TAPPED = ("Mixed_5d", "Mixed_6e", "Mixed_7c")
"""The last blocks of the grids of 35, 17 and 8, whose outputs are features."""
AUXILIARY_ON = "Mixed_6e"


class Conv(nn.Module):
    """Convolution, batch norm, ReLU."""

    def __init__(
        self, channels_in: int, channels_out: int, kernel: tuple[int, int], stride: int = 1, *, padded: bool = False
    ) -> None:
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2) if padded else 0
        self.conv = nn.Conv2d(channels_in, channels_out, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(channels_out, eps=0.001)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d H W"]:
        """Apply the layer."""
        return F.relu(self.bn(self.conv(x)))


class Mixed(nn.Module):
    """Branches side by side; their outputs are concatenated."""

    def __init__(self, channels_in: int, branches: tuple[Branch, ...]) -> None:
        super().__init__()
        self.halves = not branches[-1]
        self.branches = [[f"branch{name}" for name, _, _ in branch] for branch in branches]
        self.channels = 0
        for branch in branches:
            width = channels_in
            for n, (name, channels, kernel) in enumerate(branch, 1):
                stride = 2 if self.halves and n == len(branch) else 1
                self.add_module(f"branch{name}", Conv(width, channels, kernel, stride, padded=stride == 1))
                if name.endswith(TWIN):
                    self.channels += channels
                else:
                    width = channels
            self.channels += width

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d H W"]:
        """Apply all branches, the last one to the pooled input."""
        pooled = F.max_pool2d(x, 3, stride=2) if self.halves else F.avg_pool2d(x, 3, stride=1, padding=1)
        ends = []
        for y, branch in zip([x] * (len(self.branches) - 1) + [pooled], self.branches, strict=True):
            for name in branch:
                conv = self.get_submodule(name)
                if name.endswith(TWIN):
                    ends.append(conv(y))
                else:
                    y = conv(y)
            ends.append(y)
        return torch.cat(ends, dim=1)


class AuxiliaryClassifier(nn.Module):
    """Grades from the 17x17 grid, so that the lower layers get gradients over a shorter path."""

    def __init__(self, channels_in: int, grades: int) -> None:
        super().__init__()
        self.conv0 = Conv(channels_in, 128, DOT)
        self.conv1 = Conv(128, 768, SQUARE5)
        self.fc = nn.Linear(768, grades)

    def forward(self, x: Float[Tensor, "b d 17 17"]) -> Float[Tensor, "b c"]:
        """Compute logits: from 17x17 to 5x5, to one cell, to the grades."""
        return self.fc(self.conv1(self.conv0(F.avg_pool2d(x, 5, stride=3))).flatten(1))


class InceptionV3(RGBGrader):
    """A stem, eleven mixed blocks on grids of 35, 17 and 8; global average pooling; one linear layer."""

    published_parameters: ClassVar[float | None] = 27.16
    size: ClassVar[int] = 299

    def __init__(self, labels: LabelSet = DIABETIC_RETINOPATHY) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = Conv(3, 32, SQUARE3, 2)
        self.Conv2d_2a_3x3 = Conv(32, 32, SQUARE3)
        self.Conv2d_2b_3x3 = Conv(32, 64, SQUARE3, padded=True)
        self.Conv2d_3b_1x1 = Conv(64, 80, DOT)
        self.Conv2d_4a_3x3 = Conv(80, 192, SQUARE3)
        width, widths = 192, {}
        for name, branches in MIXED.items():
            block = Mixed(width, branches)
            self.add_module(name, block)
            width = widths[name] = block.channels
        self.AuxLogits = AuxiliaryClassifier(widths[AUXILIARY_ON], len(labels.grades))
        self.dropout = nn.Dropout(0.2)
        self.fc = nn.Linear(width, len(labels.grades))
        self.channels = (64, 192, *(widths[name] for name in TAPPED))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)

    def extract_features(self, rgb: Float[Tensor, "b 3 h w"]) -> dict[str, Float[Tensor, "b _ _ _"]]:
        """Two layers of the stem and the last block of each grid: strides 2, 4, 8, 16, 32."""
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(to_signed(rgb))))
        features = {"Conv2d_2b_3x3": x}
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(F.max_pool2d(x, 3, stride=2)))
        features["Conv2d_4a_3x3"] = x
        x = F.max_pool2d(x, 3, stride=2)
        for name in MIXED:
            x = self.get_submodule(name)(x)
            if name in TAPPED:
                features[name] = x
        return features

    def grade(self, rgb: Float[Tensor, "b 3 s s"], lesions: Float[Tensor, "b l s s"]) -> GradingOutput:
        """Grade the image without the lesion maps; `extra` has the auxiliary logits in training mode."""
        features = self.extract_features(rgb)
        auxiliary = (self.AuxLogits(features[AUXILIARY_ON]),) if self.training else ()
        logits = self.fc(self.dropout(features[TAPPED[-1]].mean(dim=(2, 3))))
        return GradingOutput(logits, tuple(features.values()), auxiliary)

    def loss(self, graded: GradingOutput, labels: GradeLabels) -> Float[Tensor, ""]:
        """Cross-entropy with smoothed labels, plus 0.4 times that of the auxiliary classifier."""
        weighted = zip((1.0, AUXILIARY), (graded.logits, *graded.extra), strict=False)
        each = (weight * cross_entropy(logits, labels, smoothing=SMOOTHING) for weight, logits in weighted)
        return torch.stack(list(each)).sum()

    def load_imagenet(self, state: Mapping[str, Tensor]) -> None:
        """Copy published weights; the two last layers keep their values."""
        load_pretrained(self, state, skip_prefixes=("fc.", "AuxLogits.fc."))
