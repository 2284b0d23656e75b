"""The data sets by name (Sec. V-A). To add one, write its reader and an entry of `DATASETS`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from deepmtdr.datasets import (
    aptos,
    ddr,
    diaretdb0,
    diaretdb1,
    drawings,
    drive,
    e_ophtha,
    eyepacs,
    folder,
    heimed,
    idrid,
    messidor2,
    real_lr,
    srahim,
)
from deepmtdr.datasets.layout import DatasetPart, LabelCounts, check_labels, count_labels
from deepmtdr.datasets.prepared import is_prepared, read_prepared
from deepmtdr.datasets.sample import Sample
from deepmtdr.errors import DataError
from deepmtdr.labels import DIABETIC_RETINOPATHY, LabelSet


class DataSet(NamedTuple):
    """A data set's reader and its official parts."""

    read: Callable[[Path], list[Sample]]
    """Function that reads the set from its folder, each photograph once; parts that are absent are left out."""
    parts: tuple[DatasetPart, ...]
    """The official parts; empty for a set that is not published."""


DATASETS: dict[str, DataSet] = {
    "idrid": DataSet(idrid.read_idrid, idrid.PARTS),
    "eyepacs": DataSet(eyepacs.read_eyepacs, eyepacs.PARTS),
    "eyepacs256_equalised": DataSet(eyepacs.read_eyepacs256_equalised, ()),
    "aptos": DataSet(aptos.read_aptos, aptos.PARTS),
    "diaretdb0": DataSet(diaretdb0.read_diaretdb0, diaretdb0.PARTS),
    "drive": DataSet(drive.read_drive, drive.PARTS),
    "srahim": DataSet(srahim.read_srahim, srahim.PARTS),
    "heimed": DataSet(heimed.read_heimed, heimed.PARTS),
    "ddr": DataSet(ddr.read_ddr, ddr.PARTS),
    "messidor2": DataSet(messidor2.read_messidor2, messidor2.PARTS),
    "diaretdb1": DataSet(diaretdb1.read_diaretdb1, diaretdb1.PARTS),
    "e_ophtha": DataSet(e_ophtha.read_e_ophtha, e_ophtha.PARTS),
    "real_lr": DataSet(real_lr.read_real_lr, real_lr.PARTS),
    "drawings": DataSet(drawings.read_drawings, ()),
    "folder": DataSet(folder.read_folder, ()),
}
"""Name, which is also `Sample.dataset` -> the set."""


def read_datasets(roots: Mapping[str, Path], labels: LabelSet = DIABETIC_RETINOPATHY) -> list[Sample]:
    """Read several data sets, in the order in which they are named.

    Args:
        roots: name of a data set -> its folder, in the original layout or as `prepare` wrote it.
        labels: the lesion types and grades that the data sets must have.

    Raises:
        DataError: if a name is unknown, a data set has other labels, or its reader finds an error.
    """
    for name in roots:
        _find(name)
    return [sample for name, root in roots.items() for sample in _read(name, root, labels)]


def _read(name: str, root: Path, labels: LabelSet) -> list[Sample]:
    if is_prepared(root):
        prepared = read_prepared(root)
        check_labels(f"{root}: prepared", prepared.labels, labels)
        return prepared.samples()
    if name == "folder":
        return folder.read_folder(root, labels)
    check_labels(f"data set {name}", DIABETIC_RETINOPATHY, labels)
    return _find(name).read(root)


def count_parts(name: str, root: Path) -> list[tuple[DatasetPart, LabelCounts | None]]:
    """Count the official parts of a data set, to be compared with `DatasetPart.expected`; a partial copy has fewer.

    Args:
        name: name of the data set.
        root: its folder.

    Returns:
        Each part with its counts; None: the part is absent.

    Raises:
        DataError: if the name is unknown, or the data set's reader finds an error.
    """
    return [
        (part, count_labels(part.read(root)) if (root / part.folder).exists() else None) for part in _find(name).parts
    ]


def _find(name: str) -> DataSet:
    if name not in DATASETS:
        raise DataError(f"unknown data set {name!r}; known are {', '.join(DATASETS)}")
    return DATASETS[name]
