"""Helpers for files: atomic writing, SHA-256, safe file names for any text, and printable paths."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
from pathlib import Path
from typing import Any

MAX_NAME_BYTES = 120
"""Largest number of bytes of a `file_name`: with a suffix added it has less than the usual limit of 255 bytes."""
PART_PATTERN = ".*.part"
"""Glob pattern of the temporary files of `write_atomically`; a killed process may leave some behind."""


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file atomically: write a temporary file in the same folder, then rename it.

    Raises:
        OSError: if the file cannot be written; an earlier file of that name is not changed then.
    """
    # With a random name and O_EXCL, two writers never use the same file, and an existing link is never followed.
    part = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "wb") as file:
            file.write(content)
        part.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink()
        raise


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON in UTF-8, in one step (`write_atomically`).

    Raises:
        OSError: if the file cannot be written.
        ValueError: if a number is NaN or infinite, which JSON does not have.
    """
    write_atomically(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


def file_sha256(path: Path) -> str:
    """Compute the SHA-256 of a file's bytes, hexadecimal.

    Raises:
        OSError: if the file cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_name(name: str) -> str:
    """Make a file name without suffix for any name: the same name if every file system can store it.

    Returns:
        The name, if it has at most `MAX_NAME_BYTES` bytes and consists of letters, digits and `-_. +()`. Otherwise the
        first bytes of a safe spelling and 12 hexadecimal digits of the name's SHA-256, so that two names never become
        the same file name.
    """
    safe = "".join(letter if letter.isalnum() or letter in "-_. +()" else "_" for letter in printable_path(name))
    return safe if safe == name and len(name.encode()) <= MAX_NAME_BYTES else shorten_name(safe, name)


def shorten_name(name: str, key: str, separator: str = "-") -> str:
    """Shorten a name to `MAX_NAME_BYTES` bytes: its beginning and 12 hexadecimal digits of the key's SHA-256."""
    digest = hashlib.sha256(os.fsencode(key)).hexdigest()[:12]
    return name.encode()[: MAX_NAME_BYTES - 12 - len(separator)].decode(errors="ignore") + separator + digest


def slug(name: str) -> str:
    """Convert a name to lower case with hyphens, for folders and parts of names: "Wang et al." -> "wang-et-al"."""
    return name.replace(" ", "-").replace(".", "").replace(",", "").lower()


def printable_path(path: Path | str) -> str:
    r"""Format a path for display and UTF-8 files, on one line: bytes that are not UTF-8 are written as \xff."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
