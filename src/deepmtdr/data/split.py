"""Splits by patient, stratified, deterministic by seed, and written down as CSV (Sec. V-A).

Each data set is divided by itself, and data sets that share patients are taken in the order of their names: a set that
is added later in that order moves no photograph of the others.
"""

from __future__ import annotations

import csv
import hashlib
import itertools
import math
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from deepmtdr.data.layout import parse_grade, read_table
from deepmtdr.data.sample import Sample
from deepmtdr.errors import DataError, RecipeError
from deepmtdr.terms import Grade

COLUMNS = ("dataset", "name", "patient", "grade", "split")


class SplitRow(NamedTuple):
    """Where one photograph stands, as written down."""

    patient: str
    grade: Grade | None
    side: str


SplitTable = dict[tuple[str, str], SplitRow]
"""(data set, name) -> where this photograph stands."""


def split(
    samples: Iterable[Sample],
    fractions: Mapping[str, float],
    seed: int,
    keep: Mapping[tuple[str, str], SplitRow] | None = None,
) -> dict[str, list[Sample]]:
    """Divide photographs into sides such as "train", "validation" and "test", whole patients at a time.

    Within a data set every stratum (annotated or not, the patient's highest grade) is divided in the given proportions
    to within one patient or so. Who goes where hangs on a hash of seed and patient, not on the order of `samples`.

    Args:
        samples: photographs of one or several data sets.
        fractions: side -> share of the patients; they sum to 1.
        seed: another seed, another split.
        keep: a split made before (`read_split`): its patients stay where they are.

    Returns:
        Side -> its photographs, sorted by data set and name; every side of `fractions` and of `keep` is a key.

    Raises:
        RecipeError: if the fractions are negative or do not sum to 1.
        DataError: if a photograph is given twice, or `keep` has a patient on two sides.
    """
    _check_fractions(fractions)
    samples = _sorted_once(samples)
    side_of = _sides_by_patient((row.patient, row.side) for row in (keep or {}).values())
    by_dataset: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        by_dataset[sample.dataset].append(sample)
    for dataset in sorted(by_dataset):
        side_of |= _divide(_strata(s for s in by_dataset[dataset] if s.patient not in side_of), fractions, seed)
    sides: dict[str, list[Sample]] = {
        side: [] for side in [*fractions, *sorted(set(side_of.values()) - set(fractions))]
    }
    for sample in samples:
        sides[side_of[sample.patient]].append(sample)
    return sides


def write_split(path: Path, sides: Mapping[str, Iterable[Sample]]) -> None:
    """Write a split as CSV (dataset, name, patient, grade, split), sorted, all or nothing.

    Raises:
        DataError: if a patient stands on two sides, a photograph is there twice, or the file cannot be written.
    """
    side_of = _sides_by_patient((sample.patient, side) for side, samples in sides.items() for sample in samples)
    samples = _sorted_once(sample for samples in sides.values() for sample in samples)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("w", encoding="utf-8", newline="") as file:
            rows = csv.writer(file, lineterminator="\n")
            rows.writerow(COLUMNS)
            for s in samples:
                grade = "" if s.grade is None else int(s.grade)
                rows.writerow((s.dataset, s.name, s.patient, grade, side_of[s.patient]))
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
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
    _sides_by_patient((row.patient, row.side) for row in table.values())
    return table


def apply_split(samples: Iterable[Sample], table: Mapping[tuple[str, str], SplitRow]) -> dict[str, list[Sample]]:
    """Divide photographs exactly as written down; rows of data sets that are not given are left out.

    To keep a written split and place further photographs too, give it to `split` as `keep`.

    Raises:
        DataError: if the photographs of a data set and its rows are not the same, patient or grade differ, or a patient
            stands on two sides.
    """
    _sides_by_patient((row.patient, row.side) for row in table.values())
    samples = _sorted_once(samples)
    datasets = {sample.dataset for sample in samples}
    sides: dict[str, list[Sample]] = {row.side: [] for row in table.values()}
    for sample in samples:
        row = table.get((sample.dataset, sample.name))
        if row is None:
            raise DataError(f"{sample.photograph}: {sample.dataset}/{sample.name} does not stand in the split")
        if (row.patient, row.grade) != (sample.patient, sample.grade):
            found = f"patient {sample.patient}, grade {sample.grade}"
            expected = f"patient {row.patient}, grade {row.grade}"
            raise DataError(f"{sample.photograph}: found {found}; the split expects {expected}")
        sides[row.side].append(sample)
    listed = {key for key in table if key[0] in datasets}
    if absent := sorted(listed - {(sample.dataset, sample.name) for sample in samples}):
        first = "/".join(absent[0])
        raise DataError(f"the split names {len(absent)} photographs that were not given, the first is {first}")
    return sides


def _strata(samples: Iterable[Sample]) -> dict[str, tuple[bool, int]]:
    """Patient -> stratum: any photograph without annotation comes after those with; highest grade, -1 without one."""
    strata: dict[str, tuple[bool, int]] = {}
    for sample in samples:
        unannotated, grade = strata.get(sample.patient, (True, -1))
        grade = max(grade, -1 if sample.grade is None else int(sample.grade))
        strata[sample.patient] = (unannotated and not any(sample.annotated), grade)
    return strata


def _divide(strata: Mapping[str, tuple[bool, int]], fractions: Mapping[str, float], seed: int) -> dict[str, str]:
    """Patient -> side: along the strata, shuffled inside each, every patient goes to the side that is most in want."""
    side_of: dict[str, str] = {}
    filled: Counter[str] = Counter()
    for patient in sorted(strata, key=lambda patient: (strata[patient], _draw(seed, patient))):
        wanting = {side: share * (len(side_of) + 1) - filled[side] for side, share in fractions.items()}
        side = max(wanting, key=lambda side: (wanting[side], fractions[side]))
        side_of[patient] = side
        filled[side] += 1
    return side_of


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
