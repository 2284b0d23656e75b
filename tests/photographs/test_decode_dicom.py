"""Decoding of DICOM photographs in every pixel encoding that cameras use."""

from __future__ import annotations

import io
import subprocess
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom import dcmwrite
from pydicom.pixels.processing import convert_color_space
from pydicom.uid import (
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from deepmtdr.errors import PhotographError
from deepmtdr.photographs import decode_dicom
from deepmtdr.photographs.decode import read_photograph
from dicom_files import dicom, encapsulated, write
from external_programs import requires_programs
from fundus import draw_fundus

PIXELS = draw_fundus(60, 80, (40, 30), 28)
GREY = PIXELS[..., 1]


def jpeg(pixels: NDArray = PIXELS, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95, **options)
    return buffer.getvalue()


def off_by(path: Path, truth: NDArray = PIXELS) -> float:
    return float(abs(read_photograph(path).pixels.astype(int) - truth).max())


def test_rgb_is_read_with_any_file_name(tmp_path: Path) -> None:
    assert off_by(write(tmp_path / "photograph.jpg", dicom(PIXELS, "RGB"))) == 0


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_other_byte_orders(tmp_path: Path, syntax: UID) -> None:
    dataset = dicom(PIXELS, "RGB")
    dataset.file_meta.TransferSyntaxUID = syntax
    dcmwrite(tmp_path / "a", dataset, implicit_vr=syntax.is_implicit_VR, little_endian=syntax.is_little_endian)
    assert off_by(tmp_path / "a") == 0


def test_colours_plane_by_plane(tmp_path: Path) -> None:
    planes = np.ascontiguousarray(PIXELS.transpose(2, 0, 1)).tobytes()
    assert off_by(write(tmp_path / "a.dcm", dicom(PIXELS, "RGB", PlanarConfiguration=1, PixelData=planes))) == 0


def test_ybr_full(tmp_path: Path) -> None:
    ybr = convert_color_space(PIXELS, "RGB", "YBR_FULL")
    assert off_by(write(tmp_path / "a.dcm", dicom(ybr, "YBR_FULL"))) <= 2


def test_ybr_full_422(tmp_path: Path) -> None:
    flat = np.repeat(PIXELS[:, ::2], 2, axis=1)  # pairs of one colour: nothing is lost by the subsampling
    ybr = convert_color_space(flat, "RGB", "YBR_FULL")
    packed = np.stack([ybr[:, ::2, 0], ybr[:, 1::2, 0], ybr[:, ::2, 1], ybr[:, ::2, 2]], axis=-1)
    dataset = dicom(flat, "YBR_FULL_422", PixelData=packed.tobytes())
    assert off_by(write(tmp_path / "a.dcm", dataset), flat) <= 2


def test_palette(tmp_path: Path) -> None:
    image = Image.fromarray(PIXELS).quantize(256)
    table = np.zeros((256, 3), np.uint8)
    colours = np.reshape(image.getpalette(), (-1, 3))
    table[: len(colours)] = colours
    dataset = dicom(np.asarray(image), "PALETTE COLOR")
    for channel, colour in enumerate(("Red", "Green", "Blue")):
        setattr(dataset, f"{colour}PaletteColorLookupTableDescriptor", [256, 0, 16])
        data = (table[:, channel].astype("<u2") * 257).tobytes()
        setattr(dataset, f"{colour}PaletteColorLookupTableData", data)
    assert off_by(write(tmp_path / "a.dcm", dataset), np.asarray(image.convert("RGB"))) == 0


def test_grey_is_repeated(tmp_path: Path) -> None:
    assert off_by(write(tmp_path / "a.dcm", dicom(GREY, "MONOCHROME2")), GREY[..., None]) == 0


def test_monochrome1_is_inverted(tmp_path: Path) -> None:
    assert off_by(write(tmp_path / "a.dcm", dicom(255 - GREY, "MONOCHROME1")), GREY[..., None]) == 0


@pytest.mark.parametrize("bits", [10, 12, 16])
def test_more_bits_are_scaled_to_8_by_bits_stored(tmp_path: Path, bits: int) -> None:
    values = np.rint(GREY / 255 * (2**bits - 1)).astype(np.uint16)
    assert off_by(write(tmp_path / "a.dcm", dicom(values, "MONOCHROME2", bits=bits)), GREY[..., None]) == 0


def test_signed_grey(tmp_path: Path) -> None:
    values = GREY.astype(np.int32) * 257 - 32768
    dataset = dicom(values.astype(np.int16), "MONOCHROME2", bits=16, PixelRepresentation=1)
    assert off_by(write(tmp_path / "a.dcm", dataset), GREY[..., None]) == 0


def test_16_bit_rgb(tmp_path: Path) -> None:
    dataset = dicom(PIXELS.astype(np.uint16) * 257, "RGB", bits=16)
    assert off_by(write(tmp_path / "a.dcm", dataset)) == 0


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless])
@pytest.mark.parametrize("bits", [8, 16])
def test_lossless_compression_gives_the_same_pixels(tmp_path: Path, syntax: UID, bits: int) -> None:
    values = PIXELS if bits == 8 else PIXELS.astype(np.uint16) * 257
    dataset = dicom(values, "RGB", bits=bits)
    dataset.compress(syntax, generate_instance_uid=False)
    assert off_by(write(tmp_path / "a.dcm", dataset)) == 0


def test_jpeg_2000_with_its_own_colour_transforms(tmp_path: Path) -> None:
    reversible = dicom(PIXELS, "YBR_RCT")
    reversible.compress(JPEG2000Lossless, generate_instance_uid=False)
    assert off_by(write(tmp_path / "rct.dcm", reversible)) == 0
    lossy = dicom(PIXELS, "YBR_ICT")
    lossy.compress(JPEG2000, j2k_psnr=[60], generate_instance_uid=False)
    assert off_by(write(tmp_path / "ict.dcm", lossy)) < 8


@pytest.mark.parametrize(("photometric", "subsampling"), [("YBR_FULL_422", 1), ("YBR_FULL", 0)])
def test_baseline_jpeg(tmp_path: Path, photometric: str, subsampling: int) -> None:
    stream = jpeg(subsampling=subsampling)
    with Image.open(io.BytesIO(stream)) as image:
        truth = np.asarray(image)
    assert off_by(write(tmp_path / "a.dcm", encapsulated(stream, JPEGBaseline8Bit, photometric)), truth) <= 4


@pytest.mark.parametrize(
    ("tags", "laterality"),
    [
        ({"ImageLaterality": "L"}, "L"),
        ({"Laterality": "R"}, "R"),
        ({"ImageLaterality": "R", "Laterality": "L"}, "R"),
        ({"ImageLaterality": "B"}, None),
        ({"Laterality": ""}, None),
        ({}, None),
    ],
)
def test_laterality(tmp_path: Path, tags: dict[str, str], laterality: str | None) -> None:
    assert read_photograph(write(tmp_path / "a.dcm", dicom(PIXELS, "RGB", **tags))).laterality == laterality


def fails(path: Path) -> str:
    with pytest.raises(PhotographError) as caught:
        read_photograph(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


def test_several_frames_are_counted(tmp_path: Path) -> None:
    dataset = dicom(PIXELS, "RGB", NumberOfFrames=3, PixelData=3 * PIXELS.tobytes())
    assert "found 3 frames, expected one photograph" in fails(write(tmp_path / "a.dcm", dataset))


def test_bomb_is_refused_by_its_header(tmp_path: Path) -> None:
    dataset = encapsulated(jpeg(), JPEGBaseline8Bit, "YBR_FULL_422", Rows=60_000, Columns=60_000)
    assert "header declares 60000x60000 px, expected at most" in fails(write(tmp_path / "a.dcm", dataset))


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless])
def test_bomb_behind_a_small_header_is_refused(tmp_path: Path, syntax: UID) -> None:
    dataset = dicom(PIXELS, "RGB")
    dataset.compress(syntax, generate_instance_uid=False)
    dataset.Rows = 50
    assert "header declares 80x50 px, the pixel data has 80x60 px" in fails(write(tmp_path / "a.dcm", dataset))


def test_bomb_in_jpeg_behind_a_small_header_is_refused(tmp_path: Path) -> None:
    stream = jpeg(np.zeros((64, 3000, 3), np.uint8))
    message = fails(write(tmp_path / "a.dcm", encapsulated(stream, JPEGBaseline8Bit, "YBR_FULL_422")))
    assert "header declares 80x60 px, the pixel data has 3000x64 px" in message


def test_deflated_file_is_refused_before_it_is_inflated(tmp_path: Path) -> None:
    dataset = dicom(PIXELS, "RGB")
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    assert "found deflated DICOM" in fails(write(tmp_path / "a.dcm", dataset))


def test_too_small(tmp_path: Path) -> None:
    dataset = dicom(PIXELS[:1, :1].copy(), "RGB")
    assert "found 1x1 px, expected at least 32 px" in fails(write(tmp_path / "a.dcm", dataset))


def test_no_pixels(tmp_path: Path) -> None:
    dataset = dicom(PIXELS, "RGB")
    del dataset.PixelData
    message = fails(write(tmp_path / "a.dcm", dataset))
    assert "DICOM without pixel data (Ophthalmic Photography 8 Bit Image Storage)" in message


@pytest.mark.parametrize("keep", [140, 600, 5_000])
def test_truncated(tmp_path: Path, keep: int) -> None:
    path = write(tmp_path / "a.dcm", dicom(PIXELS, "RGB"))
    path.write_bytes(path.read_bytes()[:keep])
    assert "DICOM" in fails(path)


def test_damaged_codestream(tmp_path: Path) -> None:
    stream = jpeg()
    dataset = encapsulated(stream[:40] + bytes(len(stream) - 40), JPEGBaseline8Bit, "YBR_FULL_422")
    assert "JPEG without a frame header" in fails(write(tmp_path / "a.dcm", dataset))


def lossless_jpeg(path: Path) -> Path:
    """A photograph in JPEG Lossless, as DCMTK writes it."""
    subprocess.run(["dcmcjpeg", "+e1", write(path.with_suffix(".raw"), dicom(PIXELS, "RGB")), path], check=True)
    return path


@requires_programs("dcmcjpeg")
def test_lossless_jpeg_gives_the_same_pixels(tmp_path: Path) -> None:
    assert off_by(lossless_jpeg(tmp_path / "a.dcm")) == 0


@pytest.mark.parametrize(
    ("decoder", "said"),
    [("import os; os.abort()", "exit code -6"), ("while True: pass", "JPEG decoder took longer than 1 s")],
)
def test_decoder_that_aborts_or_hangs_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decoder: str, said: str
) -> None:
    monkeypatch.setattr(decode_dicom, "_GDCM_PROGRAM", decoder)
    monkeypatch.setattr(decode_dicom, "DECODE_TIMEOUT", 1.0)
    assert said in fails(write(tmp_path / "a.dcm", encapsulated(jpeg(), JPEGLosslessSV1, "RGB")))
