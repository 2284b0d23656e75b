"""Make the split of the photographs for the shipped weights: train, validation and test, by patient.

    python release/make_split.py DATA

writes `src/deepmtdr/recipes/v1.split.csv`. DATA has a folder for each data set, under its name. The same photographs
give the same file. The rules are in `SHARES`; in addition

- the photographs of the test split of `v0.split.csv` stay in the test split;
- patients of IDRiD with lesion masks are divided apart from the others, so that validation has enough of them;
- patients of EyePACS who are also in its equalised copy are in one split in both; the other patients of the copy are
  in the training split.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from deepmtdr.datasets.catalogue import read_datasets
from deepmtdr.datasets.sample import Sample
from deepmtdr.datasets.split import SplitRow, SplitTable, apply_split, read_split, split_by_patient, write_split

RECIPES = Path(__file__).parent.parent / "src" / "deepmtdr" / "recipes"
SEED = 3
"""Chosen among eight seeds, by the counts of the rare grades alone: before any training."""

KEPT_TEST = {"train": 0.85, "validation": 0.15}
SHARES: dict[str, Mapping[str, float]] = {
    "idrid": KEPT_TEST,
    "eyepacs": KEPT_TEST,
    "diaretdb0": KEPT_TEST,
    "srahim": {"train": 0.6, "validation": 0.15, "test": 0.25},
    "heimed": {"train": 0.6, "validation": 0.1, "test": 0.3},
    "drive": {"train": 1.0},
    "eyepacs256_equalised": {"train": 1.0},
}
"""Data set -> shares of its patients; without "test" the test split is that of `v0.split.csv`."""

WITH_MASKS = {"train": 0.82, "validation": 0.18}
"""Shares of the patients of IDRiD with lesion masks outside the test split: about eight for validation."""


def make_split(samples: Iterable[Sample], earlier: SplitTable) -> dict[tuple[str, str], SplitRow]:
    """Return the split of each photograph.

    Args:
        samples: photographs of the data sets of `SHARES`.
        earlier: the split whose test photographs stay in the test split.
    """
    rows = {key: row for key, row in earlier.items() if row.split == "test"}
    samples = list(samples)
    for dataset, shares in SHARES.items():
        own = [sample for sample in samples if sample.dataset == dataset]
        with_masks = {sample.patient for sample in own if sample.lesion_masks}
        rows |= _rows([sample for sample in own if sample.patient in with_masks], WITH_MASKS, rows)
        rows |= _rows([sample for sample in own if sample.patient not in with_masks], shares, rows)
    return rows


def _rows(samples: list[Sample], shares: Mapping[str, float], existing: SplitTable) -> SplitTable:
    splits = split_by_patient(samples, shares, SEED, existing)
    return {(s.dataset, s.name): SplitRow(s.patient, s.grade, split) for split, own in splits.items() for s in own}


def main(data: Path) -> None:
    """Write the split, and print how many photographs of each data set and grade each split has."""
    samples = read_datasets({name: data / name for name in SHARES})
    splits = apply_split(samples, make_split(samples, read_split(RECIPES / "v0.split.csv")))
    write_split(RECIPES / "v1.split.csv", splits)
    print("data set, split: patients, photographs (grades 0-4; without a grade), masks of each type")
    for dataset in SHARES:
        for split in ("train", "validation", "test"):
            own = [sample for sample in splits.get(split, ()) if sample.dataset == dataset]
            grades = Counter(sample.grade for sample in own)
            counts = " ".join(str(grades[grade]) for grade in range(5))
            patients = len({sample.patient for sample in own})
            masks = Counter(code for s in own for code, m in {**s.lesion_masks, **s.union_masks}.items() if m)
            print(f"{dataset}, {split}: {patients}, {len(own)} ({counts}; {grades[None]}), masks {dict(masks)}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
