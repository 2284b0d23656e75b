"""Write TIFF files of every kind, with NumPy alone except for the compression codecs."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import imagecodecs
import numpy as np
from numpy.typing import NDArray

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK, YCBCR = 0, 1, 2, 3, 5, 6
NONE, LZW, JPEG, DEFLATE, PACKBITS, OLD_DEFLATE, ZSTD = 1, 5, 7, 8, 32773, 32946, 50000


@dataclass(frozen=True, kw_only=True)
class Kind:
    """Kind of a TIFF file."""

    bits: int = 8
    photometric: int = RGB
    extra: int | None = None
    """Value of ExtraSamples of one more sample; None: no such sample."""
    compression: int = NONE
    separate: bool = False
    """Separate planes instead of chunky samples."""
    tiled: bool = False
    order: str = "<"
    predictor: int = 1
    big: bool = False
    orientation: int = 1
    tags: dict[int, tuple[int, list[int]]] = field(default_factory=dict)
    """Further or other tags: type (3: 16 bits, 4: 32 bits) and values; a tag without values is left out."""


def encode_tiff(samples: NDArray, kind: Kind, palette: NDArray[np.uint16] | None = None) -> bytes:
    """Encode height x width x samples; the strips have 13 rows, the tiles 32x16 px."""
    segments = [_compress(_pack(part, kind), part, kind) for part in _cut(samples, kind)]
    start = 16 if kind.big else 8
    places = np.cumsum([start, *map(len, segments)])[:-1].tolist()
    tags = _tags(samples.shape, kind, palette)
    tags[324 if kind.tiled else 273], tags[325 if kind.tiled else 279] = (4, places), (4, [*map(len, segments)])
    tags = {tag: value for tag, value in sorted({**tags, **kind.tags}.items()) if value[1]}
    at = start + sum(map(len, segments))
    return _head(at, kind) + b"".join(segments) + encode_directory(tags, at, kind)


def encode_directory(tags: dict[int, tuple[int, list[int]]], at: int, kind: Kind, following: int = 0) -> bytes:
    """Encode an image file directory for the place `at` of a file, followed by the values of its tags."""
    count, entry, offset, room = ("Q", "HHQ", "Q", 8) if kind.big else ("H", "HHI", "I", 4)
    values_at = at + struct.calcsize("<" + count) + len(tags) * (struct.calcsize("<" + entry) + room) + room
    directory, values = struct.pack(kind.order + count, len(tags)), b""
    for tag, (number_type, numbers) in tags.items():
        data = struct.pack(f"{kind.order}{len(numbers)}{'H' if number_type == 3 else 'I'}", *numbers)
        directory += struct.pack(kind.order + entry, tag, number_type, len(numbers))
        if len(data) <= room:
            directory += data.ljust(room, b"\0")
        else:
            directory += struct.pack(kind.order + offset, values_at + len(values))
            values += data
    return directory + struct.pack(kind.order + offset, following) + values


def _head(at: int, kind: Kind) -> bytes:
    mark = b"II" if kind.order == "<" else b"MM"
    if kind.big:
        return mark + struct.pack(kind.order + "HHHQ", 43, 8, 0, at)
    return mark + struct.pack(kind.order + "HI", 42, at)


def _tags(shape: tuple[int, ...], kind: Kind, palette: NDArray[np.uint16] | None) -> dict[int, tuple[int, list[int]]]:
    height, width, samples = shape
    tags = {
        256: (4, [width]),
        257: (4, [height]),
        258: (3, [kind.bits] * samples),
        259: (3, [kind.compression]),
        262: (3, [kind.photometric]),
        274: (3, [kind.orientation]),
        277: (3, [samples]),
        284: (3, [2 if kind.separate else 1]),
        317: (3, [kind.predictor]),
    }
    if kind.tiled:
        tags |= {322: (4, [32]), 323: (4, [16])}
    else:
        tags[278] = (4, [13])
    if palette is not None:
        tags[320] = (3, palette.T.ravel().tolist())
    if kind.extra is not None:
        tags[338] = (3, [kind.extra])
    return tags


def _cut(samples: NDArray, kind: Kind) -> Iterator[NDArray]:
    """Cut planes into strips or padded tiles."""
    height, width, count = samples.shape
    for plane in np.split(samples, count, axis=2) if kind.separate else [samples]:
        for top in range(0, height, 16 if kind.tiled else 13):
            if not kind.tiled:
                yield plane[top : top + 13]
                continue
            for left in range(0, width, 32):
                tile = np.zeros((16, 32, plane.shape[2]), samples.dtype)
                part = plane[top : top + 16, left : left + 32]
                tile[: part.shape[0], : part.shape[1]] = part
                yield tile


def _pack(part: NDArray, kind: Kind) -> bytes:
    """Bytes of a strip or tile before compression; each row begins with a new byte."""
    if kind.bits == 12:
        flat = part.reshape(len(part), -1).astype(">u2")
        bits = np.unpackbits(flat.view(np.uint8).reshape(*flat.shape, 2), axis=2)[..., 4:]
        return np.packbits(bits.reshape(len(part), -1), axis=1).tobytes()
    if kind.predictor == 2:
        part = np.concatenate([part[:, :1], part[:, 1:] - part[:, :-1]], axis=1)
    return part.astype(f"{kind.order}u{kind.bits // 8}").tobytes()


def _compress(data: bytes, part: NDArray, kind: Kind) -> bytes:
    if kind.compression == JPEG:
        colours = "YCBCR" if kind.photometric == YCBCR else "RGB" if part.shape[2] == 3 else "GRAYSCALE"
        source = "RGB" if part.shape[2] == 3 else "GRAYSCALE"
        pixels = np.ascontiguousarray(part if part.shape[2] == 3 else part[..., 0])
        return bytes(imagecodecs.jpeg8_encode(pixels, 95, colorspace=source, outcolorspace=colours))
    if kind.compression in (DEFLATE, OLD_DEFLATE):
        return zlib.compress(data, 1)
    encode = {LZW: imagecodecs.lzw_encode, PACKBITS: imagecodecs.packbits_encode, ZSTD: imagecodecs.zstd_encode}
    return bytes(encode[kind.compression](data)) if kind.compression != NONE else data
