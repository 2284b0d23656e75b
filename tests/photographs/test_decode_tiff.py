"""Decoding of TIFF: every combination that is claimed, against the pixels that were written and against libtiff."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from deepmtdr.errors import PhotographError
from deepmtdr.photographs.decode import read_photograph
from deepmtdr.photographs.decode_tiff import read_tiff
from fundus import draw_fundus
from tiff_files import (
    BLACK_IS_ZERO,
    CMYK,
    DEFLATE,
    JPEG,
    LZW,
    NONE,
    OLD_DEFLATE,
    PACKBITS,
    PALETTE,
    RGB,
    WHITE_IS_ZERO,
    YCBCR,
    ZSTD,
    Kind,
    encode_directory,
    encode_tiff,
)

PIXELS = draw_fundus(45, 50, (25, 22), 20)
COLOURS = {WHITE_IS_ZERO: 1, BLACK_IS_ZERO: 1, RGB: 3, PALETTE: 1, CMYK: 4, YCBCR: 3}
TURNS = {
    1: lambda pixels: pixels,
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.transpose(1, 0, 2),
    6: lambda pixels: pixels.transpose(1, 0, 2)[:, ::-1],
    7: lambda pixels: pixels.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda pixels: pixels.transpose(1, 0, 2)[::-1],
}


def all_kinds() -> Iterator[Kind]:
    """Every combination of the lossless encodings that the decoder claims, without orientation."""
    for bits, photometric, extra, compression, separate, tiled, order, predictor, big in itertools.product(
        (8, 12, 16),
        (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK),
        (None, 0, 1, 2),
        (NONE, LZW, DEFLATE, OLD_DEFLATE, PACKBITS, ZSTD),
        (False, True),
        (False, True),
        ("<", ">"),
        (1, 2),
        (False, True),
    ):
        with_predictor = bits != 12 and compression not in (NONE, PACKBITS)
        if (predictor == 1 or with_predictor) and (photometric != PALETTE or bits == 8):
            yield Kind(
                bits=bits,
                photometric=photometric,
                extra=extra,
                compression=compression,
                separate=separate,
                tiled=tiled,
                order=order,
                predictor=predictor,
                big=big,
            )


def draw_samples(kind: Kind, rng: np.random.Generator) -> tuple[NDArray, NDArray[np.uint16] | None]:
    """Random samples on a fundus, which use all bits, and a palette if the kind has one."""
    largest = (1 << kind.bits) - 1
    count = COLOURS[kind.photometric] + (kind.extra is not None)
    samples = rng.integers(0, largest + 1, (*PIXELS.shape[:2], count), np.uint16)
    planes = np.resize(PIXELS.transpose(2, 0, 1), (count, *PIXELS.shape[:2])).astype(np.uint16)
    base = planes.transpose(1, 2, 0) * (largest // 255)
    samples[:, 10:] = base[:, 10:]
    palette = rng.integers(0, 65536, (256, 3), np.uint16) if kind.photometric == PALETTE else None
    return samples.astype(np.uint8 if kind.bits == 8 else np.uint16), palette


def expected_rgb(samples: NDArray, kind: Kind, palette: NDArray[np.uint16] | None) -> NDArray[np.uint8]:
    """Convert samples in plain NumPy, from the text of TIFF 6.0."""
    share = samples.astype(float) / ((1 << kind.bits) - 1)
    if palette is not None:
        colours = palette[samples[..., 0]] // 256
    else:
        base = share[..., : COLOURS[kind.photometric]]
        if kind.photometric == WHITE_IS_ZERO:
            base = 1 - base
        if kind.photometric == CMYK:
            base = (1 - base[..., :3]) * (1 - base[..., 3:])
        colours = np.floor(255 * np.broadcast_to(base, (*base.shape[:2], 3)) + 0.5)
    if kind.extra == 2:
        colours = colours * share[..., -1:]
    return np.rint(colours).astype(np.uint8)


def check(kind: Kind, rng: np.random.Generator) -> None:
    samples, palette = draw_samples(kind, rng)
    content = encode_tiff(samples, kind, palette)
    pixels, orientation = read_tiff(content)
    tolerance = (kind.photometric == CMYK) + (kind.extra == 2)  # each rounds once more
    difference = abs(pixels.astype(int) - expected_rgb(samples, kind, palette)).max()
    assert difference <= tolerance, f"{kind}: differs by {difference}"
    assert orientation == kind.orientation
    if kind.bits != 12 and (kind.photometric != CMYK or (kind.bits == 8 and kind.extra is None)):  # libtiff's limits
        check_against_libtiff(content, samples, pixels, kind)


def check_against_libtiff(content: bytes, samples: NDArray, pixels: NDArray[np.uint8], kind: Kind) -> None:
    decoded = imagecodecs.tiff_decode(content)
    if kind.photometric == CMYK:  # libtiff converts it to RGB
        difference = abs(decoded[..., :3].astype(int) - pixels).max()
        assert difference <= 1, f"{kind}: differs from libtiff by {difference}"
    else:
        decoded = np.moveaxis(decoded, 0, -1) if kind.separate and samples.shape[2] > 1 else decoded
        assert np.array_equal(decoded.reshape(samples.shape), samples), f"{kind}: libtiff decodes other samples"


def test_a_sample_of_all_claimed_kinds_is_decoded_as_written_and_as_libtiff_does(rng: np.random.Generator) -> None:
    for kind in list(all_kinds())[::37]:  # coprime to the number of values of every option
        check(kind, rng)


@pytest.mark.slow
def test_every_claimed_kind_is_decoded_as_written_and_as_libtiff_does(rng: np.random.Generator) -> None:
    kinds = list(all_kinds())
    assert len(kinds) > 4000
    for kind in kinds:
        check(kind, rng)


@pytest.mark.parametrize("tiled", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("extra", [None, 2])
def test_16_bit_planes_are_not_scrambled(tiled: bool, order: str, extra: int | None, rng: np.random.Generator) -> None:
    check(Kind(bits=16, separate=True, tiled=tiled, order=order, extra=extra), rng)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", [Kind(), Kind(bits=16, separate=True, tiled=True), Kind(photometric=BLACK_IS_ZERO)])
def test_orientation_is_applied(tmp_path: Path, kind: Kind, orientation: int) -> None:
    samples = PIXELS[..., : COLOURS[kind.photometric]].astype(np.uint16) * ((1 << kind.bits) // 255)
    stored = samples.astype(np.uint8 if kind.bits == 8 else np.uint16)
    (tmp_path / "a.tif").write_bytes(encode_tiff(stored, replace(kind, orientation=orientation)))
    upright = TURNS[orientation](np.broadcast_to(PIXELS[..., : samples.shape[2]], PIXELS.shape))
    assert np.array_equal(read_photograph(tmp_path / "a.tif").pixels, upright)


@pytest.mark.parametrize("photometric", [RGB, YCBCR, BLACK_IS_ZERO])
@pytest.mark.parametrize("tiled", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
def test_jpeg_is_decoded_as_pillow_does(tmp_path: Path, photometric: int, tiled: bool, order: str) -> None:
    kind = Kind(photometric=photometric, compression=JPEG, tiled=tiled, order=order)
    (tmp_path / "a.tif").write_bytes(encode_tiff(PIXELS[..., : COLOURS[photometric]], kind))
    pixels = read_photograph(tmp_path / "a.tif").pixels
    with Image.open(tmp_path / "a.tif") as image:
        assert abs(pixels.astype(int) - np.asarray(image.convert("RGB"))).max() <= 2
    truth = np.broadcast_to(PIXELS[..., : COLOURS[photometric]], PIXELS.shape)
    assert abs(pixels.astype(int) - truth).mean() < 4


@pytest.mark.parametrize("stated", [3700, 4095])
@pytest.mark.parametrize("photometric", [WHITE_IS_ZERO, BLACK_IS_ZERO, RGB])
def test_12_bits_in_16_are_scaled_by_the_stated_maximum(photometric: int, stated: int) -> None:
    samples = np.rint(PIXELS[..., : COLOURS[photometric]] / 255 * 3700).astype(np.uint16)
    kind = Kind(bits=16, photometric=photometric, tags={281: (3, [stated] * samples.shape[2])})
    expected = expected_rgb(samples, replace(kind, bits=12), None)
    assert np.array_equal(read_tiff(encode_tiff(samples, kind))[0], expected)


def fails(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(PhotographError) as caught:
        read_photograph(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("photometric", [WHITE_IS_ZERO, BLACK_IS_ZERO, RGB])
def test_12_bits_in_16_without_a_stated_maximum_are_refused(tmp_path: Path, photometric: int) -> None:
    samples = PIXELS[..., : COLOURS[photometric]].astype(np.uint16) * 16
    content = encode_tiff(samples, Kind(bits=16, photometric=photometric))
    assert f"found 16-bit pixels of at most {samples.max()}" in fails(tmp_path / "a.tif", content)


def test_values_above_the_stated_maximum_are_refused(tmp_path: Path) -> None:
    content = encode_tiff(PIXELS.astype(np.uint16) * 257, Kind(bits=16, tags={281: (3, [4095])}))
    assert "expected 0 to 4095" in fails(tmp_path / "a.tif", content)


def with_second_page(second: dict[int, tuple[int, list[int]]], *, first: bool = False) -> bytes:
    """A photograph and a page of 40x40 px with further tags, before or after it."""
    kinds = [Kind(), Kind(tags=second)]
    pictures = [PIXELS, np.full((40, 40, 3), 9, np.uint8)]
    pages = [encode_tiff(pixels, kind) for pixels, kind in zip(pictures, kinds, strict=True)]
    if first:
        pages.reverse()
    return join_pages(*pages)


def join_pages(one: bytes, other: bytes) -> bytes:
    """Append the page of another little-endian file, whose offsets are moved."""
    content = bytearray(one)
    directory = int.from_bytes(content[4:8], "little")
    count = int.from_bytes(content[directory : directory + 2], "little")
    moved = bytearray(other)
    place = int.from_bytes(moved[4:8], "little")
    for index in range(int.from_bytes(moved[place : place + 2], "little")):
        at = place + 2 + 12 * index
        tag, kind, values = (int.from_bytes(moved[at + i : at + i + n], "little") for i, n in ((0, 2), (2, 2), (4, 4)))
        value = int.from_bytes(moved[at + 8 : at + 12], "little")
        if values * (2 if kind == 3 else 4) > 4:
            for number in range(values if tag == 273 else 0):
                strip = value + 4 * number
                start = int.from_bytes(moved[strip : strip + 4], "little") + len(one)
                moved[strip : strip + 4] = start.to_bytes(4, "little")
            value += len(one)
        elif tag == 273:
            value += len(one)
        moved[at + 8 : at + 12] = value.to_bytes(4, "little")
    content[directory + 2 + 12 * count : directory + 6 + 12 * count] = (len(one) + place).to_bytes(4, "little")
    return bytes(content + moved)


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("tags", [{254: (4, [1])}, {255: (3, [2])}, {254: (4, [4])}])
def test_thumbnails_and_masks_on_further_pages_are_ignored(tags: dict[int, tuple[int, list[int]]], first: bool) -> None:
    assert np.array_equal(read_tiff(with_second_page(tags, first=first))[0], PIXELS)


def test_two_full_pages_are_refused(tmp_path: Path) -> None:
    assert "found 2 frames" in fails(tmp_path / "a.tif", with_second_page({}))


def test_a_file_of_thumbnails_alone_is_refused(tmp_path: Path) -> None:
    thumbnail = encode_tiff(PIXELS, Kind(tags={254: (4, [1])}))
    assert "only reduced-size pages" in fails(tmp_path / "a.tif", join_pages(thumbnail, thumbnail))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (Kind(tags={262: (3, [8])}), "photometric interpretation"),
        (Kind(tags={262: (3, [])}), "photometric interpretation"),
        (Kind(tags={259: (3, [34712])}), "compression"),
        (Kind(tags={259: (3, [6])}), "compression"),
        (Kind(tags={258: (3, [4, 4, 4])}), "samples of 4 bits"),
        (Kind(tags={258: (3, [8, 8, 16])}), "samples of"),
        (Kind(tags={339: (3, [2, 2, 2])}), "format"),
        (Kind(tags={266: (3, [2])}), "fill order 2"),
        (Kind(tags={317: (3, [3])}), "predictor 3"),
        (Kind(photometric=YCBCR), "YCbCr with JPEG only"),
        (Kind(tags={322: (4, [40_000]), 323: (4, [16_000]), 324: (4, [8]), 325: (4, [99])}), "40000x16000"),
        (Kind(tags={256: (4, [60_000]), 257: (4, [60_000])}), "declares 60000x60000"),
        (Kind(tags={278: (4, [1])}), "strips or tiles, expected 45"),
        (Kind(tags={273: (4, [8, 0, 8, 8])}), "outside of the file"),
        (Kind(tags={279: (4, [1950, 1950, 1950, 0])}), "outside of the file"),
    ],
)
def test_what_is_not_claimed_is_refused_by_name_before_decoding(tmp_path: Path, change: Kind, said: str) -> None:
    assert said in fails(tmp_path / "a.tif", encode_tiff(PIXELS, change))


@pytest.mark.parametrize("compression", [NONE, LZW, DEFLATE, PACKBITS, ZSTD, JPEG])
@pytest.mark.parametrize("tiled", [False, True])
def test_a_shortened_strip_or_tile_is_an_error_and_never_black(tmp_path: Path, compression: int, tiled: bool) -> None:
    noise = np.random.default_rng(0).integers(0, 256, PIXELS.shape, np.uint8)
    kind = Kind(compression=compression, tiled=tiled)
    content = encode_tiff(noise, kind)
    tag = 325 if tiled else 279
    count = (3 * 2) if tiled else 4
    whole = lengths(content, tag, count)
    for shorter in (whole[-1] // 2, 1):
        changed = encode_tiff(noise, replace(kind, tags={tag: (4, [*whole[:-1], shorter])}))
        message = fails(tmp_path / "a.tif", changed)
        assert "cannot be decoded" in message or "truncated" in message


def lengths(content: bytes, tag: int, count: int) -> list[int]:
    """The values of a tag of several 32-bit numbers."""
    at = content.index(tag.to_bytes(2, "little") + b"\x04\0" + count.to_bytes(4, "little"))
    place = int.from_bytes(content[at + 8 : at + 12], "little")
    return np.frombuffer(content, "<u4", count, place).tolist()


def test_a_loop_of_pages_is_refused(tmp_path: Path) -> None:
    content = bytearray(encode_tiff(PIXELS, Kind()))
    directory = int.from_bytes(content[4:8], "little")
    count = int.from_bytes(content[directory : directory + 2], "little")
    content[directory + 2 + 12 * count : directory + 6 + 12 * count] = content[4:8]
    assert "pages, expected one" in fails(tmp_path / "a.tif", bytes(content))


def test_a_directory_alone_is_an_error(tmp_path: Path) -> None:
    directory = encode_directory({256: (4, [50]), 257: (4, [45]), 262: (3, [2])}, 8, Kind())
    assert "TIFF" in fails(tmp_path / "a.tif", b"II*\0\x08\0\0\0" + directory)
