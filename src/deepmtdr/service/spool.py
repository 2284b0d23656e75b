"""The service's folder: originals and results that are whole on the disk before anybody is told so.

    queue.sqlite            the states (`queue.py`)
    originals/<hash>.dcm    what was received, named by its content
    results/<job>/          what a job gave, one folder each
    serve.lock              held by the one service that works here

No name holds anything of a patient. Whatever begins with a dot is unfinished, and removed at the next start.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

from deepmtdr.errors import ClinicError

PRIVATE_FOLDER_MODE, PRIVATE_FILE_MODE = 0o700, 0o600


class Spool:
    """Files of one service."""

    def __init__(self, folder: Path) -> None:
        """Make the folders that are not there yet, open to their owner alone.

        Raises:
            OSError: if they cannot be made.
        """
        self.folder, self.originals, self.results = folder, folder / "originals", folder / "results"
        for one in (self.folder, self.originals, self.results):
            one.mkdir(mode=PRIVATE_FOLDER_MODE, parents=True, exist_ok=True)
            one.chmod(PRIVATE_FOLDER_MODE)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder as long as the context lasts; the system lets go of it when the process dies.

        Raises:
            ClinicError: if another service holds it.
        """
        with os.fdopen(os.open(self.folder / "serve.lock", os.O_WRONLY | os.O_CREAT, PRIVATE_FILE_MODE), "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ClinicError(f"{self.folder}: another service works in this folder, expected one alone") from None
            yield

    def original_path(self, digest: str) -> Path:
        """Where an object lies."""
        return self.originals / f"{digest}.dcm"

    def results_folder(self, job: int) -> Path:
        """The folder of a job's results."""
        return self.results / str(job)

    def free_bytes(self) -> int:
        """Bytes left on the disk for this user."""
        return shutil.disk_usage(self.folder).free

    @contextlib.contextmanager
    def stage_original(self, content: bytes) -> Iterator[Path]:
        """The content under an unfinished name, already on the disk; removed if nobody has moved it.

        Raises:
            OSError: if it cannot be written; then nothing of it is left.
        """
        part = self.originals / f".{secrets.token_hex(8)}.part"
        try:
            with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE_FILE_MODE), "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            yield part
        finally:
            with contextlib.suppress(OSError):
                part.unlink()

    def commit_original(self, part: Path, digest: str) -> None:
        """Give an object its name, so that it is there after a power failure too."""
        part.replace(self.original_path(digest))
        fsync_folder(self.originals)

    def create_staging_folder(self) -> Path:
        """A new empty folder for a worker to write into."""
        part = self.results / f".{secrets.token_hex(8)}.part"
        part.mkdir(mode=PRIVATE_FOLDER_MODE)
        return part

    def commit_results(self, part: Path, job: int) -> list[str]:
        """Give a folder of results its name, in place of an older one of the same job.

        Returns:
            The names of the files in it.

        Raises:
            ClinicError: if there is none, or something else than plain files is in it.
            OSError: if they cannot be written to the disk.
        """
        files = sorted(part.iterdir())
        if not files or not all(file.is_file() and not file.is_symlink() for file in files):
            raise ClinicError(f"found {len(files)} results, or some that are no plain files, expected files")
        for file in files:
            file.chmod(PRIVATE_FILE_MODE)
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
        fsync_folder(part)
        shutil.rmtree(self.results_folder(job), ignore_errors=True)
        part.rename(self.results_folder(job))
        fsync_folder(self.results)
        return [file.name for file in files]

    def remove_unfinished(self) -> None:
        """Remove whatever is unfinished: only for who holds the folder, before anything works in it."""
        for part in (*self.originals.glob(".*.part"), *self.results.glob(".*.part")):
            if part.is_dir():
                shutil.rmtree(part, ignore_errors=True)
            else:
                part.unlink(missing_ok=True)


def object_digest(uid: str, sop_class: str, syntax: str, data_set: bytes | memoryview) -> str:
    """Name of an object: the same object is the same name, and it tells nothing of the object."""
    digest = sha256("\0".join((uid, sop_class, syntax, "")).encode())
    digest.update(data_set)
    return digest.hexdigest()


def fsync_folder(folder: Path) -> None:
    """Have the names in a folder on the disk."""
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
