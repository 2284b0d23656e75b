"""Local contrast (interpretation R21), the input of the paper's segmentation and grading subnets."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from deepmtdr.model.preprocessing import FLOOR, GAIN, local_contrast


def disc(side: int = 256, radius: int = 120) -> Tensor:
    """The field of view: 1 inside, 0 outside."""
    y, x = torch.meshgrid(torch.arange(side) - side / 2, torch.arange(side) - side / 2, indexing="ij")
    return (x.square() + y.square() < radius**2).float()


def fundus(level: float = 0.4) -> Tensor:
    """A uniform fundus with one dark spot of 8 px in the middle."""
    frame = (level * disc()).expand(1, 3, -1, -1).clone()
    frame[..., 124:132, 124:132] *= 0.7
    return frame


def test_contrast_by_hand() -> None:
    # The local mean is about 0.4, since the spot is small: GAIN * (0.28 - 0.4) / (0.4 + FLOOR).
    contrast = local_contrast(fundus())
    assert contrast[0, :, 128, 128].tolist() == pytest.approx([GAIN * -0.12 / (0.4 + FLOOR)] * 3, rel=0.02)


def test_constant_frame_has_no_contrast() -> None:
    assert local_contrast(torch.full((1, 3, 64, 96), 0.6)).abs().max() < 1e-5


def test_border_of_the_field_of_view_has_no_contrast() -> None:
    even = (0.4 * disc()).expand(1, 3, -1, -1)
    assert local_contrast(even).abs().max() < 1e-4


def test_contrast_outside_the_field_of_view_is_zero() -> None:
    outside = disc() == 0
    noisy = fundus() + 0.02 * torch.rand(1, 3, 256, 256) * outside
    assert not local_contrast(noisy)[:, :, outside].any()


@pytest.mark.parametrize("gains", [(0.6, 0.6, 0.6), (1.5, 1.0, 0.5)], ids=["darker", "cast"])
def test_a_cameras_gain_changes_contrast_by_less_than_a_tenth(gains: tuple[float, float, float]) -> None:
    # It changes a little, because of FLOOR, which keeps the noise of an empty channel small.
    contrast = local_contrast(fundus())
    other = local_contrast(fundus() * torch.tensor(gains).reshape(1, 3, 1, 1))
    assert (contrast - other).abs().max() < 0.1 * contrast.abs().max()


def test_local_mean_spans_about_128_px() -> None:
    """A bright stripe of 16 px changes the contrast 48 px away, but not 96 px away."""
    even = torch.full((1, 3, 64, 256), 0.4)
    striped = even.clone()
    striped[..., :16] = 0.8
    difference = (local_contrast(striped) - local_contrast(even)).abs().amax(dim=(0, 1, 2))
    assert difference[48:56].min() > 1e-3
    assert difference[96:].max() < 1e-6


def test_a_slow_shadow_is_weaker_than_the_spot() -> None:
    shadow = torch.linspace(1.0, 0.6, 256)
    contrast = local_contrast(fundus() * shadow)
    middle = contrast[0, 0, 128, 64:192]
    assert middle.argmin() in range(60, 69)
    assert middle[:40].abs().max() < 0.5 * middle.min().abs()


def test_values_are_clamped_to_minus_3_and_3() -> None:
    frame = torch.full((1, 3, 256, 256), 0.05)
    frame[..., 128, 128] = 1.0
    assert local_contrast(frame).max() == 3


def test_gradient_reaches_the_frame_within_the_field_of_view() -> None:
    frame = fundus().requires_grad_()
    local_contrast(frame).square().sum().backward()
    assert frame.grad is not None
    assert frame.grad[..., 120:136, 120:136].any() and not frame.grad[:, :, disc() == 0].any()
