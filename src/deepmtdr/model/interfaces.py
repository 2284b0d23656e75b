"""What a compared method has to be to take a box of Fig. 6: a super-resolver, a segmenter or a grader."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from deepmtdr.losses import GradeLabels, LesionLabels
from deepmtdr.model.preprocessing import CONTRAST_LIMIT

IMAGENET_MEAN, IMAGENET_SD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

Task = Literal["super-resolution", "segmentation", "grading"]


class GradingOutput(NamedTuple):
    """What a grading network says, and from what."""

    logits: Float[Tensor, "b 5"]
    features: tuple[Float[Tensor, "b _ _ _"], ...]
    """Fine to coarse, after their ReLUs."""
    extra: tuple[Tensor, ...] = ()
    """Whatever else its own loss asks for."""


def rgb_to_input(frame: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
    """A frame as it is: RGB in [0, 1] spread over [-3, 3], as readings are kept. `input_to_rgb` is the way back."""
    return CONTRAST_LIMIT * (2 * frame.float().clamp(0, 1) - 1)


def input_to_rgb(seen: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
    """RGB in [0, 1] of what `rgb_to_input` made."""
    return (seen / CONTRAST_LIMIT + 1) / 2


def normalise_imagenet(rgb: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
    """As networks with ImageNet weights expect it."""
    mean, sd = (rgb.new_tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_SD))
    return (rgb - mean) / sd


def resize_frame(image: Float[Tensor, "b c h w"], side: int) -> Float[Tensor, "b c side side"]:
    """Bring a frame to a network's native size, antialiased bilinear."""
    if image.shape[-1] == side:
        return image
    with torch.autocast(image.device.type, enabled=False):
        return F.interpolate(image.float().contiguous(), (side, side), mode="bilinear", antialias=True)


class SuperResolver(nn.Module):
    """`forward(lr, scale)` -> SR images, `scale` times as large."""

    task: ClassVar[Task] = "super-resolution"
    published_parameters: ClassVar[float | None] = None
    """Millions, where its makers say it."""

    def loss(self, sr: Float[Tensor, "b 3 h w"], hr: Float[Tensor, "b 3 h w"]) -> Float[Tensor, ""]:
        """What it learns by; mean squared difference unless a method has its own."""
        return F.mse_loss(sr, hr)


class Segmenter(nn.Module, ABC):
    """`forward(seen)` -> probabilities of MA, HE, EX, SE and the background, summing to 1, at the frame's size."""

    task: ClassVar[Task] = "segmentation"
    published_parameters: ClassVar[float | None] = None
    isr: ClassVar[str] = "bicubic"
    """The super-resolver in front of it, if nobody says another."""
    preprocess = staticmethod(rgb_to_input)

    @abstractmethod
    def loss(self, classes: Float[Tensor, "b 5 h w"], labels: LesionLabels) -> Float[Tensor, ""]:
        """What it learns by; 0 (with a gradient of 0) if nothing is known.

        Args:
            classes: what `forward` gave.
            labels: what is known.
        """


class Grader(nn.Module, ABC):
    """A network that grades RGB at its own size, without lesion maps unless it asks for them.

    A method writes `grade`; `channels` are those of the features that it gives, fine to coarse.
    """

    task: ClassVar[Task] = "grading"
    published_parameters: ClassVar[float | None] = None
    isr: ClassVar[str] = "bicubic"
    """The super-resolver in front of it, if nobody says another: MDRN for networks whose native size is more than the
    LR pixels (Sec. V-B); those of Fig. 3 (a) are shown the resized photograph."""
    size: ClassVar[int] = 0
    """Native side, px; 0: the frame as it comes."""
    lr_factor: ClassVar[float] = 1.0
    """By which the recipe's learning rate is multiplied."""
    uses_lesion_maps: ClassVar[bool] = False
    """Whether it looks at lesion maps, so that it can learn from them with the image hidden."""
    channels: tuple[int, ...] = ()
    preprocess = staticmethod(rgb_to_input)

    def forward(self, seen: Float[Tensor, "b 3 h w"], lesions: Float[Tensor, "b 4 h w"]) -> GradingOutput:
        """Grade frames as `rgb_to_input` gives them."""
        rgb = input_to_rgb(seen)
        if self.size:
            rgb, lesions = resize_frame(rgb, self.size), resize_frame(lesions, self.size)
        graded = self.grade(rgb, lesions)
        logits = graded.logits.float()
        return graded._replace(logits=logits - logits.mean(dim=1, keepdim=True))

    @abstractmethod
    def grade(self, rgb: Float[Tensor, "b 3 s s"], lesions: Float[Tensor, "b 4 s s"]) -> GradingOutput:
        """The method itself.

        Args:
            rgb: RGB in [0, 1], at the native size.
            lesions: probabilities of the four types by whatever segments before it; 0 if nothing does.

        Returns:
            Logits of the grades 0-4, features from fine to coarse (each at most as large as the one before, after a
            ReLU), and in `extra` what `loss` asks for beside.
        """

    def loss(self, graded: GradingOutput, labels: GradeLabels) -> Float[Tensor, ""]:
        """What it learns by: cross-entropy over the graded photographs, unless a method has its own."""
        return cross_entropy(graded.logits, labels)


def cross_entropy(logits: Float[Tensor, "b 5"], labels: GradeLabels, *, smoothing: float = 0.0) -> Float[Tensor, ""]:
    """Mean over the photographs whose grade is known; 0 (with a gradient of 0) if there is none.

    Args:
        logits: of the grades.
        labels: what is known; a class weight is that of the true grade, with smoothed labels too.
        smoothing: share of each label that is spread evenly over all grades.
    """
    grade = torch.where(labels.known, labels.grade, 0).long()
    each = F.cross_entropy(logits.float(), grade, reduction="none", label_smoothing=smoothing)
    return labels.mean(each if labels.class_weights is None else each * labels.class_weights[grade])


def with_background(lesions: Float[Tensor, "b 4 h w"]) -> Float[Tensor, "b 5 h w"]:
    """Independent probabilities of the four types, and of none of them: the product of what each leaves."""
    return torch.cat([lesions, (1 - lesions).prod(dim=1, keepdim=True)], dim=1)


def load_pretrained(part: nn.Module, state: Mapping[str, Tensor], skip_prefixes: tuple[str, ...]) -> None:
    """Take over published weights under their own names, all or none.

    Args:
        part: the network.
        state: the published state-dict.
        skip_prefixes: beginnings of the names that the network keeps as they are (its last layer).

    Raises:
        ValueError: if a tensor is missing or has another shape.
    """
    own = {name: tensor for name, tensor in part.state_dict().items() if not name.startswith(skip_prefixes)}
    for name, tensor in own.items():
        if name.endswith("num_batches_tracked") and name not in state:
            continue
        if name not in state:
            raise ValueError(f"published weights: {name} is missing, expected those of {type(part).__name__}")
        if state[name].shape != tensor.shape:
            raise ValueError(f"published weights: {name} is {tuple(state[name].shape)}, expected {tuple(tensor.shape)}")
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(state.get(name, tensor))
