"""Splits by patient: stratified, reproducible by seed, stored as CSV (Sec. V-A).

Each data set is split separately. Data sets that share patients are taken in the order of their names, so that adding a
data set whose name comes later does not change the split of the earlier ones.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from deepmtdr.csv_tables import add_once, parse_integer, read_table, write_table
from deepmtdr.datasets.sample import Sample
from deepmtdr.errors import DataError, RecipeError
from deepmtdr.labels import DIABETIC_RETINOPATHY, LabelSet

COLUMNS = ("dataset", "name", "patient", "grade", "split")


class SplitRow(NamedTuple):
    """One photograph of a stored split."""

    patient: str
    grade: int | None
    split: str


SplitTable = dict[tuple[str, str], SplitRow]
"""(data set, name) -> row of this photograph."""


def split_by_patient(
    samples: Iterable[Sample],
    fractions: Mapping[str, float],
    seed: int,
    existing: Mapping[tuple[str, str], SplitRow] | None = None,
    labels: LabelSet = DIABETIC_RETINOPATHY,
) -> dict[str, list[Sample]]:
    """Divide photographs into splits such as "train", "validation" and "test", whole patients at a time.

    Official validation and test splits (`Sample.official_split`) stay as they are; the other splits are drawn from the
    official training split. A data set of which only the training split is present is divided like one without official
    splits. Within a data set every stratum (annotated or not, the lesion types shown, the patient's highest grade) is
    divided in the given proportions, to within about one patient. The result depends on a hash of seed and patient, not
    on the order of `samples`.

    Args:
        samples: photographs of one or several data sets.
        fractions: split -> share of the patients; they sum to 1.
        seed: another seed gives another split.
        existing: an earlier split (`read_split`), whose patients stay in their splits.
        labels: the lesion types.

    Returns:
        Split -> its photographs, sorted by data set and name. Every split of `fractions` and `existing` is a key.

    Raises:
        RecipeError: if the fractions are negative or do not sum to 1.
        DataError: if a photograph is given twice, or a patient is in two splits of `existing` or two official splits.
    """
    _check_fractions(fractions)
    samples = _sort_unique(samples)
    split_of = _splits_by_patient((row.patient, row.split) for row in (existing or {}).values())
    for own in _by_dataset(samples):
        official = _official_splits(s for s in own if s.patient not in split_of)
        free = {split: share for split, share in fractions.items() if split not in official.values()}
        total = sum(free.values())
        shares = {split: share / total for split, share in free.items()} if total else {"train": 1.0}
        split_of |= official
        split_of |= _divide(_strata((s for s in own if s.patient not in split_of), labels), shares, seed)
    return _group_by_split(samples, split_of, fractions)


def cross_validation_folds(
    samples: Iterable[Sample], count: int, seed: int, labels: LabelSet = DIABETIC_RETINOPATHY
) -> list[dict[str, list[Sample]]]:
    """k-fold cross-validation by patient, stratified like `split_by_patient`: a patient is in "test" of one fold only.

    Photographs of official validation and test splits are in no fold.

    Args:
        samples: photographs of one or several data sets.
        count: number of folds, at least 2.
        seed: another seed gives other folds.
        labels: the lesion types.

    Returns:
        For each fold "train" and "test", sorted by data set and name.

    Raises:
        RecipeError: if there are fewer than two folds.
        DataError: as `split_by_patient`.
    """
    if count < 2:
        raise RecipeError(f"found {count} folds, expected at least 2")
    samples = _sort_unique(samples)
    fold_of: dict[str, str] = {}
    held_out: set[str] = set()
    for own in _by_dataset(samples):
        held_out |= _official_splits(own).keys() - fold_of.keys()
        strata = _strata((s for s in own if s.patient not in fold_of and s.patient not in held_out), labels)
        fold_of |= _divide(strata, {str(fold): 1 / count for fold in range(count)}, seed)
    folded = [sample for sample in samples if sample.patient in fold_of]
    names = ("train", "test")
    return [
        _group_by_split(folded, {p: "test" if own == str(fold) else "train" for p, own in fold_of.items()}, names)
        for fold in range(count)
    ]


def reduce_supervision(
    samples: Iterable[Sample], share: float, seed: int, labels: LabelSet = DIABETIC_RETINOPATHY
) -> list[Sample]:
    """Keep the lesion masks of a share of the annotated patients, and remove the other masks (Sec. V-D).

    All masks of a patient are kept or removed, in equal shares of the strata of `split_by_patient`. With the same seed,
    the patients of a smaller share are among those of a larger one. Grades stay.

    Raises:
        RecipeError: if the share is not in [0, 1].
    """
    if not 0 <= share <= 1:
        raise RecipeError(f"found pixel-wise supervision of {share}, expected a share from 0 to 1")
    samples = list(samples)
    order = _interleave(_strata((sample for sample in samples if sample.has_masks), labels), seed)
    kept = set(order[: round(share * len(order))])
    return [s if not s.has_masks or s.patient in kept else s.without_masks() for s in samples]


def write_split(path: Path, splits: Mapping[str, Iterable[Sample]]) -> None:
    """Write a split as CSV (dataset, name, patient, grade, split), sorted, in one step.

    Raises:
        DataError: if a patient is in two splits, a photograph is there twice, or the file cannot be written.
    """
    split_of = _splits_by_patient((sample.patient, split) for split, samples in splits.items() for sample in samples)
    rows = [
        (s.dataset, s.name, s.patient, "" if s.grade is None else int(s.grade), split_of[s.patient])
        for s in _sort_unique(sample for samples in splits.values() for sample in samples)
    ]
    try:
        write_table(path, COLUMNS, rows)
    except OSError as error:
        raise DataError(f"{path}: the split cannot be written ({error.strerror})") from error


def read_split(path: Path) -> SplitTable:
    """Read a split that `write_split` wrote.

    Raises:
        DataError: if the file is missing or damaged, has a photograph twice, or a patient in two splits.
    """
    table: SplitTable = {}
    for where, row in read_table(path, COLUMNS, names=("dataset", "name", "patient", "split")):
        if not (row["patient"] and row["split"]):
            raise DataError(f"{where}: expected a patient and a split, found an empty cell")
        read = SplitRow(row["patient"], _parse_grade(row["grade"], where), row["split"])
        add_once(table, (row["dataset"], row["name"]), read, where)
    _splits_by_patient((row.patient, row.split) for row in table.values())
    return table


def _parse_grade(cell: str, where: str) -> int | None:
    """A grade of any label set; `apply_split` compares it with the photograph's."""
    try:
        grade = parse_integer(cell) if cell else None
    except ValueError:
        grade = -1
    if grade is not None and grade < 0:
        raise DataError(f"{where}: expected a grade such as 0, or nothing, found {cell!r}")
    return grade


def apply_split(samples: Iterable[Sample], table: Mapping[tuple[str, str], SplitRow]) -> dict[str, list[Sample]]:
    """Divide photographs exactly as a stored split; rows of data sets that are not given are ignored.

    A photograph of an official validation or test split that is not in the table stays in that split. To keep a stored
    split and add further photographs to it, pass it to `split_by_patient` as `existing`.

    Raises:
        DataError: if the photographs of a data set are not those of the table, patient or grade differ, or a patient
            is in two splits.
    """
    _splits_by_patient((row.patient, row.split) for row in table.values())
    samples = _sort_unique(samples)
    splits: dict[str, list[Sample]] = {row.split: [] for row in table.values()}
    unlisted: list[Sample] = []
    for sample in samples:
        row = table.get((sample.dataset, sample.name))
        if row is None and sample.official_split in ("validation", "test"):
            unlisted.append(sample)
        else:
            splits[_check_row(sample, row).split].append(sample)
    _check_all_given(samples, table)
    for sample in unlisted:
        splits.setdefault(str(sample.official_split), []).append(sample)
    _splits_by_patient((sample.patient, split) for split, own in splits.items() for sample in own)
    return splits


def _check_row(sample: Sample, row: SplitRow | None) -> SplitRow:
    """The photograph's row, with the same patient and grade."""
    if row is None:
        raise DataError(f"{sample.photograph}: {sample.dataset}/{sample.name} is not in the split")
    if (row.patient, row.grade) != (sample.patient, sample.grade):
        found = f"patient {sample.patient}, grade {sample.grade}"
        expected = f"patient {row.patient}, grade {row.grade}"
        raise DataError(f"{sample.photograph}: found {found}; the split expects {expected}")
    return row


def _check_all_given(samples: Iterable[Sample], table: Mapping[tuple[str, str], SplitRow]) -> None:
    given = {(sample.dataset, sample.name) for sample in samples}
    datasets = {dataset for dataset, _ in given}
    if absent := sorted(key for key in table if key[0] in datasets and key not in given):
        first = "/".join(absent[0])
        raise DataError(f"{len(absent)} photographs of the split are missing in the data set, the first is {first}")


def _by_dataset(samples: Iterable[Sample]) -> list[list[Sample]]:
    return [list(own) for _, own in itertools.groupby(samples, key=lambda sample: sample.dataset)]


def _official_splits(samples: Iterable[Sample]) -> dict[str, str]:
    """Patient -> official validation or test split."""
    split_of = _splits_by_patient(
        (sample.patient, sample.official_split) for sample in samples if sample.official_split is not None
    )
    return {patient: split for patient, split in split_of.items() if split != "train"}


def _group_by_split(
    samples: Iterable[Sample], split_of: Mapping[str, str], first: Iterable[str]
) -> dict[str, list[Sample]]:
    """Split -> its photographs; the splits in `first` come first."""
    splits: dict[str, list[Sample]] = {split: [] for split in (*first, *sorted(set(split_of.values())))}
    for sample in samples:
        splits[split_of[sample.patient]].append(sample)
    return splits


Stratum = tuple[bool, tuple[bool, ...], int]
"""Whether nothing is annotated; which lesion types and union labels a mask shows; the highest grade, -1 without one."""


def _strata(samples: Iterable[Sample], labels: LabelSet) -> dict[str, Stratum]:
    """Patient -> stratum, over all photographs of the patient."""
    strata: dict[str, Stratum] = {}
    samples = list(samples)
    codes = (*labels.codes, *sorted({union for sample in samples for union in sample.union_masks}))
    for sample in samples:
        bare, shown, grade = strata.get(sample.patient, (True, (False,) * len(codes), -1))
        masks = {**sample.lesion_masks, **sample.union_masks}
        own = [masks.get(code) is not None for code in codes]
        shown = tuple(before or now for before, now in zip(shown, own, strict=True))
        grade = max(grade, -1 if sample.grade is None else int(sample.grade))
        strata[sample.patient] = (bare and not sample.has_masks, shown, grade)
    return strata


def _divide(strata: Mapping[str, Stratum], fractions: Mapping[str, float], seed: int) -> dict[str, str]:
    """Patient -> split. In random order, each patient is assigned to the split that is furthest below its share."""
    split_of: dict[str, str] = {}
    filled: Counter[str] = Counter()
    for patient in sorted(strata, key=lambda patient: (strata[patient], _draw(seed, patient))):
        lacking = {split: share * (len(split_of) + 1) - filled[split] for split, share in fractions.items()}
        split = max(lacking, key=lambda split: (lacking[split], fractions[split]))
        split_of[patient] = split
        filled[split] += 1
    return split_of


def _interleave(strata: Mapping[str, Stratum], seed: int) -> list[str]:
    """Order the patients so that, for every n, the first n contain each stratum in about its overall proportion."""
    sizes, taken = Counter(strata.values()), Counter[Stratum]()
    at: dict[str, float] = {}
    for patient in sorted(strata, key=lambda patient: _draw(seed, patient)):
        taken[strata[patient]] += 1
        at[patient] = (taken[strata[patient]] - 0.5) / sizes[strata[patient]]
    return sorted(at, key=lambda patient: (at[patient], _draw(seed, patient)))


def _draw(seed: int, patient: str) -> bytes:
    return hashlib.sha256(f"{seed}/{patient}".encode()).digest()


def _splits_by_patient(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Patient -> split. A patient in two splits is an error."""
    split_of: dict[str, str] = {}
    for patient, split in pairs:
        if split_of.setdefault(patient, split) != split:
            raise DataError(f"patient {patient} is in two splits, {split_of[patient]} and {split}; expected one")
    return split_of


def _sort_unique(samples: Iterable[Sample]) -> list[Sample]:
    """Sort the photographs by data set and name. A photograph that is given twice is an error."""
    ordered = sorted(samples, key=lambda sample: (sample.dataset, sample.name))
    for one, next_one in itertools.pairwise(ordered):
        if (one.dataset, one.name) == (next_one.dataset, next_one.name):
            raise DataError(
                f"{one.dataset}/{one.name} twice: {one.photograph} and {next_one.photograph}; expected it once"
            )
    return ordered


def _check_fractions(fractions: Mapping[str, float]) -> None:
    if any(share < 0 for share in fractions.values()) or not math.isclose(sum(fractions.values()), 1, abs_tol=1e-9):
        raise RecipeError(
            f"found the shares {dict(fractions)} of the splits, expected shares of 0 or more that sum to 1"
        )
