"""Frames: photographs brought into the HR frame once, their masks beside them, and found again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deepmtdr.data import frames
from deepmtdr.data.frames import FrameCache, read_lesion_masks
from deepmtdr.data.sample import Sample
from deepmtdr.errors import DataError, NoFieldOfView, PhotographError
from deepmtdr.terms import FRAME, Lesion

SIZE = 64


def photograph(path: Path, side: int = 100, tint: int = 0) -> Path:
    """A lit circle of 0.8 of the height on a dark ground."""
    y, x = np.mgrid[:side, : side + 20] - np.array([(side - 1) / 2, (side + 19) / 2])[:, None, None]
    lit = np.hypot(y, x) < 0.4 * side
    pixels = lit[..., None] * np.array([180 - tint, 100, 50]) + 5
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path)
    return path


def mask(path: Path, shape: tuple[int, int] = (100, 120), value: int = 255) -> Path:
    """A square of 20 px in the middle."""
    pixels = np.zeros(shape, np.uint8)
    pixels[40:60, 50:70] = value
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def sample(tmp_path: Path) -> Sample:
    """MA drawn, HE looked for and not found, EX and SE not annotated."""
    masks = {Lesion.MA: mask(tmp_path / "x_MA.png"), Lesion.HE: None}
    return Sample(photograph=photograph(tmp_path / "x.png"), name="x", patient="p", dataset="d", lesion_masks=masks)


@pytest.fixture
def cache(tmp_path: Path) -> FrameCache:
    return FrameCache(tmp_path / "cache", SIZE)


def plain(path: Path, name: str = "x") -> Sample:
    return Sample(photograph=path, name=name, patient="p", dataset="d")


def test_the_field_of_view_fills_the_frame(cache: FrameCache, sample: Sample) -> None:
    frame = cache(sample)
    assert frame.sample is sample and frame.scale == 1
    assert frame.pixels.shape == (SIZE, SIZE, 3) and frame.pixels.dtype == np.uint8
    lit = frame.pixels[..., 0] > 90
    assert lit.mean() == pytest.approx(np.pi / 4, abs=0.03)  # a circle in its square
    assert not lit[[0, 0, -1, -1], [0, -1, 0, -1]].any()


def test_masks_lie_where_the_lesion_lies_and_keep_its_area(cache: FrameCache, sample: Sample) -> None:
    masks = cache(sample).lesion_masks
    assert masks is not None and masks.shape == (4, SIZE, SIZE) and masks.dtype == np.uint8
    area = (masks[Lesion.MA] / 255).sum()
    assert area == pytest.approx((20 * SIZE / 80) ** 2, rel=0.1)
    rows, columns = np.nonzero(masks[Lesion.MA])
    assert (rows.mean(), columns.mean()) == pytest.approx((SIZE / 2 - 0.5, SIZE / 2 - 0.5), abs=1)
    assert not masks[[Lesion.HE, Lesion.EX, Lesion.SE]].any()


def test_an_unannotated_photograph_has_no_masks(cache: FrameCache, tmp_path: Path) -> None:
    assert cache(plain(photograph(tmp_path / "x.png"))).lesion_masks is None
    assert len(list((tmp_path / "cache").rglob("*.npy"))) == 1


def test_a_photograph_annotated_without_lesions_has_empty_masks(cache: FrameCache, sample: Sample) -> None:
    empty = Sample(photograph=sample.photograph, name="x", patient="p", dataset="d", lesion_masks=dict.fromkeys(Lesion))
    masks = cache(empty).lesion_masks
    assert masks is not None and masks.shape == (4, SIZE, SIZE) and not masks.any()


@pytest.mark.parametrize(("side", "scale"), [(160, 1), (80, 1), (50, 2), (40, 2)], ids=str)
def test_a_low_resolution_photograph_keeps_its_scale(tmp_path: Path, side: int, scale: int) -> None:
    frame = FrameCache(tmp_path / "cache", SIZE)(plain(photograph(tmp_path / "x.png", side)))
    assert frame.scale == scale
    assert frame.pixels.shape == (SIZE // scale, SIZE // scale, 3)


@pytest.mark.parametrize(("fov", "scale"), [(740, 1), (700, 2), (300, 4), (150, 8)])
def test_the_way_into_the_frame_is_that_of_reading_r19(tmp_path: Path, fov: int, scale: int) -> None:
    path = photograph(tmp_path / "x.png", round(fov / 0.8))
    assert FrameCache(tmp_path / "cache", FRAME)(plain(path)).pixels.shape[0] == FRAME // scale


def test_masks_of_a_low_resolution_photograph_lie_in_the_hr_frame(tmp_path: Path) -> None:
    small = Sample(
        photograph=photograph(tmp_path / "x.png", 48),
        name="x",
        patient="p",
        dataset="d",
        lesion_masks={Lesion.SE: mask(tmp_path / "m.png", (48, 68), 0)},
    )
    frame = FrameCache(tmp_path / "cache", SIZE)(small)
    assert frame.scale == 2 and frame.lesion_masks is not None
    assert frame.lesion_masks.shape == (4, SIZE, SIZE)


# The cache


def test_a_prepared_photograph_is_not_decoded_again(
    cache: FrameCache, sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = cache(sample)
    for name in ("read_photograph", "find_fov", "crop_to_frame", "crop_mask"):
        monkeypatch.setattr(frames, name, lambda *_: pytest.fail("decoded again"))
    for again in (cache(sample), FrameCache(cache.folder, SIZE)(sample)):
        assert np.array_equal(again.pixels, first.pixels)
        assert first.lesion_masks is not None and again.lesion_masks is not None
        assert np.array_equal(again.lesion_masks, first.lesion_masks)
        assert isinstance(again.pixels, np.memmap)


def test_another_size_is_prepared_beside_the_first(cache: FrameCache, sample: Sample) -> None:
    half = FrameCache(cache.folder, SIZE // 2)
    assert [c(sample).pixels.shape[0] for c in (cache, half, cache, half)] == [SIZE, SIZE // 2, SIZE, SIZE // 2]


def test_a_changed_photograph_is_prepared_anew(cache: FrameCache, sample: Sample) -> None:
    before = cache(sample).pixels[SIZE // 2, SIZE // 2].tolist()
    photograph(sample.photograph, tint=60)
    after = cache(sample).pixels[SIZE // 2, SIZE // 2].tolist()
    assert before[0] - after[0] == pytest.approx(60, abs=2)


def test_another_annotation_is_prepared_anew(cache: FrameCache, sample: Sample) -> None:
    cache(sample)
    other = Sample(
        photograph=sample.photograph,
        name="x",
        patient="p",
        dataset="d",
        lesion_masks={Lesion.SE: sample.lesion_masks[Lesion.MA]},
    )
    masks = cache(other).lesion_masks
    assert masks is not None and masks[Lesion.SE].any() and not masks[Lesion.MA].any()


def test_names_with_dots_do_not_meet(cache: FrameCache, tmp_path: Path) -> None:
    one, other = (plain(photograph(tmp_path / name, tint=t), name) for name, t in (("a.1.png", 0), ("a.2.png", 60)))
    assert int(cache(one).pixels.max()) - int(cache(other).pixels.max()) == pytest.approx(60, abs=5)


def test_only_whole_files_are_left(cache: FrameCache, sample: Sample) -> None:
    cache(sample)
    assert sorted(path.suffixes[-2:] for path in (cache.folder / "d").iterdir()) == [
        [".frame", ".npy"],
        [".masks", ".npy"],
    ]


def test_masks_are_written_before_the_frame_that_vouches_for_them(
    cache: FrameCache, sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, written = frames._save, []

    def killed(path: Path, array: np.ndarray) -> None:
        if written:
            raise KeyboardInterrupt
        written.append(path)
        save(path, array)

    monkeypatch.setattr(frames, "_save", killed)
    with pytest.raises(KeyboardInterrupt):
        cache(sample)
    monkeypatch.setattr(frames, "_save", save)
    assert written[0].name.endswith(".masks.npy")
    assert cache(sample).lesion_masks is not None


# What cannot be used


def test_a_mask_of_another_size_is_refused_by_name(cache: FrameCache, sample: Sample) -> None:
    path = sample.lesion_masks[Lesion.MA]
    assert path is not None
    mask(path, (90, 120))
    with pytest.raises(DataError, match=r"x_MA\.png: mask of \(90, 120\) px, expected \(100, 120\) as x\.png"):
        cache(sample)
    assert list(cache.folder.rglob("*.npy")) == []


@pytest.mark.parametrize("content", [b"", b"no picture", None], ids=["empty", "text", "absent"])
def test_a_mask_that_cannot_be_decoded_is_refused_by_name(
    cache: FrameCache, sample: Sample, content: bytes | None
) -> None:
    path = sample.lesion_masks[Lesion.MA]
    assert path is not None
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(DataError, match=r"x_MA\.png: cannot be decoded as a mask"):
        cache(sample)


@pytest.mark.parametrize("content", [b"", b"no picture", None], ids=["empty", "text", "absent"])
def test_a_photograph_that_cannot_be_read_is_refused_by_name(
    cache: FrameCache, tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "broken.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(PhotographError, match=r"broken\.png"):
        cache(plain(path))
    assert list(cache.folder.rglob("*.npy")) == []


def test_a_photograph_without_field_of_view_is_refused(cache: FrameCache, tmp_path: Path) -> None:
    Image.new("RGB", (100, 100)).save(tmp_path / "black.png")
    with pytest.raises(NoFieldOfView):
        cache(plain(tmp_path / "black.png"))


# Masks on the photograph's own pixels


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGB", "RGBA"])
@pytest.mark.parametrize("value", [1, 76, 255])
def test_every_kind_of_mask_file_is_read_as_non_zero(sample: Sample, tmp_path: Path, mode: str, value: int) -> None:
    pixels = np.zeros((100, 120), np.uint8)
    pixels[40:60, 50:70] = value
    image = Image.fromarray(pixels)
    image = image.point(lambda v: 255 * (v > 0)).convert("1") if mode == "1" else image
    if mode == "P":
        image.putpalette([0, 0, 0] + [255, 0, 0] * 255)
    if mode in ("RGB", "RGBA"):
        image = Image.merge("RGB", (image, Image.new("L", image.size), Image.new("L", image.size)))
    image.save(tmp_path / "x_MA.png")
    masks = read_lesion_masks(sample, (100, 120))
    assert list(masks) == [Lesion.MA, Lesion.HE]
    assert np.array_equal(masks[Lesion.MA], pixels > 0)
    assert masks[Lesion.HE].dtype == bool and not masks[Lesion.HE].any()
