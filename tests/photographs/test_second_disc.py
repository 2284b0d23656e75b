"""A second field of view in a picture: two eyes or a contact sheet are found, a single photograph has none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import skimage.data
from numpy.typing import NDArray

from deepmtdr.photographs.decode import read_photograph
from deepmtdr.photographs.field_of_view import find_fov
from deepmtdr.photographs.geometry import FieldOfView
from deepmtdr.photographs.resize import resize
from deepmtdr.photographs.second_disc import find_second_disc
from fundus import draw_fundus


def second_disc(pixels: NDArray) -> FieldOfView | None:
    return find_second_disc(pixels, find_fov(pixels))


def lay_on(ground: int, height: int, width: int, *discs: tuple[float, float, float]) -> NDArray[np.uint8]:
    """Drawings of a fundus on one ground: centre (x, y) and radius of each; later ones cover earlier ones."""
    sheet = np.full((height, width, 3), ground, np.uint8)
    for x, y, radius in discs:
        drawn = draw_fundus(height, width, (x, y), radius, ground=ground)
        rows, columns = np.mgrid[:height, :width] + 0.5
        inside = np.hypot(columns - x, rows - y) < radius
        sheet[inside] = drawn[inside]
    return sheet


@pytest.mark.parametrize(
    "discs",
    [
        ((150, 150, 140), (450, 150, 140)),  # side by side
        ((150, 150, 140), (450, 150, 90)),  # of unequal size
        ((160, 150, 140), (440, 150, 140)),  # touching
        ((165, 150, 140), (420, 150, 140)),  # overlapping
        ((160, 150, 155), (480, 150, 155)),  # both cut above and below
        ((100, 80, 70), (300, 80, 70), (500, 80, 70), (100, 225, 70), (300, 225, 70), (500, 225, 70)),  # a sheet
    ],
)
@pytest.mark.parametrize("ground", [0, 40])
@pytest.mark.parametrize("turned", [False, True])
def test_second_disc_is_found(discs: tuple[tuple[float, float, float], ...], ground: int, turned: bool) -> None:
    pixels = lay_on(ground, 300, 620, *discs)
    found = second_disc(np.ascontiguousarray(pixels.transpose(1, 0, 2)) if turned else pixels)
    assert found is not None
    centre = (found.x + found.side / 2, found.y + found.side / 2)[:: -1 if turned else 1]
    assert min(np.hypot(centre[0] - x, centre[1] - y) / radius for x, y, radius in discs) < 0.1


def test_second_disc_of_half_the_brightness_is_found() -> None:
    pixels = lay_on(0, 300, 620, (150, 150, 140), (450, 150, 140))
    pixels[:, 310:] //= 2
    assert second_disc(pixels) is not None


@pytest.mark.parametrize("gap", [0, 4, 40])
@pytest.mark.parametrize("colour", [0, 128, 255])
@pytest.mark.parametrize("axis", [0, 1])
def test_photograph_joined_to_its_mirror_image_is_found(gap: int, colour: int, axis: int) -> None:
    retina = resize(skimage.data.retina(), 300)
    between = np.full((300, gap, 3) if axis else (gap, 300, 3), colour, np.uint8)
    assert second_disc(np.concatenate([retina, between, np.flip(retina, 1)], axis)) is not None


def with_label() -> NDArray[np.uint8]:
    pixels = draw_fundus()
    pixels[5:25, 5:60:3] = pixels[280:295, 300:395] = 255
    return pixels


def with_panel() -> NDArray[np.uint8]:
    """A grey panel with text beside the photograph."""
    panel = np.full((300, 200, 3), 150, np.uint8)
    panel[40:260:20, 30:170:3] = 0
    return np.concatenate([draw_fundus(), panel], axis=1)


def with_notch() -> NDArray[np.uint8]:
    pixels = draw_fundus()
    pixels[60:80, 318:336] = (180, 90, 40)
    pixels[120:170, 60:85] = 0
    return pixels


def with_reflection() -> NDArray[np.uint8]:
    """A crescent of stray light outside of the rim, and a bright spot inside."""
    pixels = draw_fundus()
    y, x = np.mgrid[:300, :400]
    pixels[(np.hypot(x - 220, y - 150) < 150) & (np.hypot(x - 200, y - 150) > 141)] = (120, 90, 70)
    pixels[np.hypot(x - 160, y - 100) < 40] = 255
    return pixels


@pytest.mark.parametrize(
    "pixels",
    [
        draw_fundus(),
        draw_fundus(280, 400, (190, 140), 178),  # cut above and below
        np.pad(draw_fundus(220, 400, (200, 110), 175), ((60, 60), (0, 0), (0, 0))),  # the same between bars
        draw_fundus(250, 250, (125, 125), 145),  # cropped inside the circle
        draw_fundus(200, 260, (130, 100), 400),  # without a rim
        draw_fundus(ground=40),
        with_label(),
        with_panel(),
        with_notch(),
        with_reflection(),
        skimage.data.retina(),
    ],
)
def test_single_photograph_has_no_second_disc(pixels: NDArray) -> None:
    assert second_disc(pixels) is None


@pytest.mark.data
@pytest.mark.parametrize(
    "pattern", ["idrid/B*/1*/**/*.jpg", "eyepacs/train/*.jpeg", "srahim/**/*.jpg", "drive/**/*.tif"]
)
def test_real_photographs_have_no_second_disc_and_pairs_have_one(real_data: Path, pattern: str) -> None:
    photographs = [path for path in sorted(real_data.glob(pattern)) if "492_" not in path.name][::60]
    assert photographs
    for path in photographs:
        pixels = read_photograph(path, min_side=256).pixels
        assert second_disc(pixels) is None, path.name
        assert second_disc(np.concatenate([pixels, pixels[:, ::-1]], axis=1)) is not None, path.name
