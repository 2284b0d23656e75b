"""Prepare a data set once: every photograph into the HR frame, its LR and its masks beside it, a manifest over all.

A photograph that cannot be used gets a row that says why. A run that was killed goes on where it stopped: each finished
photograph has left whole files and a line in the journal. Another run writes the same bytes (Sec. V-A, reading R19);
one that comes while the first still works waits for it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from multiprocessing import connection, get_context, parent_process
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from filelock import FileLock, Timeout

from deepmtdr.datasets.frames import read_lesion_masks, write_tiff
from deepmtdr.datasets.prepared import (
    COVERAGE_THRESHOLD,
    FORMAT_VERSION,
    MANIFEST,
    SETTINGS,
    ManifestRow,
    PreparedSet,
    format_manifest,
    read_manifest,
    read_prepared_settings,
    shared_labels,
)
from deepmtdr.datasets.sample import Sample
from deepmtdr.errors import DataError, NoFieldOfViewError, PhotographError
from deepmtdr.files import printable_path, write_atomically
from deepmtdr.photographs.decode import Photograph, read_photograph
from deepmtdr.photographs.field_of_view import FieldOfView, choose_input_scale, crop_mask, crop_to_frame, find_fov
from deepmtdr.photographs.resize import resize
from deepmtdr.preparation.near_duplicates import perceptual_hash
from deepmtdr.progress import Progress
from deepmtdr.terms import FRAME, SCALES, Lesion

JOURNAL_NAME = "manifest.partial.csv"
"""Rows of a run that has not ended, in the order in which they were finished."""
LOCK_NAME = ".lock"
"""Held by the run that works in the folder: training runs share their prepared photographs."""
MAX_STEM_BYTES = 120
"""Most bytes of a file's stem: with a suffix and a temporary name it stays within what every file system takes."""


class _Job(NamedTuple):
    sample: Sample
    split: str
    source: str
    file: str
    known: ManifestRow | None
    """What an earlier run said of the photograph of this name."""
    out: Path
    size: int
    scale: int


def prepare(
    samples: Sequence[Sample],
    root: Path,
    out: Path,
    *,
    size: int = FRAME,
    scale: int = 4,
    sides: Mapping[str, str] | None = None,
    workers: int | None = None,
) -> PreparedSet:
    """Prepare the photographs of one data set, or go on with a preparation that was stopped.

    Args:
        samples: the photographs, of one data set.
        root: folder of the data set: sources are named from there.
        out: folder of the prepared set; what an earlier run prepared from the same bytes is kept.
        size: side of the HR frame, px.
        scale: 2, 4 or 8, from the LR files to the HR frame.
        sides: name -> side of the split, for the manifest.
        workers: processes; None: one for each core.

    Returns:
        The prepared set.

    Raises:
        DataError: if `out` was prepared with other settings, two photographs have one name, or a file cannot be
            written (the disk is full, say); what was finished is kept.
    """
    if scale not in SCALES or size % max(SCALES):
        raise DataError(f"size {size} and scale {scale}, expected a multiple of {max(SCALES)} and one of {SCALES}")
    samples = sorted(samples, key=lambda sample: sample.name)
    try:
        out.mkdir(parents=True, exist_ok=True)
        with _alone_in(out):
            rows = _all_rows(samples, root, out, size, scale, sides or {}, workers)
    except OSError as error:
        reason = f"{error.strerror or type(error).__name__}; what was finished is kept, run again to go on"
        raise DataError(f"{error.filename or out}: cannot be written ({reason})") from error
    return PreparedSet(out, size, scale, rows)


@contextlib.contextmanager
def _alone_in(out: Path) -> Iterator[None]:
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


def _all_rows(
    samples: Sequence[Sample],
    root: Path,
    out: Path,
    size: int,
    scale: int,
    sides: Mapping[str, str],
    workers: int | None,
) -> list[ManifestRow]:
    known = _begin(out, size, scale)
    files = _file_names([sample.name for sample in samples])
    sources = (_source(sample.photograph, root) for sample in samples)
    jobs = [
        _Job(sample, sides.get(name, ""), source, files[name], known.get(name), out, size, scale)
        for sample, source, name in zip(samples, sources, files, strict=True)
    ]
    rows = []
    journal = (out / JOURNAL_NAME).open("a", encoding="utf-8")
    with journal, Progress("prepare", len(jobs)) as progress:
        for row in _done(jobs, workers):
            rows.append(row)
            journal.write(format_manifest([row], header=False))
            journal.flush()
            progress.advance()
    write_atomically(out / MANIFEST, format_manifest(rows).encode())
    (out / JOURNAL_NAME).unlink()
    return rows


def _begin(out: Path, size: int, scale: int) -> dict[str, ManifestRow]:
    """Make the folder, or find what an earlier run left there: its rows by name."""
    for folder in ("hr", "lr", *(lesion.name for lesion in Lesion)):
        (out / folder).mkdir(parents=True, exist_ok=True)
        for part in (out / folder).glob(".*.part"):  # a killed run's
            part.unlink()
    if (out / SETTINGS).exists():
        if (was := read_prepared_settings(out / SETTINGS)) != (size, scale):
            found, asked = (f"size {size} and scale {scale}" for size, scale in (was, (size, scale)))
            raise DataError(f"{out}: prepared at {found}, not at {asked}; expected another folder")
    else:
        text = json.dumps({"form": FORMAT_VERSION, "size": size, "scale": scale}, indent=2)
        write_atomically(out / SETTINGS, f"{text}\n".encode())
    return {row.name: row for path in (out / MANIFEST, out / JOURNAL_NAME) for row in _whole_rows(path)}


def _whole_rows(path: Path) -> list[ManifestRow]:
    """Rows of a manifest or a journal, whose last line may be torn off: the journal loses it, and gets its header."""
    if not path.exists():
        if path.name == JOURNAL_NAME:
            write_atomically(path, format_manifest([]).encode())
        return []
    if path.name == JOURNAL_NAME:
        content = path.read_bytes()
        content = content[: content.rfind(b"\n") + 1] or format_manifest([]).encode()
        write_atomically(path, content)
    return list(read_manifest(path))


def _done(jobs: Sequence[_Job], workers: int | None) -> Iterator[ManifestRow]:
    """Rows in the order of the jobs."""
    workers = min(workers or os.cpu_count() or 1, len(jobs))
    if workers < 2:
        yield from map(_prepared, jobs)
        return
    with ProcessPoolExecutor(workers, get_context("spawn"), _begin_worker) as pool:
        try:
            yield from pool.map(_prepared, jobs, chunksize=4)
        except BrokenProcessPool as error:
            reason = "perhaps for want of memory; what was finished is kept: run again, with fewer workers"
            raise DataError(f"{jobs[0].out}: a worker was killed, {reason}") from error


def _begin_worker() -> None:
    """One core each; and a worker whose parent was killed must not wait for work for ever."""
    torch.set_num_threads(1)
    parent = parent_process()
    if parent is not None:
        threading.Thread(target=lambda: (connection.wait([parent.sentinel]), os._exit(1)), daemon=True).start()


def _prepared(job: _Job) -> ManifestRow:
    """Write the files of one photograph; whatever is wrong with it stands in its row."""
    sample = job.sample
    row = ManifestRow(
        **shared_labels(sample),
        status="ok",
        source=job.source,
        side=sample.official_split,
        split=job.split,
        file=job.file,
    )
    try:
        row = replace(row, sha256=_sha256(sample.photograph), masks_sha256=_masks_sha256(sample))
        return _kept(job, row) or _written(job, row)
    except NoFieldOfViewError as error:
        return replace(row, status="no_fov", problem=str(error))
    except PhotographError as error:
        return replace(row, status="unreadable", problem=str(error))
    except DataError as error:
        return replace(row, status="bad_mask", problem=str(error))


def _kept(job: _Job, row: ManifestRow) -> ManifestRow | None:
    """The row of an earlier run, under today's labels, if the same bytes led to it and its files are still there."""
    was = job.known
    if was is None or (was.sha256, was.masks_sha256, was.file) != (row.sha256, row.masks_sha256, row.file):
        return None
    if was.status != "ok" or [area is not None for area in was.areas] != list(job.sample.annotated):
        return None
    folders = ["lr", *(["hr"] if was.scale == 1 else []), *(lesion.name for lesion in Lesion if was.areas[lesion])]
    if not all((job.out / folder / f"{row.file}.tif").exists() for folder in folders):
        return None
    return replace(was, **shared_labels(row), source=row.source, side=row.side, split=row.split)


def _written(job: _Job, row: ManifestRow) -> ManifestRow:
    photograph, fov = _seen(job.sample.photograph, job.size)
    whole = FieldOfView(*(photograph.reduction * value for value in (fov.x, fov.y, fov.side)))
    way = choose_input_scale(max(1, round(whole.side * FRAME / job.size)))  # of a frame of FRAME px
    pixels = crop_to_frame(photograph.pixels, fov, job.size // way.scale)
    row, masks = _with_masks(job, row, photograph.size, whole)
    lr = pixels
    if way.scale == 1:
        side = job.size // job.scale
        lr = resize(pixels, side)
        write_tiff(job.out / "hr" / f"{job.file}.tif", pixels)
    write_tiff(job.out / "lr" / f"{job.file}.tif", lr)
    for lesion, mask in masks.items():
        write_tiff(job.out / lesion.name / f"{job.file}.tif", mask)
    return replace(
        row,
        width=photograph.size[0],
        height=photograph.size[1],
        fov_x=whole.x,
        fov_y=whole.y,
        fov_side=whole.side,
        scale=way.scale,
        perceptual_hash=perceptual_hash(pixels),
    )


def _seen(path: Path, size: int) -> tuple[Photograph, FieldOfView]:
    """The photograph with no more pixels than it takes to fill the frame, and its field of view there."""
    photograph = read_photograph(path, min_side=size)
    fov = find_fov(photograph.pixels)
    if photograph.reduction > 1 and fov.side < size:  # a wide dark ground
        photograph = read_photograph(path)
        fov = find_fov(photograph.pixels)
    return photograph, fov


def _with_masks(
    job: _Job, row: ManifestRow, size: tuple[int, int], fov: FieldOfView
) -> tuple[ManifestRow, dict[Lesion, np.ndarray]]:
    """Coverage of the frame by each annotated type that is there, and what the row says of it."""
    masks = {}
    areas: dict[str, float] = {}
    for lesion, mask in read_lesion_masks(job.sample, size[::-1]).items():
        coverage = np.rint(255 * crop_mask(mask, fov, job.size)).astype(np.uint8) if mask.any() else np.zeros(0)
        areas[lesion.name.lower()] = float(coverage.sum(dtype=np.int64) / 255)
        if coverage.any():
            masks[lesion] = coverage
    claims = np.sum([mask > COVERAGE_THRESHOLD for mask in masks.values()], axis=0) if masks else np.zeros(1)
    overlap = float((claims > 1).sum() / (claims > 0).sum()) if claims.any() else None
    return replace(row, overlap=overlap, **areas), masks


def _source(path: Path, root: Path) -> str:
    with contextlib.suppress(ValueError):
        path = path.relative_to(root)
    return printable_path(path.as_posix())


def _file_names(names: Sequence[str]) -> dict[str, str]:
    """A stem for each name's files: the name, where every file system takes it; else its beginning and a digest."""
    stems = {}
    for name in names:
        if name in stems:
            raise DataError(f"{name}: two photographs of one name; expected each once")
        plain = "".join(letter if letter.isalnum() or letter in "-_. +()" else "_" for letter in printable_path(name))
        digest = hashlib.sha256(os.fsencode(name)).hexdigest()[:12]
        short = plain.encode()[: MAX_STEM_BYTES - 13].decode(errors="ignore")
        stems[name] = plain if plain == name and len(name.encode()) <= MAX_STEM_BYTES else f"{short}-{digest}"
    return stems


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise PhotographError(f"{path}: cannot be read ({error.strerror})") from error


def _masks_sha256(sample: Sample) -> str:
    digest, any_file = hashlib.sha256(), False
    for lesion in Lesion:
        if (path := sample.lesion_masks.get(lesion)) is not None:
            any_file = True
            try:
                digest.update(lesion.name.encode() + path.read_bytes())
            except OSError as error:
                raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    return digest.hexdigest() if any_file else ""
