"""The public data sets by name: one dictionary makes a new set known (Sec. V-A)."""

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
    idrid,
    messidor2,
    real_lr,
)
from deepmtdr.datasets.layout import DatasetPart, LabelCounts, count_labels
from deepmtdr.datasets.prepared import is_prepared, read_prepared
from deepmtdr.datasets.sample import Sample
from deepmtdr.errors import DataError


class DataSet(NamedTuple):
    """How a data set is read, and what its makers say that it holds."""

    read: Callable[[Path], list[Sample]]
    """Reads whatever is there of the set from its folder, each photograph once."""
    parts: tuple[DatasetPart, ...]
    """Its official parts; none of a set that nobody published."""


DATASETS: dict[str, DataSet] = {
    "idrid": DataSet(idrid.read_idrid, idrid.PARTS),
    "eyepacs": DataSet(eyepacs.read_eyepacs, eyepacs.PARTS),
    "eyepacs256_equalised": DataSet(eyepacs.read_eyepacs256_equalised, ()),
    "aptos": DataSet(aptos.read_aptos, aptos.PARTS),
    "diaretdb0": DataSet(diaretdb0.read_diaretdb0, diaretdb0.PARTS),
    "drive": DataSet(drive.read_drive, drive.PARTS),
    "ddr": DataSet(ddr.read_ddr, ddr.PARTS),
    "messidor2": DataSet(messidor2.read_messidor2, messidor2.PARTS),
    "diaretdb1": DataSet(diaretdb1.read_diaretdb1, diaretdb1.PARTS),
    "e_ophtha": DataSet(e_ophtha.read_e_ophtha, e_ophtha.PARTS),
    "real_lr": DataSet(real_lr.read_real_lr, real_lr.PARTS),
    "drawings": DataSet(drawings.read_drawings, ()),
    "folder": DataSet(folder.read_folder, ()),
}
"""Name, which is also `Sample.dataset` -> how the set is read."""


def read_datasets(roots: Mapping[str, Path]) -> list[Sample]:
    """Several data sets together, in the order in which they are named.

    Args:
        roots: name of a data set -> the folder in which it lies, as its makers give it or as `prepare` left it.

    Raises:
        DataError: if a name is unknown, or whatever the data set's reader finds wrong.
    """
    for name in roots:
        _known(name)
    read = (
        read_prepared(root).samples() if is_prepared(root) else _known(name).read(root) for name, root in roots.items()
    )
    return [sample for samples in read for sample in samples]


def count_parts(name: str, root: Path) -> list[tuple[DatasetPart, LabelCounts | None]]:
    """Count the official parts of a data set, to be laid beside `DatasetPart.expected`; a partial copy has fewer.

    Args:
        name: of the data set.
        root: the folder in which it lies.

    Returns:
        Each part with what is there of it; None: the part is not there.

    Raises:
        DataError: if the name is unknown, or whatever the data set's reader finds wrong.
    """
    return [
        (part, count_labels(part.read(root)) if (root / part.folder).exists() else None) for part in _known(name).parts
    ]


def _known(name: str) -> DataSet:
    if name not in DATASETS:
        raise DataError(f"no data set is known as {name!r}; known are {', '.join(DATASETS)}")
    return DATASETS[name]
