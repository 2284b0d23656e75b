"""SmoothGrad (Smilkov et al., "SmoothGrad: removing noise by adding noise", arXiv 1706.03825, 2017). Table V.

Published: the mean of the score's gradient with respect to the image, over copies of the image with Gaussian noise; 50
copies, noise of 10 to 20 % of the image's range; shown as the magnitude, as a share of its 99th percentile.

Assumed: the score is y_DR; the image is the input of the grading subnet, with constant lesion maps; noise of 15 %, the
same for every photograph and every call, so that Eq. (5) compares two images under the same noise; the magnitude is
summed over the channels.

For Eq. (5), it is differentiated like guided backpropagation without the guidance; see `guided_backpropagation`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from deepmtdr.baselines.guided_backpropagation import SOFTNESS, gradient_magnitude, grading_input, image_gradient
from deepmtdr.model.interfaces import EvidenceMethod, Grader, Prediction


@dataclass(frozen=True, kw_only=True)
class SmoothGrad(EvidenceMethod):
    """Pixels on which the score depends, averaged over noise."""

    samples: int = 50
    """Number of noisy copies of each photograph."""
    noise_level: float = 0.15
    """Standard deviation of the noise, as a share of the range between the image's darkest and brightest value."""
    softness: float = SOFTNESS
    """Softness of the ReLUs' steps, where the evidence is differentiated."""

    def __call__(
        self, grader: Grader, prediction: Prediction, *, create_graph: bool = False
    ) -> Float[Tensor, "b 1 H W"]:
        """Compute the evidence: one pass through the grading network for each copy.

        With `create_graph` each copy is computed again in the backward pass, so that only one network's features are in
        memory at a time.
        """
        image = grading_input(grader, prediction, create_graph=create_graph)
        of_copy = partial(self._gradient_of_copy, grader, prediction.lesions.detach(), create_graph)
        total = torch.zeros_like(image)
        for seed in range(self.samples):
            gradient = checkpoint(of_copy, image, seed, use_reentrant=False) if create_graph else of_copy(image, seed)
            total = total + gradient
        return gradient_magnitude(total / self.samples)

    def _gradient_of_copy(
        self,
        grader: Grader,
        lesions: Float[Tensor, "b l H W"],
        create_graph: bool,
        image: Float[Tensor, "b 3 H W"],
        seed: int,
    ) -> Float[Tensor, "b 3 H W"]:
        noisy = image + self.noise_level * value_range(image) * gaussian_noise(image, seed)
        noisy = noisy if create_graph else noisy.detach().requires_grad_()
        return image_gradient(grader, noisy, lesions, create_graph=create_graph, softness=self.softness)


def value_range(image: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 1 1 1"]:
    """Compute the difference between the highest and the lowest value of each image."""
    return image.amax(dim=(1, 2, 3), keepdim=True) - image.amin(dim=(1, 2, 3), keepdim=True)


def gaussian_noise(like: Float[Tensor, "b c h w"], seed: int) -> Float[Tensor, "1 c h w"]:
    """Draw Gaussian noise, the same for every image of the batch; torch's global random state does not change."""
    generator = torch.Generator(like.device).manual_seed(seed)
    return torch.randn(1, *like.shape[1:], generator=generator, device=like.device, dtype=like.dtype)
