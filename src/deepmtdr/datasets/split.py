"""Splits by patient, stratified, deterministic by seed, and written down as CSV (Sec. V-A).

Each data set is divided by itself, and data sets that share patients are taken in the order of their names: a set that
is added later in that order moves no photograph of the others.
"""

from __future__ import annotations

import csv
import hashlib
import io
import itertools
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from deepmtdr.datasets.layout import parse_grade, read_table
from deepmtdr.datasets.sample import Sample
from deepmtdr.errors import DataError, RecipeError
from deepmtdr.files import write_atomically
from deepmtdr.terms import Grade, Lesion

COLUMNS = ("dataset", "name", "patient", "grade", "split")


class SplitRow(NamedTuple):
    """Where one photograph stands, as written down."""

    patient: str
    grade: Grade | None
    split: str


SplitTable = dict[tuple[str, str], SplitRow]
"""(data set, name) -> where this photograph stands."""


def split_by_patient(
    samples: Iterable[Sample],
    fractions: Mapping[str, float],
    seed: int,
    existing: Mapping[tuple[str, str], SplitRow] | None = None,
) -> dict[str, list[Sample]]:
    """Divide photographs into sides such as "train", "validation" and "test", whole patients at a time.

    Where the makers of a set divided it (`Sample.official_split`), their sides stay as they are, and the other sides are cut out
    of their training side; so a copy with the training side alone counts as undivided. Within a data set every stratum
    (annotated or not, the lesion types shown, the patient's highest grade) is divided in the given proportions, to
    within one patient or so. Who goes where hangs on a hash of seed and patient, not on the order of `samples`.

    Args:
        samples: photographs of one or several data sets.
        fractions: side -> share of the patients; they sum to 1.
        seed: another seed, another split.
        existing: a split made before (`read_split`): its patients stay where they are.

    Returns:
        Side -> its photographs, sorted by data set and name; every side of `fractions` and of `existing` is a key.

    Raises:
        RecipeError: if the fractions are negative or do not sum to 1.
        DataError: if a photograph is given twice, or a patient stands on two sides of `existing` or of an official split.
    """
    _check_fractions(fractions)
    samples = _sorted_once(samples)
    side_of = _sides_by_patient((row.patient, row.split) for row in (existing or {}).values())
    for own in _by_dataset(samples):
        official = _official_sides(s for s in own if s.patient not in side_of)
        free = {side: share for side, share in fractions.items() if side not in official.values()}
        whole = sum(free.values())
        shares = {side: share / whole for side, share in free.items()} if whole else {"train": 1.0}
        side_of |= official
        side_of |= _divide(_strata(s for s in own if s.patient not in side_of), shares, seed)
    return _sides(samples, side_of, fractions)


def cross_validation_folds(samples: Iterable[Sample], count: int, seed: int) -> list[dict[str, list[Sample]]]:
    """k-fold cross-validation by patient, stratified as `split`: each patient is in "test" once, in "train" otherwise.

    The folds are cut out of what is not the makers' own validation or test side; those photographs are in no fold.

    Args:
        samples: photographs of one or several data sets.
        count: how many folds, at least 2.
        seed: another seed, other folds.

    Returns:
        For each fold "train" and "test", sorted by data set and name.

    Raises:
        RecipeError: if there are fewer than two folds.
        DataError: as `split`.
    """
    if count < 2:
        raise RecipeError(f"{count} folds, expected at least 2")
    samples = _sorted_once(samples)
    fold_of: dict[str, str] = {}
    apart: set[str] = set()
    for own in _by_dataset(samples):
        apart |= _official_sides(own).keys() - fold_of.keys()
        strata = _strata(s for s in own if s.patient not in fold_of and s.patient not in apart)
        fold_of |= _divide(strata, {str(fold): 1 / count for fold in range(count)}, seed)
    folded = [sample for sample in samples if sample.patient in fold_of]
    return [
        _sides(folded, {p: "test" if own == str(fold) else "train" for p, own in fold_of.items()}, ("train", "test"))
        for fold in range(count)
    ]


def reduce_supervision(samples: Iterable[Sample], share: float, seed: int) -> list[Sample]:
    """Keep the masks of a share of the annotated photographs, forget the others' (Sec. V-D: 100, 75, 50 and 25 %).

    Whole patients keep or lose their masks, along the strata of `split`; with one seed a smaller share is part of a
    larger one. Grades stay.

    Raises:
        RecipeError: if the share is not in [0, 1].
    """
    if not 0 <= share <= 1:
        raise RecipeError(f"pixel-wise supervision of {share}, expected a share from 0 to 1")
    samples = list(samples)
    order = _interleaved(_strata(sample for sample in samples if sample.lesion_masks), seed)
    kept = set(order[: round(share * len(order))])
    return [s if not s.lesion_masks or s.patient in kept else replace(s, lesion_masks={}) for s in samples]


def write_split(path: Path, sides: Mapping[str, Iterable[Sample]]) -> None:
    """Write a split as CSV (dataset, name, patient, grade, split), sorted, all or nothing.

    Raises:
        DataError: if a patient stands on two sides, a photograph is there twice, or the file cannot be written.
    """
    side_of = _sides_by_patient((sample.patient, side) for side, samples in sides.items() for sample in samples)
    samples = _sorted_once(sample for samples in sides.values() for sample in samples)
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(COLUMNS)
    for s in samples:
        rows.writerow((s.dataset, s.name, s.patient, "" if s.grade is None else int(s.grade), side_of[s.patient]))
    try:
        write_atomically(path, text.getvalue().encode())
    except OSError as error:
        raise DataError(f"{path}: the split cannot be written ({error.strerror})") from error


def read_split(path: Path) -> SplitTable:
    """Read what `write_split` wrote.

    Raises:
        DataError: if the file is missing or damaged, names a photograph twice, or has a patient on two sides.
    """
    table: SplitTable = {}
    for where, row in read_table(path, COLUMNS):
        key = row["dataset"], row["name"]
        if key in table:
            raise DataError(f"{where}: {'/'.join(key)} for the second time; expected one row for each photograph")
        if not (row["patient"] and row["split"]):
            raise DataError(f"{where}: expected a patient and a split, found an empty cell")
        grade = parse_grade(row["grade"], where) if row["grade"] else None
        table[key] = SplitRow(row["patient"], grade, row["split"])
    _sides_by_patient((row.patient, row.split) for row in table.values())
    return table


def apply_split(samples: Iterable[Sample], table: Mapping[tuple[str, str], SplitRow]) -> dict[str, list[Sample]]:
    """Divide photographs exactly as written down; rows of data sets that are not given are left out.

    A photograph of the makers' own validation or test side that the table does not name stays on that side.

    To keep a written split and place further photographs too, give it to `split` as `existing`.

    Raises:
        DataError: if the photographs of a data set and its rows are not the same, patient or grade differ, or a patient
            stands on two sides.
    """
    _sides_by_patient((row.patient, row.split) for row in table.values())
    samples = _sorted_once(samples)
    datasets = {sample.dataset for sample in samples}
    sides: dict[str, list[Sample]] = {row.split: [] for row in table.values()}
    apart: list[Sample] = []
    for sample in samples:
        row = table.get((sample.dataset, sample.name))
        if row is None and sample.official_split in ("validation", "test"):
            apart.append(sample)
            continue
        if row is None:
            raise DataError(f"{sample.photograph}: {sample.dataset}/{sample.name} does not stand in the split")
        if (row.patient, row.grade) != (sample.patient, sample.grade):
            found = f"patient {sample.patient}, grade {sample.grade}"
            expected = f"patient {row.patient}, grade {row.grade}"
            raise DataError(f"{sample.photograph}: found {found}; the split expects {expected}")
        sides[row.split].append(sample)
    listed = {key for key in table if key[0] in datasets}
    if absent := sorted(listed - {(sample.dataset, sample.name) for sample in samples}):
        first = "/".join(absent[0])
        raise DataError(f"the split names {len(absent)} photographs that were not given, the first is {first}")
    for sample in apart:
        sides.setdefault(str(sample.official_split), []).append(sample)
    _sides_by_patient((sample.patient, side) for side, own in sides.items() for sample in own)
    return sides


def _by_dataset(samples: Iterable[Sample]) -> list[list[Sample]]:
    return [list(own) for _, own in itertools.groupby(samples, key=lambda sample: sample.dataset)]


def _official_sides(samples: Iterable[Sample]) -> dict[str, str]:
    """Patient -> validation or test side, where the makers of the data set put the patient there."""
    side_of = _sides_by_patient(
        (sample.patient, sample.official_split) for sample in samples if sample.official_split is not None
    )
    return {patient: side for patient, side in side_of.items() if side != "train"}


def _sides(samples: Iterable[Sample], side_of: Mapping[str, str], first: Iterable[str]) -> dict[str, list[Sample]]:
    """Side -> its photographs, the sides in `first` before any others."""
    sides: dict[str, list[Sample]] = {side: [] for side in (*first, *sorted(set(side_of.values())))}
    for sample in samples:
        sides[side_of[sample.patient]].append(sample)
    return sides


Stratum = tuple[bool, tuple[bool, ...], int]
"""Without annotation or with; which lesion types a mask shows; the highest grade, -1 without one."""


def _strata(samples: Iterable[Sample]) -> dict[str, Stratum]:
    """Patient -> stratum, over all photographs of the patient."""
    strata: dict[str, Stratum] = {}
    for sample in samples:
        bare, shown, grade = strata.get(sample.patient, (True, (False,) * len(Lesion), -1))
        shown = tuple(shown[lesion] or sample.lesion_masks.get(lesion) is not None for lesion in Lesion)
        grade = max(grade, -1 if sample.grade is None else int(sample.grade))
        strata[sample.patient] = (bare and not any(sample.annotated), shown, grade)
    return strata


def _divide(strata: Mapping[str, Stratum], fractions: Mapping[str, float], seed: int) -> dict[str, str]:
    """Patient -> side: along the strata, shuffled inside each, every patient goes to the side that is most in want."""
    side_of: dict[str, str] = {}
    filled: Counter[str] = Counter()
    for patient in sorted(strata, key=lambda patient: (strata[patient], _draw(seed, patient))):
        wanting = {side: share * (len(side_of) + 1) - filled[side] for side, share in fractions.items()}
        side = max(wanting, key=lambda side: (wanting[side], fractions[side]))
        side_of[patient] = side
        filled[side] += 1
    return side_of


def _interleaved(strata: Mapping[str, Stratum], seed: int) -> list[str]:
    """Patients in an order of which every beginning has the strata in about their proportions."""
    sizes, seen = Counter(strata.values()), Counter[Stratum]()
    at: dict[str, float] = {}
    for patient in sorted(strata, key=lambda patient: _draw(seed, patient)):
        seen[strata[patient]] += 1
        at[patient] = (seen[strata[patient]] - 0.5) / sizes[strata[patient]]
    return sorted(at, key=lambda patient: (at[patient], _draw(seed, patient)))


def _draw(seed: int, patient: str) -> bytes:
    return hashlib.sha256(f"{seed}/{patient}".encode()).digest()


def _sides_by_patient(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Patient -> side, sure that no patient stands on two."""
    side_of: dict[str, str] = {}
    for patient, side in pairs:
        if side_of.setdefault(patient, side) != side:
            raise DataError(f"patient {patient} stands on two sides, {side_of[patient]} and {side}; expected one")
    return side_of


def _sorted_once(samples: Iterable[Sample]) -> list[Sample]:
    """Sorted by data set and name, sure that none is there twice."""
    ordered = sorted(samples, key=lambda sample: (sample.dataset, sample.name))
    for one, next_one in itertools.pairwise(ordered):
        if (one.dataset, one.name) == (next_one.dataset, next_one.name):
            raise DataError(
                f"{one.dataset}/{one.name} twice: {one.photograph} and {next_one.photograph}; expected once"
            )
    return ordered


def _check_fractions(fractions: Mapping[str, float]) -> None:
    if any(share < 0 for share in fractions.values()) or not math.isclose(sum(fractions.values()), 1, abs_tol=1e-9):
        raise RecipeError(f"expected fractions from 0 on that sum to 1, found {dict(fractions)}")
