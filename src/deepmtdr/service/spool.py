"""The folder of the service: originals and results, which are on the disk before the queue refers to them.

    queue.sqlite            states of jobs and deliveries (`queue.py`)
    originals/<hash>.dcm    received objects, named by a hash of their content
    results/<job>/          results of a job, one folder each
    serve.lock              locked by the running service

No file name holds patient data. Names that match `files.PART_PATTERN` are unfinished and removed at the next start.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from deepmtdr.errors import ServiceError
from deepmtdr.files import PART_PATTERN, sync_folder

if TYPE_CHECKING:
    from hashlib import _Hash as HASH  # its only public name is in this type stub

PRIVATE_FOLDER_MODE, PRIVATE_FILE_MODE = 0o700, 0o600
FREE_CHECK_BYTES = 1 << 20
"""Bytes of an object after which the free disk space is checked again."""


class StagedOriginal:
    """An object that is written to the disk under a temporary name while it arrives."""

    def __init__(self, spool: Spool, head: bytes) -> None:
        """Create the file; see `Spool.stage_original`."""
        self._spool, self._unchecked = spool, FREE_CHECK_BYTES
        self.path = spool.originals / f".{secrets.token_hex(8)}.part"
        self._file = os.fdopen(os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE_FILE_MODE), "wb")
        try:
            self.write(head)
        except BaseException:
            self.discard()
            raise

    def write(self, content: bytes | memoryview) -> None:
        """Append to the file.

        Raises:
            OSError: if it cannot be written, or if the disk would have less free space than the service keeps free.
        """
        self._unchecked += len(content)
        if self._unchecked >= FREE_CHECK_BYTES:
            self._spool.check_free()
            self._unchecked = 0
        self._file.write(content)

    def finish(self) -> None:
        """Flush the file to the disk and close it; does nothing if it is closed.

        Raises:
            OSError: if it cannot be written.
        """
        if self._file.closed:
            return
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def discard(self) -> None:
        """Close the file and remove its temporary name; does nothing if it has its final name."""
        with contextlib.suppress(OSError):
            self._file.close()
        with contextlib.suppress(OSError):
            self.path.unlink()


class Spool:
    """The folder of one service."""

    def __init__(self, folder: Path) -> None:
        """Create the folders that are missing, accessible to their owner only.

        Raises:
            OSError: if they cannot be created.
        """
        self.folder, self.originals, self.results = folder, folder / "originals", folder / "results"
        self.min_free_bytes = 0
        """Free disk space that the service never uses, bytes."""
        self.backlog_bytes = 0
        """Disk space for the results of objects that were received before, bytes."""
        for one in (self.folder, self.originals, self.results):
            one.mkdir(mode=PRIVATE_FOLDER_MODE, parents=True, exist_ok=True)
            one.chmod(PRIVATE_FOLDER_MODE)

    def check_free(self) -> None:
        """Check that there is free disk space for objects that arrive.

        Raises:
            OSError: (ENOSPC) if there is less than `min_free_bytes` and `backlog_bytes`.
        """
        free, needed = self.free_bytes(), self.min_free_bytes + self.backlog_bytes
        if free < needed:
            raise OSError(errno.ENOSPC, f"found {free >> 20} MiB of free space, expected {needed >> 20}")

    def is_low(self) -> bool:
        """Whether less than `min_free_bytes` are free."""
        return self.min_free_bytes > 0 and self.free_bytes() < self.min_free_bytes

    def original_bytes(self, digest: str) -> int:
        """Return the size of a received object, bytes; 0 if it is not on the disk."""
        path = self.original_path(digest)
        return path.stat().st_size if path.is_file() else 0

    def result_bytes(self, job: int) -> int:
        """Return the size of the results of a job, bytes; 0 if they are not on the disk."""
        return sum(path.stat().st_size for path in self.results_folder(job).glob("*"))

    def remove(self, job: int, digest: str) -> None:
        """Remove the original and the results of a job."""
        self.original_path(digest).unlink(missing_ok=True)
        if (results := self.results_folder(job)).is_dir():
            shutil.rmtree(results)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Context manager that locks the folder; the operating system unlocks it when the process ends.

        Raises:
            ServiceError: if another service has locked it.
        """
        with os.fdopen(os.open(self.folder / "serve.lock", os.O_WRONLY | os.O_CREAT, PRIVATE_FILE_MODE), "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ServiceError(
                    f"{self.folder}: found another service in this folder, expected one service for each folder;"
                    " stop it, or set another `folder`"
                ) from None
            yield

    def original_path(self, digest: str) -> Path:
        """Return the path of a received object."""
        return self.originals / f"{digest}.dcm"

    def results_folder(self, job: int) -> Path:
        """Return the folder of the results of a job."""
        return self.results / str(job)

    def free_bytes(self) -> int:
        """Return the free disk space that this user may use, bytes."""
        return shutil.disk_usage(self.folder).free

    def stage_original(self, head: bytes) -> StagedOriginal:
        """Begin an object that arrives in parts; `commit_original` gives it its final name.

        Args:
            head: its first bytes.

        Raises:
            OSError: if it cannot be written; then no part of it is left.
        """
        return StagedOriginal(self, head)

    def commit_original(self, staged: StagedOriginal, digest: str) -> None:
        """Give a finished object its final name; the name is on the disk when this returns."""
        staged.path.replace(self.original_path(digest))
        sync_folder(self.originals)

    def create_staging_folder(self) -> Path:
        """Create an empty folder for the results of a job that is being examined."""
        part = self.results / f".{secrets.token_hex(8)}.part"
        part.mkdir(mode=PRIVATE_FOLDER_MODE)
        return part

    def commit_results(self, part: Path, job: int) -> None:
        """Move a staging folder to its final name, replacing older results of the same job.

        Raises:
            ServiceError: if the folder is empty or contains anything but regular files.
            OSError: if the files cannot be written to the disk.
        """
        files = sorted(part.iterdir())
        if not files or not all(file.is_file() and not file.is_symlink() for file in files):
            raise ServiceError(
                f"the examination wrote {len(files)} entries, expected at least one, and only regular files;"
                " this is a bug in deepmtdr"
            )
        for file in files:
            file.chmod(PRIVATE_FILE_MODE)
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
        sync_folder(part)
        shutil.rmtree(self.results_folder(job), ignore_errors=True)
        part.rename(self.results_folder(job))
        sync_folder(self.results)

    def remove_unfinished(self) -> None:
        """Remove unfinished files and folders.

        Call it while this process holds the lock of the spool, before anything else runs.
        """
        for part in (*self.originals.glob(PART_PATTERN), *self.results.glob(PART_PATTERN)):
            if part.is_dir():
                shutil.rmtree(part, ignore_errors=True)
            else:
                part.unlink(missing_ok=True)


def begin_digest(uid: str, sop_class: str, syntax: str) -> HASH:
    """Begin the digest that names an object in the spool; its data set must be added with `update`."""
    return sha256("\0".join((uid, sop_class, syntax, "")).encode())


def object_digest(uid: str, sop_class: str, syntax: str, data_set: bytes | memoryview) -> str:
    """Compute the name of an object in the spool: a SHA-256, which contains no patient data."""
    digest = begin_digest(uid, sop_class, syntax)
    digest.update(data_set)
    return digest.hexdigest()
