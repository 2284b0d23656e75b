"""Compressed DICOM photographs: what the stream declares is checked, and decides where the header contradicts it."""

from __future__ import annotations

import io
import struct
import subprocess
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels.processing import convert_color_space
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    OphthalmicPhotography8BitImageStorage,
    RLELossless,
)

from deepmtdr.dicom.source import read_source
from deepmtdr.errors import DicomError, PhotographError
from deepmtdr.photographs.codestreams import read_codestream_header
from deepmtdr.photographs.decode import read_photograph
from deepmtdr.photographs.limits import DecodeError
from dicom_files import dicom, encapsulated, write
from external_programs import program_path, requires_programs
from fundus import draw_fundus

PIXELS = draw_fundus(60, 80, (40, 30), 28)
GREY = PIXELS[..., 1]
TWELVE_BITS = np.rint(GREY / 255 * 4095).astype(np.uint16)


def decode(tmp_path: Path, dataset: Dataset) -> NDArray[np.uint8]:
    return read_photograph(write(tmp_path / "a.dcm", dataset)).pixels


def fails(tmp_path: Path, dataset: Dataset) -> str:
    with pytest.raises(PhotographError) as caught:
        decode(tmp_path, dataset)
    return str(caught.value)


def bare_jpeg(colours: str, identifiers: bytes, marker: bytes = b"") -> bytes:
    """A JPEG with 4:4:4 samples in the given colours, with component identifiers and only the given marker."""
    stream = bytes(imagecodecs.jpeg8_encode(PIXELS, 95, colorspace="RGB", outcolorspace=colours, subsampling="444"))
    bare, at = bytearray(stream[:2] + marker), 2
    while stream[at + 1] != 0xDA:
        end = at + 2 + int.from_bytes(stream[at + 2 : at + 4], "big")
        segment = bytearray(stream[at:end])
        if segment[1] == 0xC0:
            segment[10:19:3] = identifiers
        if segment[1] not in (0xE0, 0xEE):  # JFIF, Adobe
            bare += segment
        at = end
    scan = bytearray(stream[at:])
    scan[5:11:2] = identifiers
    return bytes(bare + scan)


JFIF = b"\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0"
ADOBE_RGB, ADOBE_YCBCR = (b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0" + bytes([transform]) for transform in (0, 1))
JPEGS = {
    "unmarked": ("YCBCR", b"\1\2\3", b""),
    "counted from 0": ("YCBCR", b"\0\1\2", b""),
    "JFIF": ("YCBCR", b"\1\2\3", JFIF),
    "Adobe": ("YCBCR", b"\1\2\3", ADOBE_YCBCR),
    "Adobe RGB": ("RGB", b"\1\2\3", ADOBE_RGB),
    "named RGB": ("RGB", b"RGB", b""),
}


@pytest.mark.parametrize("said", ["RGB", "YBR_FULL_422", "YBR_FULL"])
@pytest.mark.parametrize("name", JPEGS)
def test_the_markers_of_a_jpeg_decide_its_colours_whatever_the_header_says(
    tmp_path: Path, name: str, said: str
) -> None:
    stream = bare_jpeg(*JPEGS[name])
    pixels = decode(tmp_path, encapsulated(stream, JPEGBaseline8Bit, said))
    with Image.open(io.BytesIO(stream)) as image:
        assert abs(pixels.astype(int) - np.asarray(image.convert("RGB"))).max() <= 2
    assert abs(pixels.astype(int) - PIXELS).max() < 30  # false colours differ by more than 150


@requires_programs("dcmdjpeg")
@pytest.mark.parametrize("name", JPEGS)
def test_colours_of_a_jpeg_said_to_be_rgb_are_those_of_dcmtk(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / "a.dcm", encapsulated(bare_jpeg(*JPEGS[name]), JPEGBaseline8Bit, "RGB"))
    subprocess.run([program_path("dcmdjpeg"), "--conv-guess", path, tmp_path / "b.dcm"], check=True)
    expected = read_photograph(tmp_path / "b.dcm").pixels
    assert abs(read_photograph(path).pixels.astype(int) - expected).max() <= 2


def jpeg_2000(pixels: NDArray, *, mct: bool = False, bits: int | None = None, container: str = "j2k") -> bytes:
    return bytes(
        imagecodecs.jpeg2k_encode(
            pixels,
            level=0,
            codecformat=container,
            reversible=True,
            mct=mct,
            bitspersample=bits,
            colorspace="SRGB" if pixels.ndim == 3 else "GRAY",
        )
    )


@pytest.mark.parametrize("container", ["j2k", "jp2"])
@pytest.mark.parametrize("said", ["RGB", "YBR_RCT", "YBR_FULL", "YBR_FULL_422"])
def test_jpeg_2000_with_a_colour_transform_is_rgb_whatever_the_header_says(
    tmp_path: Path, said: str, container: str
) -> None:
    stream = jpeg_2000(PIXELS, mct=True, container=container)
    assert np.array_equal(decode(tmp_path, encapsulated(stream, JPEG2000Lossless, said)), PIXELS)


def test_jpeg_2000_said_to_be_transformed_that_is_not_is_refused(tmp_path: Path) -> None:
    assert "without a colour transform" in fails(tmp_path, encapsulated(jpeg_2000(PIXELS), JPEG2000Lossless, "YBR_RCT"))


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless])
def test_ybr_full_in_a_compression_without_colour_transform_is_converted(tmp_path: Path, syntax: str) -> None:
    ybr = convert_color_space(PIXELS, "RGB", "YBR_FULL")
    dataset = dicom(ybr, "YBR_FULL")
    if syntax == JPEG2000Lossless:
        dataset = encapsulated(jpeg_2000(ybr), JPEG2000Lossless, "YBR_FULL")
    else:
        dataset.compress(syntax, generate_instance_uid=False)
    assert abs(decode(tmp_path, dataset).astype(int) - PIXELS).max() <= 2


@pytest.mark.parametrize("stored", [12, 16])
def test_the_bits_of_the_stream_count_if_they_are_fewer_than_bits_stored(tmp_path: Path, stored: int) -> None:
    dataset = dicom(TWELVE_BITS, "MONOCHROME2", bits=stored)
    dataset.PixelData = encapsulate([jpeg_2000(TWELVE_BITS, bits=12)])
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = JPEG2000Lossless
    assert np.array_equal(decode(tmp_path, dataset), np.repeat(GREY[..., None], 3, 2))


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_12_significant_bits_said_to_be_16_are_refused(tmp_path: Path, photometric: str) -> None:
    assert "found 16-bit pixels of at most" in fails(tmp_path, dicom(TWELVE_BITS, photometric, bits=16))


def test_unused_high_bits_are_ignored(tmp_path: Path) -> None:
    dirty = dicom(TWELVE_BITS | 0xA000, "MONOCHROME2", bits=12)
    assert np.array_equal(decode(tmp_path, dirty), np.repeat(GREY[..., None], 3, 2))


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ({"BitsStored": 12, "HighBit": 15, "BitsAllocated": 16}, "High Bit 15"),
        ({"BitsStored": 32, "HighBit": 31, "BitsAllocated": 32}, "Bits Allocated 32"),
        ({"SamplesPerPixel": 1}, "RGB with 1 samples"),
        ({"PhotometricInterpretation": "CMYK"}, "found colours as 'CMYK'"),
    ],
)
def test_other_samples_are_refused_by_name(tmp_path: Path, tags: dict[str, object], said: str) -> None:
    assert said in fails(tmp_path, dicom(PIXELS, "RGB", **tags))


def test_a_huge_stream_in_jp2_boxes_is_refused_by_its_own_header(tmp_path: Path) -> None:
    huge = jpeg_2000(np.zeros((3000, 2000, 3), np.uint8), container="jp2")
    assert "the pixel data has 2000x3000 px" in fails(tmp_path, encapsulated(huge, JPEG2000Lossless, "RGB"))


def test_many_components_are_refused_before_they_are_decoded(tmp_path: Path) -> None:
    stream = jpeg_2000(PIXELS)
    many = 60
    size = stream[:4] + struct.pack(">H", 38 + 3 * many) + stream[6:40] + struct.pack(">H", many) + b"\7\1\1" * many
    crowded = size + stream[51:]
    assert "60 components" in fails(tmp_path, encapsulated(crowded, JPEG2000Lossless, "RGB"))


@pytest.mark.parametrize(("at", "value"), [(43, 2), (42, 15)])
def test_components_of_other_sizes_or_bits_are_refused(tmp_path: Path, at: int, value: int) -> None:
    stream = bytearray(jpeg_2000(PIXELS))
    stream[at] = value
    assert "differ in size or bits" in fails(tmp_path, encapsulated(bytes(stream), JPEG2000Lossless, "RGB"))


@pytest.mark.parametrize(
    "stream", [b"\xff\xd8", b"\xff\xd8" + b"\xff" * 99, b"\xff\x4f\xff\x51\0", b"\xff\xd8\xff\xda"]
)
def test_a_stream_without_a_header_is_damaged(stream: bytes) -> None:
    with pytest.raises(DecodeError, match="damaged"):
        read_codestream_header(stream)


def test_boxes_without_a_codestream_are_damaged() -> None:
    for boxes in (b"", b"\0\0\0\0free", b"\0\0\0\1free" + bytes(8), b"\0\0\0\4free" * 3):
        with pytest.raises(DecodeError, match="boxes without a codestream"):
            read_codestream_header(b"\0\0\0\x0cjP  \r\n\x87\n" + boxes)


def deflated(tmp_path: Path, padding: int) -> Path:
    dataset = dicom(PIXELS, "RGB", StudyInstanceUID="1.2", SeriesInstanceUID="1.3")
    dataset.file_meta.FileMetaInformationVersion = bytes(2 + padding)  # moves the transfer syntax
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    return write(tmp_path / "a.dcm", dataset)


@pytest.mark.parametrize("padding", [0, 5000])
def test_a_deflated_file_is_never_inflated_wherever_it_says_so(
    tmp_path: Path, padding: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = deflated(tmp_path, padding)

    def refuse(*_: object, **__: object) -> bytes:
        raise AssertionError("inflated")

    monkeypatch.setattr("zlib.decompress", refuse)
    with pytest.raises(PhotographError, match="found deflated DICOM"):
        read_photograph(path)
    with pytest.raises(DicomError, match="found deflated DICOM"):
        read_source(path)


def test_a_header_of_many_megabytes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deepmtdr.photographs.dicom_file.MAX_HEADER_BYTES", 3000)
    dataset = dicom(PIXELS, "RGB", StudyInstanceUID="1.2", SeriesInstanceUID="1.3", ImageComments="a" * 4000)
    assert dataset.SOPClassUID == OphthalmicPhotography8BitImageStorage
    with pytest.raises(DicomError, match="header of more than 3,000 bytes"):
        read_source(write(tmp_path / "a.dcm", dataset))
    dataset.ImageComments = "a"
    assert read_source(write(tmp_path / "a.dcm", dataset)).size_bytes > 3000  # pixels do not count


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless])
def test_a_shortened_stream_is_an_error(tmp_path: Path, syntax: str, share: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, PIXELS.shape, np.uint8)
    dataset = dicom(noise, "RGB")
    dataset.compress(syntax, generate_instance_uid=False)
    frame = next(generate_frames(dataset.PixelData, number_of_frames=1))
    dataset.PixelData = encapsulate([frame[: int(share * len(frame)) // 2 * 2]])
    assert "damaged" in fails(tmp_path, dataset)
