"""Random changes of the elements of a DICOM file, whose lengths stay right."""

from __future__ import annotations

import random
import struct
from typing import NamedTuple

from benchmarks.fuzzing.byte_mutations import INTEGERS, change_bytes, change_text, pack
from benchmarks.fuzzing.picture_mutations import change_picture

_START = 132
_LONG = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
_VRS = (*_LONG, b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO", b"LT", b"PN", b"SH", b"SL",
        b"SS", b"ST", b"TM", b"UI", b"UL", b"US")  # fmt: skip
_TAGS = (0x00020000, 0x00020002, 0x00020010, 0x00080005, 0x00080016, 0x00080018, 0x00080020, 0x00080023, 0x00080030,
         0x00080060, 0x00082218, 0x00100010, 0x00100020, 0x00100030, 0x0020000D, 0x00200010, 0x00200013, 0x00200060,
         0x00200062, 0x00280002, 0x00280004, 0x00280006, 0x00280008, 0x00280010, 0x00280011, 0x00280100, 0x00280101,
         0x00280102, 0x00280103, 0x00281101, 0x00281201, 0x00282110, 0x7FE00001, 0x7FE00002, 0x7FE00008, 0x7FE00010,
         0xFFFCFFFC, 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD)  # fmt: skip
_UIDS = (b"1.2.840.10008.1.2", b"1.2.840.10008.1.2.1", b"1.2.840.10008.1.2.1.99", b"1.2.840.10008.1.2.2",
         b"1.2.840.10008.1.2.4.50", b"1.2.840.10008.1.2.4.80", b"1.2.840.10008.1.2.4.90", b"1.2.840.10008.1.2.5",
         b"1.2.840.10008.1.2.4.201", b"1.2.3.04", b"1" * 65, b"", b"a", b"2.25.3\\2.25.4")  # fmt: skip
_CELLS = (b"RGB", b"MONOCHROME1", b"MONOCHROME2", b"PALETTE COLOR", b"YBR_FULL", b"YBR_FULL_422", b"YBR_RCT",
          b"YBR_ICT", b"L", b"R", b"B", b"L\\R", b"20260101", b"20261301", b"00010101", b"99991231",
          b"235960", b"240000", b"-1", b"1e5", b"nan",
          b"ISO_IR 192", b"ISO_IR 100", b"ISO 2022 IR 87", b"\\ISO 2022 IR 149",
          b"\xff\xfe", b"A^B^C^D^E^F=G=H=I")  # fmt: skip


class _Element(NamedTuple):
    tag: int
    vr: bytes
    value: bytes
    undefined: bool = False
    """Whether the length is 0xFFFFFFFF."""


def change_dicom(content: bytes, chance: random.Random) -> bytes:
    """Change an element of a DICOM file in explicit little-endian; other files are changed byte by byte."""
    elements = _parse(content)
    if not elements or chance.random() < 0.15:
        return change_bytes(content, chance)
    at, other = chance.randrange(len(elements)), chance.randrange(len(elements))
    element = elements[at]
    match chance.randrange(9):
        case 0:
            del elements[at]
        case 1:
            elements.insert(at, elements[other]._replace(tag=chance.choice((elements[other].tag, *_TAGS))))
        case 2:
            elements[at] = element._replace(vr=chance.choice(_VRS))
        case 3:
            elements[at] = element._replace(tag=chance.choice(_TAGS))
        case 4:
            inner = b"\xfe\xff\x00\xe0\xff\xff\xff\xff" * chance.choice((1, 3, 50, 1200))
            elements[at] = element._replace(vr=b"SQ", value=inner, undefined=chance.random() < 0.5)
        case _:
            elements[at] = _change_value(element, chance)
    return content[:_START] + b"".join(map(_format, elements))


def _change_value(element: _Element, chance: random.Random) -> _Element:
    value = element.value
    if element.tag >> 16 == 0x7FE0 and element.undefined and len(value) > 24 and chance.random() < 0.7:
        at = 8 + int.from_bytes(value[4:8], "little")  # the item after the offset table
        stream = change_picture(value[at + 8 : -8], chance)
        stream += bytes(len(stream) % 2)
        return element._replace(value=value[: at + 4] + struct.pack("<I", len(stream)) + stream + value[-8:])
    if element.vr == b"UI":
        value = chance.choice(_UIDS)
    elif element.vr in (b"US", b"SS", b"UL", b"SL"):
        size = 2 if element.vr in (b"US", b"SS") else 4
        value = b"".join(
            pack(chance.choice((*INTEGERS, 78, 96, 98)), size, chance) for _ in range(chance.choice((0, 1, 1, 1, 2)))
        )
    elif element.vr in _LONG:
        value = change_bytes(value, chance)
    else:
        value = chance.choice(_CELLS) if chance.random() < 0.6 else change_text(value, chance)
    return element._replace(value=value)


def _parse(content: bytes) -> list[_Element]:
    """Parse elements in explicit little-endian; none if the file is not of this kind."""
    elements, at = [], _START
    while at + 8 <= len(content):
        group, number, vr = struct.unpack_from("<HH2s", content, at)
        if vr not in _VRS:
            return []
        length, head = (
            (struct.unpack_from("<I", content, at + 8)[0], 12)
            if vr in _LONG and at + 12 <= len(content)
            else (struct.unpack_from("<H", content, at + 6)[0], 8)
        )
        undefined = length == 0xFFFFFFFF
        if undefined:  # up to the end of the file: only the pixels are written like this
            length = len(content) - at - head
        elements.append(_Element(group << 16 | number, vr, content[at + head : at + head + length], undefined))
        at += head + length
    return elements


def _format(element: _Element) -> bytes:
    value = element.value + bytes(len(element.value) % 2)
    tag = struct.pack("<HH", element.tag >> 16, element.tag & 0xFFFF)
    if element.vr in _LONG:
        length = 0xFFFFFFFF if element.undefined else len(value)
        return tag + element.vr + b"\0\0" + struct.pack("<I", length) + value
    return tag + element.vr + struct.pack("<H", len(value) & 0xFFFF) + value
