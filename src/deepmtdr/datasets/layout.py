"""Functions that the readers of the public data sets share: find files, read labels, count them (Sec. V-A)."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from deepmtdr.csv_tables import add_once, parse_integer, read_table
from deepmtdr.datasets.sample import Sample
from deepmtdr.errors import DataError
from deepmtdr.labels import DIABETIC_RETINOPATHY, LabelSet
from deepmtdr.photographs.formats import PHOTOGRAPH_SUFFIXES
from deepmtdr.terms import Laterality

_EYE_WORDS: dict[str, Laterality] = {
    "l": "L",
    "left": "L",
    "os": "L",
    "og": "L",
    "r": "R",
    "right": "R",
    "od": "R",
}
"""Words for the eyes: English, Latin (oculus sinister, dexter) and French (œil gauche, droit)."""


class LabelCounts(NamedTuple):
    """How many photographs a data set has, and how many of them have which label."""

    photographs: int
    grades: tuple[int, ...] | None = None
    """Photographs of each grade, from grade 0 on; None: not graded."""
    masks: tuple[int, ...] | None = None
    """Photographs with a mask of each lesion type, in channel order; None: no lesions annotated."""
    ungradable: int | None = None
    """Photographs judged too poor to be graded; None: there are none."""
    unions: dict[str, int] | None = None
    """Union label (`Sample.union_masks`) -> photographs with a mask of it; None: there are no union labels."""


class DatasetPart(NamedTuple):
    """A part of a data set as its authors published it, with the counts that a complete copy has."""

    title: str
    """Title of the part, such as "A. Segmentation, training"."""
    read: Callable[[Path], list[Sample]]
    """Function that reads this part from the data set's folder."""
    expected: LabelCounts
    """The official counts; None in a field: the authors state no number."""
    folder: str
    """Folder of the part, relative to the data set's folder. If it does not exist, the part is absent: not an error."""


PartCounts = tuple[DatasetPart, LabelCounts | None]
"""An official part, and its counts in this copy; None: the part is absent."""


def count_labels(samples: Iterable[Sample], labels: LabelSet = DIABETIC_RETINOPATHY) -> LabelCounts:
    """Count photographs, grades and masks, to be compared with the official counts, `DatasetPart.expected`."""
    samples = list(samples)
    grades = Counter(sample.grade for sample in samples if sample.grade is not None)
    masks = Counter(code for sample in samples for code, mask in sample.lesion_masks.items() if mask is not None)
    annotated = any(sample.lesion_masks for sample in samples)
    unions: dict[str, int] = {}
    for sample in samples:
        for union, mask in sample.union_masks.items():
            unions[union] = unions.get(union, 0) + (mask is not None)
    return LabelCounts(
        len(samples),
        tuple(grades[grade] for grade in range(len(labels.grades))) if grades else None,
        tuple(masks[code] for code in labels.codes) if annotated else None,
        sum(sample.ungradable for sample in samples) or None,
        unions or None,
    )


def find_files(folder: Path, suffixes: frozenset[str] = PHOTOGRAPH_SUFFIXES) -> dict[str, Path]:
    """Files of one folder by name without suffix, sorted; hidden files and other suffixes are left out.

    Raises:
        DataError: if the folder is missing or cannot be listed, or if two files differ only in the suffix.
    """
    files: dict[str, Path] = {}
    for name in list_folder(folder):
        stem, suffix = os.path.splitext(name)  # noqa: PTH122 - the same
        if suffix.lower() not in suffixes or name[0] == ".":
            continue
        if stem in files:
            raise DataError(f"{folder}: two files of one name, {files[stem].name} and {name}; expected one")
        files[stem] = folder / name
    return files


def list_folder(folder: Path) -> list[str]:
    """Names of a folder's files and folders, sorted.

    Raises:
        DataError: if the folder is missing or cannot be listed.
    """
    try:
        return sorted(os.listdir(folder))  # noqa: PTH208 - sorts 88,000 names faster than as many paths
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed ({error.strerror}); expected a folder") from error


def photograph_name(file: str) -> str:
    """A photograph's name as a key of `find_files`, from a file name in a table, with or without suffix."""
    stem, suffix = os.path.splitext(file.strip())  # noqa: PTH122
    return stem if suffix.lower() in PHOTOGRAPH_SUFFIXES else file.strip()


def check_unique_names(samples: Iterable[Sample]) -> None:
    """Check that no two photographs have the same name, where several parts of a data set are joined.

    Raises:
        DataError: if two photographs have the same name; the message names both.
    """
    known: dict[str, Sample] = {}
    for sample in samples:
        if (other := known.setdefault(sample.name, sample)) is not sample:
            raise DataError(
                f"{other.photograph} and {sample.photograph}: two photographs named {sample.name}, expected one"
            )


def find_masks(
    folder: Path, code: str, photographs: Mapping[str, Path], endings: tuple[str, ...] = ("",)
) -> dict[str, Path]:
    """Mask files of one lesion type by the name of their photograph.

    Args:
        folder: folder with the masks of this type.
        code: code of the lesion type, for the error messages.
        photographs: the photographs that the masks may belong to.
        endings: what a mask's name may add to its photograph's name, the longest first; "" adds nothing.

    Raises:
        DataError: if the folder is missing, or a mask has another name or no photograph.
    """
    masks: dict[str, Path] = {}
    for stem, path in find_files(folder).items():
        ending = next((ending for ending in endings if stem.endswith(ending)), None)
        if ending is None:
            lesion = DIABETIC_RETINOPATHY.lesion(code).name
            raise DataError(f"{path}: not the name of a mask of {lesion}; expected a name that ends in {endings[0]}")
        name = stem.removesuffix(ending)
        if name not in photographs:
            raise DataError(f"{path}: there is no photograph for this mask; expected a photograph named {name}")
        masks[name] = path
    return masks


def read_lines(path: Path) -> Iterator[tuple[str, str]]:
    """Lines of a text file that are not blank, each with "FILE, row N" for error messages.

    Raises:
        DataError: if the file is missing or is not text in UTF-8.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); expected a list") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not a list in UTF-8 ({error})") from error
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield f"{path}, row {number}", line


def parse_grade(text: str, where: str, labels: LabelSet = DIABETIC_RETINOPATHY) -> int:
    """Parse a grade such as 2 or 2.0 from a cell; `where` is "FILE, row N".

    Raises:
        DataError: if the cell is not a grade of the label set.
    """
    with contextlib.suppress(ValueError):
        if (grade := parse_integer(text)) in range(len(labels.grades)):
            return grade
    raise DataError(f"{where}: expected a grade 0-{len(labels.grades) - 1}, found {text!r}")


def parse_eye(text: str, where: str) -> Laterality | None:
    """Parse left or right eye from a cell, None from an empty one; `where` is "FILE, row N".

    Raises:
        DataError: if the cell is not a word for an eye.
    """
    if text and text.lower() not in _EYE_WORDS:
        raise DataError(f"{where}: expected L, left, OS, OG, R, right, OD or nothing as eye, found {text!r}")
    return _EYE_WORDS.get(text.lower())


def check_labels(what: str, found: LabelSet, expected: LabelSet) -> None:
    """Check that a data set has the lesion types and grades that are expected.

    Raises:
        DataError: if the two label sets differ; the message names both.
    """
    if (found.codes, found.grade_names) != (expected.codes, expected.grade_names):
        both = (
            f"{labels.name!r} (lesions {', '.join(labels.codes)}; {len(labels.grades)} grades)"
            for labels in (found, expected)
        )
        raise DataError(
            f"{what} with the label set {next(both)}, expected {next(both)}; choose the label set or another folder"
        )


def read_grades(path: Path, name_column: str, grade_column: str) -> dict[str, int]:
    """Read the grade of each photograph from a label table.

    Raises:
        DataError: if a column is missing, a grade is not 0-4, or a photograph is there twice.
    """
    grades: dict[str, int] = {}
    for where, row in read_table(path, (name_column, grade_column), names=(name_column,)):
        add_once(grades, row[name_column], parse_grade(row[grade_column], where), where)
    return grades


def check_labels_match(
    photographs: Mapping[str, Path], labels: Mapping[str, object], folder: Path, table: Path
) -> None:
    """Check that every photograph has a label and every label a photograph.

    Raises:
        DataError: if a photograph or a label is missing; the message has the first one and their number.
    """
    if unlabelled := sorted(photographs.keys() - labels.keys()):
        file = photographs[unlabelled[0]]
        raise DataError(
            f"{table}: no row for {len(unlabelled)} photographs, the first is {file}; expected one for each"
        )
    if absent := sorted(labels.keys() - photographs.keys()):
        raise DataError(f"{folder}: {len(absent)} photographs named in {table} not found, the first is {absent[0]}")
