"""PSNR and SSIM, by hand and against scikit-image."""

from __future__ import annotations

import math

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from deepmtdr.metrics import psnr, ssim


@pytest.fixture
def pair(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    hr = np.clip(np.cumsum(rng.normal(0, 0.03, (48, 40, 3)), axis=0) + 0.5, 0, 1).astype(np.float32)
    return np.clip(hr + rng.normal(0, 0.05, hr.shape), 0, 1).astype(np.float32), hr


def disc(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return (y - height / 2) ** 2 + (x - width / 2) ** 2 < (width / 3) ** 2


def test_psnr_of_an_error_of_a_tenth_is_20_db() -> None:
    hr = np.full((4, 4, 3), 0.5)
    assert psnr(hr + 0.1, hr) == pytest.approx(20)


def test_a_black_border_inflates_psnr_and_the_mask_takes_it_out() -> None:
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


def test_windows_over_the_border_never_count(pair: tuple[np.ndarray, np.ndarray]) -> None:
    sr, hr = pair
    spoilt = sr.copy()
    spoilt[0] = 1 - spoilt[0]
    assert ssim(spoilt, hr, np.pad(np.ones((38, 30), bool), 5)) == ssim(spoilt, hr)
    assert math.isnan(ssim(sr, hr, np.pad(np.zeros((38, 30), bool), 5, constant_values=True)))


def test_an_empty_mask_has_no_score(pair: tuple[np.ndarray, np.ndarray]) -> None:
    sr, hr = pair
    nothing = np.zeros((48, 40), bool)
    assert math.isnan(psnr(sr, hr, nothing))
    assert math.isnan(ssim(sr, hr, nothing))
