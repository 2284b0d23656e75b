"""Augmentation: the same geometry for image and masks, a camera for the image alone, values in [0, 1]."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from array_frame import ArrayFrame
from deepmtdr.datasets.frames import Frame
from deepmtdr.datasets.sample import Sample
from deepmtdr.labels import DIABETIC_RETINOPATHY
from deepmtdr.model.preprocessing import image_to_tensor
from deepmtdr.recipe import Augmentation
from deepmtdr.terms import Lesion
from deepmtdr.training.augmentation import (
    Tone,
    draw_tone,
    gaussian_blur,
    jpeg_compress,
    random_crop,
    random_flip_rotate,
    rotate,
    rotation_margin,
    simulate_camera,
    vignette_mask,
)

CAMERA = Augmentation(gain=0.25, gamma=0.25, blur=0.6, noise=0.01, jpeg=45)
NO_CAMERA = Augmentation(gain=0.0, gamma=0.0, blur=0.0, noise=0.0, jpeg=100)
SEEDS = range(12)
HE, EX, SE = (DIABETIC_RETINOPATHY.channel(lesion) for lesion in (Lesion.HE, Lesion.EX, Lesion.SE))


def frame(masks: np.ndarray | None, pixels: np.ndarray | None = None, side: int = 64) -> Frame:
    sample = Sample(photograph=Path("x.png"), name="x", patient="p", dataset="d")
    return ArrayFrame(sample, np.zeros((side, side, 3), np.uint8) if pixels is None else pixels, masks)


@pytest.fixture
def twin(rng: np.random.Generator) -> Frame:
    """A frame whose image channels are its first three masks, so that any difference in geometry shows."""
    masks = rng.integers(0, 256, (4, 64, 64), np.uint8)
    return frame(masks, masks[:3].transpose(1, 2, 0))


def disc(side: int = 64) -> Tensor:
    """A grey circle on black, as a fundus photograph."""
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    inside = np.hypot(y, x) < 0.4 * side
    return torch.from_numpy(inside[None] * np.array([0.6, 0.4, 0.2])[:, None, None]).float()


@pytest.mark.parametrize("zoom", [1.0, 1.5])
@pytest.mark.parametrize("seed", SEEDS)
def test_crop_is_the_same_for_image_and_masks(twin: Frame, seed: int, zoom: float) -> None:
    image, masks, _ = random_crop(twin, 32, zoom, np.random.default_rng(seed))
    assert image.shape == (3, 32, 32) and masks.shape == (4, 32, 32)
    assert torch.equal(image, masks[:3])
    assert masks.min() >= 0 and masks.max() <= 1


@pytest.mark.parametrize("seed", SEEDS)
def test_crop_without_zoom_is_a_window_of_the_frame(twin: Frame, seed: int) -> None:
    image, *_ = random_crop(twin, 48, 1.0, np.random.default_rng(seed))
    windows = torch.from_numpy(twin.pixels.copy()).unfold(0, 48, 1).unfold(1, 48, 1)
    assert (windows == (255 * image).round().byte()).flatten(2).all(2).any()


def test_crop_of_the_whole_frame_is_the_frame(twin: Frame, rng: np.random.Generator) -> None:
    image, masks, _ = random_crop(twin, 64, 1.0, rng)
    assert torch.equal(image, image_to_tensor(twin.pixels))
    assert twin.lesion_masks is not None
    assert torch.equal(masks, torch.from_numpy(twin.lesion_masks).float() / 255)


def test_crop_larger_than_the_frame_takes_all_of_it(twin: Frame, rng: np.random.Generator) -> None:
    image, *_ = random_crop(twin, 128, 1.0, rng)
    assert image.shape == (3, 128, 128)
    assert image.mean().item() == pytest.approx(twin.pixels.mean() / 255, abs=0.01)


def test_zoom_enlarges_and_reduces() -> None:
    masks = np.zeros((4, 256, 256), np.uint8)
    masks[HE, 112:144, 112:144] = 255  # 1024 px
    areas = [
        random_crop(frame(masks, side=256), 128, 2.0, np.random.default_rng(s), 1.0)[1].sum().item() for s in range(40)
    ]
    assert min(areas) < 0.6 * 1024 and max(areas) > 2 * 1024
    assert all(area <= 1.01 * 4 * 1024 for area in areas)


def test_crop_of_an_unannotated_frame_has_empty_masks(rng: np.random.Generator) -> None:
    masks = random_crop(frame(None), 32, 1.35, rng).masks
    assert masks.shape == (4, 32, 32) and not masks.any()


def test_crops_are_centred_near_lesions_as_often_as_set() -> None:
    masks = np.zeros((4, 256, 256), np.uint8)
    masks[EX, 40:48, 200:208] = 255

    def share(lesion_share: float) -> float:
        crops = (
            random_crop(frame(masks, side=256), 32, 1.0, np.random.default_rng(s), lesion_share)[1] for s in range(60)
        )
        return float(np.mean([mask.any().item() for mask in crops]))

    assert share(1.0) > 0.9
    assert share(0.0) < 0.2
    assert share(0.0) < share(0.5) < share(1.0)


@pytest.mark.parametrize("side", [48, 96])
def test_crops_away_from_lesions_are_mostly_inside_the_field_of_view(side: int) -> None:
    # At random between 10 and 90 % of the side, 8.5 % of the pixels of a crop of real frames were black, and 2 % of the
    # crops were more than half black; now 2.4 % of the pixels, and no crop.
    inside = disc(256)
    fundus = frame(None, (255 * inside).byte().permute(1, 2, 0).numpy())
    crops = [random_crop(fundus, side, 1.35, np.random.default_rng(s)).image for s in range(100)]
    shares = [(image.amax(0) > 16 / 255).float().mean().item() for image in crops]
    assert min(shares) > 0.75
    assert np.mean(shares) > 0.93
    assert sum(share < 1 for share in shares) > 10, "the rim of the field of view is shown too"


def test_crops_are_anywhere_inside_the_field_of_view() -> None:
    places = np.stack(
        [
            random_crop(frame(None, np.full((256, 256, 3), 99, np.uint8)), 64, 1.0, np.random.default_rng(s))
            .positions.mean((1, 2))
            .numpy()
            for s in range(300)
        ]
    )
    # The centre is uniform from 32 to 224 px of 256, which is -.75 to .75: standard deviation .75 / 3 ** .5.
    assert np.abs(places).max() <= 0.76
    assert places.mean(0) == pytest.approx([0, 0], abs=0.08)
    assert places.std(0) == pytest.approx([0.433] * 2, abs=0.05)


def test_a_black_frame_can_be_cropped(rng: np.random.Generator) -> None:
    assert not random_crop(frame(None), 32, 1.0, rng).image.any()


@pytest.mark.parametrize("zoom", [1.0, 1.5])
@pytest.mark.parametrize("seed", SEEDS)
def test_positions_are_those_of_the_pixels_in_the_frame(seed: int, zoom: float) -> None:
    ramp = np.arange(0, 256, 2, dtype=np.uint8)  # 128 px
    x, y = np.meshgrid(ramp, ramp)
    crop = random_crop(frame(None, np.stack([x, y, y], axis=2)), 64, zoom, np.random.default_rng(seed))
    expected = (255 * crop.image[:2] / 2 + 0.5) / 64 - 1
    assert crop.positions.numpy() == pytest.approx(expected.numpy(), abs=2e-2 if zoom > 1 else 1e-5)


def test_rare_lesion_types_are_chosen_as_often_as_common_ones() -> None:
    masks = np.zeros((4, 256, 256), np.uint8)
    masks[EX, :, 128:] = 255
    masks[SE, 20:28, 20:28] = 255
    crops = (random_crop(frame(masks, side=256), 32, 1.0, np.random.default_rng(s), 1.0)[1] for s in range(60))
    assert 0.3 < np.mean([mask[SE].any().item() for mask in crops]) < 0.7


@pytest.mark.parametrize("seed", SEEDS)
def test_flip_is_the_same_for_all_channels_and_loses_no_pixel(seed: int) -> None:
    plane = torch.arange(16.0).view(1, 4, 4)
    turned = random_flip_rotate(torch.cat([plane, 2 * plane]), np.random.default_rng(seed))
    assert torch.equal(turned[1], 2 * turned[0])
    assert sorted(turned[0].flatten().tolist()) == list(range(16))


def test_flips_and_quarter_turns_give_all_eight_positions() -> None:
    plane = torch.arange(4.0).view(1, 2, 2)
    assert len({tuple(random_flip_rotate(plane, np.random.default_rng(s)).flatten().tolist()) for s in range(100)}) == 8


@pytest.mark.parametrize("seed", SEEDS)
def test_camera_stays_in_range_and_shape(seed: int) -> None:
    rng = np.random.default_rng(seed)
    strong = Augmentation(gain=1.0, gamma=1.0, blur=3.0, noise=0.3, jpeg=5)
    degraded = simulate_camera(torch.rand(3, 32, 32), rng, strong)[1]
    assert degraded.shape == (3, 32, 32) and degraded.dtype == torch.float32
    assert degraded.min() >= 0 and degraded.max() <= 1


@pytest.mark.parametrize("seed", SEEDS)
def test_camera_keeps_the_background_black(seed: int) -> None:
    outside = disc(96).amax(0) == 0
    tone_and_noise = replace(CAMERA, gain=0.8, noise=0.2, blur=0.0, jpeg=100)
    assert not simulate_camera(disc(96), np.random.default_rng(seed), tone_and_noise)[1][:, outside].any()
    far = torch.nn.functional.max_pool2d((~outside).float()[None], 37, 1, 18)[0] == 0  # farther than a block of JPEG
    assert simulate_camera(disc(96), np.random.default_rng(seed), CAMERA)[1][:, far].max() < 0.01


def test_blur_noise_and_jpeg_change_the_degraded_image_alone() -> None:
    # Interpretation R24: the target of super-resolution stays sharp; gain and tone change both images.
    lossy, plain = replace(CAMERA, blur=2.0), replace(CAMERA, blur=0.0, noise=0.0, jpeg=100)
    pairs = [simulate_camera(disc(), np.random.default_rng(s), lossy) for s in range(10)]
    toned = [simulate_camera(disc(), np.random.default_rng(s), plain) for s in range(10)]
    for (ideal, degraded), (tone, same) in zip(pairs, toned, strict=True):
        assert torch.equal(ideal, tone) and torch.equal(same, tone) and not torch.equal(degraded, ideal)


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_share_of_the_crops_is_degraded_and_the_others_stay_sharp(share: float) -> None:
    camera = replace(NO_CAMERA, noise=0.05, degraded=share)
    pairs = [simulate_camera(disc(), np.random.default_rng(seed), camera) for seed in range(200)]
    degraded = [not torch.equal(ideal, seen) for ideal, seen in pairs]
    assert np.mean(degraded) == pytest.approx(share, abs=0.08 * (0 < share < 1))


def test_camera_with_empty_ranges_changes_nothing(rng: np.random.Generator) -> None:
    assert torch.equal(simulate_camera(disc(), rng, NO_CAMERA)[1], disc())


@pytest.mark.parametrize(
    ("setting", "value"), [("gain", 0.3), ("gamma", 0.3), ("noise", 0.05), ("blur", 2.0), ("jpeg", 20)]
)
def test_each_setting_of_the_camera_has_an_effect(setting: str, value: float) -> None:
    camera = replace(NO_CAMERA, **{setting: value})
    degraded = [simulate_camera(disc(), np.random.default_rng(s), camera)[1] for s in range(10)]
    assert max((image - disc()).abs().max().item() for image in degraded) > 0.01


def test_gain_shifts_colour_and_gamma_keeps_white() -> None:
    grey = torch.full((3, 8, 8), 0.5)
    casts = [simulate_camera(grey, np.random.default_rng(s), replace(NO_CAMERA, gain=0.3))[1] for s in range(5)]
    assert all(image.std(dim=0).max() > 0.005 and image[0].max() == image[0].min() for image in casts)
    white = torch.ones(3, 8, 8)
    assert torch.equal(simulate_camera(white, np.random.default_rng(0), replace(NO_CAMERA, gamma=0.5))[1], white)


def test_tone_is_the_first_change_of_the_camera() -> None:
    # Gain 1.2 and gamma 2 by hand; drawn before the call or in it, the numbers are the same.
    tone = Tone(2.0, torch.tensor([1.2, 1.0, 5.0])[:, None, None])
    image = torch.full((3, 2, 2), 0.5)
    assert tone(image)[:, 0, 0].tolist() == pytest.approx([0.3, 0.25, 1.0])
    rng, again = np.random.default_rng(3), np.random.default_rng(3)
    drawn = draw_tone(again, CAMERA)
    assert torch.equal(simulate_camera(disc(), rng, CAMERA)[1], simulate_camera(disc(), again, CAMERA, drawn)[1])


def test_every_choice_comes_from_the_generator(twin: Frame) -> None:
    def augment(seed: int) -> Tensor:
        rng = np.random.default_rng(seed)
        image, masks, _ = random_crop(twin, 32, 1.35, rng)
        both = random_flip_rotate(torch.cat([image, masks]), rng)
        return torch.cat([simulate_camera(both[:3], rng, CAMERA)[1], both[3:]])

    torch.manual_seed(1)
    first = augment(3)
    torch.manual_seed(2)
    assert torch.equal(first, augment(3))
    assert not torch.equal(first, augment(4))


def test_blur_keeps_a_constant_and_the_mean_of_a_spot() -> None:
    assert torch.allclose(gaussian_blur(torch.full((3, 16, 16), 0.3), 1.5), torch.tensor(0.3))
    spot = torch.zeros(1, 33, 33)
    spot[0, 16, 16] = 1
    blurred = gaussian_blur(spot, 2.0)
    assert blurred.sum().item() == pytest.approx(1, abs=1e-4)
    at = torch.arange(33.0) - 16
    variance = (blurred[0].sum(0) * at**2).sum().item()
    assert variance == pytest.approx(4, rel=0.03)


def test_jpeg_of_lower_quality_has_a_larger_error() -> None:
    image = torch.rand(3, 32, 32)
    errors = [(jpeg_compress(image, quality) - image).abs().mean().item() for quality in (95, 60, 20)]
    assert 0 < errors[0] < errors[1] < errors[2]


# Rotation and vignetting


@pytest.mark.parametrize("quarter", [0, 1, 2, 3])
@pytest.mark.parametrize("side", [8, 7])
def test_rotation_by_90_degrees_is_a_quarter_turn_of_the_middle(quarter: int, side: int) -> None:
    images = torch.rand(2, side + 4, side + 4)
    middle = images[:, 2:-2, 2:-2]
    assert torch.allclose(rotate(images, 90.0 * quarter, side), torch.rot90(middle, quarter, (1, 2)), atol=1e-5)


@pytest.mark.parametrize("degrees", [-170.0, -45.0, 12.5, 30.0, 90.0])
def test_margin_leaves_no_corner_black(degrees: float) -> None:
    side = 32
    square = torch.ones(
        1, int(np.ceil(side * rotation_margin(degrees))) + 1, int(np.ceil(side * rotation_margin(degrees))) + 1
    )
    assert rotate(square, degrees, side).min() > 0.999
    smaller = torch.ones(1, side, side)
    assert degrees % 90 == 0 or rotate(smaller, degrees, side).min() == 0


def test_vignetting_has_the_value_worked_by_hand() -> None:
    light = vignette_mask((3, 5), 0.4)
    assert light[1, 2] == 1 and light[1, 0] == pytest.approx(0.8)
    assert light[[0, 0, 2, 2], [0, 4, 0, 4]].tolist() == pytest.approx([0.6] * 4)


def test_vignetting_darkens_the_degraded_image_alone(rng: np.random.Generator) -> None:
    image = torch.full((3, 16, 16), 0.5)
    ideal, degraded = simulate_camera(image, rng, replace(NO_CAMERA, vignetting=0.5))
    assert torch.equal(ideal, image)
    assert (degraded <= ideal).all() and degraded[:, 0, 0].max() < degraded[:, 8, 8].min()
