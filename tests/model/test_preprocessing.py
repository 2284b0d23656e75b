"""Local contrast (interpretation R21), the input of the paper's segmentation and grading subnets."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from deepmtdr.model.preprocessing import (
    FLOOR,
    GAIN,
    image_to_tensor,
    local_contrast,
    normalise_imagenet,
    tensor_to_image,
)


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


def test_a_dark_channel_has_contrast_where_another_channel_is_bright() -> None:
    # Blue 0.03 around a spot of 0.06, both darker than DARK, in a red fundus: 3 * (0.06 - 0.03) / (0.03 + 0.04).
    frame = torch.tensor([0.5, 0.2, 0.03])[None, :, None, None].repeat(1, 1, 256, 256)
    frame[:, 2, 126:130, 126:130] = 0.06
    assert local_contrast(frame)[0, 2, 128, 128].item() == pytest.approx(0.09 / 0.07, rel=0.01)


def test_local_mean_at_the_border_of_the_image_by_hand() -> None:
    # Columns of cells 0.8, 0.4, 0.4 ... The first mean of cells 0, 1, 2 is that of the 3, 4, 5 cells inside the image:
    # 1.6 / 3, 2 / 4, 2.4 / 5. The second mean of cell 0 is the mean of these three.
    frame = torch.full((1, 3, 64, 256), 0.4)
    frame[..., :16] = 0.8
    mean = (1.6 / 3 + 2 / 4 + 2.4 / 5) / 3
    assert local_contrast(frame)[0, :, 32, 0].tolist() == pytest.approx(
        [3 * (0.8 - mean) / (mean + 0.04)] * 3, rel=1e-4
    )


def test_imagenets_mean_becomes_0_and_one_standard_deviation_more_becomes_1() -> None:
    mean, above = (0.485, 0.456, 0.406), (0.485 + 0.229, 0.456 + 0.224, 0.406 + 0.225)
    colours = torch.tensor([mean, above])[:, :, None, None]
    assert normalise_imagenet(colours).flatten(1).tolist() == [pytest.approx([0] * 3, abs=1e-6), pytest.approx([1] * 3)]


def test_an_8_bit_image_survives_the_way_to_a_tensor_and_back(rng: np.random.Generator) -> None:
    image = rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)
    tensor = image_to_tensor(image)
    assert tensor.shape == (3, 5, 7)
    assert tensor[:, 2, 4].tolist() == pytest.approx([value / 255 for value in image[2, 4].tolist()])
    again = tensor_to_image(tensor)
    assert np.array_equal(again, image)
    assert again.flags.c_contiguous, "readers of the raw bytes expect the pixels row by row"
