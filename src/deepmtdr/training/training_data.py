"""The photographs of a run: data sets, split, prepared frames (Sec. V-A)."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from deepmtdr.csv_tables import write_table
from deepmtdr.datasets.catalogue import read_datasets
from deepmtdr.datasets.frames import Frame
from deepmtdr.datasets.prepared import PreparedSet, is_prepared, read_prepared
from deepmtdr.datasets.sample import Sample
from deepmtdr.datasets.split import (
    apply_split,
    cross_validation_folds,
    read_split,
    reduce_supervision,
    split_by_patient,
    write_split,
)
from deepmtdr.errors import DataError
from deepmtdr.preparation.prepare import prepare
from deepmtdr.recipe import Recipe, find_split_file

Splits = Mapping[str, Sequence[Sample]]
"""Photographs of the splits train, validation and test."""


def read_splits(recipe: Recipe, data: Path) -> Splits:
    """Read the data sets of a recipe and split them by patient.

    Args:
        recipe: recipe with data sets, labels and split.
        data: folder with a folder for each data set.

    Raises:
        DataError: if a data set has errors, has other labels than the recipe, or does not fit the split.
    """
    settings, labels = recipe.data, recipe.labels
    samples = read_datasets({name: data / name for name in settings.datasets}, labels)
    if settings.split:
        return {"train": [], **apply_split(samples, read_split(find_split_file(settings.split)))}
    if settings.folds:
        return cross_validation_folds(samples, settings.folds, settings.split_seed, labels)[settings.fold]
    validation = {"validation": settings.validation} if settings.validation else {}
    shares = {"train": 1 - settings.held_out - settings.validation, **validation, "test": settings.held_out}
    return split_by_patient(samples, shares, settings.split_seed, labels=labels)


def fingerprint(splits: Splits) -> str:
    """Compute the SHA-256 of `split.csv`, which has photographs, patients, grades and splits."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "split.csv"
        write_split(path, splits)
        return hashlib.sha256(path.read_bytes()).hexdigest()


def training_samples(recipe: Recipe, splits: Splits) -> dict[str, Sequence[Sample]]:
    """Return the splits train and validation, with the lesion masks that `data.supervision` keeps."""
    settings = recipe.data
    train = reduce_supervision(splits["train"], settings.supervision, settings.split_seed, recipe.labels)
    return {"train": train, "validation": splits.get("validation", ())}


def load_prepared(recipe: Recipe, root: Path, name: str, cache: Path) -> PreparedSet:
    """Load a data set in the frame of the recipe: a prepared set, or photographs, which are prepared into `cache`.

    Raises:
        DataError: if the data set was prepared for another size of the frame.
    """
    if not is_prepared(root):
        samples = read_datasets({name: root}, recipe.labels)
        out = cache / f"{name}_{recipe.data.frame}"
        return prepare(samples, root, out, size=recipe.data.frame, labels=recipe.labels)
    prepared = read_prepared(root)
    if prepared.size != recipe.data.frame:
        found = f"prepared for a frame of {prepared.size} px"
        raise DataError(f"{root}: {found}, the recipe has data.frame = {recipe.data.frame}; prepare it again")
    return prepared


def select_frames(sets: Sequence[PreparedSet], samples: Iterable[Sample]) -> list[Frame]:
    """Return the frames of the samples, without samples that could not be prepared."""
    frames = {(frame.sample.dataset, frame.sample.name): frame for prepared in sets for frame in prepared.frames()}
    found = ((sample, frames.get((sample.dataset, sample.name))) for sample in samples)
    return [
        frame if s.has_masks or s.ignored_mask else frame.without_masks() for s, frame in found if frame is not None
    ]


def write_failures(path: Path, sets: Sequence[PreparedSet], samples: Iterable[Sample]) -> None:
    """Write the photographs that could not be prepared, with the reason, as CSV."""
    rows = {(row.dataset, row.name): row for prepared in sets for row in prepared.rows}
    problems = [(s.dataset, s.name, rows[s.dataset, s.name].problem) for s in samples]
    write_table(path, ("dataset", "name", "reason"), [row for row in problems if row[2]])
