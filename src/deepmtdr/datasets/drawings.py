"""Drawings: synthetic photographs that `deepmtdr draw` wrote."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from deepmtdr.datasets.folder import TABLE_NAME, read_folder
from deepmtdr.datasets.sample import Sample
from deepmtdr.errors import DataError

DATASET_NAME = "drawings"
"""`Sample.dataset` of drawings."""


def read_drawings(root: Path) -> list[Sample]:
    """Read a folder of `write_drawings`: every lesion type is annotated, every drawing has a grade.

    Raises:
        DataError: if the table is missing, or as `read_folder`.
    """
    if not (root / TABLE_NAME).is_file():
        raise DataError(f"{root / TABLE_NAME}: found no table of drawings; expected one as `deepmtdr draw` writes it")
    return [
        replace(s, name=s.photograph.stem, dataset=DATASET_NAME, patient=s.patient.replace("folder", DATASET_NAME, 1))
        for s in read_folder(root)
    ]
