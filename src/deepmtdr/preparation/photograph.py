"""Prepare one photograph: crop it to the HR frame, reduce it, crop its masks, and write the files (Sec. V-A)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from deepmtdr.datasets.frames import IGNORED, SampleMasks, memmap_tiff, read_masks, write_tiff
from deepmtdr.datasets.manifest import ManifestRow
from deepmtdr.datasets.mask_files import MaskProblem
from deepmtdr.datasets.prepared import COVERAGE_THRESHOLD, PreparedSettings
from deepmtdr.datasets.sample import Sample
from deepmtdr.errors import DataError, NoFieldOfViewError, PhotographError
from deepmtdr.files import file_sha256
from deepmtdr.photographs.decode import Photograph, read_photograph
from deepmtdr.photographs.field_of_view import crop_to_frame, find_fov
from deepmtdr.photographs.geometry import FieldOfView, choose_input_scale, crop_mask
from deepmtdr.photographs.resize import resize
from deepmtdr.preparation.near_duplicates import perceptual_hash

MASK_RULES = b"2"
"""Version of the rules by which mask files are read (`mask_files`)."""


@dataclass(frozen=True, kw_only=True)
class PhotographJob:
    """One photograph to be prepared."""

    sample: Sample
    split: str
    source: str
    file: str
    earlier: ManifestRow | None
    """The row of an earlier run for the photograph of this name."""
    out: Path
    settings: PreparedSettings


def prepare_photograph(job: PhotographJob) -> ManifestRow:
    """Write the files of one photograph; its row has the status.

    Raises:
        OSError: if a file cannot be written.
    """
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


def _labelled_row(job: PhotographJob) -> ManifestRow:
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


def _keep_earlier(job: PhotographJob, row: ManifestRow) -> ManifestRow | None:
    """The row with the measurements of an earlier run, if that had the same bytes and its files are still there."""
    earlier = job.earlier
    if earlier is None or earlier.status != "ok" or not _same_labels(earlier, job.sample):
        return None
    if (earlier.sha256, earlier.masks_sha256, earlier.file) != (row.sha256, row.masks_sha256, row.file):
        return None
    areas = {**earlier.areas, **earlier.unions, IGNORED: earlier.ignored}
    folders = ["lr", *(["hr"] if earlier.scale == 1 else []), *(folder for folder, area in areas.items() if area)]
    if not all(_is_complete(job.out / folder / f"{row.file}.tif") for folder in folders):
        return None
    return replace(
        row,
        areas=earlier.areas,
        unions=earlier.unions,
        ignored=earlier.ignored,
        mask_problems=earlier.mask_problems,
        overlap=earlier.overlap,
        width=earlier.width,
        height=earlier.height,
        fov_x=earlier.fov_x,
        fov_y=earlier.fov_y,
        fov_side=earlier.fov_side,
        scale=earlier.scale,
        perceptual_hash=earlier.perceptual_hash,
    )


def _is_complete(path: Path) -> bool:
    """Whether a prepared file is there with all its pixels; a power failure may have left it empty or cut off."""
    try:
        memmap_tiff(path)
    except DataError:
        return False
    return True


def _same_labels(earlier: ManifestRow, sample: Sample) -> bool:
    """Whether an earlier row has the annotated types, the union labels and the ignored pixels of the sample."""
    return (
        earlier.areas.keys() == sample.lesion_masks.keys()
        and earlier.unions.keys() == sample.union_masks.keys()
        and (earlier.ignored is None) is (sample.ignored_mask is None)
    )


def _write_files(job: PhotographJob, row: ManifestRow) -> ManifestRow:
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
    for folder, mask in masks.items():
        write_tiff(job.out / folder / f"{job.file}.tif", mask)
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
    """Decode the photograph, reduced if enough pixels remain to fill the frame, and find its field of view."""
    photograph = read_photograph(path, min_side=size)
    fov = find_fov(photograph.pixels)
    if photograph.reduction > 1 and fov.side < size:  # a wide dark border
        photograph = read_photograph(path)
        fov = find_fov(photograph.pixels)
    return photograph, fov


def _crop_masks(
    job: PhotographJob, row: ManifestRow, size: tuple[int, int], fov: FieldOfView
) -> tuple[ManifestRow, dict[str, np.ndarray]]:
    """The row with the areas of what is annotated and ignored, and the coverage of the frame by what is present."""
    found = read_masks(job.sample, size[::-1])
    ignored = {} if found.ignored is None else {IGNORED: found.ignored}
    coverage: dict[str, np.ndarray] = {}
    areas: dict[str, float] = {}
    for folder, mask in {**found.lesions, **found.unions, **ignored}.items():
        covered = np.rint(255 * crop_mask(mask, fov, job.settings.size)).astype(np.uint8) if mask.any() else mask
        areas[folder] = float(covered.sum(dtype=np.int64) / 255)
        if covered.any():
            coverage[folder] = covered
    lesions = [mask > COVERAGE_THRESHOLD for folder, mask in coverage.items() if folder != IGNORED]
    claims = np.sum(lesions, axis=0) if lesions else np.zeros(1)
    row = replace(
        row,
        overlap=float((claims > 1).sum() / (claims > 0).sum()) if claims.any() else None,
        areas={code: areas[code] for code in found.lesions},
        unions={union: areas[union] for union in found.unions},
        ignored=areas.get(IGNORED),
        mask_problems=tuple(_mask_problems(found, areas, job.settings.size)),
    )
    return row, coverage


def _mask_problems(found: SampleMasks, areas: Mapping[str, float], size: int) -> Iterator[str]:
    """Possible problems of the masks: those of their files, and lesions on more than half of the field of view."""
    for code, problems in found.problems.items():
        yield from (f"{problem}:{code}" for problem in problems)
    field = np.pi / 4 * size**2
    yield from (f"{MaskProblem.LARGE}:{code}" for code, area in areas.items() if area > field / 2 and code != IGNORED)


def _photograph_sha256(path: Path) -> str:
    try:
        return file_sha256(path)
    except OSError as error:
        raise PhotographError(f"{path}: cannot be read ({error.strerror})") from error


def _masks_sha256(job: PhotographJob) -> str:
    """SHA-256 over the names and files of all masks: lesion types in channel order, union labels, ignored pixels.

    Empty without a mask file. It begins with `MASK_RULES`, so that masks are prepared again if they are read otherwise.
    """
    digest, any_file = hashlib.sha256(MASK_RULES), False
    sample = job.sample
    paths = {code: sample.lesion_masks.get(code) for code in job.settings.labels.codes}
    for code, path in {**paths, **sample.union_masks, IGNORED: sample.ignored_mask}.items():
        if path is not None:
            any_file = True
            try:
                digest.update(code.encode() + path.read_bytes())
            except OSError as error:
                raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    return digest.hexdigest() if any_file else ""
