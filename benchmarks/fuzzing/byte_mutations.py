"""Random changes of bytes, of text and of JSON values."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Sequence
from typing import Any

Mutation = Callable[[bytes, random.Random], bytes]
"""Changes a file once; raises an error for another kind of file."""

INTEGERS = (0, 1, 2, 3, 7, 8, 16, 32, 127, 128, 255, 256, 4095, 32767, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1, 2**63)
"""Numbers at which programs err."""
SIZES = (1, 2, 4, 8)
TEXTS = (
    b"", b"nan", b"inf", b"-inf", b"1e400", b"-1", b"0", b"2.0", b"9" * 400, b"9" * 5000, b"true", b"null", b"NA",
    b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"\x1b[31m", b"\r", b"\n", b"\t", b'"', b"'", b";", b",", b"=1+1", b"\\",
    b"../..", b"/", b"a" * 5000, b"\xe2\x80\xae", b"\xed\xa0\x80", b"%s", b"\xc3\xa9", b"\xf0\x9f\x91\x81",
    b"[", b"{", b"}",
)  # fmt: skip
"""Pieces of text at which readers err."""
VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2**31, 2**63, 2**70, 10**400, 0.0, -0.5, 1e308, float("nan"), float("inf"), "", "a",
    "0", "a" * 500, "\x00", "\x1b[31m", "é\n", [], {}, [[]], [None], {"a": {}}, [0] * 1100, ["\ud800"],
)  # fmt: skip


def change_bytes(content: bytes, chance: random.Random) -> bytes:
    """Change bytes at random; half of the changes are in the first thousand bytes, where headers are."""
    changed = bytearray(content)
    reach = min(len(changed), 1000) if chance.random() < 0.5 else len(changed)
    at, length = chance.randrange(max(reach, 1)), chance.choice((1, 2, 4, 16, 256))
    match chance.randrange(7):
        case 0:
            changed[at : at + length] = chance.randbytes(length)
        case 1:
            size = chance.choice(SIZES)
            changed[at : at + size] = pack(chance.choice(INTEGERS), size, chance)
        case 2:
            del changed[at : at + length]
        case 3:
            changed[at:at] = chance.randbytes(length)
        case 4:
            changed[at:at] = changed[at : at + length] * chance.choice((1, 2, 50))
        case 5:
            del changed[chance.randrange(max(len(changed), 1)) :]
        case _:
            if changed:
                changed[at % len(changed)] ^= 1 << chance.randrange(8)
    return bytes(changed)


def pack(number: int, size: int, chance: random.Random) -> bytes:
    """Write a number in either byte order, without what does not fit."""
    return (number % (1 << 8 * size)).to_bytes(size, chance.choice(("big", "little")))


def change_text(content: bytes, chance: random.Random) -> bytes:
    """Change a line, a word or a number of a text, or put a piece of `TEXTS` somewhere."""
    match chance.randrange(6):
        case 0:
            return change_list(content.splitlines(keepends=True), chance, b"".join)
        case 1:
            words = list(re.finditer(rb"[\w.+-]+|\"[^\"\n]*\"", content))
            if not words:
                return content + chance.choice(TEXTS)
            start, end = chance.choice(words).span()
            other = chance.choice(words)[0] if chance.random() < 0.5 else chance.choice(TEXTS)
            return content[:start] + other + content[end:]
        case 2:
            numbers = list(re.finditer(rb"\d+", content))
            if not numbers:
                return content
            start, end = chance.choice(numbers).span()
            return content[:start] + str(chance.choice(INTEGERS)).encode() + content[end:]
        case 3:
            at = chance.randrange(len(content) + 1)
            return content[:at] + chance.choice(TEXTS) * chance.choice((1, 1, 2, 40, 2000)) + content[at:]
        case 4:
            return content.replace(chance.choice((b",", b"\n", b'"', b".")), chance.choice(TEXTS)[:20])
        case _:
            return change_bytes(content, chance)


def change_list(parts: Sequence[bytes], chance: random.Random, join: Callable[[list[bytes]], bytes]) -> bytes:
    """Remove, repeat, exchange or move parts of a file."""
    changed = list(parts)
    if not changed:
        return join(changed)
    at, other = chance.randrange(len(changed)), chance.randrange(len(changed))
    match chance.randrange(4):
        case 0:
            del changed[at]
        case 1:
            changed[at:at] = [changed[other]] * chance.choice((1, 1, 2, 30))
        case 2:
            changed[at], changed[other] = changed[other], changed[at]
        case _:
            changed[at] = change_bytes(changed[at], chance)
    return join(changed)


def change_json_file(content: bytes, chance: random.Random) -> bytes:
    """Change one place of a JSON file; sometimes its text."""
    if chance.random() < 0.2:
        return change_text(content, chance)
    return json.dumps(change_json(json.loads(content), chance)).encode()


def change_json(value: Any, chance: random.Random) -> Any:
    """Change one place of a JSON value."""
    if isinstance(value, dict) and value and chance.random() < 0.9:
        key = chance.choice(list(value))
        match chance.randrange(8):
            case 0:
                return {name: one for name, one in value.items() if name != key}
            case 1:
                return {**value, chance.choice(("", "a", "\n", key + "x", "__class__")): chance.choice(VALUES)}
            case _:
                return {**value, key: change_json(value[key], chance)}
    if isinstance(value, list) and value and chance.random() < 0.9:
        at = chance.randrange(len(value))
        match chance.randrange(5):
            case 0:
                return value[:at] + value[at + 1 :]
            case 1:
                return value[:at] + [value[at]] * chance.choice((2, 3, 200)) + value[at:]
            case _:
                return [*value[:at], change_json(value[at], chance), *value[at + 1 :]]
    if isinstance(value, int | float) and chance.random() < 0.5:
        return chance.choice((*INTEGERS, -value, value + 1, value / 2))
    if isinstance(value, str) and chance.random() < 0.3:
        return change_text(value.encode(errors="replace"), chance).decode(errors="replace")
    if chance.random() < 0.03:
        return json.loads("[" * 300 + "]" * 300)
    return chance.choice(VALUES)
