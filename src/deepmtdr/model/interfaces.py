"""Abstract classes of the parts of Fig. 6: super-resolver, segmenter, grader, evidence method.

The paper's own subnets and every compared method (`deepmtdr.baselines`) implement them, so that the same code trains
and scores all of them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from deepmtdr.losses import GradeLabels, LesionLabels, LossWeights
from deepmtdr.model.preprocessing import Preprocess, rgb_to_input

SUBNETS = ("isr", "segmentation", "grading")
"""Names of the three parts that are trained."""

DEFAULT_WEIGHTS = LossWeights()

MAX_CHANNELS = 4096
"""Largest number of channels, units or blocks in the settings of a network."""


def find_wrong_sizes(**sizes: int) -> Iterator[str]:
    """Describe each number of channels, units or blocks of a network that is out of range."""
    for name, size in sizes.items():
        if not 1 <= size <= MAX_CHANNELS:
            yield f"{name} = {size}, expected 1 to {MAX_CHANNELS}"


class GradingOutput(NamedTuple):
    """Output of a grading network."""

    logits: Float[Tensor, "b c"]
    """A logit for each grade, with a mean of 0: softmax does not depend on a common constant."""
    features: tuple[Float[Tensor, "b _ _ _"], ...]
    """Features of several layers, fine to coarse, after their ReLUs."""
    extra: tuple[Tensor, ...] = ()
    """Other outputs that the loss of the network needs, such as auxiliary logits."""
    hidden: Float[Tensor, "b d"] | None = None
    """Units of the layer before the logits, after their ReLU and before dropout; None: there is no such layer."""


class Prediction(NamedTuple):
    """Output of the whole network for a batch of photographs, in the HR frame."""

    sr: Float[Tensor, "b 3 H W"]
    """Super-resolved image (or the frame itself where the ISR subnet was skipped)."""
    lesions: Float[Tensor, "b l H W"]
    """Probability of each lesion type, in the order of the label set: MA, HE, EX, SE."""
    lesion_region: Float[Tensor, "b 1 H W"]
    """Probability of any lesion: 1 - P(background)."""
    grade_logits: Float[Tensor, "b c"]
    features: tuple[Float[Tensor, "b _ _ _"], ...]
    """Features of the grading subnet, fine to coarse; five layers in the subnet of the paper."""
    extra: tuple[Tensor, ...] = ()
    """`GradingOutput.extra`."""
    hidden: Float[Tensor, "b d"] | None = None
    """`GradingOutput.hidden`."""

    @property
    def graded(self) -> GradingOutput:
        """The output of the grading network."""
        return GradingOutput(self.grade_logits, self.features, self.extra, self.hidden)

    @property
    def grade_probs(self) -> Float[Tensor, "b c"]:
        """Probabilities of the grades."""
        return self.grade_logits.softmax(dim=1)


class Subnet(nn.Module, ABC):
    """A part that is trained, with the properties that training uses."""

    published_parameters: ClassVar[float | None] = None
    """Number of parameters that its authors published, in millions."""
    learning_rate_factor: ClassVar[float] = 1.0
    """Factor by which the learning rate of the recipe is multiplied."""

    @property
    def discriminator(self) -> nn.Module | None:
        """The discriminator inside this network, with a separate loss and separate gradient clipping; None: none."""
        return None

    def trained_parameters(self) -> Iterator[nn.Parameter]:
        """Return the parameters that training changes, with those of the discriminator: all, unless overridden.

        A network that keeps some of its parameters also keeps their layers in evaluation mode when `train` is called.
        """
        return self.parameters()

    def imagenet_parameters(self) -> Iterator[nn.Parameter]:
        """Return the trained parameters for which `load_imagenet` has weights, if they are trained more slowly.

        Their learning rate is multiplied by `imagenet_lr_share` of the stage. None, unless overridden.
        """
        return iter(())

    def load_imagenet(self, state: Mapping[str, Tensor]) -> None:
        """Copy published ImageNet weights into this network, all or none.

        Args:
            state: the published state-dict.

        Raises:
            ValueError: if this network has no published weights, or a tensor is missing or has another shape.
        """
        raise ValueError(f"{type(self).__name__} has no published ImageNet weights; leave them out")


class SuperResolver(Subnet):
    """A network that enlarges LR images."""

    @abstractmethod
    def forward(self, lr: Float[Tensor, "b 3 h w"], scale: int = 4) -> Float[Tensor, "b 3 H W"]:
        """Super-resolve.

        Args:
            lr: low-resolution images, RGB in [0, 1].
            scale: 2, 4 or 8.

        Returns:
            SR images, `scale` times as large; not clamped to [0, 1], since training needs the gradient.
        """

    @abstractmethod
    def loss(
        self, sr: Float[Tensor, "b 3 h w"], hr: Float[Tensor, "b 3 h w"], weights: LossWeights = DEFAULT_WEIGHTS
    ) -> Float[Tensor, ""]:
        """Loss without the task-aware terms.

        Args:
            sr: super-resolved images.
            hr: HR images.
            weights: weights of the paper's equations; a method with another loss does not use them.
        """

    def discriminator_loss(self, sr: Float[Tensor, "b 3 h w"], hr: Float[Tensor, "b 3 h w"]) -> Float[Tensor, ""]:
        """Loss of `discriminator`; 0 without a discriminator.

        Args:
            sr: super-resolved images, detached.
            hr: HR images.
        """
        return sr.new_zeros(())


class Segmenter(Subnet):
    """A network that segments the lesions of a frame."""

    preprocess: Preprocess = staticmethod(rgb_to_input)
    """RGB in [0, 1] (and for crops their local means) -> network input."""

    @abstractmethod
    def forward(self, network_input: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b k h w"]:
        """Segment; h and w multiples of 16.

        Args:
            network_input: frames after `preprocess`.

        Returns:
            Probabilities of the lesion types and, last, the background; their sum is 1 in each pixel.
        """

    @abstractmethod
    def loss(
        self, classes: Float[Tensor, "b k h w"], labels: LesionLabels, weights: LossWeights = DEFAULT_WEIGHTS
    ) -> Float[Tensor, ""]:
        """Supervised loss; 0 (with a gradient of 0) if nothing is annotated.

        Args:
            classes: output of `forward`.
            labels: lesion masks.
            weights: weights of the paper's equations; a method with another loss does not use them.
        """


class Grader(Subnet):
    """A network that grades a frame, with or without lesion maps."""

    preprocess: Preprocess = staticmethod(rgb_to_input)
    """RGB in [0, 1] (and for crops their local means) -> network input."""
    uses_lesion_maps: ClassVar[bool] = False
    """Whether the network uses lesion maps, so that it can learn from them while the image is hidden."""
    channels: tuple[int, ...] = ()
    """Number of channels of each of the features, fine to coarse."""

    @property
    def native_sizes(self) -> tuple[int, ...]:
        """Sides in px to which the network resizes its input; empty: it takes frames of any size."""
        return ()

    def reduce(
        self, network_input: Float[Tensor, "b 3 H W"], lesions: Float[Tensor, "b l H W"]
    ) -> tuple[Float[Tensor, "b 3 h w"], Float[Tensor, "b l h w"]]:
        """Reduce frames and lesion maps to the size at which the network grades; unchanged, unless overridden.

        Args:
            network_input: frames after `preprocess`.
            lesions: probabilities of the lesion types in the same frames.
        """
        return network_input, lesions

    @abstractmethod
    def forward(self, network_input: Float[Tensor, "b 3 h w"], lesions: Float[Tensor, "b l h w"]) -> GradingOutput:
        """Grade.

        Args:
            network_input: frames after `preprocess` and `reduce`.
            lesions: probabilities of the lesion types in the same frames, after `reduce`.
        """

    def training_logits(self, graded: GradingOutput) -> Float[Tensor, "b c"]:
        """Compute the logits with dropout from an output of the network in evaluation mode (interpretation R29).

        In the joint stage the network runs in evaluation mode, because a batch of one photograph has no batch
        statistics. The grading loss gets these logits; the evidence must not change from pass to pass.

        Returns:
            New logits of the same photographs, as in training; the given logits for a network without dropout.
        """
        return graded.logits

    @abstractmethod
    def loss(self, graded: GradingOutput, labels: GradeLabels) -> Float[Tensor, ""]:
        """Loss over the photographs whose grade is known; 0 (with a gradient of 0) if there is none.

        Args:
            graded: output of `forward`.
            labels: grades.
        """


class EvidenceMethod(ABC):
    """A method other than GMSV that computes the evidence for the disease (Table V)."""

    @abstractmethod
    def __call__(
        self, grader: Grader, prediction: Prediction, *, create_graph: bool = False
    ) -> Float[Tensor, "b 1 H W"]:
        """Evidence in [0, 1], at the size of the frame.

        Args:
            grader: the grading network that made the prediction.
            prediction: a prediction whose logits and features are still attached to their graph.
            create_graph: keep the evidence differentiable down to `prediction.sr`, for Eq. (5).
        """


class ScoreOnlyEvidence(EvidenceMethod):
    """Evidence that is one number per photograph: `loss` replaces Eq. (5), and Eq. (9) is not used."""

    @abstractmethod
    def loss(self, on_sr: Prediction, on_hr: Prediction) -> Float[Tensor, ""]:
        """Classification-aware loss.

        Args:
            on_sr: prediction for the SR images.
            on_hr: prediction for the HR images, the target, detached.
        """


def load_pretrained(
    part: nn.Module, state: Mapping[str, Tensor], skip_prefixes: tuple[str, ...], rgb_stem: str = ""
) -> None:
    """Copy published weights into the parameters of the same names, all or none.

    Args:
        part: the network.
        state: the published state-dict.
        skip_prefixes: beginnings of the names that keep their values, such as the last layer.
        rgb_stem: name of a convolution's weight whose first three input channels are RGB; other channels keep their
            values.

    Raises:
        ValueError: if a tensor is missing or has another shape.
    """
    own = {name: tensor for name, tensor in part.state_dict().items() if not name.startswith(skip_prefixes)}
    if rgb_stem:
        own[rgb_stem] = own[rgb_stem][:, :3]
    own = {name: tensor for name, tensor in own.items() if name in state or not name.endswith("num_batches_tracked")}
    for name, tensor in own.items():
        if name not in state:
            raise ValueError(f"published weights: {name} is missing, expected a state-dict for {type(part).__name__}")
        if state[name].shape != tensor.shape:
            raise ValueError(f"published weights: {name} is {tuple(state[name].shape)}, expected {tuple(tensor.shape)}")
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(state[name])
