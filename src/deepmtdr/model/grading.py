"""The DR grading subnet: ResNet-18 with spatial pyramid pooling, on image and lesion maps (Sec. IV-A, Fig. 6)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from deepmtdr.grading_losses import grade_loss
from deepmtdr.labels import DIABETIC_RETINOPATHY, LabelSet
from deepmtdr.losses import GradeLabels
from deepmtdr.model.interfaces import Grader, GradingOutput, find_wrong_sizes, load_pretrained
from deepmtdr.model.preprocessing import local_contrast

STRIDES = (2, 4, 8, 16, 32)
"""Strides of the five features that feed GMSV: the stem and the four residual stages (Fig. 6)."""
LESION_GAIN = 4.0
"""Factor of the lesion maps at the input (interpretation R23): they are sparse, and weak compared with the image."""
PYRAMID = (4, 2, 1)
"""Cells per side at each level of the pyramid: 16 + 4 + 1 = 21 cells."""
HEAD_INPUTS = 256
"""A step of AdamW changes the hidden units as if their layer had this many inputs (interpretation R26)."""


@dataclass(frozen=True, kw_only=True)
class GradingConfig:
    """Size of the grading subnet."""

    width: int = 64
    """Channels of the stem and the first stage; doubled at each further stage (ResNet-18: 64)."""
    hidden: int = 512
    """Units of the fully connected layer after the pyramid (the authors' 512)."""
    dropout: float = 0.5
    """Share of the hidden units dropped in training (the authors' 0.5)."""
    head_norm: bool = True
    """Whether the pooled vector is normalised (LayerNorm) and scaled before the hidden layer (interpretation R26)."""

    def problems(self) -> Iterator[str]:
        """Describe each setting that is out of range, and what was expected."""
        yield from find_wrong_sizes(width=self.width, hidden=self.hidden)
        if not 0 <= self.dropout <= 1:
            yield f"dropout = {self.dropout}, expected a share from 0 to 1"


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut (He et al. 2016), under the usual parameter names."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.stride = stride
        self.downsample = None
        if stride != 1 or channels_in != channels_out:
            # Every stride-th pixel is taken before the convolution, not by it: with fewer than 16 channels in
            # channels-last order, the CPU kernel of a strided 1x1 convolution writes past the end of its gradient
            # (torch 2.13, AVX-512).
            shortcut = nn.Conv2d(channels_in, channels_out, 1, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(channels_out))

    def forward(self, x: Float[Tensor, "b d h w"]) -> Float[Tensor, "b e H W"]:
        """Apply the residual block."""
        shortcut = x if self.downsample is None else self.downsample(x[..., :: self.stride, :: self.stride])
        x = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(x)) + shortcut)


def _stage(channels_in: int, channels_out: int, stride: int) -> nn.Sequential:
    return nn.Sequential(BasicBlock(channels_in, channels_out, stride), BasicBlock(channels_out, channels_out, 1))


def spatial_pyramid_pooling(x: Float[Tensor, "b d h w"]) -> Float[Tensor, "b d*21"]:
    """Pool to 4x4, 2x2 and 1x1 cells by maximum (SPP, He et al. 2015): a fixed length for any size of the frame."""
    return torch.cat([F.adaptive_max_pool2d(x, level).flatten(1) for level in PYRAMID], dim=1)


class GradingSubnet(Grader):
    """ResNet-18 on RGB and the lesion maps, then SPP, one hidden layer and the grades.

    Parameter names are those of the usual ResNet-18 state-dict (`conv1`, `bn1`, `layer1.0.conv1`, ...), so that
    published ImageNet weights load by `load_imagenet`; `head_norm`, `spp_fc` and `classifier` replace `fc`.
    """

    preprocess = staticmethod(local_contrast)
    uses_lesion_maps: ClassVar[bool] = True

    def __init__(self, labels: LabelSet = DIABETIC_RETINOPATHY, config: GradingConfig | None = None) -> None:
        super().__init__()
        config = config or GradingConfig()
        width = config.width
        self.channels = (width, width, 2 * width, 4 * width, 8 * width)
        self.conv1 = nn.Conv2d(3 + len(labels.lesions), width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = _stage(width, width, 1)
        self.layer2 = _stage(width, 2 * width, 2)
        self.layer3 = _stage(2 * width, 4 * width, 2)
        self.layer4 = _stage(4 * width, 8 * width, 2)
        pooled = 8 * width * sum(level**2 for level in PYRAMID)
        self.head_norm = nn.LayerNorm(pooled) if config.head_norm else nn.Identity()
        self.head_gain = min(HEAD_INPUTS / pooled, 1.0) if config.head_norm else 1.0
        self.spp_fc = nn.Linear(pooled, config.hidden)
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(config.hidden, len(labels.grades))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        with torch.no_grad():
            # AdamW moves every weight by the learning rate, whatever its size. With thousands of inputs a single step
            # would switch hidden units off for good. Smaller inputs and larger weights leave the outputs as they are.
            self.spp_fc.weight /= self.head_gain

    def forward(self, network_input: Float[Tensor, "b 3 h w"], lesions: Float[Tensor, "b l h w"]) -> GradingOutput:
        """Grade.

        Args:
            network_input: local contrast of SR or HR images.
            lesions: probabilities of the lesion types in the same frame.

        Returns:
            Logits of the grades, five features with strides 2, 4, 8, 16, 32, and the hidden units.
        """
        maps = LESION_GAIN * lesions.to(network_input.dtype)
        stem = F.relu(self.bn1(self.conv1(torch.cat([network_input, maps], dim=1))))
        stage1 = self.layer1(F.max_pool2d(stem, 3, stride=2, padding=1))
        stage2 = self.layer2(stage1)
        stage3 = self.layer3(stage2)
        stage4 = self.layer4(stage3)
        hidden = F.relu(self.spp_fc(self.head_gain * self.head_norm(spatial_pyramid_pooling(stage4))))
        logits = self._classify(self.dropout(hidden))
        return GradingOutput(logits, (stem, stage1, stage2, stage3, stage4), hidden=hidden)

    def _classify(self, hidden: Float[Tensor, "b d"]) -> Float[Tensor, "b c"]:
        logits = self.classifier(hidden).float()
        return logits - logits.mean(dim=1, keepdim=True)  # y_DR must not depend on a free constant (R5)

    def training_logits(self, graded: GradingOutput) -> Float[Tensor, "b c"]:
        """Compute the logits from the hidden units with dropout."""
        assert graded.hidden is not None
        return self._classify(F.dropout(graded.hidden, self.dropout.p))

    def loss(self, graded: GradingOutput, labels: GradeLabels) -> Float[Tensor, ""]:
        """Compute the grading loss in the form that the labels name."""
        return grade_loss(graded.logits, labels)

    def load_imagenet(self, state: Mapping[str, Tensor]) -> None:
        """Copy the weights of a published ResNet-18; the lesion channels of the stem keep their values.

        Args:
            state: the usual state-dict of an ImageNet ResNet-18; `fc.*` is not used.

        Raises:
            ValueError: if a tensor is missing or has another shape.
        """
        load_pretrained(self, state, skip_prefixes=("head_norm", "spp_fc", "classifier"), rgb_stem="conv1.weight")


def dr_score(grade_logits: Float[Tensor, "b c"]) -> Float[Tensor, " b"]:
    """y_DR, the positive DR score: the sum of the logits of all grades but 0 (footnote 2, interpretation R5)."""
    return grade_logits[:, 1:].sum(dim=1)
