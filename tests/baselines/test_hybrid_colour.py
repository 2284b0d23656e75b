"""LGI: lightness, green, intensity."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.color import rgb2lab
from torch import Tensor

from deepmtdr.baselines.hybrid_colour import lightness, to_lgi


def pixel(red: float, green: float, blue: float) -> Tensor:
    """One pixel as an image."""
    return torch.tensor([red, green, blue])[None, :, None, None]


@pytest.mark.parametrize(
    ("rgb", "lgi"),
    [
        ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0)),
        ((1.0, 1.0, 1.0), (1.0, 1.0, 1.0)),
        # Y = 0.7152, its cube root 0.89428; L = 116 * 0.89428 - 16 = 87.737. I = 1 / 3, not the 0.072 of YIQ's I.
        ((0.0, 1.0, 0.0), (0.87737, 1.0, 1 / 3)),
        # 0.5 is 0.21404 linear, cube root 0.59818; L = 53.389.
        ((0.5, 0.5, 0.5), (0.53389, 0.5, 0.5)),
        # 0.02 / 12.92 = 0.0015480, dark: L = 903.3 * 0.001548 = 1.3983.
        ((0.02, 0.02, 0.02), (0.013983, 0.02, 0.02)),
    ],
)
def test_lgi_by_hand(rgb: tuple[float, float, float], lgi: tuple[float, float, float]) -> None:
    assert to_lgi(pixel(*rgb)).flatten().tolist() == pytest.approx(lgi, abs=2e-5)


def test_lightness_equals_scikit_images(rng: np.random.Generator) -> None:
    rgb = rng.random((40, 30, 3)) ** 3  # many dark pixels
    ours = lightness(torch.from_numpy(rgb.transpose(2, 0, 1)[None].copy()))[0, 0].numpy()
    np.testing.assert_allclose(100 * ours, rgb2lab(rgb)[..., 0], atol=1e-2)  # their Y is 0.212671, 0.715160, 0.072169


def test_gradient_is_finite_for_black_and_rises_everywhere() -> None:
    rgb = torch.linspace(0, 1, 256).expand(1, 3, 1, 256).clone().requires_grad_()
    to_lgi(rgb)[:, 0].sum().backward()
    assert rgb.grad is not None and rgb.grad.isfinite().all() and (rgb.grad > 0).all()


def test_lightness_is_continuous() -> None:
    levels = torch.linspace(0, 0.2, 20_001, dtype=torch.float64).expand(1, 3, 1, -1)
    steps = lightness(levels).diff(dim=-1)
    assert (steps > 0).all() and steps.max() < 2e-5


def test_lgi_is_in_full_precision_under_autocast() -> None:
    rgb = torch.rand(1, 3, 8, 8).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        inside = to_lgi(rgb)
    assert inside.dtype == torch.float32 and torch.equal(inside, to_lgi(rgb.float()))
