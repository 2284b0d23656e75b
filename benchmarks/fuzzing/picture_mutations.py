"""Random changes of the parts of picture files: chunks, segments, boxes and tags, with right lengths and checksums."""

from __future__ import annotations

import random
import struct
import zlib

from benchmarks.fuzzing.byte_mutations import INTEGERS, change_bytes, change_list, change_text, pack

_PNG = b"\x89PNG\r\n\x1a\n"
_TIFF_TAGS = (254, 255, 256, 257, 258, 259, 262, 266, 270, 273, 274, 277, 278, 279, 280, 281, 282, 284, 292, 317, 320,
              322, 323, 324, 325, 330, 332, 338, 339, 347, 529, 530, 532, 34665, 34853, 50706, 65535)  # fmt: skip
"""Tags that decoders look at."""
_TIFF_VALUES = (*INTEGERS, 4, 5, 6, 9, 12, 15, 31, 33, 64, 32773, 32946, 34712, 50000)
_PNG_CHUNKS = (
    b"IHDR",
    b"PLTE",
    b"IDAT",
    b"IEND",
    b"tRNS",
    b"eXIf",
    b"iCCP",
    b"zTXt",
    b"iTXt",
    b"tEXt",
    b"acTL",
    b"fcTL",
)


def change_picture(content: bytes, chance: random.Random) -> bytes:
    """Change a picture of any format."""
    if chance.random() < 0.25:
        return change_bytes(content, chance)
    if content.startswith(_PNG):
        return _change_png(content, chance)
    if content[:2] == b"\xff\xd8":
        return _change_jpeg(content, chance)
    if content[:2] in (b"II", b"MM"):
        return change_tiff(content, chance)
    if content[:4] == b"RIFF":
        return _change_riff(content, chance)
    if content[4:8] in (b"ftyp", b"jP  "):
        return _change_boxes(content, chance)
    if content[:1] == b"P":
        return change_text(content[:60], chance) + content[60:]
    at = chance.randrange(min(len(content), 64) or 1)
    size = chance.choice((2, 4))
    return content[:at] + pack(chance.choice(INTEGERS), size, chance) + content[at + size :]


def _change_png(content: bytes, chance: random.Random) -> bytes:
    """Change chunks of a PNG; the checksums stay right."""
    chunks, at = [], len(_PNG)
    while at + 12 <= len(content):
        length = int.from_bytes(content[at : at + 4], "big")
        chunks.append(content[at + 4 : at + 8 + length])
        at += 12 + length
    if chunks and chance.random() < 0.7:
        place = chance.randrange(len(chunks))
        kind, body = chunks[place][:4], chunks[place][4:]
        if kind == b"IDAT" and chance.random() < 0.7:
            try:
                body = zlib.compress(change_bytes(zlib.decompress(body), chance))
            except zlib.error:
                body = change_bytes(body, chance)
        elif kind == b"IHDR" and len(body) == 13:
            field = chance.randrange(7)
            body = (
                body[: 4 * field] + pack(chance.choice((*INTEGERS, 33, 96)), 4, chance) + body[4 * field + 4 :]
                if field < 2
                else body[: 6 + field] + bytes([chance.choice((0, 1, 2, 3, 4, 6, 8, 16, 255))]) + body[7 + field :]
            )
        elif chance.random() < 0.3:
            kind = chance.choice(_PNG_CHUNKS)
        else:
            body = change_bytes(body, chance)
        chunks[place] = kind + body
        return _join_png(chunks)
    return change_list(chunks, chance, _join_png)


def _join_png(chunks: list[bytes]) -> bytes:
    return _PNG + b"".join(
        struct.pack(">I", max(len(chunk) - 4, 0)) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks
    )


def _change_jpeg(content: bytes, chance: random.Random) -> bytes:
    """Change the segments before the first scan of a JPEG; their lengths stay right."""
    segments, at = [], 2
    while at + 4 <= len(content) and content[at] == 0xFF and content[at + 1] not in (0xDA, 0xD9):
        length = int.from_bytes(content[at + 2 : at + 4], "big")
        segments.append(content[at + 1 : at + 2] + content[at + 4 : at + 2 + length])
        at += 2 + length
    rest = content[at:]

    def join(parts: list[bytes]) -> bytes:
        head = (b"\xff" + part[:1] + struct.pack(">H", min(len(part) + 1, 65535)) + part[1:] for part in parts if part)
        return b"\xff\xd8" + b"".join(head) + rest

    if segments and chance.random() < 0.2:
        exif = b"\xe1Exif\x00\x00" + change_tiff(
            b"II*\x00\x08\x00\x00\x00\x01\x00\x12\x01\x03\x00\x01\x00\x00\x00\x06" + bytes(7), chance
        )
        segments.insert(0, exif)
    return change_list(segments, chance, join)


def change_tiff(content: bytes, chance: random.Random) -> bytes:
    """Change an entry of the first directory of a TIFF, or the number of entries."""
    order = "<" if content[:2] == b"II" else ">"
    big = content[2:4] in (b"+\x00", b"\x00+")
    start = struct.unpack_from(f"{order}{'Q' if big else 'I'}", content, 8 if big else 4)[0]
    head, size = (8, 20) if big else (2, 12)
    count = struct.unpack_from(f"{order}{'Q' if big else 'H'}", content, start)[0]
    if not 0 < count < 200 or start + head + count * size > len(content):
        return change_bytes(content, chance)
    changed = bytearray(content)
    at = start + head + size * chance.randrange(count)
    value = at + (12 if big else 8)
    match chance.randrange(6):
        case 0:
            struct.pack_into(f"{order}H", changed, at, chance.choice(_TIFF_TAGS))
        case 1:
            struct.pack_into(f"{order}H", changed, at + 2, chance.choice((*range(20), 65535)))
        case 2:
            struct.pack_into(f"{order}{'Q' if big else 'I'}", changed, at + 4, chance.choice(_TIFF_VALUES) % 2**32)
        case 3:
            struct.pack_into(f"{order}I", changed, value, chance.choice(_TIFF_VALUES) % 2**32)
        case 4:
            struct.pack_into(f"{order}H", changed, value, chance.choice(_TIFF_VALUES) % 65536)
        case _:
            other = start + head + size * chance.randrange(count)
            changed[at : at + size] = changed[other : other + size]
    return bytes(changed)


def _change_riff(content: bytes, chance: random.Random) -> bytes:
    """Change chunks of a WebP; their lengths stay right."""
    chunks, at = [], 12
    while at + 8 <= len(content):
        length = int.from_bytes(content[at + 4 : at + 8], "little")
        chunks.append(content[at : at + 4] + content[at + 8 : at + 8 + length])
        at += 8 + length + length % 2

    def join(parts: list[bytes]) -> bytes:
        body = b"".join(
            part[:4] + struct.pack("<I", max(len(part) - 4, 0)) + part[4:] + bytes(len(part) % 2) for part in parts
        )
        return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body

    return change_list(chunks, chance, join)


def _change_boxes(content: bytes, chance: random.Random) -> bytes:
    """Change boxes of a JPEG 2000 or AVIF; their lengths stay right at the outer level."""
    boxes, at = [], 0
    while at + 8 <= len(content):
        length = int.from_bytes(content[at : at + 4], "big") or len(content) - at
        boxes.append(content[at + 4 : at + length])
        at += max(length, 8)
    return change_list(boxes, chance, lambda parts: b"".join(struct.pack(">I", len(part) + 4) + part for part in parts))
