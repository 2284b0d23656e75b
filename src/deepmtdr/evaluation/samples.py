"""Select the photographs of an evaluation or a calibration."""

from __future__ import annotations

from typing import Any

from deepmtdr.checkpoint import Checkpoint
from deepmtdr.datasets.catalogue import read_datasets
from deepmtdr.datasets.sample import Sample
from deepmtdr.datasets.split import apply_split, read_split
from deepmtdr.errors import DataError
from deepmtdr.evaluation.config import SampleSelection
from deepmtdr.files import file_sha256
from deepmtdr.labels import DIABETIC_RETINOPATHY, LabelSet


def load_samples(selection: SampleSelection, labels: LabelSet = DIABETIC_RETINOPATHY) -> list[Sample]:
    """Read the selected photographs.

    Args:
        selection: one split, or whole data sets.
        labels: lesion types and grades of the data sets.

    Raises:
        DataError: if neither a split file nor data sets are given, the file has no such split, or file and data sets do
            not belong together.
    """
    data, split_file = selection.data, selection.split_file
    if split_file is None:
        if not selection.datasets:
            raise DataError(
                f"{data}: found no selection of photographs, expected a split file or the name of a data set"
            )
        return read_datasets({name: data / name for name in selection.datasets}, labels)
    table = read_split(split_file)
    names = selection.datasets or sorted({name for name, _ in table})
    splits = apply_split(read_datasets({name: data / name for name in names}, labels), table)
    if selection.split not in splits:
        found = ", ".join(sorted(splits))
        raise DataError(f"{split_file}: found no split {selection.split!r} in this file, expected one of {found}")
    return splits[selection.split]


def split_protocol(selection: SampleSelection, trained: Checkpoint) -> dict[str, Any]:
    """Make the protocol entry for a split file: split, SHA-256, and whether the weights were trained with the file.

    Returns:
        `{"split": {...}}`; empty without a split file.
    """
    if selection.split_file is None:
        return {}
    digest = file_sha256(selection.split_file)
    same = digest == trained.card.get("data")
    return {"split": {"side": selection.split, "sha256": digest, "of_the_weights": same}}
