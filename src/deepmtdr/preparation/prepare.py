"""Prepare a data set: each photograph in the HR frame, with its LR image, its masks and a row of the manifest.

A photograph that cannot be used gets a row with the reason. A run that was killed continues where it stopped: each
finished photograph has complete files and a row in a journal. Another run writes the same bytes (Sec. V-A,
interpretation R19). A run that starts while another one works in the same folder waits for it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from multiprocessing import connection, get_context, parent_process
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock, Timeout

from deepmtdr.datasets.frames import read_lesion_masks, write_tiff
from deepmtdr.datasets.layout import check_labels
from deepmtdr.datasets.prepared import (
    COVERAGE_THRESHOLD,
    MANIFEST,
    SETTINGS,
    ManifestRow,
    PreparedSet,
    PreparedSettings,
    format_manifest,
    read_manifest,
    read_prepared_settings,
    write_prepared_settings,
)
from deepmtdr.datasets.sample import Sample
from deepmtdr.errors import DataError, NoFieldOfViewError, PhotographError
from deepmtdr.files import PART_PATTERN, file_name, file_sha256, printable_path, write_atomically
from deepmtdr.labels import DIABETIC_RETINOPATHY, LabelSet
from deepmtdr.photographs.decode import Photograph, read_photograph
from deepmtdr.photographs.field_of_view import crop_to_frame, find_fov
from deepmtdr.photographs.geometry import FieldOfView, choose_input_scale, crop_mask
from deepmtdr.photographs.resize import resize
from deepmtdr.preparation.near_duplicates import perceptual_hash
from deepmtdr.progress import Progress
from deepmtdr.terms import FRAME, SCALES

JOURNAL_NAME = "manifest.partial.csv"
"""Rows of a run that has not ended, in the order in which they were finished."""
LOCK_NAME = ".lock"
"""Locked by the run that works in the folder: training runs may share a folder of prepared photographs."""


@dataclass(frozen=True, kw_only=True)
class _Job:
    """One photograph to be prepared."""

    sample: Sample
    split: str
    source: str
    file: str
    earlier: ManifestRow | None
    """The row of an earlier run for the photograph of this name."""
    out: Path
    settings: PreparedSettings


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
        scale: 2, 4 or 8, from the LR files to the HR frame.
        labels: the lesion types and grades of the samples.
        splits: name of a photograph -> its split, for the manifest.
        workers: processes; None: one per core.

    Returns:
        The prepared set.

    Raises:
        DataError: if `out` was prepared with other settings, two photographs have one name, or a file cannot be
            written (the disk is full, for example); finished photographs are kept.
    """
    if scale not in SCALES or size % max(SCALES):
        raise DataError(f"size {size} and scale {scale}, expected a multiple of {max(SCALES)} and one of {SCALES}")
    samples = sorted(samples, key=lambda sample: sample.name)
    settings = PreparedSettings(size, scale, labels)
    try:
        out.mkdir(parents=True, exist_ok=True)
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
    earlier = _open_folder(out, settings)
    files = _file_names([sample.name for sample in samples])
    jobs = [
        _Job(
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


def _open_folder(out: Path, settings: PreparedSettings) -> dict[str, ManifestRow]:
    """Make the folder, and return the rows of an earlier run by name."""
    for folder in ("hr", "lr", *settings.labels.codes):
        (out / folder).mkdir(parents=True, exist_ok=True)
        for part in (out / folder).glob(PART_PATTERN):  # a killed run's
            part.unlink()
    if (out / SETTINGS).exists():
        _check_settings(out, read_prepared_settings(out / SETTINGS), settings)
    else:
        write_prepared_settings(out / SETTINGS, settings)
    paths = (out / MANIFEST, out / JOURNAL_NAME)
    return {row.name: row for path in paths for row in _complete_rows(path, settings.labels)}


def _check_settings(out: Path, found: PreparedSettings, expected: PreparedSettings) -> None:
    check_labels(f"{out}: prepared", found.labels, expected.labels)
    if (found.size, found.scale) != (expected.size, expected.scale):
        sizes = (f"size {settings.size} and scale {settings.scale}" for settings in (found, expected))
        raise DataError(f"{out}: prepared at {next(sizes)}, not at {next(sizes)}; choose another folder")


def _complete_rows(path: Path, labels: LabelSet) -> list[ManifestRow]:
    """Rows of the manifest or the journal. The journal's last line may be incomplete: it is removed from the file."""
    journal = path.name == JOURNAL_NAME
    if not path.exists():
        if journal:
            write_atomically(path, format_manifest([], labels).encode())
        return []
    if journal:
        content = path.read_bytes()
        content = content[: content.rfind(b"\n") + 1] or format_manifest([], labels).encode()
        write_atomically(path, content)
    return list(read_manifest(path, labels))


def _run(jobs: Sequence[_Job], workers: int | None) -> Iterator[ManifestRow]:
    """Rows in the order of the jobs."""
    workers = min(workers or os.cpu_count() or 1, len(jobs))
    if workers < 2:
        yield from map(_prepare_one, jobs)
        return
    with ProcessPoolExecutor(workers, get_context("spawn"), _start_worker) as pool:
        try:
            yield from pool.map(_prepare_one, jobs, chunksize=4)
        except BrokenProcessPool as error:
            reason = "perhaps out of memory; finished photographs are kept: run again, with fewer workers"
            raise DataError(f"{jobs[0].out}: a worker was killed, {reason}") from error


def _start_worker() -> None:
    """One core per worker. A worker ends with its parent: otherwise it would wait for work for ever."""
    torch.set_num_threads(1)
    parent = parent_process()
    if parent is not None:
        threading.Thread(target=lambda: (connection.wait([parent.sentinel]), os._exit(1)), daemon=True).start()


def _prepare_one(job: _Job) -> ManifestRow:
    """Write the files of one photograph; the row tells if it cannot be prepared."""
    row = _labelled_row(job)
    try:
        sha256, masks_sha256 = _photograph_sha256(job.sample.photograph), _masks_sha256(job)
        row = replace(row, sha256=sha256, masks_sha256=masks_sha256)
        return _keep_earlier(job, row) or _write_files(job, row)
    except NoFieldOfViewError as error:
        return replace(row, status="no_fov", problem=str(error))
    except PhotographError as error:
        return replace(row, status="unreadable", problem=str(error))
    except DataError as error:
        return replace(row, status="bad_mask", problem=str(error))


def _labelled_row(job: _Job) -> ManifestRow:
    """The row with the labels of the sample, without measurements."""
    sample = job.sample
    return ManifestRow(
        name=sample.name,
        dataset=sample.dataset,
        status="ok",
        source=job.source,
        patient=sample.patient,
        laterality=sample.laterality,
        grade=sample.grade,
        dr_present=sample.dr_present,
        ungradable=sample.ungradable,
        side=sample.official_split,
        split=job.split,
        file=job.file,
    )


def _keep_earlier(job: _Job, row: ManifestRow) -> ManifestRow | None:
    """The row with the measurements of an earlier run, if that had the same bytes and its files are still there."""
    earlier = job.earlier
    if earlier is None or earlier.status != "ok" or earlier.areas.keys() != job.sample.lesion_masks.keys():
        return None
    if (earlier.sha256, earlier.masks_sha256, earlier.file) != (row.sha256, row.masks_sha256, row.file):
        return None
    folders = ["lr", *(["hr"] if earlier.scale == 1 else []), *(code for code, area in earlier.areas.items() if area)]
    if not all((job.out / folder / f"{row.file}.tif").exists() for folder in folders):
        return None
    return replace(
        row,
        areas=earlier.areas,
        overlap=earlier.overlap,
        width=earlier.width,
        height=earlier.height,
        fov_x=earlier.fov_x,
        fov_y=earlier.fov_y,
        fov_side=earlier.fov_side,
        scale=earlier.scale,
        perceptual_hash=earlier.perceptual_hash,
    )


def _write_files(job: _Job, row: ManifestRow) -> ManifestRow:
    size = job.settings.size
    photograph, reduced_fov = _decode(job.sample.photograph, size)
    fov = reduced_fov.scaled(photograph.reduction)
    scale = choose_input_scale(max(1, fov.side), frame=size).scale
    pixels = crop_to_frame(photograph.pixels, reduced_fov, size // scale)
    row, masks = _crop_masks(job, row, photograph.size, fov)
    lr = pixels
    if scale == 1:
        lr = resize(pixels, size // job.settings.scale)
        write_tiff(job.out / "hr" / f"{job.file}.tif", pixels)
    write_tiff(job.out / "lr" / f"{job.file}.tif", lr)
    for code, mask in masks.items():
        write_tiff(job.out / code / f"{job.file}.tif", mask)
    return replace(
        row,
        width=photograph.size[0],
        height=photograph.size[1],
        fov_x=fov.x,
        fov_y=fov.y,
        fov_side=fov.side,
        scale=scale,
        perceptual_hash=perceptual_hash(pixels),
    )


def _decode(path: Path, size: int) -> tuple[Photograph, FieldOfView]:
    """The photograph, perhaps reduced but with enough pixels to fill the frame, and its field of view."""
    photograph = read_photograph(path, min_side=size)
    fov = find_fov(photograph.pixels)
    if photograph.reduction > 1 and fov.side < size:  # a wide dark ground
        photograph = read_photograph(path)
        fov = find_fov(photograph.pixels)
    return photograph, fov


def _crop_masks(
    job: _Job, row: ManifestRow, size: tuple[int, int], fov: FieldOfView
) -> tuple[ManifestRow, dict[str, np.ndarray]]:
    """The row with the areas of the annotated lesion types, and the coverage of the frame by those that are present."""
    masks: dict[str, np.ndarray] = {}
    areas: dict[str, float] = {}
    for code, mask in read_lesion_masks(job.sample, size[::-1]).items():
        coverage = (
            np.rint(255 * crop_mask(mask, fov, job.settings.size)).astype(np.uint8) if mask.any() else np.zeros(0)
        )
        areas[code] = float(coverage.sum(dtype=np.int64) / 255)
        if coverage.any():
            masks[code] = coverage
    claims = np.sum([mask > COVERAGE_THRESHOLD for mask in masks.values()], axis=0) if masks else np.zeros(1)
    overlap = float((claims > 1).sum() / (claims > 0).sum()) if claims.any() else None
    return replace(row, overlap=overlap, areas=areas), masks


def _source(path: Path, root: Path) -> str:
    with contextlib.suppress(ValueError):
        path = path.relative_to(root)
    return printable_path(path.as_posix())


def _file_names(names: Sequence[str]) -> dict[str, str]:
    """Name of a photograph -> name of its files, without suffix."""
    files: dict[str, str] = {}
    for name in names:
        if name in files:
            raise DataError(f"{name}: two photographs of one name; expected each once")
        files[name] = file_name(name)
    return files


def _photograph_sha256(path: Path) -> str:
    try:
        return file_sha256(path)
    except OSError as error:
        raise PhotographError(f"{path}: cannot be read ({error.strerror})") from error


def _masks_sha256(job: _Job) -> str:
    """SHA-256 over the codes and files of all masks in channel order; empty without a mask file."""
    digest, any_file = hashlib.sha256(), False
    for code in job.settings.labels.codes:
        if (path := job.sample.lesion_masks.get(code)) is not None:
            any_file = True
            try:
                digest.update(code.encode() + path.read_bytes())
            except OSError as error:
                raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    return digest.hexdigest() if any_file else ""
