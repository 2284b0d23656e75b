"""The quality gate: real fundus photographs pass, and whatever is none is refused with its reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import skimage.data
from numpy.typing import NDArray
from scipy import ndimage

from deepmtdr.data.field_of_view import crop_to_frame, find_fov
from deepmtdr.data.photograph import read_photograph
from deepmtdr.errors import NoFieldOfView
from deepmtdr.screening.quality import Quality, QualityLimits, assess
from fundus import draw_fundus


def gate(pixels: NDArray) -> Quality | None:
    """A photograph through field of view and gate; None where no field of view was found."""
    try:
        fov = find_fov(pixels)
    except NoFieldOfView:
        return None
    return assess(crop_to_frame(pixels, fov, 256), fov.side)


def refused(pixels: NDArray) -> bool:
    quality = gate(np.ascontiguousarray(pixels, np.uint8))
    return quality is None or (not quality.gradable and bool(quality.reason))


def on_black(picture: NDArray) -> NDArray:
    """A disc cut out of a picture and laid on a black ground: it has a field of view like a fundus photograph's."""
    height, width = picture.shape[:2]
    y, x = np.mgrid[:height, :width]
    return picture * (np.hypot(x - width / 2, y - height / 2) < 0.45 * min(height, width))[..., None]


def picture(name: str) -> NDArray:
    """One of scikit-image's pictures, as RGB."""
    pixels = getattr(skimage.data, name)()
    return np.repeat(pixels[..., None], 3, axis=2) if pixels.ndim == 2 else pixels[..., :3]


def test_drawn_fundus_passes() -> None:
    quality = gate(draw_fundus())
    assert quality is not None
    assert quality.gradable
    assert quality.reason is None
    assert quality.measured.rim
    assert quality.measured.fov_side == pytest.approx(280, abs=2)


def test_a_real_retina_passes_at_every_size_and_in_grey() -> None:
    retina = picture("retina")
    fov = find_fov(retina)
    for size in (128, 256, 512, 1024):
        assert assess(crop_to_frame(retina, fov, size)).reason is None
    grey = retina.mean(axis=2, keepdims=True).astype(np.uint8).repeat(3, axis=2)
    assert not refused(grey)


def test_a_real_retina_without_its_rim_passes() -> None:
    quality = gate(np.ascontiguousarray(picture("retina")[300:1100, 300:1100]))
    assert quality is not None
    assert quality.gradable
    assert not quality.measured.rim


@pytest.mark.parametrize("name", ["astronaut", "coffee", "cat", "rocket", "page", "coins", "text", "moon", "camera"])
def test_pictures_of_something_else_are_refused(name: str) -> None:
    assert refused(picture(name))


@pytest.mark.parametrize("name", ["astronaut", "coffee", "cat", "rocket", "coins", "colorwheel"])
def test_pictures_of_something_else_are_refused_as_a_disc_on_black_too(name: str) -> None:
    assert refused(on_black(picture(name)))


def test_drawn_pictures_are_refused(rng: np.random.Generator) -> None:
    y, x = np.mgrid[:240, :320]
    gradient = np.stack([x * 0.8, y * 1.0, 100 + 0 * x], axis=2)
    brown = np.stack([100 + x * 0.4, 60 + x * 0.2, 30 + x * 0.1], axis=2)  # a retina's colours, and nothing in it
    landscape = np.where((y < 150)[..., None], (90, 150, 230), (40, 120, 40))
    sunset = np.where(
        (y < 165)[..., None], np.stack([250 - y * 0.4, 140 - y * 0.3, 60 - y * 0.2], axis=2), (60, 35, 20)
    )
    noise = rng.integers(0, 256, (240, 320, 3))
    assert refused(sunset)
    for drawing in (gradient, brown, landscape, noise):
        assert refused(drawing)
        assert refused(on_black(drawing))


@pytest.mark.parametrize(
    ("colour", "reason"),
    [
        ((255, 255, 255), "burnt out: 100% of the field of view is white, expected at most 50%"),
        ((190, 95, 45), "no structure: contrast 0.00"),
    ],
)
def test_uniform_disc_is_refused_with_what_was_found_and_expected(colour: tuple[int, int, int], reason: str) -> None:
    quality = gate(on_black(np.full((240, 320, 3), colour, np.uint8)))
    assert quality is not None
    assert not quality.gradable
    assert quality.reason is not None
    assert quality.reason.startswith(reason)


def test_black_frame_is_too_dark() -> None:
    quality = assess(np.zeros((128, 128, 3), np.uint8))
    assert quality.reason == "too dark: median brightness 0 of 255, expected at least 8"


def test_blue_retina_is_refused_for_its_colour() -> None:
    quality = gate(np.ascontiguousarray(draw_fundus()[..., ::-1]))
    assert quality is not None
    assert quality.reason is not None
    assert "of the light is red, expected at least 30%" in quality.reason


def test_noise_in_a_retinas_colours_is_refused(rng: np.random.Generator) -> None:
    pixels = np.array((190, 95, 45)) + rng.normal(0, 25, (256, 256, 3))
    quality = assess(on_black(pixels.clip(0, 255)).astype(np.uint8))
    assert quality.reason is not None
    assert quality.reason.startswith("mere noise: 2.")


def test_small_field_of_view_is_refused() -> None:
    frame = crop_to_frame(draw_fundus(), find_fov(draw_fundus()), 128)
    quality = assess(frame, fov_side=95)
    assert quality.reason == "field of view of 95 px, expected at least 96 px"
    assert assess(frame, fov_side=96).gradable


def test_blur_is_refused_when_no_fine_vessel_is_left() -> None:
    retina = picture("retina")
    quality = gate(ndimage.gaussian_filter(retina, (21, 21, 0)))  # 1.5 % of the side
    assert not refused(ndimage.gaussian_filter(retina, (3, 3, 0)))
    assert quality is not None
    assert quality.reason is not None
    assert quality.reason.startswith("too blurred: finest structure of 0.")


def test_limits_can_be_set() -> None:
    frame = crop_to_frame(draw_fundus(), find_fov(draw_fundus()), 128)
    quality = assess(frame, limits=QualityLimits(brightness=250.0))
    assert quality.reason is not None
    assert quality.reason.startswith("too dark")


@pytest.mark.data
@pytest.mark.parametrize(
    "pattern", ["idrid/[AB]*/1*/**/*.jpg", "eyepacs/train/*.jpeg", "diaretdb0/**/*.jpg", "drive/**/*.tif"]
)
def test_real_photographs_pass(real_data: Path, pattern: str) -> None:
    photographs = [path for path in sorted(real_data.glob(pattern)) if "492_" not in path.name][::50]
    assert photographs
    for path in photographs:
        quality = gate(read_photograph(path).pixels)
        assert quality is not None
        assert quality.gradable, f"{path.name}: {quality.reason}"
