"""The field of view: found, cropped, and mapped back to the photograph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deepmtdr.errors import InputSizeError, NoFieldOfViewError, PhotographError
from deepmtdr.photographs.field_of_view import crop_to_frame, find_fov, has_retina_colours
from deepmtdr.photographs.geometry import (
    FieldOfView,
    InputScale,
    choose_input_scale,
    crop_mask,
    fov_mask,
    map_to_photograph,
)
from fundus import draw_fundus


def miss(found: FieldOfView, x: float, y: float, side: float) -> float:
    """Largest difference of centre and side, in per cent of the side."""
    centre = (found.x + found.side / 2 - x - side / 2, found.y + found.side / 2 - y - side / 2)
    return 100 * max(abs(centre[0]), abs(centre[1]), abs(found.side - side)) / side


@pytest.mark.parametrize(
    ("height", "width", "centre", "radius"),
    [
        (300, 400, (200, 150), 140),  # whole
        (300, 400, (120.5, 160), 100),  # off-centre
        (280, 400, (190, 140), 178),  # cut above and below, as IDRiD's
        (280, 280, (140, 140), 140),  # cropped tightly to the circle
        (250, 250, (125, 125), 145),  # cropped inside the circle: the rim shows in the corners only
        (300, 300, (60, 150), 140),  # cut on the left
        (1000, 1500, (700, 480), 430),
        (70, 90, (45, 35), 32),
    ],
)
def test_circle_is_found_within_one_percent(
    height: int, width: int, centre: tuple[float, float], radius: float
) -> None:
    found = find_fov(draw_fundus(height, width, centre, radius))
    assert miss(found, centre[0] - radius, centre[1] - radius, 2 * radius) < 1


def test_circle_cut_above_reaches_outside_the_photograph() -> None:
    found = find_fov(draw_fundus(280, 400, (190, 140), 178))
    assert found.y < -30
    assert found.y + found.side > 310


@pytest.mark.parametrize(
    ("above", "below", "left", "right"), [(60, 60, 0, 0), (5, 90, 0, 0), (0, 0, 40, 70), (60, 0, 0, 0)]
)
@pytest.mark.parametrize("ground", [0, 12])
def test_dark_bars_where_the_circle_was_cut_do_not_matter(
    above: int, below: int, left: int, right: int, ground: int
) -> None:
    bars = ((above, below), (left, right), (0, 0))
    height, width = (400, 220) if left else (220, 400)  # half of the rim is cut off
    pixels = np.pad(
        draw_fundus(height, width, (width / 2, height / 2), 175, ground=ground), bars, constant_values=ground
    )
    assert miss(find_fov(pixels), width / 2 + left - 175, height / 2 + above - 175, 350) < 1.5


@pytest.mark.parametrize("factor", [0.2, 0.5, 1.0])
def test_dark_photograph_gives_the_same_circle(factor: float) -> None:
    pixels = (draw_fundus() * factor).astype(np.uint8)
    assert miss(find_fov(pixels), 60, 10, 280) < 1


def test_ground_that_is_not_black_and_noise_do_not_matter(rng: np.random.Generator) -> None:
    noisy = draw_fundus(ground=30) + rng.normal(0, 8, (300, 400, 3))
    assert miss(find_fov(noisy.clip(0, 255).astype(np.uint8)), 60, 10, 280) < 1


def test_tab_notch_and_text_do_not_move_the_circle() -> None:
    pixels = draw_fundus()
    pixels[60:80, 318:336] = (180, 90, 40)  # tab
    pixels[140:160, 60:72] = 0  # notch
    pixels[5:25, 5:60:3] = 255  # something like writing
    pixels[280:295, 350:395] = 255
    assert miss(find_fov(pixels), 60, 10, 280) < 1


def test_grey_photograph_has_a_field_of_view() -> None:
    grey = draw_fundus().mean(axis=2, keepdims=True).astype(np.uint8)
    assert miss(find_fov(grey.repeat(3, axis=2)), 60, 10, 280) < 1


def test_retina_without_any_rim_is_taken_whole() -> None:
    assert find_fov(draw_fundus(200, 260, (130, 100), 400)) == FieldOfView(0, -30, 260)


@pytest.mark.parametrize("value", [0, 3, 128, 255])
def test_uniform_photograph_has_no_field_of_view(value: int) -> None:
    with pytest.raises(
        NoFieldOfViewError, match=rf"brightness spans {value} to {value} of 255 over 90x70 px, expected"
    ):
        find_fov(np.full((70, 90, 3), value, np.uint8))


def test_other_pictures_have_no_field_of_view(rng: np.random.Generator) -> None:
    landscape = np.full((120, 160, 3), (90, 150, 230), np.uint8)
    landscape[80:] = (40, 120, 40)
    noise = rng.integers(0, 256, (120, 160, 3)).astype(np.uint8)
    page = np.full((120, 160, 3), 240, np.uint8)
    page[10:30, 10:150] = page[50:70, 10:150] = page[90:110, 10:100] = 20
    for picture in (landscape, noise, page):
        with pytest.raises(NoFieldOfViewError, match="neither the rim of a bright disc"):
            find_fov(picture)


def test_no_field_of_view_is_a_photograph_error() -> None:
    assert issubclass(NoFieldOfViewError, PhotographError)


def test_retina_colours_are_red_over_green_over_blue() -> None:
    assert has_retina_colours(np.full((4, 4, 3), (180, 90, 40), np.uint8))
    assert not has_retina_colours(np.full((4, 4, 3), (90, 90, 90), np.uint8))
    assert not has_retina_colours(np.full((4, 4, 3), (40, 90, 180), np.uint8))


def test_crop_at_the_same_size_is_the_photograph_and_black_outside() -> None:
    pixels = draw_fundus(60, 80, (40, 30), 40)
    frame = crop_to_frame(pixels, FieldOfView(0, -10, 80), 80)
    assert (frame[10:70] == pixels).all()
    assert not frame[:10].any()
    assert not frame[70:].any()


def test_crop_beside_the_photograph_is_black() -> None:
    assert not crop_to_frame(draw_fundus(), FieldOfView(900, 900, 64), 32).any()


def test_crop_is_antialiased() -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 200
    frame = crop_to_frame(stripes, FieldOfView(0, 0, 64), 16)
    assert abs(frame[2:-2, 2:-2].astype(int) - 100).max() <= 1


@pytest.mark.parametrize("size", [50, 128, 1024])
def test_crop_mask_keeps_the_area(size: int) -> None:
    mask = np.zeros((300, 400), bool)
    mask[150, 200] = mask[40:43, 90:94] = True
    fov = FieldOfView(60, 10, 280)
    coverage = crop_mask(mask, fov, size)
    assert coverage.dtype == np.float32
    assert coverage.max() <= 1
    assert coverage.sum() * (fov.side / size) ** 2 == pytest.approx(13, rel=1e-4)


def test_crop_mask_of_a_whole_photograph_is_one_inside_and_zero_outside() -> None:
    coverage = crop_mask(np.ones((60, 80), bool), FieldOfView(0, -10, 80), 40)
    assert (coverage[5:35] == 1).all()
    assert not coverage[:5].any()


@pytest.mark.parametrize("fov", [FieldOfView(60, 10, 280), FieldOfView(-20, -70, 440), FieldOfView(350, 250, 100)])
@pytest.mark.parametrize("size", [128, 1024])
def test_point_is_mapped_back_to_its_position(fov: FieldOfView, size: int) -> None:
    mask = np.zeros((300, 400), bool)
    mask[268:273, 368:373] = True
    there_and_back = map_to_photograph(crop_mask(mask, fov, size), fov, 300, 400)
    if fov == FieldOfView(60, 10, 280):
        assert not there_and_back.any()  # the point lies outside this square
    else:
        y, x = np.argwhere(there_and_back > there_and_back.max() / 2).mean(axis=0)
        assert abs(y - 270) < 0.51
        assert abs(x - 370) < 0.51


def test_map_to_photograph_fills_only_the_square_of_the_field_of_view() -> None:
    laid = map_to_photograph(np.full((64, 64), 0.25, np.float32), FieldOfView(10, -5, 40), 30, 70)
    assert laid.shape == (30, 70)
    assert laid.dtype == np.float32
    assert (laid[:, 10:50] == 0.25).all()
    assert laid.sum() == 30 * 40 * 0.25
    assert not map_to_photograph(np.ones((8, 8), np.float32), FieldOfView(100, 0, 20), 30, 70).any()


def test_fov_mask_is_the_disc_without_cut_rows_and_columns() -> None:
    pixels = draw_fundus(280, 400, (200, 140), 180)
    mask = fov_mask(crop_to_frame(pixels, FieldOfView(20, -40, 360), 180))
    truth = np.hypot(*(np.mgrid[:180, :180] - 89.5)) <= 90
    truth[:20] = truth[160:] = False
    assert (mask == truth).mean() > 0.99


def test_fov_mask_of_a_photograph_without_a_rim_is_all_of_it() -> None:
    pixels = draw_fundus(200, 260, (130, 100), 400)
    mask = fov_mask(crop_to_frame(pixels, FieldOfView(0, -30, 260), 260))
    assert mask[30:230].all()
    assert not mask[:30].any()


def test_fov_mask_of_a_black_frame_is_empty() -> None:
    assert not fov_mask(np.zeros((32, 32, 3), np.uint8)).any()


@pytest.mark.parametrize(
    ("side", "way"),
    [
        (96, InputScale(128, 8)),
        (181, InputScale(128, 8)),
        (182, InputScale(256, 4)),
        (380, InputScale(512, 2)),
        (540, InputScale(512, 2)),
        (724, InputScale(512, 2)),
        (725, InputScale(1024, 1)),
        (3400, InputScale(1024, 1)),
    ],
)
def test_interpretation_r19_takes_the_nearest_size(side: int, way: InputScale) -> None:
    assert choose_input_scale(side) == way


def test_interpretation_r19_low_resolution_can_be_chosen() -> None:
    assert choose_input_scale(3400, as_lr=256) == InputScale(256, 4)
    assert all(choose_input_scale(1, as_lr=size) == InputScale(size, 1024 // size) for size in (128, 256, 512))


def test_sizes_depend_on_the_frame() -> None:
    assert choose_input_scale(500, frame=512) == InputScale(512, 1)
    assert choose_input_scale(500, as_lr=64, frame=512) == InputScale(64, 8)
    with pytest.raises(InputSizeError, match="expected one of 64, 128, 256 for a frame of 512 px"):
        choose_input_scale(500, as_lr=512, frame=512)


def test_other_low_resolution_size_is_an_error() -> None:
    with pytest.raises(InputSizeError, match="size 300 px, expected one of 128, 256, 512 for a frame of 1024 px"):
        choose_input_scale(3400, as_lr=300)
    with pytest.raises(ValueError, match="field of view of 0 px"):
        choose_input_scale(0)


@pytest.mark.data
def test_drive_circle_agrees_with_the_published_mask(real_data: Path) -> None:
    photographs = sorted((real_data / "drive" / "training" / "images").glob("*.tif"))
    assert photographs
    for path in photographs:
        with Image.open(path) as image, Image.open(next(path.parents[1].glob(f"mask/{path.stem}*"))) as published:
            fov, truth = find_fov(np.asarray(image)), np.asarray(published.convert("L")) > 0
        disc = map_to_photograph(np.float32(np.hypot(*(np.mgrid[:512, :512] - 255.5)) < 256), fov, *truth.shape) > 0.5
        assert (disc & truth).sum() / (disc | truth).sum() > 0.985, path.name


@pytest.mark.data
@pytest.mark.parametrize("pattern", ["idrid/B*/**/*.jpg", "eyepacs/train/*.jpeg", "diaretdb0/**/*.jpg"])
def test_circle_of_real_photographs_holds_under_reduction_by_4(real_data: Path, pattern: str) -> None:
    photographs = sorted(real_data.glob(pattern))[::40]
    assert photographs
    for path in photographs:
        with Image.open(path) as image:
            pixels, small = np.asarray(image), np.asarray(image.resize((image.width // 4, image.height // 4)))
        whole, reduced = find_fov(pixels), find_fov(small)
        assert miss(whole, 4 * reduced.x, 4 * reduced.y, 4 * reduced.side) < 1.5, path.name
