"""Prepared files: written, mapped into memory, and frames of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deepmtdr.datasets.frames import Frame, memmap_tiff, read_masks, write_tiff
from deepmtdr.datasets.sample import Sample
from deepmtdr.errors import DataError
from deepmtdr.terms import Lesion
from image_files import write_mask, write_photograph


@pytest.fixture
def sample(tmp_path: Path) -> Sample:
    """MA present, HE annotated but absent, EX and SE not annotated."""
    masks = {Lesion.MA: write_mask(tmp_path / "x_MA.png"), Lesion.HE: None}
    return Sample(
        photograph=write_photograph(tmp_path / "x.png"), name="x", patient="p", dataset="d", lesion_masks=masks
    )


@pytest.mark.parametrize("shape", [(7, 7, 3), (64, 64), (1024, 1024, 3), (300, 200, 3)], ids=str)
def test_written_tiff_is_mapped_and_opened_by_pillow(
    tmp_path: Path, rng: np.random.Generator, shape: tuple[int, ...]
) -> None:
    pixels = rng.integers(0, 256, shape, np.uint8)
    write_tiff(tmp_path / "x.tif", pixels)
    mapped = memmap_tiff(tmp_path / "x.tif")
    assert isinstance(mapped, np.memmap) and np.array_equal(mapped, pixels)
    with Image.open(tmp_path / "x.tif") as image:
        assert np.array_equal(np.asarray(image), pixels)
    assert [path.name for path in tmp_path.iterdir()] == ["x.tif"]


def test_other_files_are_errors_that_name_them(tmp_path: Path) -> None:
    path = tmp_path / "x.tif"
    with pytest.raises(DataError, match=r"x\.tif: expected a prepared file"):
        memmap_tiff(path)
    Image.new("RGB", (64, 64)).save(path, compression="tiff_lzw")
    with pytest.raises(DataError, match="uncompressed 8-bit TIFF"):
        memmap_tiff(path)
    write_tiff(path, np.zeros((64, 64, 3), np.uint8))
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(DataError, match=r"x\.tif"):
        memmap_tiff(path)


def test_masks_of_a_frame_are_zero_without_lesion_or_annotation(tmp_path: Path, rng: np.random.Generator) -> None:
    coverage = rng.integers(0, 256, (32, 32), np.uint8)
    write_tiff(tmp_path / "hr.tif", rng.integers(0, 256, (32, 32, 3), np.uint8))
    write_tiff(tmp_path / "he.tif", coverage)
    masks = {Lesion.HE: tmp_path / "he.tif", Lesion.EX: None}
    sample = Sample(photograph=tmp_path / "hr.tif", name="x", patient="p", dataset="d", lesion_masks=masks)
    frame = Frame(sample, 32, 1)
    assert isinstance(frame.pixels, np.memmap) and frame.pixels.shape == (32, 32, 3)
    assert frame.lesion_masks is not None
    assert np.array_equal(frame.lesion_masks, np.stack([0 * coverage, coverage, 0 * coverage, 0 * coverage]))
    assert frame.without_masks().lesion_masks is None


# Masks on the photograph's pixels


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGB", "RGBA"])
@pytest.mark.parametrize("value", [1, 76, 255])
def test_mask_files_of_every_mode_are_read(sample: Sample, tmp_path: Path, mode: str, value: int) -> None:
    pixels = np.zeros((100, 120), np.uint8)
    pixels[40:60, 50:70] = value
    image = Image.fromarray(pixels)
    image = image.point(lambda v: 255 * (v > 0)).convert("1") if mode == "1" else image
    if mode == "P":
        image.putpalette([0, 0, 0] + [255, 0, 0] * 255)
    if mode in ("RGB", "RGBA"):
        image = Image.merge("RGB", (image, Image.new("L", image.size), Image.new("L", image.size)))
    image.save(tmp_path / "x_MA.png")
    masks = read_masks(sample, (100, 120)).lesions
    assert list(masks) == [Lesion.MA, Lesion.HE]
    assert np.array_equal(masks[Lesion.MA], pixels > 0)
    assert masks[Lesion.HE].dtype == bool and not masks[Lesion.HE].any()
