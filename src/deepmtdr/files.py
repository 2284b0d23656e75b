"""Helpers for files: durable atomic writing, SHA-256, safe file names for any text, and printable paths."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import secrets
import sys
import unicodedata
from pathlib import Path
from typing import Any

MAX_NAME_BYTES = 120
"""Largest number of bytes of a `file_name`: with a suffix added it has less than the usual limit of 255 bytes."""
PART_PATTERN = ".*.part"
"""Glob pattern of the temporary files of `write_atomically`; a killed process may leave some behind."""


PRIVATE_FILE_MODE, PRIVATE_FOLDER_MODE = 0o600, 0o700
"""Permissions of files and folders in which patients may be: only their owner can read them."""
NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | (0 if sys.platform == "win32" else os.O_NOFOLLOW)
"""Flags of `os.open` for a file that must not be there yet, not even as a link."""


def write_atomically(path: Path, content: bytes, *, private: bool = False, durable: bool = True) -> None:
    """Write a file atomically: write a temporary file in the same folder, then rename it.

    The temporary file has a random name, and is new: a file or link that is there already is never written through.

    Args:
        path: the file; an earlier file of that name is replaced, also if it is a link.
        content: its bytes.
        private: only the owner can read the file, for files in which patients may be. Otherwise the umask decides.
        durable: the file and its name are on the disk when this returns, so that a power failure does not lose or
            empty it. False: the operating system writes them later, for files that can be computed again.

    Raises:
        OSError: if the file cannot be written; it names `path`. An earlier file of that name is not changed then.
    """
    part = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        with os.fdopen(os.open(part, NEW_FILE, PRIVATE_FILE_MODE if private else 0o666), "wb") as file:
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        part.replace(path)
        if durable:
            sync_folder(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            part.unlink()
        if isinstance(error, OSError):  # name the file, not the temporary one; a full disk names none
            raise OSError(error.errno, error.strerror or str(error), str(path)) from error
        raise


def sync_folder(folder: Path) -> None:
    """Flush the names of the files in a folder to the disk, where operating system and file system can do that.

    Raises:
        OSError: if the folder cannot be opened, or the disk reports an error.
    """
    if sys.platform == "win32":  # a folder cannot be opened there
        return
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(opened)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems cannot flush a folder
            raise
    finally:
        os.close(opened)


def make_folder(folder: Path, *, private: bool = False) -> None:
    """Create a folder, and the folders that it is in, if they do not exist.

    Args:
        folder: the folder.
        private: only the owner can enter a folder that is created. Otherwise the umask decides.

    Raises:
        OSError: if it cannot be created; if it is a file, or is in one, the message says so.
    """
    try:
        folder.mkdir(PRIVATE_FOLDER_MODE if private else 0o777, parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        file = next((path for path in (folder, *folder.parents) if os.path.lexists(path) and not path.is_dir()), folder)
        raise NotADirectoryError(
            errno.ENOTDIR, "found a file, expected a folder; choose another folder", printable_path(file)
        ) from error


def write_json(path: Path, value: Any, *, private: bool = False) -> None:
    """Write a value as indented JSON in UTF-8, in one step (`write_atomically`).

    Raises:
        OSError: if the file cannot be written.
        ValueError: if a number is NaN or infinite, which JSON does not have.
    """
    write_atomically(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode(), private=private)


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


def same_name_key(name: str) -> str:
    """A key that is equal for two names which some file system takes for one: in case, or in the Unicode form."""
    folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFD", name).casefold())
    return unicodedata.normalize("NFKD", folded.casefold())


def slug(name: str) -> str:
    """Convert a name to lower case with hyphens, for folders and parts of names: "Wang et al." -> "wang-et-al"."""
    return name.replace(" ", "-").replace(".", "").replace(",", "").lower()


def printable_path(path: Path | str) -> str:
    r"""Format a path for display and UTF-8 files, on one line: bytes that are not UTF-8 are written as \xff."""
    try:
        text = os.fsencode(path).decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # no path of this machine; JSON can hold half of a pair of surrogates
        text = os.fspath(path)
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
