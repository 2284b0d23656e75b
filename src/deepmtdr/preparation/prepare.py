"""Prepare a data set: each photograph in the HR frame, with its LR image, its masks and a row of the manifest.

A photograph that cannot be used gets a row with the reason. A run that was killed continues where it stopped: each
finished photograph has complete files and a row in a journal. Another run writes the same bytes (Sec. V-A,
interpretation R19). A run that starts while another one works in the same folder waits for it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection, get_context, parent_process
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from deepmtdr.datasets.frames import IGNORED
from deepmtdr.datasets.layout import check_labels
from deepmtdr.datasets.manifest import ManifestRow, format_manifest, read_manifest
from deepmtdr.datasets.prepared import (
    MANIFEST,
    SETTINGS,
    PreparedSet,
    PreparedSettings,
    read_prepared_settings,
    write_prepared_settings,
)
from deepmtdr.datasets.sample import Sample
from deepmtdr.errors import DataError
from deepmtdr.files import (
    PART_PATTERN,
    file_name,
    make_folder,
    printable_path,
    same_name_key,
    shorten_name,
    write_atomically,
)
from deepmtdr.labels import DIABETIC_RETINOPATHY, LabelSet
from deepmtdr.preparation.photograph import PhotographJob, prepare_photograph
from deepmtdr.progress import Progress
from deepmtdr.terms import FRAME, SCALES

JOURNAL_NAME = "manifest.partial.csv"
"""Rows of a run that has not ended, in the order in which they were finished."""
PHOTOGRAPHS_PER_WORKER = 16
"""Fewest photographs for which another process is started: it takes seconds to start."""
LOCK_NAME = ".lock"
"""Locked by the run that works in the folder: training runs may share a folder of prepared photographs."""


def prepare(
    samples: Sequence[Sample],
    root: Path,
    out: Path,
    *,
    size: int = FRAME,
    scale: int = 4,
    labels: LabelSet = DIABETIC_RETINOPATHY,
    splits: Mapping[str, str] | None = None,
    workers: int | None = None,
) -> PreparedSet:
    """Prepare the photographs of one data set, or continue a preparation that was stopped.

    Args:
        samples: the photographs, of one data set.
        root: folder of the data set; the manifest names the photographs relative to it.
        out: folder of the prepared set; photographs that an earlier run prepared from the same bytes are kept.
        size: side of the HR frame, px.
        scale: enlargement factor from the LR files to the HR frame: 2, 4 or 8.
        labels: the lesion types and grades of the samples.
        splits: name of a photograph -> its split, for the manifest.
        workers: number of worker processes; None: one per core, fewer for a small data set.

    Returns:
        The prepared set.

    Raises:
        DataError: if `out` was prepared with other settings, two photographs have one name, or a file cannot be
            written (the disk is full, for example); finished photographs are kept.
    """
    if scale not in SCALES or size % max(SCALES):
        raise DataError(
            f"found size {size} and scale {scale}, expected a multiple of {max(SCALES)} and one of {SCALES}"
        )
    samples = sorted(samples, key=lambda sample: sample.name)
    settings = PreparedSettings(size, scale, labels)
    try:
        make_folder(out)
    except OSError as error:
        raise DataError(f"{error.filename or out}: {error.strerror or type(error).__name__}") from error
    try:
        with _lock(out):
            rows = _prepare_all(samples, root, out, settings, splits or {}, workers)
    except OSError as error:
        reason = f"{error.strerror or type(error).__name__}; finished photographs are kept, run again to continue"
        raise DataError(f"{error.filename or out}: cannot be written ({reason})") from error
    return PreparedSet(out, size, scale, rows, labels)


@contextlib.contextmanager
def _lock(out: Path) -> Iterator[None]:
    lock = FileLock(out / LOCK_NAME)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        with Progress(f"waiting for another run in {printable_path(out)}", 0):
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _prepare_all(
    samples: Sequence[Sample],
    root: Path,
    out: Path,
    settings: PreparedSettings,
    splits: Mapping[str, str],
    workers: int | None,
) -> list[ManifestRow]:
    unions = sorted({union for sample in samples for union in sample.union_masks})
    ignored = [IGNORED] if any(sample.ignored_mask is not None for sample in samples) else []
    earlier = _open_folder(out, settings, (*unions, *ignored))
    files = _file_names([sample.name for sample in samples])
    jobs = [
        PhotographJob(
            sample=sample,
            split=splits.get(sample.name, ""),
            source=_source(sample.photograph, root),
            file=files[sample.name],
            earlier=earlier.get(sample.name),
            out=out,
            settings=settings,
        )
        for sample in samples
    ]
    rows = []
    # Not flushed to the disk, like the files of the photographs: what a power failure destroys is prepared again.
    journal = (out / JOURNAL_NAME).open("a", encoding="utf-8")
    with journal, Progress("prepare", len(jobs)) as progress:
        for row in _run(jobs, workers):
            rows.append(row)
            journal.write(format_manifest([row], settings.labels, header=False))
            journal.flush()
            progress.advance()
    write_atomically(out / MANIFEST, format_manifest(rows, settings.labels).encode())
    (out / JOURNAL_NAME).unlink()
    return rows


def _open_folder(out: Path, settings: PreparedSettings, extra: Sequence[str]) -> dict[str, ManifestRow]:
    """Make the folder with one folder for each kind of file, and return the rows of an earlier run by name.

    A set of an earlier format gets the current one: its files are the same.
    """
    for folder in ("hr", "lr", *settings.labels.codes, *extra):
        make_folder(out / folder)
        for part in (out / folder).glob(PART_PATTERN):  # temporary files of a run that was killed
            part.unlink()
    found = read_prepared_settings(out / SETTINGS) if (out / SETTINGS).exists() else None
    if found is not None:
        _check_settings(out, found, settings)
    if found is None or found.version != settings.version:
        write_prepared_settings(out / SETTINGS, settings)
    paths = (out / MANIFEST, out / JOURNAL_NAME)
    return {row.name: row for path in paths for row in _complete_rows(path, settings.labels)}


def _check_settings(out: Path, found: PreparedSettings, expected: PreparedSettings) -> None:
    check_labels(f"{out}: prepared", found.labels, expected.labels)
    if (found.size, found.scale) != (expected.size, expected.scale):
        sizes = (f"size {settings.size} and scale {settings.scale}" for settings in (found, expected))
        raise DataError(f"{out}: prepared at {next(sizes)}, not at {next(sizes)}; choose another folder")


def _complete_rows(path: Path, labels: LabelSet) -> list[ManifestRow]:
    """Rows of the manifest or the journal. The journal's last line may be incomplete: it is removed from the file.

    The journal of an earlier format gets the current columns.
    """
    journal = path.name == JOURNAL_NAME
    if not path.exists():
        if journal:
            write_atomically(path, format_manifest([], labels).encode())
        return []
    if journal:
        content = path.read_bytes()
        content = content[: content.rfind(b"\n") + 1] or format_manifest([], labels).encode()
        write_atomically(path, content)
    rows = list(read_manifest(path, labels))
    if journal:
        write_atomically(path, format_manifest(rows, labels).encode())
    return rows


def _run(jobs: Sequence[PhotographJob], workers: int | None) -> Iterator[ManifestRow]:
    """Rows in the order of the jobs."""
    if workers is None:
        workers = min(os.cpu_count() or 1, len(jobs) // PHOTOGRAPHS_PER_WORKER)
    workers = min(workers, len(jobs))
    if workers < 2:
        yield from map(prepare_photograph, jobs)
        return
    with ProcessPoolExecutor(workers, get_context("spawn"), _start_worker) as pool:
        try:
            yield from pool.map(prepare_photograph, jobs, chunksize=4)
        except BrokenProcessPool as error:
            reason = "perhaps out of memory; finished photographs are kept: run again, with fewer workers"
            raise DataError(f"{jobs[0].out}: a worker process was killed, {reason}") from error


def _start_worker() -> None:
    """One core per worker. A worker ends with its parent: otherwise it would wait for work for ever."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends its workers
    parent = parent_process()
    if parent is not None:
        threading.Thread(target=lambda: (connection.wait([parent.sentinel]), os._exit(1)), daemon=True).start()


def _source(path: Path, root: Path) -> str:
    with contextlib.suppress(ValueError):
        path = path.relative_to(root)
    return printable_path(path.as_posix())


def _file_names(names: Sequence[str]) -> dict[str, str]:
    """Name of a photograph -> name of its files, without suffix: a hash is added if a file system may confuse two."""
    files: dict[str, str] = {}
    keys = Counter(same_name_key(name) for name in names)
    for name in names:
        if name in files:
            raise DataError(f"{name}: two photographs of one name; expected one")
        file = file_name(name)
        files[name] = file if keys[same_name_key(name)] == 1 else shorten_name(file, name)
    return files
