"""Shared base of the compared grading methods: RGB input at a native size, cross-entropy."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from deepmtdr.losses import GradeLabels
from deepmtdr.model.interfaces import Grader, GradingOutput
from deepmtdr.model.preprocessing import input_to_rgb, resize_frame


class RGBGrader(Grader):
    """A network that grades RGB images, by default resized to its native size and without the lesion maps.

    A method implements `grade` and sets `channels`.
    """

    size: ClassVar[int] = 0
    """Native side in px; 0: frames are not resized."""

    @property
    def native_sizes(self) -> tuple[int, ...]:
        """Side to which the input is resized: `size`; empty if frames are not resized."""
        return (self.size,) if self.size else ()

    def forward(self, network_input: Float[Tensor, "b 3 h w"], lesions: Float[Tensor, "b l h w"]) -> GradingOutput:
        """Grade frames after `rgb_to_input`."""
        rgb = input_to_rgb(network_input)
        if self.size:
            rgb, lesions = resize_frame(rgb, self.size), resize_frame(lesions, self.size)
        graded = self.grade(rgb, lesions)
        logits = graded.logits.float()
        return graded._replace(logits=logits - logits.mean(dim=1, keepdim=True))

    @abstractmethod
    def grade(self, rgb: Float[Tensor, "b 3 s s"], lesions: Float[Tensor, "b l s s"]) -> GradingOutput:
        """Grade images at the native size.

        Args:
            rgb: RGB in [0, 1].
            lesions: probabilities of the lesion types; 0 if nothing is segmented.

        Returns:
            Logits of the grades; features from fine to coarse, each at most as large as the one before, after a ReLU;
            `extra` as `loss` needs it.
        """

    def loss(self, graded: GradingOutput, labels: GradeLabels) -> Float[Tensor, ""]:
        """Cross-entropy over the graded photographs."""
        return cross_entropy(graded.logits, labels)


def cross_entropy(logits: Float[Tensor, "b c"], labels: GradeLabels, *, smoothing: float = 0.0) -> Float[Tensor, ""]:
    """Compute the mean over the photographs whose grade is known; 0 (with a gradient of 0) if there is none.

    Args:
        logits: logits of the grades.
        labels: grades; class weights are those of the true grade, with smoothed labels too.
        smoothing: share of each label that is spread evenly over all grades.
    """
    grade = torch.where(labels.known, labels.grade, 0).long()
    each = F.cross_entropy(logits.float(), grade, reduction="none", label_smoothing=smoothing)
    return labels.mean(each if labels.class_weights is None else each * labels.class_weights[grade])
