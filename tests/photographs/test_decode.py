"""Decoding of image files: upright RGB from every format, one clear line for every bad file."""

from __future__ import annotations

import hashlib
import io
import os
import struct
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from PIL import Image, ImageCms

from deepmtdr.errors import PhotographError
from deepmtdr.files import printable_path
from deepmtdr.photographs.decode import read_photograph
from deepmtdr.photographs.limits import MAX_BYTES, MAX_PIXELS
from fundus import draw_fundus

PIXELS = draw_fundus(60, 80, (40, 30), 28)
GREY = PIXELS[..., 1]


def save(path: Path, pixels: np.ndarray | Image.Image = PIXELS, **options: object) -> Path:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(path, **options)
    return path


def png_header(width: int, height: int) -> bytes:
    """A PNG that declares a size and has almost no data."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + data


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.ppm", "a.bmp"])
def test_lossless_formats_give_the_same_pixels(tmp_path: Path, name: str) -> None:
    photograph = read_photograph(save(tmp_path / name))
    assert (photograph.pixels == PIXELS).all()
    assert photograph.pixels.dtype == np.uint8
    assert photograph.path == tmp_path / name
    assert photograph.laterality is None


def test_jpeg_is_close(tmp_path: Path) -> None:
    pixels = read_photograph(save(tmp_path / "a.jpg", quality=95, subsampling=0)).pixels
    assert abs(pixels.astype(int) - PIXELS).mean() < 2


def test_path_may_be_a_string_and_sha256_is_the_files(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png")
    assert read_photograph(str(path)).sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_format_is_recognised_by_content_not_by_name(tmp_path: Path) -> None:
    save(tmp_path / "a.png").rename(tmp_path / "a.jpg")
    assert (read_photograph(tmp_path / "a.jpg").pixels == PIXELS).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_exif_orientation_is_applied(tmp_path: Path, name: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    # What a viewer must do for each value, from the positions of row 0 and column 0 in the standard.
    stored = {
        1: PIXELS,
        2: PIXELS[:, ::-1],
        3: PIXELS[::-1, ::-1],
        4: PIXELS[::-1],
        5: PIXELS.transpose(1, 0, 2),
        6: PIXELS.transpose(1, 0, 2)[::-1],
        7: PIXELS.transpose(1, 0, 2)[::-1, ::-1],
        8: PIXELS.transpose(1, 0, 2)[:, ::-1],
    }[orientation]
    path = save(tmp_path / name, np.ascontiguousarray(stored), exif=exif)
    assert np.array_equal(read_photograph(path).pixels, PIXELS)


def test_photograph_with_damaged_exif_is_read(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f garbage")
    assert (read_photograph(path).pixels == PIXELS).all()


def test_grey_is_repeated(tmp_path: Path) -> None:
    assert (read_photograph(save(tmp_path / "a.png", GREY)).pixels == GREY[..., None]).all()


def test_one_bit_is_black_and_white(tmp_path: Path) -> None:
    pixels = read_photograph(save(tmp_path / "a.png", Image.fromarray(GREY > 50))).pixels
    assert (pixels == 255 * (GREY > 50)[..., None]).all()


def test_palette_is_looked_up(tmp_path: Path) -> None:
    image = Image.fromarray(PIXELS).quantize(64)
    assert (read_photograph(save(tmp_path / "a.png", image)).pixels == np.asarray(image.convert("RGB"))).all()


@pytest.mark.parametrize("colour", [True, False])
def test_transparency_is_laid_on_black(tmp_path: Path, colour: bool) -> None:
    alpha = np.full((60, 80, 1), 255, np.uint8)
    alpha[:, 40:] = 0
    base = PIXELS if colour else GREY[..., None]
    pixels = read_photograph(save(tmp_path / "a.png", np.concatenate([base, alpha], axis=2))).pixels
    assert (pixels[:, :40] == base[:, :40]).all()
    assert not pixels[:, 40:].any()


def test_transparent_palette_entry_is_laid_on_black(tmp_path: Path) -> None:
    image = Image.new("P", (40, 40), 0)
    image.putpalette([255, 0, 0, 0, 200, 0])
    image.paste(1, (0, 0, 20, 40))
    pixels = read_photograph(save(tmp_path / "a.png", image, transparency=0)).pixels
    assert (pixels[:, :20] == (0, 200, 0)).all()
    assert not pixels[:, 20:].any()


@pytest.mark.parametrize("name", ["a.jpg", "a.tif"])
def test_cmyk_becomes_rgb(tmp_path: Path, name: str) -> None:
    pixels = read_photograph(save(tmp_path / name, Image.fromarray(PIXELS).convert("CMYK"))).pixels
    assert abs(pixels.astype(int) - PIXELS).mean() < 4


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.pgm"])
def test_16_bit_grey_is_scaled_to_8(tmp_path: Path, name: str) -> None:
    path = save(tmp_path / name, GREY.astype(np.uint16) * 257)
    assert (read_photograph(path).pixels == GREY[..., None]).all()


def test_16_bit_rgb_is_scaled_to_8(tmp_path: Path) -> None:
    raw = (PIXELS.astype(">u2") * 257).tobytes()
    (tmp_path / "a.ppm").write_bytes(b"P6 80 60 65535\n" + raw)
    assert (read_photograph(tmp_path / "a.ppm").pixels == PIXELS).all()


def test_16_bit_rgb_tiff_is_scaled_to_8(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(rgb_tiff((PIXELS.astype("<u2") * 257).tobytes(), 80, 60, bits=16))
    assert (read_photograph(tmp_path / "a.tif").pixels == PIXELS).all()


def rgb_tiff(raw: bytes, width: int, height: int, bits: int) -> bytes:
    """An uncompressed little-endian RGB TIFF, one strip."""
    tags = {256: width, 257: height, 259: 1, 262: 2, 277: 3, 278: height, 279: len(raw), 284: 1}
    start = 8 + 2 + 12 * (len(tags) + 2) + 4
    entries = [(tag, 4, 1, value) for tag, value in tags.items()] + [(258, 3, 3, start), (273, 4, 1, start + 6)]
    directory = b"".join(struct.pack("<HHII", *entry) for entry in sorted(entries))
    head = struct.pack("<2sHIH", b"II", 42, 8, len(entries)) + directory + struct.pack("<I", 0)
    return head + struct.pack("<3H", bits, bits, bits) + raw


@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("container", ["jp2", "j2k"])
@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_2000_is_scaled_to_8_bits(tmp_path: Path, container: str, bits: int, channels: int) -> None:
    pixels = PIXELS if channels == 3 else GREY
    values = np.rint(pixels / 255 * (2**bits - 1)).astype(np.uint8 if bits == 8 else np.uint16)
    stream = imagecodecs.jpeg2k_encode(values, level=0, codecformat=container, reversible=True, bitspersample=bits)
    (tmp_path / "a").write_bytes(stream)
    truth = pixels if channels == 3 else GREY[..., None]
    assert abs(read_photograph(tmp_path / "a").pixels.astype(int) - truth).max() <= 1


def test_jpeg_2000_that_pillow_decodes_wrongly_is_refused(tmp_path: Path) -> None:
    alpha = np.full((60, 80, 1), 65535, np.uint16)
    values = np.concatenate([PIXELS.astype(np.uint16) * 257, alpha], axis=2)
    (tmp_path / "a.jp2").write_bytes(imagecodecs.jpeg2k_encode(values, level=0, codecformat="jp2", reversible=True))
    assert "4 components of 16 bits" in fails(tmp_path / "a.jp2")


def test_huge_codestream_in_small_jp2_boxes_is_refused(tmp_path: Path) -> None:
    content = bytearray(imagecodecs.jpeg2k_encode(PIXELS, level=0, codecformat="jp2", reversible=True))
    size = content.index(b"\xff\x4f\xff\x51") + 8
    content[size : size + 8] = struct.pack(">II", 40_000, 40_000)
    (tmp_path / "a.jp2").write_bytes(content)
    assert "header declares 40000x40000 px" in fails(tmp_path / "a.jp2")


def test_webp_and_avif_are_read(tmp_path: Path) -> None:
    assert (read_photograph(save(tmp_path / "a.webp", lossless=True)).pixels == PIXELS).all()
    pixels = read_photograph(save(tmp_path / "a.avif", quality=95, subsampling="4:4:4")).pixels
    assert abs(pixels.astype(int) - PIXELS).mean() < 3


@pytest.mark.parametrize("name", ["a.webp", "a.avif"])
def test_orientation_of_newer_formats_is_applied(tmp_path: Path, name: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = np.ascontiguousarray(PIXELS.transpose(1, 0, 2)[::-1])
    pixels = read_photograph(save(tmp_path / name, stored, exif=exif, quality=95)).pixels
    assert abs(pixels.astype(int) - PIXELS).mean() < 6


@pytest.mark.parametrize(
    ("start", "name"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        (b"\xff\x0a\xfa\x1f", "JPEG XL"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
        (b"GIF89a\x50\0\x3c\0", "GIF"),
        (b"8BPS\0\1", "Photoshop"),
        (b"\0\0\0\x18ftypcrx \0\0\0\1crx isom", "camera raw"),
    ],
)
def test_formats_that_cannot_be_read_are_named(tmp_path: Path, start: bytes, name: str) -> None:
    (tmp_path / "a.jpg").write_bytes(start + bytes(100))
    assert f"found {name}, expected one photograph as JPEG" in fails(tmp_path / "a.jpg")


@pytest.mark.parametrize("maximum", [1023, 4095, 65535])
@pytest.mark.parametrize("channels", [1, 3])
def test_pnm_is_scaled_by_its_stated_maximum(tmp_path: Path, maximum: int, channels: int) -> None:
    pixels = PIXELS if channels == 3 else GREY[..., None]
    values = np.rint(pixels / 255 * maximum).astype(">u2")
    (tmp_path / "a.pnm").write_bytes(b"P%d 80 60 %d\n" % (6 if channels == 3 else 5, maximum) + values.tobytes())
    assert (read_photograph(tmp_path / "a.pnm").pixels == pixels).all()


@pytest.mark.parametrize("name", ["a.png", "a.pgm"])
def test_12_significant_bits_in_16_without_a_stated_maximum_are_refused(tmp_path: Path, name: str) -> None:
    path = save(tmp_path / name, GREY.astype(np.uint16) * 16)
    assert f"found 16-bit pixels of at most {16 * int(GREY.max())}" in fails(path)


def test_colour_profile_is_ignored(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    assert (read_photograph(save(tmp_path / "a.png", icc_profile=profile)).pixels == PIXELS).all()


def test_first_picture_of_a_cameras_mpo_is_the_photograph(tmp_path: Path) -> None:
    preview = Image.new("RGB", (40, 40))
    path = save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[preview], quality=95)
    assert read_photograph(path).pixels.shape == (60, 80, 3)


def fails(path: Path) -> str:
    with pytest.raises(PhotographError) as caught:
        read_photograph(path)
    message = str(caught.value)
    assert message.startswith(f"{printable_path(path)}: ")
    assert "expected" in message or "damaged" in message
    assert "\n" not in message
    return message


def test_text_named_jpg(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_text("This is no photograph.")
    assert "found no photograph (the file begins b'This is no photo')" in fails(tmp_path / "a.jpg")


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif", "a.bmp", "a.ppm", "a.webp", "a.avif", "a.jp2", "a.j2k"])
def test_truncated_file(tmp_path: Path, name: str) -> None:
    path = save(tmp_path / name, draw_fundus())
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    message = fails(path)
    assert "400x300 px" in message or name in ("a.tif", "a.webp", "a.avif")  # their size may be after the pixels


def test_empty_file(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    assert f"found a file of 0 bytes, expected 1 to {MAX_BYTES}" in fails(tmp_path / "a.jpg")


def test_file_too_large_to_be_read(tmp_path: Path) -> None:
    with (tmp_path / "a.jpg").open("wb") as file:
        file.truncate(MAX_BYTES + 1)  # sparse: needs no disk space
    assert f"found a file of {MAX_BYTES + 1} bytes" in fails(tmp_path / "a.jpg")


def test_folder(tmp_path: Path) -> None:
    assert "found a folder" in fails(tmp_path)


def test_missing_file(tmp_path: Path) -> None:
    assert "cannot be read: No such file or directory" in fails(tmp_path / "a.jpg")


def test_null_character_in_the_name() -> None:
    assert "cannot be read" in fails(Path("a\0.jpg"))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_named_pipe_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jpg")
    assert "found neither a file nor a folder" in fails(tmp_path / "a.jpg")


def test_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    path = save(tmp_path / "a.png")
    monkeypatch.setattr(Path, "read_bytes", refuse)  # file modes do not stop a superuser
    assert "cannot be read: Permission denied" in fails(path)


@pytest.mark.parametrize("side", [9_200, 60_000])  # below and above Pillow's own limit
def test_decompression_bomb_is_refused_by_its_header(tmp_path: Path, side: int) -> None:
    (tmp_path / "a.png").write_bytes(png_header(side, side))
    message = fails(tmp_path / "a.png")
    assert "header declares" in message
    assert str(side) in message or str(side**2) in message
    assert f"at most {MAX_PIXELS:,} pixels" in message


def test_largest_allowed_header_is_decoded(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png_header(8_000, 10_000))
    assert "8000x10000 px, but it cannot be decoded" in fails(
        tmp_path / "a.png"
    )  # the header was accepted; the pixels are missing


@pytest.mark.parametrize("name", ["a.tif", "a.webp", "a.avif", "a.png"])
def test_several_frames_are_counted(tmp_path: Path, name: str) -> None:
    others = [Image.fromarray(PIXELS[::-1]), Image.fromarray(PIXELS[:, ::-1])]
    path = save(tmp_path / name, save_all=True, append_images=others)
    assert "found 3 frames, expected one photograph" in fails(path)


@pytest.mark.parametrize("shape", [(1, 1, 3), (31, 400, 3)])
def test_too_small(tmp_path: Path, shape: tuple[int, int, int]) -> None:
    path = save(tmp_path / "a.png", np.zeros(shape, np.uint8))
    assert f"found {shape[1]}x{shape[0]} px, expected at least 32 px" in fails(path)


def test_floating_point_pixels(tmp_path: Path) -> None:
    assert "floating-point" in fails(save(tmp_path / "a.tif", GREY.astype(np.float32)))


def test_32_bit_pixels_are_refused_by_name(tmp_path: Path) -> None:
    assert "samples of 32 bits" in fails(save(tmp_path / "a.tif", np.int32(GREY > 50) * 9_000_000))


def test_other_formats_are_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, "ICO")
    (tmp_path / "a.png").write_bytes(buffer.getvalue())
    assert "found no photograph" in fails(tmp_path / "a.png")


@pytest.mark.data
@pytest.mark.parametrize("pattern", ["idrid/A*/1*/**/*.jpg", "eyepacs/train/*.jpeg", "drive/training/images/*.tif"])
def test_real_photographs_are_read(real_data: Path, pattern: str) -> None:
    path = next(iter(sorted(real_data.glob(pattern))))
    with Image.open(path) as image:
        assert np.array_equal(read_photograph(path).pixels, np.asarray(image.convert("RGB")))
