"""Grading by EfficientNet-Lite0 with ImageNet weights, in place of the paper's ResNet-18 (interpretation R33).

It grades from the same inputs as the paper's grading subnet, local contrast and lesion maps, and gives GMSV five
features with the same strides.
"""

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
from deepmtdr.model.efficientnet_lite0 import CHANNELS, LAST, EfficientNetLite0
from deepmtdr.model.grading import LESION_GAIN
from deepmtdr.model.interfaces import Grader, GradingOutput, find_wrong_sizes
from deepmtdr.model.preprocessing import local_contrast

QUADRANTS = (2, 1)
"""Cells per side in which lesions are summed up: the quadrants, which define severe retinopathy, and the frame."""
AREA_UNIT = 1e-4
"""Share of a cell at which the logarithm of a lesion area begins to grow: in the frame of 1024 px about 100 px."""


@dataclass(frozen=True, kw_only=True)
class EfficientNetGradingConfig:
    """Settings of the grading subnet with EfficientNet-Lite0."""

    reduce: int = 2
    """Factor by which frame and lesion maps are reduced before the network: 2 makes 512 px from 1024 px."""
    contrast_gain: float = 1.0
    """Factor from local contrast to the input of the ImageNet stem. There, 0 is ImageNet's mean colour and 1 a standard
    deviation; that of local contrast in the field of view is about .26.
    """
    hidden: int = 0
    """Units of a hidden layer before the grades; 0: the grades are linear in the pooled features."""
    dropout: float = 0.2
    """Share of the pooled features (and hidden units) dropped in training (published: 0.2)."""
    drop_connect: float = 0.2
    """Probability with which the last block is left out in training, less for the blocks before (published: 0.2)."""
    lesion_statistics: bool = True
    """Whether the grades also depend directly on the area and the maximum of each lesion map (`lesion_statistics`)."""

    def problems(self) -> Iterator[str]:
        """Describe each value that is out of range."""
        if self.reduce not in (1, 2, 4):
            yield f"reduce = {self.reduce}, expected 1, 2 or 4"
        if self.contrast_gain <= 0:
            yield f"contrast_gain = {self.contrast_gain}, expected more than 0"
        if self.hidden:
            yield from find_wrong_sizes(hidden=self.hidden)
        if not (0 <= self.dropout <= 1 and 0 <= self.drop_connect < 1):
            found = f"dropout = {self.dropout}, drop_connect = {self.drop_connect}"
            yield f"{found}, expected shares from 0 to 1, and drop_connect below 1"


def lesion_statistics(lesions: Float[Tensor, "b l h w"]) -> Float[Tensor, "b l*10"]:
    """Compute the area and the maximum of each lesion map in the four quadrants and in the frame.

    Args:
        lesions: probabilities of the lesion types.

    Returns:
        log(1 + mean / AREA_UNIT) in each cell, then the maximum in each cell; both 0 without lesions.
    """
    lesions = lesions.float()
    areas = [torch.log1p(F.adaptive_avg_pool2d(lesions, cells) / AREA_UNIT) for cells in QUADRANTS]
    maxima = [F.adaptive_max_pool2d(lesions, cells) for cells in QUADRANTS]
    return torch.cat([cell.flatten(1) for cell in (*areas, *maxima)], dim=1)


class EfficientNetLite0Grader(Grader):
    """EfficientNet-Lite0 on local contrast and lesion maps; mean and maximum of its last features; the grades.

    The lesion maps are further channels of the stem, whose weights start at 0: at first the network computes the
    features of ImageNet.
    """

    preprocess = staticmethod(local_contrast)
    uses_lesion_maps: ClassVar[bool] = True
    channels: tuple[int, ...] = CHANNELS

    def __init__(
        self, labels: LabelSet = DIABETIC_RETINOPATHY, config: EfficientNetGradingConfig | None = None
    ) -> None:
        super().__init__()
        self.config = config = config or EfficientNetGradingConfig()
        types = len(labels.lesions)
        self.backbone = EfficientNetLite0(extra_channels=types, drop_connect=config.drop_connect)
        # Two norms: the maxima are larger than the means, and would hide them in a common one.
        self.mean_norm, self.max_norm = nn.LayerNorm(LAST), nn.LayerNorm(LAST)
        self.dropout = nn.Dropout(config.dropout)
        pooled = 2 * LAST + (types * 2 * sum(cells**2 for cells in QUADRANTS) if config.lesion_statistics else 0)
        self.hidden = nn.Linear(pooled, config.hidden) if config.hidden else None
        self.classifier = nn.Linear(config.hidden or pooled, len(labels.grades))

    def forward(self, network_input: Float[Tensor, "b 3 h w"], lesions: Float[Tensor, "b l h w"]) -> GradingOutput:
        """Grade.

        Args:
            network_input: local contrast of SR or HR images.
            lesions: probabilities of the lesion types in the same frame.

        Returns:
            Logits of the grades; five features, strides 2, 4, 8, 16, 32 of the reduced frame; `extra`: the pooled
            features and lesion statistics; the hidden units, if there are any.
        """
        maps = LESION_GAIN * lesions.to(network_input.dtype)
        features = self.backbone(torch.cat([self.config.contrast_gain * network_input, maps], dim=1))
        last = features[-1].float()
        pooled = [self.mean_norm(last.mean(dim=(2, 3))), self.max_norm(last.amax(dim=(2, 3)))]
        if self.config.lesion_statistics:
            pooled.append(lesion_statistics(lesions))
        units = torch.cat(pooled, dim=1)
        logits, hidden = self._classify(units, dropped=self.dropout.p if self.training else 0.0)
        return GradingOutput(logits, features, extra=(units,), hidden=hidden)

    def _classify(self, units: Float[Tensor, "b d"], dropped: float) -> tuple[Tensor, Tensor | None]:
        """Return the logits and the hidden units; the lesion statistics are never dropped."""
        units, hidden = torch.cat([F.dropout(units[:, : 2 * LAST], dropped), units[:, 2 * LAST :]], dim=1), None
        if self.hidden is not None:
            hidden = F.relu(self.hidden(units))
            units = F.dropout(hidden, dropped)
        logits = self.classifier(units).float()
        return logits - logits.mean(dim=1, keepdim=True), hidden  # interpretation R5

    def training_logits(self, graded: GradingOutput) -> Float[Tensor, "b c"]:
        """Compute the logits from the pooled features with dropout."""
        return self._classify(graded.extra[0], self.dropout.p)[0]

    def reduce(
        self, network_input: Float[Tensor, "b 3 H W"], lesions: Float[Tensor, "b l H W"]
    ) -> tuple[Float[Tensor, "b 3 h w"], Float[Tensor, "b l h w"]]:
        """Reduce contrast by the mean and lesion maps by the maximum, so that a small lesion stays visible."""
        factor = self.config.reduce
        if factor == 1:
            return network_input, lesions
        return F.avg_pool2d(network_input, factor), F.max_pool2d(lesions, factor)

    def loss(self, graded: GradingOutput, labels: GradeLabels) -> Float[Tensor, ""]:
        """Compute the grading loss in the form that the labels name."""
        return grade_loss(graded.logits, labels)

    def imagenet_parameters(self) -> Iterator[nn.Parameter]:
        """Return the parameters of the backbone."""
        return self.backbone.parameters()

    def load_imagenet(self, state: Mapping[str, Tensor]) -> None:
        """Copy the weights of a published EfficientNet-Lite0; the lesion channels of the stem keep their values.

        Args:
            state: state-dict of the package efficientnet-lite-pytorch; `_fc.*` is not used.

        Raises:
            ValueError: if a tensor is missing or has another shape.
        """
        self.backbone.load_imagenet(state)
