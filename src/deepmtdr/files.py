"""Files written all or nothing, and paths for people to read."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def write_atomically(path: Path, content: bytes) -> None:
    """Write beside the place and move over it: at no time is there half a file under the name."""
    part = path.with_name(f".{os.getpid()}.part")
    try:
        part.write_bytes(content)
        part.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink()
        raise


def printable_path(path: Path | str) -> str:
    r"""A path for people and UTF-8 files: bytes that are no UTF-8 are written as \xff, and it stays on one line."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
