"""What is fuzzed: each target has sound files to start from, ways to change them, and a check of what is read.

A check lets the documented errors pass and asserts what must hold of everything that was read.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.fuzzing import picture_seeds, text_seeds
from benchmarks.fuzzing.byte_mutations import Mutation, change_json_file, change_text
from benchmarks.fuzzing.checkpoint_mutations import change_checkpoint
from benchmarks.fuzzing.dicom_mutations import change_dicom
from benchmarks.fuzzing.picture_mutations import change_picture

from deepmtdr import checkpoint
from deepmtdr.csv_tables import read_column_names, read_table
from deepmtdr.datasets.diaretdb0 import read_presence
from deepmtdr.datasets.eyepacs import read_eyepacs_testing
from deepmtdr.datasets.folder import read_folder
from deepmtdr.datasets.heimed import read_region_counts
from deepmtdr.datasets.layout import read_grades
from deepmtdr.datasets.manifest import format_manifest, read_manifest
from deepmtdr.datasets.mask_files import read_mask
from deepmtdr.datasets.messidor2 import read_messidor2
from deepmtdr.datasets.prepared import read_prepared_settings
from deepmtdr.datasets.real_lr import read_real_lr
from deepmtdr.datasets.split import read_split
from deepmtdr.datasets.srahim import read_srahim
from deepmtdr.dicom.codes import load_codes
from deepmtdr.dicom.label_codes import codes_from_labels
from deepmtdr.dicom.source import content_time, read_source
from deepmtdr.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    DeepMTDRError,
    DicomError,
    PhotographError,
    ResultsError,
    ServiceError,
)
from deepmtdr.evaluation.predictions import score_predictions
from deepmtdr.evaluation.scores import Bootstrap
from deepmtdr.labels import DIABETIC_RETINOPATHY, load_label_set
from deepmtdr.photographs.decode import read_photograph
from deepmtdr.photographs.limits import MAX_PIXELS, MIN_SIDE
from deepmtdr.recipe import load_recipe, recipe_from_dict, to_dict
from deepmtdr.screening.earlier_report import read_report
from deepmtdr.screening.results_folder import ExistingResults, open_results
from deepmtdr.service.settings_file import load_settings
from deepmtdr.training.log_reader import read_log

Seeds = Callable[[], Iterator[bytes]]
"""Makes sound files."""
MIB = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Target:
    """A kind of file and what reads it."""

    name: str
    seeds: Seeds
    """Sound files."""
    change: Mutation
    check: Callable[[Path], None]
    """Reads a file; raises anything but a documented error if there is a fault."""
    file: str
    """Name of the file."""
    memory: int
    """Most memory that reading one file may take, bytes."""
    errors: tuple[type[Exception], ...]
    """Documented errors that `check` lets pass to its caller."""
    largest: int = 1 << 16
    """Size of the largest file that is tried, bytes."""


def check_photograph(path: Path) -> None:
    """Decode a photograph in full, and a JPEG also at reduced size."""
    photograph = read_photograph(path)
    pixels = photograph.pixels
    assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3, (pixels.dtype, pixels.shape)
    assert pixels.flags.c_contiguous and min(pixels.shape[:2]) >= MIN_SIDE, pixels.shape
    assert pixels.shape[0] * pixels.shape[1] <= MAX_PIXELS, pixels.shape
    assert photograph.laterality in ("L", "R", None), photograph.laterality
    if path.read_bytes()[:2] == b"\xff\xd8":
        reduced = read_photograph(path, MIN_SIDE)
        assert reduced.size == photograph.size and reduced.reduction in (1, 2, 4, 8), (reduced.size, photograph.size)


def check_source(path: Path) -> None:
    """Read a DICOM header and everything that results take from it."""
    source = read_source(path)
    assert source.laterality in ("L", "R", None) and source.instance_number >= 1
    assert source.patient_label.isprintable(), source.patient_label
    examination = source.examination
    assert examination.instance_uid == str(source.uid) and len(examination.instance_uid) <= 64
    date, time = content_time(source.dataset)
    assert len(date) == 8 and len(time) == 6 and (date + time).isdigit(), (date, time)


def check_mask(path: Path) -> None:
    """Read a mask with and without a threshold."""
    mask = read_mask(path)
    assert mask.marked.dtype == np.bool_ and mask.marked.ndim == 2 and mask.marked.size, mask.marked.shape
    assert read_mask(path, 100).marked.shape == mask.marked.shape


def check_tables(path: Path) -> None:
    """Read a table by every reader that a table of its name may reach."""
    few = Bootstrap(resamples=2)
    readers: Sequence[Callable[[], Any]] = (
        lambda: list(read_table(path, read_column_names(path))),
        lambda: format_manifest(list(read_manifest(path))),
        lambda: read_split(path),
        lambda: read_grades(path, "name", "grade"),
        lambda: read_log(path, "term"),
        lambda: read_presence(path.parent),
        lambda: read_region_counts(path.parent),
        lambda: read_srahim(path.parent),
        lambda: read_messidor2(path.parent),
        lambda: read_eyepacs_testing(path.parent),
        lambda: read_folder(path.parent),
        lambda: read_real_lr(path.parent),
        lambda: score_predictions(path, path, bootstrap=few),
        lambda: score_predictions(path, path, binary=True, bootstrap=few),
        lambda: _resume(path),
    )
    _prepare_folder(path)
    refused = None
    for read in readers:
        try:
            read()
        except (DataError, ResultsError) as error:
            refused = error if refused is None or not str(error).isprintable() else refused
    if refused is not None:
        raise refused


def _prepare_folder(path: Path) -> None:
    """Give the table every name that a reader wants, beside photographs of these names."""
    root = path.parent
    for folder in ("photographs", "IMAGES", "test", "hospital/images", "."):
        for name in text_seeds.NAMES:
            (root / folder).mkdir(parents=True, exist_ok=True)
            (root / folder / f"{name}.png").touch()
    names = (
        "messidor_data.csv",
        "messidor-2.csv",
        "retinopathy_solution.csv",
        "photographs.csv",
        "hospital/labels.csv",
    )
    for name in names:
        with contextlib.suppress(FileExistsError):
            (root / name).hardlink_to(path)


def _resume(path: Path) -> None:
    """Continue a run that wrote the table as its results; the run replaces it."""
    root = path.parent / "results"
    root.mkdir(exist_ok=True)
    (root / "results.csv").write_bytes(path.read_bytes())
    (root / "run.json").write_text("{}")
    with open_results(root, DIABETIC_RETINOPATHY, {}, ExistingResults.RESUME, lambda folder: None):
        pass


def check_reports(path: Path) -> None:
    """Read a JSON file as the report of a photograph, as the settings of a run, and as those of a prepared set."""
    with contextlib.suppress(DataError):
        report = read_report(path.parent, path, DIABETIC_RETINOPATHY)
        assert report.row()["path"] and json.dumps(report.to_json(), allow_nan=False)
    with contextlib.suppress(DataError):
        read_prepared_settings(path)
    root = path.parent / "results"
    root.mkdir(exist_ok=True)
    (root / "results.csv").write_text("path,folder,sha256,status\n")
    (root / "run.json").write_bytes(path.read_bytes())
    with open_results(root, DIABETIC_RETINOPATHY, {"weights": "tiny"}, ExistingResults.RESUME, lambda folder: None):
        pass


def check_parquet(path: Path) -> None:
    """Read a Parquet table."""
    assert all(isinstance(cell, str) for _, row in read_table(path, read_column_names(path)) for cell in row.values())


def check_checkpoint(path: Path) -> None:
    """Load a network and everything that its card holds."""
    loaded = checkpoint.load(path)
    assert loaded.name.isprintable() and loaded.temperature > 0
    assert loaded.operating_point is None or 0 < loaded.operating_point.value <= 1
    assert len(loaded.decision.thresholds) in (0, len(loaded.labels.grades) - 1)


def check_recipe(path: Path) -> None:
    """Read a recipe; what a checkpoint stores of it gives the same recipe."""
    recipe = load_recipe(path)
    assert recipe_from_dict(to_dict(recipe), "card") == recipe


def check_labels(path: Path) -> None:
    """Read a label set and the codes made from it, or a site's file of codes."""
    with contextlib.suppress(DataError):
        load_codes(path)
    labels = load_label_set(path)
    for scheme, code, meaning in codes_from_labels(labels).values():
        assert scheme and code and meaning
    with contextlib.suppress(DataError):
        load_codes(None, labels)


def check_settings(path: Path) -> None:
    """Read the settings of a service."""
    load_settings(path)


def _parquets() -> Iterator[bytes]:
    """Tables in Parquet with every type of column."""
    import io

    import pyarrow as pa
    from pyarrow.parquet import write_table

    for compression in ("none", "snappy"):
        table = pa.table(
            {
                "name": ["a", None],
                "grade": [1.5, None],
                "flag": [True, False],
                "list": [[1], None],
                "raw": [b"\xff", b""],
            }
        )
        buffer = io.BytesIO()
        write_table(table, buffer, compression=compression)
        yield buffer.getvalue()


_DECODER_MEMORY = 3 << 30
"""The limit of the decoder process (`decoder_process.DECODER_MEMORY`)."""

TARGETS = {
    target.name: target
    for target in (
        Target(
            name="pictures",
            seeds=picture_seeds.pictures,
            change=change_picture,
            check=check_photograph,
            file="picture",
            memory=_DECODER_MEMORY,
            errors=(PhotographError,),
        ),
        Target(
            name="tiff",
            seeds=picture_seeds.tiffs,
            change=change_picture,
            check=check_photograph,
            file="picture",
            memory=_DECODER_MEMORY,
            errors=(PhotographError,),
            largest=1 << 17,
        ),
        Target(
            name="dicom",
            seeds=picture_seeds.dicoms,
            change=change_dicom,
            check=check_photograph,
            file="picture",
            memory=_DECODER_MEMORY,
            errors=(PhotographError,),
        ),
        Target(
            name="source",
            seeds=picture_seeds.dicoms,
            change=change_dicom,
            check=check_source,
            file="picture",
            memory=512 * MIB,
            errors=(DicomError,),
        ),
        Target(
            name="masks",
            seeds=picture_seeds.masks,
            change=change_picture,
            check=check_mask,
            file="mask",
            memory=_DECODER_MEMORY,
            errors=(DataError,),
        ),
        Target(
            name="tables",
            seeds=text_seeds.tables,
            change=change_text,
            check=check_tables,
            file="labels.csv",
            memory=512 * MIB,
            errors=(DataError, ResultsError),
            largest=1 << 15,
        ),
        Target(
            name="reports",
            seeds=text_seeds.reports,
            change=change_json_file,
            check=check_reports,
            file="report.json",
            memory=256 * MIB,
            errors=(DataError, ResultsError),
        ),
        Target(
            name="parquet",
            seeds=_parquets,
            change=change_text,
            check=check_parquet,
            file="table.parquet",
            memory=1024 * MIB,
            errors=(DataError,),
        ),
        Target(
            name="checkpoints",
            seeds=text_seeds.checkpoints,
            change=change_checkpoint,
            check=check_checkpoint,
            file="a.safetensors",
            memory=512 * MIB,
            errors=(CheckpointError,),
            largest=1 << 20,
        ),
        Target(
            name="recipes",
            seeds=text_seeds.recipes,
            change=change_text,
            check=check_recipe,
            file="a.toml",
            memory=256 * MIB,
            errors=(ConfigError,),
        ),
        Target(
            name="labels",
            seeds=text_seeds.label_sets,
            change=change_text,
            check=check_labels,
            file="a.toml",
            memory=256 * MIB,
            errors=(DeepMTDRError,),
        ),
        Target(
            name="settings",
            seeds=text_seeds.settings,
            change=change_text,
            check=check_settings,
            file="serve.toml",
            memory=256 * MIB,
            errors=(ServiceError,),
        ),
    )
}
"""Name -> target."""
