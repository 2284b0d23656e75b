"""The DR grading subnet: ResNet-18 with spatial pyramid pooling, on image and lesion maps (Sec. IV-A, Fig. 6)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from deepmtdr.terms import Grade, Lesion

STRIDES = (2, 4, 8, 16, 32)
"""Of the five taps that feed GMSV: the stem and the four residual stages (Fig. 6)."""
LESION_GAIN = 4.0
"""Of the lesion maps on their way in (reading R23): sparse as they are, they drown beside the image's contrast."""
PYRAMID = (4, 2, 1)
"""SPP levels: 16 + 4 + 1 = 21 cells."""


@dataclass(frozen=True, kw_only=True)
class GradingConfig:
    """Size of the grading subnet."""

    width: int = 64
    """Channels of the stem and the first stage; they double at each further stage (ResNet-18: 64)."""
    hidden: int = 512
    """Units of the fully connected layer behind the pyramid (the authors' 512)."""
    dropout: float = 0.5
    """Share of the hidden units dropped in training (the authors' 0.5)."""


class GradingOutput(NamedTuple):
    """What the grading subnet says, and from what."""

    logits: Float[Tensor, "b 5"]
    """With a mean of 0: softmax leaves a common constant free."""
    features: tuple[Float[Tensor, "b _ _ _"], ...]
    """The five taps, fine to coarse, strides 2, 4, 8, 16, 32."""


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut (He et al. 2016), under the field's usual parameter names."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.stride = stride
        self.downsample = None
        if stride != 1 or channels_in != channels_out:
            # Every stride-th pixel is taken before, not by the convolution: with fewer than 16 channels, channels-last,
            # the CPU kernel of a strided 1x1 convolution writes past its gradient's end (torch 2.13, AVX-512).
            shortcut = nn.Conv2d(channels_in, channels_out, 1, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(channels_out))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d H W"]:
        """The residual block."""
        shortcut = x if self.downsample is None else self.downsample(x[..., :: self.stride, :: self.stride])
        x = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(x)) + shortcut)


def _stage(channels_in: int, channels_out: int, stride: int) -> nn.Sequential:
    return nn.Sequential(BasicBlock(channels_in, channels_out, stride), BasicBlock(channels_out, channels_out, 1))


def spatial_pyramid_pooling(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c*21"]:
    """SPP of 4x4, 2x2 and 1x1 cells by maximum (He et al. 2015): one length whatever the size of the frame."""
    return torch.cat([F.adaptive_max_pool2d(x, level).flatten(1) for level in PYRAMID], dim=1)


class GradingSubnet(nn.Module):
    """ResNet-18 from 7 channels (RGB + MA, HE, EX, SE), SPP, one hidden layer, five grades.

    Parameter names are those of the field's ResNet-18 state-dict (`conv1`, `bn1`, `layer1.0.conv1`, ...), so that
    published ImageNet weights load by `load_imagenet`; `fc` is replaced by `spp_fc` and `classifier`.
    """

    def __init__(self, config: GradingConfig | None = None) -> None:
        super().__init__()
        config = config or GradingConfig()
        width = config.width
        self.conv1 = nn.Conv2d(3 + len(Lesion), width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = _stage(width, width, 1)
        self.layer2 = _stage(width, 2 * width, 2)
        self.layer3 = _stage(2 * width, 4 * width, 2)
        self.layer4 = _stage(4 * width, 8 * width, 2)
        self.spp_fc = nn.Linear(8 * width * sum(level**2 for level in PYRAMID), config.hidden)
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(config.hidden, len(Grade))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of the five taps."""
        width = self.bn1.num_features
        return (width, width, 2 * width, 4 * width, 8 * width)

    def forward(self, frame: Float[Tensor, "b 3 h w"], lesions: Float[Tensor, "b 4 h w"]) -> GradingOutput:
        """Grade.

        Args:
            frame: super-resolved or HR images as the subnet sees them (`local_contrast`).
            lesions: probabilities of the four lesion types in the same frame.

        Returns:
            Logits of the grades 0-4 and the five taps.
        """
        stem = F.relu(self.bn1(self.conv1(torch.cat([frame, LESION_GAIN * lesions.to(frame.dtype)], dim=1))))
        stage1 = self.layer1(F.max_pool2d(stem, 3, stride=2, padding=1))
        stage2 = self.layer2(stage1)
        stage3 = self.layer3(stage2)
        stage4 = self.layer4(stage3)
        hidden = F.relu(self.spp_fc(spatial_pyramid_pooling(stage4)))
        logits = self.classifier(self.dropout(hidden)).float()
        logits = logits - logits.mean(dim=1, keepdim=True)  # y_DR, a sum of them, must not hang on a free constant (R5)
        return GradingOutput(logits, (stem, stage1, stage2, stage3, stage4))

    def load_imagenet(self, state: Mapping[str, Tensor]) -> None:
        """Take over a published ResNet-18's weights; the stem's RGB part takes `conv1`, its lesion part stays.

        Args:
            state: the usual state-dict of an ImageNet ResNet-18; `fc.*` is left aside.

        Raises:
            ValueError: if a tensor is missing or has another shape.
        """
        own = {k: v for k, v in self.state_dict().items() if not k.startswith(("spp_fc", "classifier"))}
        own["conv1.weight"] = own["conv1.weight"][:, :3]
        for name, target in own.items():  # all are checked before the first is taken over
            if name not in state and not name.endswith("num_batches_tracked"):
                raise ValueError(f"ImageNet weights: {name} is missing, expected a ResNet-18 state-dict")
            shape = tuple(state.get(name, target).shape)
            if shape != target.shape:
                raise ValueError(f"ImageNet weights: {name} is {shape}, expected {tuple(target.shape)}")
        for name, target in own.items():
            target.copy_(state.get(name, target))


def dr_score(grade_logits: Float[Tensor, "b 5"]) -> Float[Tensor, " b"]:
    """y_DR, the positive DR score: the sum of the logits of grades 1-4 (footnote 2, reading R5)."""
    return grade_logits[:, Grade.MILD :].sum(dim=1)
