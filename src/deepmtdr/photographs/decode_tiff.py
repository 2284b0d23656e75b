"""Decode a TIFF photograph with tifffile: 8, 12 and 16 bits, in strips or tiles, chunky or in separate planes.

What is not in the tables below is refused by name. `tests/photographs/test_decode_tiff.py` compares every combination
of them with an independent decoder, pixel by pixel.
"""

from __future__ import annotations

import io
import logging
import math
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deepmtdr.photographs.limits import MAX_PIXELS, DecodeError, check_range, check_size, first_line, to_8_bits

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPage

_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _CMYK, _YCBCR = 0, 1, 2, 3, 5, 6
_COLOURS = {
    _WHITE_IS_ZERO: 1,
    _BLACK_IS_ZERO: 1,
    _RGB: 3,
    _PALETTE: 1,
    _CMYK: 4,
    _YCBCR: 3,
}
"""Number of colour samples for each photometric interpretation that can be decoded."""
_JPEG = 7
_COMPRESSIONS = {
    1: "none",
    5: "LZW",
    _JPEG: "JPEG",
    8: "Deflate",
    32773: "PackBits",
    32946: "Deflate",
    50000: "Zstandard",
}
_WITH_PREDICTOR = (5, 8, 32946, 50000)
_STRAIGHT = 2  # ExtraSamples: transparency by which colours are not yet multiplied
_MAX_PAGES = 64
_MAX_SEGMENT_PIXELS = 1 << 26
"""Most pixels of a tile."""

_NEW_SUBFILE_TYPE, _SUBFILE_TYPE, _MAX_SAMPLE_VALUE, _ORIENTATION, _INK_SET = 254, 255, 281, 274, 332


def read_tiff(content: bytes) -> tuple[NDArray[np.uint8], int]:
    """Decode the photograph of a TIFF file; thumbnails and masks on further pages are ignored.

    Args:
        content: the bytes of the file.

    Returns:
        RGB, and the EXIF orientation.

    Raises:
        DecodeError: if there is no single photograph in it, or it is damaged or of an unsupported kind.
    """
    from tifffile import TiffFile

    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # it logs damage; errors are raised below
    what = "TIFF"
    try:
        with TiffFile(io.BytesIO(content)) as file:
            page = _find_photograph(file)
            what = f"TIFF of {page.imagewidth}x{page.imagelength} px"
            check_size(page.imagewidth, page.imagelength, 1)
            _check_kind(page)
            _check_segments(page, content)
            pixels = page.asarray(squeeze=False, maxworkers=1)  # separate planes, depth, height, width, samples
            samples = np.moveaxis(pixels[:, 0, ..., 0], 0, -1) if page.planarconfig == 2 else pixels[0, 0]
            return _to_rgb(page, samples), _number(page, _ORIENTATION, 1)
    except DecodeError:
        raise
    except MemoryError:
        raise
    except Exception as error:  # tifffile and the codecs raise almost anything on a damaged file
        raise DecodeError(
            f"found {what}, but it cannot be decoded ({first_line(error)}); "
            "the file is damaged, or its encoding is not supported"
        ) from error


def _find_photograph(file: TiffFile) -> TiffPage:
    """Return the only page that is neither a thumbnail nor a mask."""
    from tifffile import TiffPage

    pages = []
    for index in range(_MAX_PAGES + 1):
        try:
            page = file.pages[index]
        except IndexError:
            break
        assert isinstance(page, TiffPage)
        parts = islice(page.pages or (), _MAX_PAGES)
        pages.extend([page, *(part for part in parts if isinstance(part, TiffPage))])
    if len(pages) > _MAX_PAGES:
        raise DecodeError(f"found more than {_MAX_PAGES} pages, expected one photograph")
    photographs = [page for page in pages if not _is_reduced(page)] if len(pages) > 1 else pages
    if not photographs:
        raise DecodeError("found only reduced-size pages, expected one photograph in full size")
    if len(photographs) > 1:
        check_size(photographs[0].imagewidth, photographs[0].imagelength, len(photographs))
    return photographs[0]


def _is_reduced(page: TiffPage) -> bool:
    """Whether a page is a thumbnail, a level of a pyramid, or a mask."""
    return bool(_number(page, _NEW_SUBFILE_TYPE, 0) & 0b101) or _number(page, _SUBFILE_TYPE, 1) == 2


def _number(page: TiffPage, tag: int, default: int) -> int:
    """The largest value of a tag of integers."""
    value = page.tags.valueof(tag, default)
    values = value if isinstance(value, tuple) else (value,)
    return max(int(number) for number in values)


def _check_kind(page: TiffPage) -> None:
    """Refuse by name what is not claimed."""
    colours = _COLOURS.get(page.photometric)
    if colours is None or "PhotometricInterpretation" not in page.tags:
        raise DecodeError(f"found TIFF of the photometric interpretation {page.photometric!s}, expected RGB or grey")
    if page.compression not in _COMPRESSIONS:
        known = ", ".join(dict.fromkeys(_COMPRESSIONS.values()))
        raise DecodeError(f"found TIFF of the compression {page.compression!s}, expected one of {known}")
    if page.sampleformat == 3:
        raise DecodeError("found floating-point pixels, expected 8- or 16-bit integers")
    bits = page.bitspersample
    if page.sampleformat != 1 or bits not in _bits(page):
        expected = " or ".join(map(str, _bits(page)))
        raise DecodeError(
            f"found TIFF samples of {bits} bits, format {page.sampleformat}; expected {expected}, unsigned"
        )
    if page.samplesperpixel - colours not in ((0,) if page.compression == _JPEG else (0, 1)):
        raise DecodeError(f"found TIFF of {page.samplesperpixel} samples per pixel, expected {colours} or one more")
    as_jpeg = page.compression == _JPEG
    if (page.photometric == _YCBCR and not as_jpeg) or (page.photometric == _CMYK and as_jpeg):
        raise DecodeError(
            f"found TIFF of {page.photometric!s} pixels with the compression {page.compression!s}, "
            "expected YCbCr with JPEG only, and CMYK without"
        )
    if page.photometric == _YCBCR and page.planarconfig != 1:
        raise DecodeError("found TIFF of YCbCr in separate planes, expected it chunky")
    if page.predictor not in _predictors(page) or page.fillorder != 1 or page.imagedepth != 1:
        raise DecodeError(
            f"found TIFF of predictor {page.predictor}, fill order {page.fillorder} and depth {page.imagedepth}, "
            f"expected predictor {' or '.join(map(str, _predictors(page)))}, fill order 1 and depth 1"
        )
    if page.photometric == _CMYK and _number(page, _INK_SET, 1) != 1:
        raise DecodeError("found TIFF of inks other than CMYK, expected RGB or grey")


def _bits(page: TiffPage) -> tuple[int, ...]:
    return (8,) if page.photometric == _PALETTE or page.compression == _JPEG else (8, 12, 16)


def _predictors(page: TiffPage) -> tuple[int, ...]:
    """Predictors on which decoders agree: some ignore a predictor without a compression that is made for it."""
    return (1, 2) if page.compression in _WITH_PREDICTOR and page.bitspersample in (8, 16) else (1,)


def _check_segments(page: TiffPage, content: bytes) -> None:
    """Compare the strips or tiles with the size of the image and with the file, before any is decoded."""
    if page.is_tiled:
        area = page.tilewidth * page.tilelength
        count = math.ceil(page.imagewidth / page.tilewidth) * math.ceil(page.imagelength / page.tilelength)
        if area > _MAX_SEGMENT_PIXELS or area * count > 4 * MAX_PIXELS:
            raise DecodeError(
                f"the header declares {count} tiles of {page.tilewidth}x{page.tilelength} px for an image of "
                f"{page.imagewidth}x{page.imagelength} px, expected at most {MAX_PIXELS:,} pixels"
            )
    else:
        count = math.ceil(page.imagelength / page.rowsperstrip)
    count *= page.samplesperpixel if page.planarconfig == 2 else 1
    offsets, lengths = page.dataoffsets, page.databytecounts
    if len(offsets) != count or len(lengths) != count:
        raise DecodeError(f"found {len(offsets)} strips or tiles, expected {count}; the file is damaged")
    if any(not (0 < at < at + length <= len(content)) for at, length in zip(offsets, lengths, strict=True)):
        raise DecodeError("found strips or tiles outside of the file; it is truncated or damaged")
    samples = page.imagewidth * page.imagelength * page.samplesperpixel
    if page.compression == 1 and sum(lengths) < samples * page.bitspersample // 8:
        raise DecodeError("found strips or tiles that are shorter than the image; the file is truncated or damaged")
    if page.compression == _JPEG and not all(
        b"\xff\xd9" in content[at : at + length] for at, length in zip(offsets, lengths, strict=True)
    ):
        raise DecodeError("found JPEG strips or tiles without an end; the file is truncated or damaged")


def _to_rgb(page: TiffPage, samples: NDArray) -> NDArray[np.uint8]:
    """Convert the samples of a page, height x width x samples, to 8-bit RGB on a black ground."""
    if page.photometric == _PALETTE:
        colours = _look_up(page, samples[..., 0])
    else:
        largest = _largest(page)
        base = samples[..., : _COLOURS[page.photometric]]
        if page.photometric == _WHITE_IS_ZERO:
            check_range(base, largest)
            base = largest - base.astype(np.int32)
        colours = to_8_bits(base[..., 0] if base.shape[-1] == 1 else base, largest)
        if page.photometric == _CMYK:
            colours = np.asarray(Image.fromarray(colours, "CMYK").convert("RGB"))
    if _STRAIGHT not in page.extrasamples:
        return np.ascontiguousarray(colours)  # premultiplied colours are already on black
    alpha = to_8_bits(samples[..., -1], _largest(page))
    image = Image.fromarray(np.dstack([colours, alpha[..., :1]]))
    return np.asarray(Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image).convert("RGB"))


def _largest(page: TiffPage) -> int:
    """The value of white: all bits set, of the bits that MaxSampleValue needs if samples have 16.

    MaxSampleValue may be the largest value that occurs, as well as the largest possible one: 3987 and 4095 both mean 12
    significant bits.
    """
    bits = page.bitspersample
    if bits == 16:
        bits = min(max(_number(page, _MAX_SAMPLE_VALUE, 65535).bit_length(), 8), 16)
    return (1 << bits) - 1


def _look_up(page: TiffPage, indices: NDArray) -> NDArray[np.uint8]:
    """Replace the indices by the colours of the palette."""
    if page.colormap is None or page.colormap.shape != (3, 256):
        raise DecodeError("found TIFF with a palette of another size than 256 colours; the file is damaged")
    # Some programs write colours of 8 bits; libtiff recognises them in the same way.
    eight_bits = page.colormap.max() < 256
    palette = page.colormap if eight_bits else page.colormap >> 8
    return palette.T.astype(np.uint8)[indices]
