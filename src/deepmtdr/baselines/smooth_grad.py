"""SmoothGrad (Smilkov et al., "SmoothGrad: removing noise by adding noise", arXiv 1706.03825, 2017), Table V.

Published: the mean of the score's gradient in the image over copies of it with Gaussian noise; 50 copies, noise of 10
to 20 % of the image's range; drawn as the magnitude, as a share of its 99th percentile. Assumed: the score is y_DR; the
image is what the grading subnet is shown, the lesion maps held; noise of 15 %, the same for every photograph and every
time, so that Eq. (5) compares two images under one noise; the magnitude summed over the channels.

Its gradient in the image, for Eq. (5), is that of guided backpropagation without the guidance; see there.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from deepmtdr.baselines.guided_backpropagation import SOFTNESS, gradient_magnitude, grading_input, image_gradient
from deepmtdr.model.deepmtdr import DeepMTDR, Prediction


@dataclass(frozen=True, kw_only=True)
class SmoothGrad:
    """An `Evidence`: where the score hangs on the image, whatever the noise."""

    samples: int = 50
    """Noisy copies of each photograph."""
    noise_level: float = 0.15
    """Standard deviation of the noise, as a share of the range between the image's darkest and brightest value."""
    softness: float = SOFTNESS
    """Of the ReLUs' steps, where the evidence is differentiated."""

    def __call__(
        self, model: DeepMTDR, prediction: Prediction, *, create_graph: bool = False
    ) -> Float[Tensor, "b 1 H W"]:
        """The evidence.

        Args:
            model: whose grading subnet is asked, once for each copy.
            prediction: what it said of the photographs.
            create_graph: keep the evidence differentiable down to `prediction.sr`; each copy is asked again on the
                way back, so that one network's features are held at a time.
        """
        shown = grading_input(model, prediction, create_graph=create_graph)
        of_copy = partial(self._of_copy, model, prediction.lesions.detach(), create_graph)
        total = torch.zeros_like(shown)
        for seed in range(self.samples):
            gradient = checkpoint(of_copy, shown, seed, use_reentrant=False) if create_graph else of_copy(shown, seed)
            total = total + gradient
        return gradient_magnitude(total / self.samples)

    def _of_copy(
        self,
        model: DeepMTDR,
        lesions: Float[Tensor, "b 4 H W"],
        create_graph: bool,
        shown: Float[Tensor, "b 3 H W"],
        seed: int,
    ) -> Float[Tensor, "b 3 H W"]:
        noisy = shown + self.noise_level * value_range(shown) * gaussian_noise(shown, seed)
        noisy = noisy if create_graph else noisy.detach().requires_grad_()
        return image_gradient(model.grading, noisy, lesions, create_graph=create_graph, softness=self.softness)


def value_range(image: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 1 1 1"]:
    """Range of each image's values."""
    return image.amax(dim=(1, 2, 3), keepdim=True) - image.amin(dim=(1, 2, 3), keepdim=True)


def gaussian_noise(like: Float[Tensor, "b c h w"], seed: int) -> Float[Tensor, "1 c h w"]:
    """Gaussian noise for every image of the batch alike; torch's own sequence is left where it is."""
    dice = torch.Generator(like.device).manual_seed(seed)
    return torch.randn(1, *like.shape[1:], generator=dice, device=like.device, dtype=like.dtype)
