"""Mask files: the same pixels from every way in which programs write a mask, and possible problems."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from deepmtdr.datasets import mask_files
from deepmtdr.datasets.mask_files import MaskProblem, read_mask
from deepmtdr.errors import DataError

MARKED = np.zeros((40, 48), bool)
MARKED[10:17, 20:29] = True
GREY = Image.fromarray(255 * MARKED.astype(np.uint8))
WHITE, BLACK = Image.new("L", GREY.size, 255), Image.new("L", GREY.size, 0)


def palette(image: Image.Image, *colours: tuple[int, int, int], transparent: int | None = None) -> Image.Image:
    """Indexed colours: `image` has the indices."""
    image = image.copy()
    image.putpalette([value for colour in colours for value in colour])
    if transparent is not None:
        image.info["transparency"] = transparent
    return image


def indices(outside: int, inside: int) -> Image.Image:
    return Image.fromarray(np.where(MARKED, inside, outside).astype(np.uint8))


EXACT: dict[str, Callable[[], Image.Image]] = {
    "grey": lambda: GREY,
    "grey, value 1": lambda: indices(0, 1),
    "grey, value 76": lambda: indices(0, 76),
    "grey, background 10": lambda: indices(10, 245),
    "one bit": lambda: GREY.convert("1"),
    "16 bits": lambda: Image.fromarray(MARKED.astype(np.uint16) * 65535),
    "16 bits, value 1": lambda: Image.fromarray(MARKED.astype(np.uint16)),
    "red": lambda: Image.merge("RGB", (GREY, BLACK, BLACK)),
    "opaque": lambda: Image.merge("RGBA", (GREY, GREY, GREY, WHITE)),
    "grey and opaque": lambda: Image.merge("LA", (GREY, WHITE)),
    "transparent everywhere": lambda: Image.merge("RGBA", (GREY, GREY, GREY, BLACK)),
    "white where opaque": lambda: Image.merge("RGBA", (WHITE, WHITE, WHITE, GREY)),
    "black where opaque": lambda: Image.merge("RGBA", (BLACK, BLACK, BLACK, GREY)),
    "grey, white where opaque": lambda: Image.merge("LA", (WHITE, GREY)),
    "red where opaque": lambda: Image.merge("RGBA", (GREY, BLACK, BLACK, GREY)),
    "red on transparent white": lambda: Image.merge("RGBA", (WHITE, GREY.point(lambda v: 255 - v), BLACK, GREY)),
    "palette": lambda: palette(indices(0, 1), (0, 0, 0), (255, 0, 0)),
    "palette, black is 1": lambda: palette(indices(1, 0), (255, 255, 255), (0, 0, 0)),
    "palette, dark red": lambda: palette(indices(0, 1), (0, 0, 0), (128, 0, 0)),
    "palette, transparent background": lambda: palette(indices(0, 1), (9, 9, 9), (255, 0, 0), transparent=0),
}


@pytest.mark.parametrize("way", EXACT)
def test_every_way_to_write_a_mask_of_two_colours_gives_the_same_pixels(tmp_path: Path, way: str) -> None:
    EXACT[way]().save(tmp_path / "m.png")
    found = read_mask(tmp_path / "m.png")
    assert np.array_equal(found.marked, MARKED) and found.marked.dtype == bool and found.problems == ()


@pytest.mark.parametrize("quality", [30, 75, 95])
def test_a_mask_in_jpeg_is_cut_at_half_and_reported(tmp_path: Path, quality: int) -> None:
    GREY.save(tmp_path / "m.jpg", quality=quality)
    BLACK.save(tmp_path / "empty.jpg", quality=quality)
    with Image.open(tmp_path / "m.jpg") as image:
        assert (np.asarray(image) > 0).sum() > MARKED.sum()  # compression lightens pixels around the lesion
    found = read_mask(tmp_path / "m.jpg")
    assert np.array_equal(found.marked, MARKED) and found.problems == (MaskProblem.JPEG,)
    assert not read_mask(tmp_path / "empty.jpg").marked.any()


def test_jpeg_inside_tiff_is_reported(tmp_path: Path) -> None:
    GREY.convert("RGB").save(tmp_path / "m.tif", compression="jpeg")
    assert read_mask(tmp_path / "m.tif").problems == (MaskProblem.JPEG,)


def test_two_grey_levels_of_a_jpeg_are_no_lesion_below_half(tmp_path: Path) -> None:
    indices(0, 20).save(tmp_path / "m.jpg", quality=100)
    assert not read_mask(tmp_path / "m.jpg").marked.any()


@pytest.mark.parametrize("kind", ["uint8", "uint16"])
def test_more_than_two_colours_are_cut_at_half_of_the_range_and_reported(tmp_path: Path, kind: str) -> None:
    largest = np.iinfo(kind).max
    levels = np.linspace(0, largest, 256).astype(kind).reshape(16, 16)
    Image.fromarray(levels).save(tmp_path / "m.png")
    found = read_mask(tmp_path / "m.png")
    assert np.array_equal(found.marked, levels > largest / 2) and found.problems == (MaskProblem.COLOURS,)


def test_colours_of_several_classes_are_reported(tmp_path: Path) -> None:
    classes = indices(0, 1)
    classes.putpixel((0, 0), 2)
    palette(classes, (0, 0, 0), (255, 0, 0), (0, 255, 0)).save(tmp_path / "m.png")
    assert read_mask(tmp_path / "m.png").problems == (MaskProblem.COLOURS,)


@pytest.mark.parametrize("value", [0, 1, 255])
def test_a_mask_of_one_colour_is_empty_or_full(tmp_path: Path, value: int) -> None:
    Image.new("L", (8, 6), value).save(tmp_path / "m.png")
    found = read_mask(tmp_path / "m.png")
    assert found.marked.all() == found.marked.any() == (value > 0) and found.problems == ()


def test_a_given_threshold_is_used_after_the_palette(tmp_path: Path) -> None:
    palette(indices(1, 0), (200, 0, 0), (100, 0, 0)).save(tmp_path / "m.png")
    assert np.array_equal(read_mask(tmp_path / "m.png", 127).marked, MARKED)
    assert read_mask(tmp_path / "m.png", 0).marked.all()


def test_an_orientation_is_applied_as_to_photographs(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    GREY.rotate(180).save(tmp_path / "m.png", exif=exif)
    assert np.array_equal(read_mask(tmp_path / "m.png").marked, MARKED)


def test_pages_besides_thumbnails_are_an_error(tmp_path: Path) -> None:
    for name, kind in (("m.tif", 0), ("thumbnail.tif", 1)):
        with tifffile.TiffWriter(tmp_path / name) as file:
            file.write(np.asarray(GREY), photometric="minisblack", metadata=None)
            file.write(np.asarray(BLACK)[::4, ::4], photometric="minisblack", subfiletype=kind, metadata=None)
    assert np.array_equal(read_mask(tmp_path / "thumbnail.tif").marked, MARKED)
    with pytest.raises(DataError, match=r"m\.tif: cannot be decoded as a mask \(found 2 pages, expected one\)"):
        read_mask(tmp_path / "m.tif")


def test_a_huge_or_damaged_mask_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    GREY.save(tmp_path / "m.png")
    (tmp_path / "half.png").write_bytes((tmp_path / "m.png").read_bytes()[:60])
    with pytest.raises(DataError, match="cannot be decoded as a mask"):
        read_mask(tmp_path / "half.png")
    monkeypatch.setattr(mask_files, "MAX_PIXELS", 100)
    with pytest.raises(DataError, match="header declares 48x40 px"):
        read_mask(tmp_path / "m.png")


def test_damage_that_pillow_answers_with_any_exception_is_an_error(tmp_path: Path) -> None:
    GREY.save(tmp_path / "m.gif")
    (tmp_path / "cut.gif").write_bytes((tmp_path / "m.gif").read_bytes()[:-1] + b",12345")  # half of a second picture
    GREY.save(tmp_path / "m.tif")
    tiff = bytearray((tmp_path / "m.tif").read_bytes())
    at = tiff.index(struct.pack("<HH", 273, 4))  # StripOffsets, a long
    tiff[at + 2] = 11  # a float
    (tmp_path / "float.tif").write_bytes(tiff)
    for name in ("cut.gif", "float.tif"):
        with pytest.raises(DataError, match="cannot be decoded as a mask"):
            read_mask(tmp_path / name)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_pixels_that_are_not_finite_are_an_error(tmp_path: Path, value: float) -> None:
    tifffile.imwrite(tmp_path / "m.tif", np.where(MARKED, 1, value).astype(np.float32))
    with pytest.raises(DataError, match="not finite"):
        read_mask(tmp_path / "m.tif")


def test_size_of_the_page_after_a_thumbnail_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with tifffile.TiffWriter(tmp_path / "m.tif") as file:
        file.write(np.zeros((8, 8), np.uint8), subfiletype=1)
        file.write(np.asarray(GREY))
    monkeypatch.setattr(mask_files, "MAX_PIXELS", 100)
    with pytest.raises(DataError, match="header declares 48x40 px"):
        read_mask(tmp_path / "m.tif")


def test_postscript_is_refused_because_its_reader_starts_another_program(tmp_path: Path) -> None:
    GREY.save(tmp_path / "m.eps")
    with pytest.raises(DataError, match="cannot be decoded as a mask"):
        read_mask(tmp_path / "m.eps")
