"""Evidence that is stable enough for the thresholds of Eqs. (5) and (9) (interpretation R28).

The evidence of a photograph depends on where the pixel grid of the coarse features lies: that of its mirror image is
another one. For a mask, the evidence is averaged over turns of the frame, smoothed, and scaled by a high percentile
instead of its maximum, which is a single pixel.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.nn import functional as F

from deepmtdr.terms import FRAME

TURNS = (1, 2, 4, 8)
"""Numbers of turns that can be averaged: each set of turns 0 to n-1 contains the reverse of each of its turns."""
EPSILON = 1e-12


@dataclass(frozen=True, kw_only=True)
class StableEvidenceConfig:
    """How the evidence is prepared for the thresholds of Eqs. (5) and (9)."""

    turns: int = 8
    """Turns of the HR frame over which the pseudo ground truth of Eq. (9) is averaged: 1, 2 (left-right), 4 (and
    upside down) or 8 (and transposed). Each needs a pass through the grading subnet. Eq. (5) compares the images in one
    orientation, the same for both: it must be 0 if they are equal.
    """
    smoothing: float = 16.0
    """Standard deviation of a Gaussian filter, px of a frame of 1024 px (scaled with the frame); 0: none."""
    percentile: float = 99.5
    """Percentile of the pixels that is scaled to 1; higher values are clamped. 100: the maximum."""
    create_graph: bool = False
    """Whether Eq. (5) is also differentiated through the gradient weights of Eq. (3), the complete derivative. In the
    joint stage it hardly differs (interpretation R28), and takes 1.6 times as long. Evidence methods other than GMSV
    are always differentiated completely.
    """

    def problems(self) -> Iterator[str]:
        """Describe each setting that is out of range, and what was expected."""
        if self.turns not in TURNS:
            yield f"turns = {self.turns}, expected one of {', '.join(map(str, TURNS))}"
        if self.smoothing < 0:
            yield f"smoothing = {self.smoothing}, expected 0 or more"
        if not 0 < self.percentile <= 100:
            yield f"percentile = {self.percentile}, expected a percentile above 0, at most 100"

    def prepare(self, evidence: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b 1 h w"]:
        """Smooth and scale evidence for a threshold; `UNPREPARED_EVIDENCE` returns it unchanged."""
        if self.turns == 1 and not self.smoothing and self.percentile == 100:
            return evidence
        sigma = self.smoothing * max(evidence.shape[-2:]) / FRAME
        return scale_by_percentile(smooth(evidence, sigma), self.percentile)


UNPREPARED_EVIDENCE = StableEvidenceConfig(turns=1, smoothing=0.0, percentile=100.0, create_graph=True)
"""Evidence as GMSV gives it, which is what the paper describes."""


def turn(image: Shaped[Tensor, "b c h w"], number: int) -> Shaped[Tensor, "b c H W"]:
    """Flip and transpose images.

    Args:
        image: square images, if `number` is 4 or more.
        number: 0 to 7. Bit 4 transposes; then bit 1 flips left-right and bit 2 upside down. 0 changes nothing.
    """
    return _flip(image.transpose(2, 3) if number & 4 else image, number)


def turn_back(image: Shaped[Tensor, "b c h w"], number: int) -> Shaped[Tensor, "b c H W"]:
    """Reverse `turn`."""
    flipped = _flip(image, number)
    return flipped.transpose(2, 3) if number & 4 else flipped


def _flip(image: Tensor, number: int) -> Tensor:
    axes = [axis for axis, bit in ((3, 1), (2, 2)) if number & bit]
    return image.flip(axes) if axes else image


def smooth(evidence: Float[Tensor, "b 1 h w"], sigma: float) -> Float[Tensor, "b 1 h w"]:
    """Apply a Gaussian filter; the border values are continued outwards.

    Args:
        evidence: evidence maps.
        sigma: standard deviation, px; 0 returns the evidence.
    """
    if not sigma:
        return evidence
    reach = min(ceil(3 * sigma), min(evidence.shape[-2:]) - 1)
    offsets = torch.arange(-reach, reach + 1, device=evidence.device, dtype=evidence.dtype)
    kernel = torch.exp(-0.5 * (offsets / sigma).square())
    kernel = kernel / kernel.sum()
    padded = F.pad(evidence, (reach,) * 4, mode="replicate")
    return F.conv2d(F.conv2d(padded, kernel[None, None, None]), kernel[None, None, :, None])


def scale_by_percentile(evidence: Float[Tensor, "b 1 h w"], percentile: float) -> Float[Tensor, "b 1 h w"]:
    """Divide each map by a percentile of its pixels and clamp it to 1; a map of zeros stays zero.

    The percentile is a constant when this is differentiated: it is the value of a single pixel. If it is 0, because
    fewer pixels have evidence, the maximum takes its place.

    Args:
        evidence: evidence maps, 0 or more.
        percentile: above 0; 100 is the maximum.
    """
    values = evidence.detach().flatten(1)
    place = max(ceil(percentile / 100 * values.shape[1]), 1)
    full, largest = values.kthvalue(place, dim=1).values, values.amax(dim=1)
    full = torch.where(full > 0, full, largest).clamp_min(EPSILON)
    return (evidence / full[:, None, None, None]).clamp_max(1)
