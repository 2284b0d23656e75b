"""The public data sets by name: one dictionary makes a new set known (Sec. V-A)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from deepmtdr.data import aptos, diaretdb0, drive, eyepacs, idrid
from deepmtdr.data.layout import Counts
from deepmtdr.data.sample import Sample
from deepmtdr.errors import DataError

DATASETS: dict[str, Callable[[Path], list[Sample]]] = {
    "idrid": idrid.read_idrid,
    "eyepacs": eyepacs.read_eyepacs,
    "eyepacs256_equalised": eyepacs.read_eyepacs256_equalised,
    "aptos": aptos.read_aptos,
    "diaretdb0": diaretdb0.read_diaretdb0,
    "drive": drive.read_drive,
}
"""Name -> function that reads the set's training part from its folder; the name is `Sample.dataset`."""

EXPECTED: dict[str, tuple[Counts, ...]] = {
    "idrid": (idrid.EXPECTED_SEGMENTATION, idrid.EXPECTED_GRADING),
    "eyepacs": (eyepacs.EXPECTED,),
    "aptos": (aptos.EXPECTED,),
    "diaretdb0": (diaretdb0.EXPECTED,),
    "drive": (drive.EXPECTED,),
}
"""Official counts of the training parts, one for each layout; a partial copy has fewer and is no error."""


def read_datasets(roots: Mapping[str, Path]) -> list[Sample]:
    """Several data sets together, in the order in which they are named.

    Args:
        roots: name of a data set -> the folder in which it lies.

    Raises:
        DataError: if a name is unknown, or whatever the data set's reader finds wrong.
    """
    for name in roots:
        if name not in DATASETS:
            raise DataError(f"no data set is known as {name!r}; known are {', '.join(DATASETS)}")
    return [sample for name, root in roots.items() for sample in DATASETS[name](root)]
