"""Read the headers of JPEG, JPEG-LS and JPEG 2000 codestreams: their size is checked before they are decoded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from deepmtdr.photographs.limits import DecodeError

_JP2_SIGNATURE = b"\x00\x00\x00\x0cjP  \r\n\x87\n"
_J2K_START = b"\xff\x4f\xff\x51"  # SOC, SIZ
_COD = 0xFF52
_JPEG_LS = 0xF7  # SOF55
# SOF0 to SOF15 without DHT, JPG and DAC.
_FRAME_HEADERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC} | {_JPEG_LS}


class Codestream(NamedTuple):
    """What the header of a codestream declares."""

    width: int
    height: int
    components: int
    bits: int
    """Bits of a component."""
    colour_transform: bool = False
    """JPEG 2000 only: the components are transformed to RGB by the decoder."""


def read_codestream_header(stream: bytes) -> Codestream | None:
    """Read the header of a JPEG, JPEG-LS or JPEG 2000 codestream; JPEG 2000 may be in the boxes of a JP2 file.

    Returns:
        What it declares; None for other streams, such as RLE.

    Raises:
        DecodeError: if the header is damaged, or its components are of an unsupported kind.
    """
    if stream.startswith(_JP2_SIGNATURE):
        return _read_jpeg_2000(_unbox(stream))
    if stream.startswith(_J2K_START):
        return _read_jpeg_2000(stream)
    return _read_jpeg(stream) if stream[:2] == b"\xff\xd8" else None


def _unbox(stream: bytes) -> bytes:
    """Return the codestream in the boxes of a JP2 file."""
    at = 0
    while at + 8 <= len(stream):
        length, header = int.from_bytes(stream[at : at + 4], "big"), 8
        if length == 1:  # the length is in the next 8 bytes
            length, header = int.from_bytes(stream[at + 8 : at + 16], "big"), 16
        end = len(stream) if length == 0 else at + length  # 0: up to the end of the file
        if stream[at + 4 : at + 8] == b"jp2c":
            return stream[at + header : end]
        if end < at + header:
            break
        at = end
    raise DecodeError("found JPEG 2000 boxes without a codestream; the file is damaged")


def _read_jpeg_2000(stream: bytes) -> Codestream:
    """Read the markers SIZ and COD of a JPEG 2000 codestream (ISO/IEC 15444-1, A.5.1 and A.6.1)."""
    if not stream.startswith(_J2K_START) or len(stream) < 45:
        raise DecodeError("found a JPEG 2000 codestream without a header; the file is damaged")
    right, bottom, left, top = (int.from_bytes(stream[at : at + 4], "big") for at in (8, 12, 16, 20))
    count = int.from_bytes(stream[40:42], "big")
    parts = [tuple(stream[at : at + 3]) for at in range(42, 42 + 3 * count, 3)]
    if not 1 <= count <= 4:
        raise DecodeError(f"found JPEG 2000 of {count} components, expected 1 to 4")
    if len(set(parts)) != 1 or parts[0][1:] != (1, 1):
        raise DecodeError("found JPEG 2000 whose components differ in size or bits, expected equal ones")
    bits = (parts[0][0] & 0x7F) + 1
    return Codestream(right - left, bottom - top, count, bits, _has_colour_transform(stream))


def _has_colour_transform(stream: bytes) -> bool:
    at = 2
    while at + 4 <= len(stream) and (marker := int.from_bytes(stream[at : at + 2], "big")) != 0xFF90:  # SOT
        if marker == _COD:
            return stream[at + 8 : at + 9] == b"\x01"
        at += 2 + int.from_bytes(stream[at + 2 : at + 4], "big")
    return False


def _read_jpeg(stream: bytes) -> Codestream | None:
    """Read the frame header of a JPEG or JPEG-LS stream, as libjpeg finds it."""
    frame = next((at for marker, at in _jpeg_markers(stream) if marker in _FRAME_HEADERS), None)
    if frame is None or frame + 10 > len(stream):
        raise DecodeError("found JPEG without a frame header; the file is damaged")
    if stream[frame + 1] == _JPEG_LS and b"\xff\xd9" not in stream[frame:]:  # CharLS takes 5 s to find that out
        raise DecodeError("found JPEG-LS without an end; the file is truncated or damaged")
    height, width = (int.from_bytes(stream[at : at + 2], "big") for at in (frame + 5, frame + 7))
    return Codestream(width, height, stream[frame + 9], stream[frame + 4])


def _jpeg_markers(stream: bytes) -> Iterator[tuple[int, int]]:
    """Each marker of a JPEG header and its place, up to the first scan."""
    at = 2
    while (at := stream.find(b"\xff", at)) >= 0 and at + 4 <= len(stream):
        marker = stream[at + 1]
        if marker in (0x00, 0x01, 0xFF) or 0xD0 <= marker <= 0xD8:  # padding, and markers without a length
            at += 1
            continue
        yield marker, at
        if marker in (0xDA, 0xD9):
            return
        at += 2 + int.from_bytes(stream[at + 2 : at + 4], "big")
