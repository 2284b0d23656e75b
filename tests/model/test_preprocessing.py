"""Local contrast (interpretations R21 and R30), the input of the paper's segmentation and grading subnets."""

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
    local_mean_at,
    normalise_imagenet,
    tensor_to_image,
)


def disc(side: int = 256, radius: int = 120) -> Tensor:
    """The field of view: 1 inside, 0 outside."""
    y, x = torch.meshgrid(torch.arange(side) - side / 2, torch.arange(side) - side / 2, indexing="ij")
    return (x.square() + y.square() < radius**2).float()


def fundus(level: float = 0.4) -> Tensor:
    """A uniform fundus with one dark spot of 2 px in the middle."""
    frame = (level * disc()).expand(1, 3, -1, -1).clone()
    frame[..., 127:129, 127:129] *= 0.7
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
    difference = change_by_a_stripe(side=1024, stripe=16)
    assert difference[48:56].min() > 1e-3
    assert difference[96:].max() < 1e-6


@pytest.mark.parametrize("side", [512, 256, 64])
def test_neighbourhood_is_the_same_share_of_every_frame(side: int) -> None:
    """A stripe of 1/64 of the side has the same effect at the same share of the side, where cells are whole pixels."""
    scale = 1024 // side
    large = change_by_a_stripe(side=1024, stripe=16).view(-1, scale).mean(1)
    assert torch.allclose(change_by_a_stripe(side=side, stripe=side // 64), large, atol=0.03)


def change_by_a_stripe(side: int, stripe: int) -> Tensor:
    """Largest change of the contrast in each column of a frame whose left edge is brighter."""
    even = torch.full((1, 3, side // 4, side), 0.4)
    striped = even.clone()
    striped[..., :stripe] = 0.8
    return (local_contrast(striped) - local_contrast(even)).abs().amax(dim=(0, 1, 2))


@pytest.mark.parametrize("side", [16, 48, 80, 240, 272])
def test_frames_whose_side_is_not_a_multiple_of_64_have_about_the_same_contrast(side: int) -> None:
    large = fundus_of_side(960)
    contrast = local_contrast(fundus_of_side(side))
    assert contrast.shape == (1, 3, side, side)
    expected = torch.nn.functional.interpolate(local_contrast(large), (side, side), mode="area")
    middle = slice(side // 4, 3 * side // 4)
    assert (contrast - expected)[..., middle, middle].abs().max() < 0.12


def fundus_of_side(side: int) -> Tensor:
    """A fundus with waves of a fifth of the side, lit from the left."""
    places = (torch.arange(side) + 0.5) / side
    waves = 0.5 + 0.1 * torch.sin(2 * torch.pi * 5 * places)[:, None] * torch.ones(side)
    return (waves * (1 - 0.3 * places)).expand(1, 3, -1, -1).clone()


def test_a_slow_shadow_is_weaker_than_the_spot() -> None:
    shadow = torch.linspace(1.0, 0.6, 256)
    contrast = local_contrast(fundus() * shadow)
    middle = contrast[0, 0, 128, 64:192]
    assert middle.argmin() in range(60, 69)
    assert middle[:40].abs().max() < 0.5 * middle.min().abs()


def test_values_are_clamped_to_minus_3_and_3() -> None:
    frame = torch.full((1, 3, 256, 256), 0.1)
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
    frame[:, 2, 127:129, 127:129] = 0.06
    assert local_contrast(frame)[0, 2, 128, 128].item() == pytest.approx(0.09 / 0.07, rel=0.02)


def test_local_mean_at_the_border_of_the_image_by_hand() -> None:
    # Columns of cells 0.8, 0.4, 0.4 ... The first mean of cells 0, 1, 2 is that of the 3, 4, 5 cells inside the image:
    # 1.6 / 3, 2 / 4, 2.4 / 5. The second mean of cell 0 is the mean of these three.
    frame = torch.full((1, 3, 256, 1024), 0.4)
    frame[..., :16] = 0.8
    mean = (1.6 / 3 + 2 / 4 + 2.4 / 5) / 3
    assert local_contrast(frame)[0, :, 128, 0].tolist() == pytest.approx(
        [3 * (0.8 - mean) / (mean + 0.04)] * 3, rel=1e-4
    )


# Crops with the local means of their frame (interpretation R30)


def positions_of(side: int, rows: slice, columns: slice) -> Tensor:
    """Positions of a window of a square frame, from -1 to 1: x, then y."""
    places = (2 * torch.arange(side) + 1) / side - 1
    y, x = torch.meshgrid(places[rows], places[columns], indexing="ij")
    return torch.stack([x, y])[None]


@pytest.mark.parametrize("seed", range(3))
def test_contrast_of_a_crop_with_the_local_mean_of_the_frame_is_the_crop_of_the_contrast(seed: int) -> None:
    torch.manual_seed(seed)
    blobs = torch.nn.functional.interpolate(torch.rand(1, 3, 12, 12), (256, 256), mode="bicubic").clamp(0, 1)
    frame = (0.2 + 0.6 * blobs) * disc()
    rows, columns = slice(30, 110), slice(140, 220)
    mean = local_mean_at(frame, positions_of(256, rows, columns))
    of_crop = local_contrast(frame[..., rows, columns], mean)
    of_frame = local_contrast(frame)[..., rows, columns]
    assert torch.allclose(of_crop, of_frame, atol=1e-4)
    alone = local_contrast(frame[..., rows, columns])
    assert (alone - of_frame).abs().mean() > 0.1 * of_frame.abs().mean(), "the crop alone has another neighbourhood"


def test_local_means_of_a_reduced_frame_are_those_of_the_frame() -> None:
    frame = fundus_of_side(1024) * disc(1024, 500)
    positions = positions_of(1024, slice(300, 500), slice(100, 300))
    assert torch.allclose(local_mean_at(frame, positions), local_mean_at(frame[..., 2::4, 2::4], positions), atol=2e-3)


def test_a_given_local_mean_is_constant_for_the_gradient() -> None:
    frame = fundus().requires_grad_()
    mean = torch.full((1, 3, 256, 256), 0.4)
    local_contrast(frame, mean)[0, 1, 60, 128].backward()
    assert frame.grad is not None
    assert frame.grad[0, 1, 60, 128].item() == pytest.approx(GAIN / (0.4 + FLOOR))
    assert frame.grad.count_nonzero() == 1


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
