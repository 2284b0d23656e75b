"""PSNR and SSIM: worked by hand, against scikit-image and written-out convolutions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.signal import convolve2d
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from deepmtdr.metrics import erode_field, ms_ssim, psnr, ssim


@pytest.fixture
def pair(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    hr = np.clip(np.cumsum(rng.normal(0, 0.03, (48, 40, 3)), axis=0) + 0.5, 0, 1).astype(np.float32)
    return np.clip(hr + rng.normal(0, 0.05, hr.shape), 0, 1).astype(np.float32), hr


def disc(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return (y - height / 2) ** 2 + (x - width / 2) ** 2 < (width / 3) ** 2


def test_psnr_of_an_error_of_0_1_is_20_db() -> None:
    hr = np.full((4, 4, 3), 0.5)
    assert psnr(hr + 0.1, hr) == pytest.approx(20)


def test_black_border_raises_psnr_and_the_mask_excludes_it() -> None:
    hr = np.zeros((10, 10, 3))
    inside = np.zeros((10, 10), bool)
    inside[:5] = True
    hr[inside] = 0.5
    sr = hr + 0.1 * inside[..., None]
    assert psnr(sr, hr, inside) == pytest.approx(20)
    assert psnr(sr, hr) == pytest.approx(20 + 10 * math.log10(2))


def test_psnr_agrees_with_scikit_image(pair: tuple[np.ndarray, np.ndarray]) -> None:
    sr, hr = pair
    assert psnr(sr, hr) == pytest.approx(peak_signal_noise_ratio(hr, sr, data_range=1), abs=1e-5)


def test_equal_images_have_infinite_psnr_and_ssim_1(pair: tuple[np.ndarray, np.ndarray]) -> None:
    _, hr = pair
    assert psnr(hr, hr) == math.inf
    assert ssim(hr, hr) == pytest.approx(1)


def test_eroded_field_by_hand() -> None:
    inside = np.zeros((9, 9), bool)
    inside[2:, 1:8] = True  # rows 2 to 8 reach the lower edge of the image, which counts as outside
    expected = np.zeros((9, 9), bool)
    expected[4:7, 3:6] = True  # farther than 2 px from row 1, row 9, column 0 and column 8
    assert (erode_field(inside, 2) == expected).all()
    assert (erode_field(inside, 0) == inside).all()
    assert not erode_field(inside, 9).any()


def test_ssim_agrees_with_scikit_image_whole_and_masked(pair: tuple[np.ndarray, np.ndarray]) -> None:
    sr, hr = pair
    theirs, windows = structural_similarity(
        *(hr.astype(float), sr.astype(float)),
        **{"data_range": 1, "channel_axis": 2, "gaussian_weights": True, "sigma": 1.5},
        use_sample_covariance=False,
        full=True,
    )
    inside = disc(48, 40)
    assert ssim(sr, hr) == pytest.approx(theirs, abs=1e-6)
    assert ssim(sr, hr, inside) == pytest.approx(windows[inside].mean(), abs=1e-6)


def test_windows_across_the_border_do_not_count(pair: tuple[np.ndarray, np.ndarray]) -> None:
    sr, hr = pair
    spoilt = sr.copy()
    spoilt[0] = 1 - spoilt[0]
    assert ssim(spoilt, hr, np.pad(np.ones((38, 30), bool), 5)) == ssim(spoilt, hr)
    assert math.isnan(ssim(sr, hr, np.pad(np.zeros((38, 30), bool), 5, constant_values=True)))


def test_scores_of_an_empty_mask_are_undefined(pair: tuple[np.ndarray, np.ndarray]) -> None:
    sr, hr = pair
    nothing = np.zeros((48, 40), bool)
    assert math.isnan(psnr(sr, hr, nothing))
    assert math.isnan(ssim(sr, hr, nothing))


@pytest.fixture(scope="module")
def large() -> tuple[np.ndarray, np.ndarray]:
    """Images slightly larger than the smallest with five scales; one side is odd."""
    rng = np.random.default_rng(0)
    hr = np.clip(gaussian_filter(rng.normal(0.5, 1.5, (181, 200, 3)), (3, 3, 0)), 0, 1)
    return np.clip(hr + rng.normal(0, 0.1, hr.shape), 0, 1).astype(np.float32), hr.astype(np.float32)


def ms_ssim_by_convolution(x: np.ndarray, y: np.ndarray) -> float:
    """One channel after Wang et al. 2003: convolution with a written-out window, halving by four shifted grids."""
    offsets = np.arange(11) - 5
    window = np.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * 1.5**2))
    window /= window.sum()
    score = 1.0
    for scale, power in enumerate([0.0448, 0.2856, 0.3001, 0.2363, 0.1333]):
        mean_x, mean_y = convolve2d(x, window, "valid"), convolve2d(y, window, "valid")
        variance_x = convolve2d(x * x, window, "valid") - mean_x**2
        variance_y = convolve2d(y * y, window, "valid") - mean_y**2
        covariance = convolve2d(x * y, window, "valid") - mean_x * mean_y
        kept = (2 * covariance + 0.0009) / (variance_x + variance_y + 0.0009)
        if scale == 4:
            kept *= (2 * mean_x * mean_y + 0.0001) / (mean_x**2 + mean_y**2 + 0.0001)
        score *= kept.mean() ** power
        x, y = (z[: len(z) // 2 * 2, : z.shape[1] // 2 * 2] for z in (x, y))
        x, y = ((z[::2, ::2] + z[1::2, ::2] + z[::2, 1::2] + z[1::2, 1::2]) / 4 for z in (x, y))
    return score


def test_ms_ssim_agrees_with_written_out_convolutions(large: tuple[np.ndarray, np.ndarray]) -> None:
    sr, hr = large
    theirs = np.mean([ms_ssim_by_convolution(sr[..., c].astype(float), hr[..., c].astype(float)) for c in range(3)])
    assert 0.5 < ms_ssim(sr, hr) < 0.99
    assert ms_ssim(sr, hr) == pytest.approx(theirs, abs=1e-9)


def test_ms_ssim_is_1_for_equal_images_and_decreases_with_blur(large: tuple[np.ndarray, np.ndarray]) -> None:
    _, hr = large
    scores = [ms_ssim(gaussian_filter(hr, (sigma, sigma, 0)) if sigma else hr, hr) for sigma in (0, 1, 2, 4, 8)]
    assert scores[0] == pytest.approx(1, abs=1e-12)
    assert (np.diff(scores) < 0).all()


def test_ms_ssim_is_symmetric_and_does_not_change_with_rotation(
    large: tuple[np.ndarray, np.ndarray],
) -> None:
    sr, hr = (image[:176, :176] for image in large)
    assert ms_ssim(hr, sr) == pytest.approx(ms_ssim(sr, hr), abs=1e-12)
    assert ms_ssim(np.rot90(sr), np.rot90(hr)) == pytest.approx(ms_ssim(sr, hr), abs=1e-12)


def test_ms_ssim_of_the_inverted_image_is_0(large: tuple[np.ndarray, np.ndarray]) -> None:
    _, hr = large
    assert ms_ssim(1 - hr, hr) == 0


def test_ms_ssim_counts_only_windows_of_the_mask(large: tuple[np.ndarray, np.ndarray]) -> None:
    sr, hr = large
    height, width = hr.shape[:2]
    assert ms_ssim(sr, hr, np.ones((height, width), bool)) == ms_ssim(sr, hr)
    spoilt, inside = sr.copy(), np.ones((height, width), bool)
    spoilt[:, :8] = 0  # outside every window that counts: those of the coarsest scale begin at pixel 16
    inside[:, :96] = False
    assert ms_ssim(spoilt, hr) < ms_ssim(sr, hr)
    assert ms_ssim(spoilt, hr, inside) == pytest.approx(ms_ssim(sr, hr, inside))
    inside[::16] = False  # every square of 16 px has a row that does not count
    assert math.isnan(ms_ssim(sr, hr, inside))


def test_ms_ssim_of_an_image_without_five_scales_is_an_error() -> None:
    small = np.zeros((176, 175, 3))
    with pytest.raises(ValueError, match="image of 176 x 175 px, expected at least 176 x 176 for five scales"):
        ms_ssim(small, small)
