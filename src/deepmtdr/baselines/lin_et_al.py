"""Lin et al., a lesion detector and a grading network that uses its maps. Tables I and II.

Z. Lin et al., "A Framework for Identifying Diabetic Retinopathy Based on Anti-Noise Detection and Attention-Based
Fusion", MICCAI 2018.

Published: a lesion detector that finds samples which its annotators missed, to reduce their influence; and a network
that learns how to weight photograph and lesion maps, differently for each grade. Layers, sizes and formulas were not
available, so this follows the description.

Assumed for the detector: patches of 8 px, classified into the lesion types and the background by four levels of two
conv3x3 each; the label of a patch for a lesion type is the maximum of the mask over its pixels; patches with and
without a lesion have the weights 1 : 3, as if sampled; a patch without annotation whose lesion probability is above
`MISSED_LESION_THRESHOLD` is weighted by 1 minus that probability. It learns from masks instead of boxes.

Assumed for the fusion: 512 px; ResNet-18 for the photograph and five residual blocks for the maps; for each grade a
softmax over the two sources, which weights their logits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from deepmtdr.baselines.resnet18 import ResNet18
from deepmtdr.baselines.rgb_grader import RGBGrader
from deepmtdr.baselines.u_net import DoubleConv
from deepmtdr.labels import DIABETIC_RETINOPATHY, LabelSet
from deepmtdr.losses import LesionLabels, LossWeights
from deepmtdr.model.grading import BasicBlock
from deepmtdr.model.interfaces import DEFAULT_WEIGHTS, GradingOutput, Segmenter
from deepmtdr.model.segmentation import init_background_prior

PATCH = 8
"""Side of a patch, px."""
MISSED_LESION_THRESHOLD = 0.5
"""Probability of any lesion above which a patch without annotation counts as missed."""
BACKGROUND_WEIGHT = 3.0
"""Weight of the patches without a lesion; patches with a lesion have the weight 1."""
PRIOR = 0.05
"""Probability of any lesion in an untrained detector: so low that no patch counts as missed yet."""
DETECTOR_WIDTHS = (64, 128, 256, 512)
LESION_WIDTHS = (16, 32, 64, 128, 256)
EPSILON = 1e-6


class AntiNoiseDetector(Segmenter):
    """Classifies every patch of the frame; all pixels of a patch get its probabilities."""

    def __init__(
        self, labels: LabelSet = DIABETIC_RETINOPATHY, widths: tuple[int, int, int, int] = DETECTOR_WIDTHS
    ) -> None:
        super().__init__()
        self.levels = nn.ModuleList(DoubleConv(i, o) for i, o in zip((3, *widths), widths, strict=False))
        self.score = nn.Conv2d(widths[-1], len(labels.lesions) + 1, 1)
        init_background_prior([self.score], prior=PRIOR)

    def forward(self, network_input: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b k h w"]:
        """Detect lesions.

        Raises:
            ValueError: if h or w is no multiple of the patch.
        """
        height, width = network_input.shape[-2:]
        if height % PATCH or width % PATCH:
            raise ValueError(f"lesion detector: frame of {height}x{width} px, expected multiples of {PATCH}")
        x = network_input
        for number, level in enumerate(self.levels):
            x = level(x if number == 0 else F.max_pool2d(x, 2))
        scores = self.score(x).float().softmax(dim=1)
        return scores.repeat_interleave(PATCH, dim=2).repeat_interleave(PATCH, dim=3)

    def loss(
        self, classes: Float[Tensor, "b k h w"], labels: LesionLabels, weights: LossWeights = DEFAULT_WEIGHTS
    ) -> Float[Tensor, ""]:
        """Cross-entropy over the patches: annotated lesions, and background that was probably not missed.

        The background is known only where all types are annotated. Patches with an ignored pixel do not count. Union
        labels (interpretation R32) are not used: a patch of the authors has one type.
        """
        masks, annotated, total = labels.masks, labels.annotated, labels.all_reduce
        surprise = -classes[..., ::PATCH, ::PATCH].float().clamp_min(EPSILON).log()
        target = F.max_pool2d(masks * annotated[:, :, None, None], PATCH)
        target = target / target.sum(dim=1, keepdim=True).clamp_min(1)
        background = (1 - target.sum(dim=1)) * annotated.all(dim=1)[:, None, None]
        if labels.ignored is not None:
            counted = 1 - F.max_pool2d(labels.ignored.to(target.dtype), PATCH)
            target, background = target * counted, background * counted[:, 0]
        lesion = 1 - classes[:, -1, ::PATCH, ::PATCH].detach().float()
        trust = torch.where(lesion > MISSED_LESION_THRESHOLD, 1 - lesion, 1.0)
        present = total((surprise[:, :-1] * target).sum()) / total(target.sum()).clamp_min(1)
        absent = total((surprise[:, -1] * background * trust).sum()) / total(background.sum()).clamp_min(1)
        return (present + BACKGROUND_WEIGHT * absent) / (1 + BACKGROUND_WEIGHT)


class AttentionFusion(RGBGrader):
    """Grades from the photograph and from the lesion maps; attention weights the two for each grade."""

    size: ClassVar[int] = 512
    uses_lesion_maps: ClassVar[bool] = True

    def __init__(self, labels: LabelSet = DIABETIC_RETINOPATHY) -> None:
        super().__init__()
        widths, grades = LESION_WIDTHS, len(labels.grades)
        self.photograph = ResNet18(labels)
        self.lesions = nn.Sequential(
            *(BasicBlock(i, o, 2) for i, o in zip((len(labels.lesions), *widths), widths, strict=False))
        )
        self.by_lesions = nn.Linear(widths[-1], grades)
        self.attention = nn.Linear(self.photograph.channels[-1] + widths[-1], 2 * grades)
        self.channels = self.photograph.channels

    def grade(self, rgb: Float[Tensor, "b 3 s s"], lesions: Float[Tensor, "b l s s"]) -> GradingOutput:
        """Grade by both; the features are those of the photograph. `extra` has the attention, b x 2 x grades."""
        photograph = self.photograph.grade(rgb, lesions)
        maps = self.lesions(lesions).mean(dim=(2, 3))
        both = torch.cat([photograph.features[-1].mean(dim=(2, 3)), maps], dim=1)
        attention = self.attention(both).float().unflatten(1, (2, -1)).softmax(dim=1)
        logits = torch.stack([photograph.logits, self.by_lesions(maps)], dim=1).float()
        return GradingOutput((attention * logits).sum(dim=1), photograph.features, (attention,))

    def load_imagenet(self, state: Mapping[str, Tensor]) -> None:
        """Copy published weights of ResNet-18 into the photograph's network; its last layer keeps its values."""
        self.photograph.load_imagenet(state)
