"""MMCNN, multi-cell and multi-task: a deeper network for larger images. Tables I and II.

Zhou et al., "Multi-Cell Multi-Task Convolutional Neural Networks for Diabetic Retinopathy Grading", EMBC 2018.

Published: the depth of the network and the size of its input grow together, by one cell for each larger size (224, 448,
720 px), in an Inception-ResNet; the grade is learned as a class and as a number at the same time. Its layer table and
parameter count were not available, so this follows the description.

Assumed: M-Net's Inception-ResNet-v2 at 224 px. A cell is a 3x3 max pooling of stride 2 and an Inception-ResNet-C block
before the last one, so that the last grid stays 5 to 6 cells wide; before training a cell is only the pooling. The
network takes the largest of the three sizes that the frame fills, so that a recipe with smaller frames first
(`grading.small`) starts with a shallower network. Cross-entropy and squared error have the same weight; the class is
the prediction.
"""

from __future__ import annotations

from collections.abc import Mapping

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from deepmtdr.baselines.m_net import BLOCKS, DROPOUT, MNet, block_c
from deepmtdr.baselines.rgb_grader import RGBGrader, cross_entropy
from deepmtdr.labels import DIABETIC_RETINOPATHY, LabelSet
from deepmtdr.losses import GradeLabels
from deepmtdr.model.interfaces import GradingOutput
from deepmtdr.model.preprocessing import resize_frame, to_signed

SIZES = (224, 448, 720)


class MMCNN(RGBGrader):
    """Inception-ResNet-v2, one cell deeper at each larger size, with a class and a number as outputs."""

    def __init__(
        self,
        labels: LabelSet = DIABETIC_RETINOPATHY,
        blocks: tuple[int, int, int] = BLOCKS,
        sizes: tuple[int, ...] = SIZES,
    ) -> None:
        """Build the network.

        Args:
            labels: the label set, which has the grades.
            blocks: number of blocks of the three stages of Inception-ResNet-v2.
            sizes: sides of the input in px, ascending, at least 75; each after the first adds a cell.
        """
        super().__init__()
        self.sizes = sizes
        self.base = MNet(labels, blocks)
        self.cells = nn.ModuleList(block_c() for _ in sizes[1:])
        self.regressor = nn.Linear(self.base.last_linear.in_features, 1)
        self.channels = (64, 320, 1088, 2080, 1536)
        for cell in self.cells:
            nn.init.zeros_(cell.get_parameter("conv2d.weight"))
            nn.init.zeros_(cell.get_parameter("conv2d.bias"))

    @property
    def native_sizes(self) -> tuple[int, ...]:
        """Sides to which the input can be resized: `sizes`."""
        return self.sizes

    def count_cells(self, side: int) -> int:
        """Count the cells for a frame of this side in px."""
        return sum(side >= size for size in self.sizes[1:])

    def grade(self, rgb: Float[Tensor, "b 3 s s"], lesions: Float[Tensor, "b l s s"]) -> GradingOutput:
        """Grade the image without the lesion maps; `extra` has the grade as a number."""
        base, cells = self.base, self.count_cells(rgb.shape[-1])
        stem = base.conv2d_2b(base.conv2d_2a(base.conv2d_1a(to_signed(resize_frame(rgb, self.sizes[cells])))))
        fourth = base.conv2d_4a(base.conv2d_3b(F.max_pool2d(stem, 3, stride=2)))
        eighth = base.repeat(base.mixed_5b(F.max_pool2d(fourth, 3, stride=2)))
        sixteenth = base.repeat_1(base.mixed_6a(eighth))
        x = coarse = base.repeat_2(base.mixed_7a(sixteenth))
        for cell in self.cells[:cells]:
            x = cell(F.max_pool2d(x, 3, stride=2, padding=1))
        last = base.conv2d_7b(base.block8(x))
        pooled = F.dropout(last.mean(dim=(2, 3)), DROPOUT, self.training)
        number = self.regressor(pooled).float().squeeze(1)
        return GradingOutput(base.last_linear(pooled), (stem, eighth, sixteenth, coarse, last), (number,))

    def loss(self, graded: GradingOutput, labels: GradeLabels) -> Float[Tensor, ""]:
        """Cross-entropy of the class plus squared error of the number, over the graded photographs."""
        (number,) = graded.extra
        return cross_entropy(graded.logits, labels) + labels.mean((number - labels.grade).square())

    def load_imagenet(self, state: Mapping[str, Tensor]) -> None:
        """Copy published weights of Inception-ResNet-v2; the cells and the outputs keep their values."""
        self.base.load_imagenet(state)
