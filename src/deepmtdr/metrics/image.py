"""Similarity of a super-resolved image to the original: PSNR, SSIM, multi-scale SSIM (Sec. V-B, R16)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float
from scipy.ndimage import distance_transform_edt, gaussian_filter

RGB = Float[np.ndarray, "h w 3"]
Mask = Bool[np.ndarray, "h w"]


def psnr(sr: RGB, hr: RGB, mask: Mask | None = None) -> float:
    """Peak signal-to-noise ratio, 10 log10(1 / MSE) over RGB.

    Args:
        sr: the super-resolved image, RGB in [0, 1].
        hr: the original, RGB in [0, 1].
        mask: the pixels that count (the field of view); None counts all with the black border, as in the paper.

    Returns:
        In decibels; infinite for equal images, nan if the mask is empty.
    """
    error = np.square(sr.astype(np.float64) - hr)
    chosen = error if mask is None else error[mask]
    if chosen.size == 0:
        return float("nan")
    mse = float(chosen.mean())
    return float("inf") if mse == 0 else -10 * float(np.log10(mse))


def erode_field(inside: Mask, margin: int) -> Mask:
    """Take a rim off the field of view (interpretation R16): there the black border dominates the error of bicubic.

    Args:
        inside: the field of view.
        margin: width of the rim, px.

    Returns:
        The pixels that are farther than `margin` from every pixel outside the field of view or the image.
    """
    distance = distance_transform_edt(np.pad(inside, 1))
    return np.asarray(distance)[1:-1, 1:-1] > margin


def ssim(sr: RGB, hr: RGB, mask: Mask | None = None) -> float:
    """Structural similarity (Wang et al. 2004), the mean of `ssim_map`.

    Args:
        sr: the super-resolved image, RGB in [0, 1].
        hr: the original, RGB in [0, 1].
        mask: the pixels whose window counts; None counts all. Windows that cross the image border never count.

    Returns:
        At most 1; nan if no window counts.
    """
    return mean_ssim(ssim_map(sr, hr), mask)


def mean_ssim(windows: Float[np.ndarray, "h w"], mask: Mask | None = None) -> float:
    """Compute `ssim` from a `ssim_map`, which can be used with several masks."""
    counted = np.zeros(windows.shape, dtype=bool)
    counted[WINDOW_RADIUS:-WINDOW_RADIUS, WINDOW_RADIUS:-WINDOW_RADIUS] = (
        True if mask is None else mask[WINDOW_RADIUS:-WINDOW_RADIUS, WINDOW_RADIUS:-WINDOW_RADIUS]
    )
    return float(windows[counted].mean()) if counted.any() else float("nan")


def ssim_map(sr: RGB, hr: RGB) -> Float[np.ndarray, "h w"]:
    """SSIM of the window around each pixel: 11x11 Gaussian of sigma 1.5, K = (0.01, 0.03), mean over RGB."""
    return np.mean([_channel_ssim(sr[..., c], hr[..., c]) for c in range(3)], axis=0)


WINDOW_RADIUS = 5
"""Radius of the window of 11x11 pixels."""

SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Exponents of `ms_ssim` from the finest scale to the coarsest, which Wang et al. 2003 measured on observers."""

MS_SSIM_MIN_SIDE = (2 * WINDOW_RADIUS + 1) * 2 ** (len(SCALE_WEIGHTS) - 1)
"""Shortest side of an image for `ms_ssim`, px: one window fits at the coarsest scale."""


def ms_ssim(sr: RGB, hr: RGB, mask: Mask | None = None) -> float:
    """Multi-scale structural similarity (Wang et al. 2003): five scales, each half of the one before.

    At the first four scales, contrast and structure are averaged over the windows; at the last scale, the whole SSIM.
    The score is the product of these means to the powers `SCALE_WEIGHTS`, averaged over R, G and B. The windows are
    those of `ssim_map`. Images are halved by the mean of 2x2 pixels; an odd last row or column is dropped.

    Args:
        sr: the super-resolved image, RGB in [0, 1].
        hr: the original, RGB in [0, 1].
        mask: the pixels whose window counts; at a coarser scale, pixels made of four that count. None counts all.
            Windows that cross the image border never count.

    Returns:
        In [0, 1]; 1 for equal images. A negative mean counts as 0, because it has no real power. Nan if no window
        counts at one of the scales.

    Raises:
        ValueError: if a side is shorter than 176 pixels, so that no window fits at the coarsest scale.
    """
    height, width = hr.shape[:2]
    if min(height, width) < MS_SSIM_MIN_SIDE:
        raise ValueError(
            f"image of {height} x {width} px, expected at least {MS_SSIM_MIN_SIDE} x {MS_SSIM_MIN_SIDE} for five scales"
        )
    counts = np.ones((height, width), dtype=bool) if mask is None else mask
    return float(np.mean([_channel_ms_ssim(sr[..., c], hr[..., c], counts) for c in range(3)]))


def _channel_ms_ssim(x: Float[np.ndarray, "h w"], y: Float[np.ndarray, "h w"], counts: Mask) -> float:
    """Compute one channel of `ms_ssim`."""
    x, y, score = x.astype(np.float64), y.astype(np.float64), 1.0
    for scale, weight in enumerate(SCALE_WEIGHTS, start=1):
        luminance, structure = _channel_parts(x, y)
        windows = structure if scale < len(SCALE_WEIGHTS) else luminance * structure
        score *= float(np.maximum(mean_ssim(windows, counts), 0)) ** weight
        x, y, counts = (
            _quads(x).mean(axis=(1, 3)),
            _quads(y).mean(axis=(1, 3)),
            np.asarray(_quads(counts).all(axis=(1, 3))),
        )
    return score


def _quads(z: np.ndarray) -> np.ndarray:
    """Group the pixels in 2x2 squares: axes 1 and 3 are within a square."""
    height, width = z.shape[0] // 2, z.shape[1] // 2
    return z[: 2 * height, : 2 * width].reshape(height, 2, width, 2)


def _channel_ssim(x: Float[np.ndarray, "h w"], y: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "h w"]:
    """Compute one channel of `ssim_map`."""
    luminance, structure = _channel_parts(x, y)
    return luminance * structure


def _channel_parts(
    x: Float[np.ndarray, "h w"], y: Float[np.ndarray, "h w"]
) -> tuple[Float[np.ndarray, "h w"], Float[np.ndarray, "h w"]]:
    """Luminance, and contrast with structure, of the window around each pixel; the data range is 1."""
    x, y = (
        x.astype(np.float64),
        y.astype(np.float64),
    )  # float64: the variances below are differences of almost equal numbers

    def local(z: np.ndarray) -> np.ndarray:
        return gaussian_filter(z, sigma=1.5, radius=WINDOW_RADIUS)

    mean_x, mean_y = local(x), local(y)
    variances = local(x * x + y * y) - mean_x**2 - mean_y**2
    covariance = local(x * y) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    return (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1), (2 * covariance + c2) / (variances + c2)
