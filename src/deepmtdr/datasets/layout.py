"""What the readers of public data sets share: folders and tables opened, errors that name file and row (Sec. V-A)."""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from deepmtdr.datasets.sample import Sample
from deepmtdr.errors import DataError
from deepmtdr.terms import Grade, Lesion

PHOTOGRAPH_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".tif", ".tiff", ".ppm", ".bmp"})
"""Files of a photograph folder that are photographs; others, such as a read-me file, are not looked at."""


class LabelCounts(NamedTuple):
    """How many photographs a data set has, and how many of them have which label."""

    photographs: int
    grades: tuple[int, int, int, int, int] | None = None
    """Photographs of grades 0-4; None: nobody graded them."""
    masks: tuple[int, int, int, int] | None = None
    """Photographs with a mask of MA, HE, EX, SE; None: nobody drew lesions."""
    ungradable: int | None = None
    """Photographs that somebody judged too poor to be graded; None: none was."""


class DatasetPart(NamedTuple):
    """A part of a data set as its makers published it, whose counts can be checked when it is opened."""

    title: str
    """Such as "A. Segmentation, training"."""
    read: Callable[[Path], list[Sample]]
    """Reads this part from the data set's folder."""
    expected: LabelCounts
    """The official counts; a field that is None is one of which the makers state nothing."""
    folder: str
    """Where in the data set's folder it lies; where this is absent, the part is, and that is no error."""


PartCounts = tuple[DatasetPart, LabelCounts | None]
"""An official part, and the counts it has here; None: it is not there."""


def count_labels(samples: Iterable[Sample]) -> LabelCounts:
    """Count photographs, grades and masks, to be laid beside the official counts, `DatasetPart.expected`."""
    samples = list(samples)
    grades = Counter(sample.grade for sample in samples if sample.grade is not None)
    masks = Counter(lesion for sample in samples for lesion, mask in sample.lesion_masks.items() if mask is not None)
    g0, g1, g2, g3, g4 = (grades[grade] for grade in Grade)
    ma, he, ex, se = (masks[lesion] for lesion in Lesion)
    annotated = any(sample.lesion_masks for sample in samples)
    return LabelCounts(
        len(samples),
        (g0, g1, g2, g3, g4) if grades else None,
        (ma, he, ex, se) if annotated else None,
        sum(sample.ungradable for sample in samples) or None,
    )


def find_files(folder: Path, suffixes: frozenset[str] = PHOTOGRAPH_SUFFIXES) -> dict[str, Path]:
    """Every file of one folder by its name without suffix, sorted; hidden files are left out.

    Raises:
        DataError: if the folder is missing or cannot be listed, or if two files differ in nothing but the suffix.
    """
    try:
        names = sorted(os.listdir(folder))  # noqa: PTH208 - 88,000 names are sorted sooner than as many paths
    except OSError as error:
        raise DataError(f"{folder}: expected a folder, found none that can be listed ({error.strerror})") from error
    files: dict[str, Path] = {}
    for name in names:
        stem, suffix = os.path.splitext(name)  # noqa: PTH122 - the same
        if suffix.lower() not in suffixes or name[0] == ".":
            continue
        if stem in files:
            raise DataError(f"{folder}: two files of one name, {files[stem].name} and {name}; expected one")
        files[stem] = folder / name
    return files


def photograph_name(file: str) -> str:
    """A photograph's name as `find_files` has it, from a file name in a table, which may lack the suffix."""
    stem, suffix = os.path.splitext(file.strip())  # noqa: PTH122
    return stem if suffix.lower() in PHOTOGRAPH_SUFFIXES else file.strip()


def check_unique_names(samples: Iterable[Sample]) -> None:
    """See that every name stands once, where several parts of a data set are joined.

    Raises:
        DataError: naming the two photographs of one name.
    """
    seen: dict[str, Sample] = {}
    for sample in samples:
        if (other := seen.setdefault(sample.name, sample)) is not sample:
            raise DataError(f"{other.photograph} and {sample.photograph}: two photographs named {sample.name}")


def find_masks(
    folder: Path, lesion: Lesion, photographs: Mapping[str, Path], endings: tuple[str, ...] = ("",)
) -> dict[str, Path]:
    """Mask files of one lesion type by the name of their photograph.

    Args:
        folder: where the masks of this type lie.
        lesion: the type, for the messages.
        photographs: the photographs that masks may be of.
        endings: what a mask's name may add to its photograph's name, the longest first; "" adds nothing.

    Raises:
        DataError: if the folder is missing, or a mask has another name or no photograph.
    """
    masks: dict[str, Path] = {}
    for stem, path in find_files(folder).items():
        ending = next((ending for ending in endings if stem.endswith(ending)), None)
        if ending is None:
            raise DataError(f"{path}: expected a mask of {lesion.full_name}, whose name ends in {endings[0]}")
        name = stem.removesuffix(ending)
        if name not in photographs:
            raise DataError(f"{path}: a mask without a photograph; expected one named {name}")
        masks[name] = path
    return masks


def read_table(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[str, dict[str, str]]]:
    """Rows of a CSV or Parquet table, each with the words "FILE, row N" (the header is row 1), blank lines left out.

    Spaces around names and cells are cut off, and columns that nobody asked for are left out: IDRiD's table has both.
    Where the header has semicolons and no comma, as Messidor-2's and many a spreadsheet's, they part the cells.

    Args:
        path: the table, UTF-8 with or without a byte order mark.
        columns: the columns that have to be there.

    Raises:
        DataError: if the file is missing, is no text, lacks a column, or has a row that ends too early.
    """
    rows = _read_rows(path)
    header = _header(rows)
    if missing := [column for column in columns if column not in header]:
        raise DataError(f"{path}, row 1: expected the columns {', '.join(columns)}; {', '.join(missing)} not found")
    places = {column: header.index(column) for column in columns}
    for number, row in enumerate(rows[1:], start=2):
        if not any(cell.strip() for cell in row):
            continue
        if len(row) <= max(places.values()):
            raise DataError(
                f"{path}, row {number}: expected at least {max(places.values()) + 1} cells, found {len(row)}"
            )
        yield f"{path}, row {number}", {column: row[place].strip() for column, place in places.items()}


def read_column_names(path: Path) -> list[str]:
    """Names of the columns of a label table that have one.

    Raises:
        DataError: if the file is missing or is no text.
    """
    return [name for name in _header(_read_rows(path)) if name]


def _read_parquet(path: Path) -> list[list[str]]:
    """The rows of a Parquet table as a CSV file would have them."""
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import read_table as read_parquet
    except ImportError as error:
        raise DataError(f"{path}: Parquet needs PyArrow, expected `pip install deepmtdr[parquet]`") from error
    try:
        table = read_parquet(path)
    except (OSError, ArrowException) as error:
        reason = str(error).partition("\n")[0]
        raise DataError(f"{path}: expected a table as Parquet, found none that can be read ({reason})") from error
    columns = [["" if value is None else str(value) for value in column.to_pylist()] for column in table.columns]
    return [table.column_names, *map(list, zip(*columns, strict=True))]


def _read_rows(path: Path) -> list[list[str]]:
    if path.suffix.lower() == ".parquet":
        return _read_parquet(path)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
        semicolons = bool(lines) and ";" in lines[0] and "," not in lines[0]
        return list(csv.reader(lines, delimiter=";" if semicolons else ","))
    except OSError as error:
        raise DataError(f"{path}: expected a label table, found none that can be read ({error.strerror})") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: expected a CSV table in UTF-8, found something else ({error})") from error


def _header(rows: list[list[str]]) -> list[str]:
    return [cell.strip() for cell in rows[0]] if rows else []


def parse_grade(text: str, where: str) -> Grade:
    """Grade 0-4 from a cell; `where` is "FILE, row N".

    Raises:
        DataError: if the cell holds anything but 0, 1, 2, 3 or 4.
    """
    if text not in {"0", "1", "2", "3", "4"}:
        raise DataError(f"{where}: expected a grade 0-4, found {text!r}")
    return Grade(int(text))


def read_grades(path: Path, name_column: str, grade_column: str) -> dict[str, Grade]:
    """Grade by photograph from a label table.

    Raises:
        DataError: if the table is not as expected, or names a photograph twice.
    """
    grades: dict[str, Grade] = {}
    for where, row in read_table(path, (name_column, grade_column)):
        name = row[name_column]
        if name in grades:
            raise DataError(f"{where}: {name} for the second time; expected one row for each photograph")
        grades[name] = parse_grade(row[grade_column], where)
    return grades


def check_labels_match(
    photographs: Mapping[str, Path], labels: Mapping[str, object], folder: Path, table: Path
) -> None:
    """Hold photographs and labels against each other: nothing is skipped.

    Raises:
        DataError: if a photograph has no label, or a label no photograph; names the first and says how many.
    """
    if unlabelled := sorted(photographs.keys() - labels.keys()):
        file = photographs[unlabelled[0]]
        raise DataError(
            f"{table}: no row for {len(unlabelled)} photographs, the first is {file}; expected one for each"
        )
    if absent := sorted(labels.keys() - photographs.keys()):
        raise DataError(f"{folder}: {len(absent)} photographs named in {table} not found, the first is {absent[0]}")
