"""How near a super-resolved image is to the truth: PSNR and SSIM (Sec. V-B, reading R16)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float
from scipy.ndimage import gaussian_filter

RGB = Float[np.ndarray, "h w 3"]
Mask = Bool[np.ndarray, "h w"]


def psnr(sr: RGB, hr: RGB, mask: Mask | None = None) -> float:
    """Peak signal-to-noise ratio, 10 log10(1 / MSE) over RGB.

    Args:
        sr: the image judged, RGB in [0, 1].
        hr: the truth, RGB in [0, 1].
        mask: pixels that count (the field of view); None counts all, black border included, as the paper does.

    Returns:
        Decibel; infinite for equal images; nan if the mask is empty.
    """
    error = np.square(sr.astype(np.float64) - hr)
    chosen = error if mask is None else error[mask]
    if chosen.size == 0:
        return float("nan")
    mse = float(chosen.mean())
    return float("inf") if mse == 0 else -10 * float(np.log10(mse))


def ssim(sr: RGB, hr: RGB, mask: Mask | None = None) -> float:
    """Structural similarity (Wang et al. 2004), the mean of `ssim_map`.

    Args:
        sr: the image judged, RGB in [0, 1].
        hr: the truth, RGB in [0, 1].
        mask: pixels whose window counts; None counts all. Windows that reach over the image border never count.

    Returns:
        At most 1; nan if no window counts.
    """
    return mean_ssim(ssim_map(sr, hr), mask)


def mean_ssim(windows: Float[np.ndarray, "h w"], mask: Mask | None = None) -> float:
    """`ssim` from a map that was made before: one map serves several masks."""
    counted = np.zeros(windows.shape, dtype=bool)
    counted[RADIUS:-RADIUS, RADIUS:-RADIUS] = True if mask is None else mask[RADIUS:-RADIUS, RADIUS:-RADIUS]
    return float(windows[counted].mean()) if counted.any() else float("nan")


def ssim_map(sr: RGB, hr: RGB) -> Float[np.ndarray, "h w"]:
    """SSIM of the window around each pixel: 11x11 Gaussian of sigma 1.5, K = (0.01, 0.03), mean over RGB."""
    return np.mean([_channel_ssim(sr[..., c], hr[..., c]) for c in range(3)], axis=0)


RADIUS = 5
"""An 11x11 window."""


def _channel_ssim(x: Float[np.ndarray, "h w"], y: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "h w"]:
    """One channel of `ssim_map`; the data range is 1."""
    x, y = x.astype(np.float64), y.astype(np.float64)  # the variances below are differences of near-equal numbers

    def local(z: np.ndarray) -> np.ndarray:
        return gaussian_filter(z, sigma=1.5, radius=RADIUS)

    mean_x, mean_y = local(x), local(y)
    variances = local(x * x + y * y) - mean_x**2 - mean_y**2
    covariance = local(x * y) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    return (2 * mean_x * mean_y + c1) * (2 * covariance + c2) / ((mean_x**2 + mean_y**2 + c1) * (variances + c2))
