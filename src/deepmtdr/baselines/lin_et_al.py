"""Lin et al., a lesion detector beside the photograph: both parts, segmentation and grading. Tables I and II.

Z. Lin et al., "A Framework for Identifying Diabetic Retinopathy Based on Anti-Noise Detection and Attention-Based
Fusion", MICCAI 2018. Published: a lesion detector that finds out which samples its annotators missed, to reduce their
impact, and a network that learns weights between photograph and lesion maps, other ones for other grades. Layers, sizes
and formulas were not to be found: after the description. Assumed of the detector: patches of 8 px, scored over four
types and the background by four levels of twice conv3x3; a patch shows a type as much as its most annotated pixel;
patches with and without a lesion count 1 : 3, as if sampled; one without, but held for a lesion with more than
`MISSED_LESION_THRESHOLD`, counts by the doubt that is left. It learns from masks in place of boxes. Assumed of the fusion: 512 px,
ResNet-18 for the photograph, five residual blocks for the maps, and for each grade a softmax over the two sources that
weights their logits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from deepmtdr.baselines.resnet18 import ResNet18
from deepmtdr.baselines.u_net import DoubleConv
from deepmtdr.losses import LesionLabels
from deepmtdr.model.grading import BasicBlock
from deepmtdr.model.interfaces import Grader, GradingOutput, Segmenter
from deepmtdr.model.segmentation import CLASSES
from deepmtdr.terms import Grade, Lesion

PATCH = 8
"""Side of a patch, px."""
MISSED_LESION_THRESHOLD = 0.5
"""Probability of any lesion from which a patch without annotation is taken for one that was missed."""
BACKGROUND_WEIGHT = 3.0
"""Patches without a lesion for each with one."""
PRIOR = 0.05
"""Probability of any lesion with which an untrained detector begins: it must suspect nothing yet."""
DETECTOR_WIDTHS = (64, 128, 256, 512)
LESION_WIDTHS = (16, 32, 64, 128, 256)
EPSILON = 1e-6


class AntiNoiseDetector(Segmenter):
    """Scores every patch of the frame; all pixels of a patch have its score."""

    isr: ClassVar[str] = "MDRN"

    def __init__(self, widths: tuple[int, int, int, int] = DETECTOR_WIDTHS) -> None:
        super().__init__()
        self.levels = nn.ModuleList(DoubleConv(i, o) for i, o in zip((3, *widths), widths, strict=False))
        self.score = nn.Conv2d(widths[-1], CLASSES, 1)
        prior = torch.tensor([PRIOR / len(Lesion)] * len(Lesion) + [1 - PRIOR])
        with torch.no_grad():
            self.score.weight.mul_(0.1)
            self.score.bias.copy_(prior.log())  # pyright: ignore[reportOptionalMemberAccess]

    def forward(self, seen: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 5 h w"]:
        """Detect.

        Raises:
            ValueError: if h or w is no multiple of the patch.
        """
        height, width = seen.shape[-2:]
        if height % PATCH or width % PATCH:
            raise ValueError(f"lesion detector: frame of {height}x{width} px, expected multiples of {PATCH}")
        x = seen
        for number, level in enumerate(self.levels):
            x = level(x if number == 0 else F.max_pool2d(x, 2))
        scores = self.score(x).float().softmax(dim=1)
        return scores.repeat_interleave(PATCH, dim=2).repeat_interleave(PATCH, dim=3)

    def loss(self, classes: Float[Tensor, "b 5 h w"], labels: LesionLabels) -> Float[Tensor, ""]:
        """Cross-entropy over the patches: of annotated lesions, and of the background where it is none that was missed.

        The background is known only where all four types are annotated.
        """
        masks, annotated, total = labels
        surprise = -classes[..., ::PATCH, ::PATCH].float().clamp_min(EPSILON).log()
        shown = F.max_pool2d(masks * annotated[:, :, None, None], PATCH)
        shown = shown / shown.sum(dim=1, keepdim=True).clamp_min(1)
        rest = (1 - shown.sum(dim=1)) * annotated.all(dim=1)[:, None, None]
        lesion = 1 - classes[:, -1, ::PATCH, ::PATCH].detach().float()
        trust = torch.where(lesion > MISSED_LESION_THRESHOLD, 1 - lesion, 1.0)
        present = total((surprise[:, :-1] * shown).sum()) / total(shown.sum()).clamp_min(1)
        absent = total((surprise[:, -1] * rest * trust).sum()) / total(rest.sum()).clamp_min(1)
        return (present + BACKGROUND_WEIGHT * absent) / (1 + BACKGROUND_WEIGHT)


class AttentionFusion(Grader):
    """Grades by the photograph and by the lesion maps; attention says for each grade whom to believe how much."""

    isr: ClassVar[str] = "MDRN"
    size: ClassVar[int] = 512
    uses_lesion_maps: ClassVar[bool] = True

    def __init__(self) -> None:
        super().__init__()
        widths, grades = LESION_WIDTHS, len(Grade)
        self.photograph = ResNet18()
        self.lesions = nn.Sequential(
            *(BasicBlock(i, o, 2) for i, o in zip((len(Lesion), *widths), widths, strict=False))
        )
        self.by_lesions = nn.Linear(widths[-1], grades)
        self.attention = nn.Linear(self.photograph.channels[-1] + widths[-1], 2 * grades)
        self.channels = self.photograph.channels

    def grade(self, rgb: Float[Tensor, "b 3 s s"], lesions: Float[Tensor, "b 4 s s"]) -> GradingOutput:
        """Grade by both; the features are the photograph's. `extra` has the attention, b x 2 x 5."""
        photograph = self.photograph.grade(rgb, lesions)
        maps = self.lesions(lesions).mean(dim=(2, 3))
        both = torch.cat([photograph.features[-1].mean(dim=(2, 3)), maps], dim=1)
        attention = self.attention(both).float().unflatten(1, (2, -1)).softmax(dim=1)
        logits = torch.stack([photograph.logits, self.by_lesions(maps)], dim=1).float()
        return GradingOutput((attention * logits).sum(dim=1), photograph.features, (attention,))

    def load_imagenet(self, state: Mapping[str, Tensor]) -> None:
        """Take over published ImageNet weights of ResNet-18 for the photograph's network, but for its last layer.

        Raises:
            ValueError: if a tensor is missing or has another shape.
        """
        self.photograph.load_imagenet(state)
