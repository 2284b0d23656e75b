"""Read a folder of the user's own photographs, with their labels in one table.

ROOT/photographs.csv has a row for each photograph. Its column `path` is required. The other columns may be absent, and
an empty cell, NaN or NA means not known:

    path        file of the photograph, relative to ROOT or absolute; backslashes of Windows are taken
    grade       a grade of the label set, such as 0-4 (also 2.0), or the word ungradable
    patient     the person; without it each photograph is a patient
    eye         L, left, OS or OG (œil gauche); R, right or OD
    side        the split (train, validation or test), not the left or right eye
    MA, HE, EX, SE, or the codes of another label set
                file of the lesion mask, relative to ROOT or absolute, of the photograph's size, 0 outside lesions;
                the word none: annotated, no such lesion; an empty cell: not annotated (interpretation R11)
    EX+SE, or other codes of the label set joined by +
                the same, for types that were annotated together (interpretation R32)
    ignored     file of the mask of pixels that count for nothing; empty: all pixels count

Without that table every photograph in ROOT and its subfolders is read, without labels. Hidden files are left out, and a
folder that two links lead to is read once.

A photograph's name is its path relative to ROOT without suffix, with "__" for "/", because names become file names:
sub/a.png is sub__a. If two photographs would get the same name, or a name is very long, a hash of the path is added.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path, PureWindowsPath
from typing import NamedTuple, cast, get_args

from deepmtdr.csv_tables import add_once, read_column_names, read_table
from deepmtdr.datasets.layout import parse_eye, parse_grade
from deepmtdr.datasets.sample import Sample, SplitName
from deepmtdr.errors import DataError
from deepmtdr.files import MAX_NAME_BYTES, same_name_key, shorten_name
from deepmtdr.labels import DIABETIC_RETINOPATHY, LabelSet, union_codes
from deepmtdr.photographs.formats import READABLE_SUFFIXES

TABLE_NAME = "photographs.csv"
"""The table's name in the folder."""

_COLUMNS = ("path", "grade", "patient", "eye", "side")
"""Columns that the table may have before those of the lesion types."""
_IGNORED = "ignored"
"""The column of the mask of pixels that count for nothing."""


class _Found(NamedTuple):
    path: Path
    row: dict[str, str]
    where: str
    """ "FILE, row N", empty without a table."""


def read_folder(root: Path, labels: LabelSet = DIABETIC_RETINOPATHY) -> list[Sample]:
    """Read the photographs of ROOT/photographs.csv or, without it, every photograph in ROOT and its subfolders.

    Args:
        root: the folder.
        labels: the label set, which has the columns of the masks and the range of the grades.

    Raises:
        DataError: if there is no photograph. With file and row: an unknown column, a photograph twice, a file that is
            missing, a grade out of range, or an unknown word for eye or split.
    """
    table = root / TABLE_NAME
    found = list(_read_rows(table, root, labels) if table.exists() else _walk(root))
    if not found:
        raise DataError(f"{table if table.exists() else root}: found no photographs, expected at least one")
    names = _unique_names([os.path.relpath(photograph.path, root) for photograph in found])
    return [_sample(photograph, name, root, labels) for photograph, name in zip(found, names, strict=True)]


def table_columns(labels: LabelSet) -> tuple[str, ...]:
    """Every column that the table may have, besides those of union labels.

    Raises:
        DataError: if a lesion code is the name of another column.
    """
    if taken := [code for code in labels.codes if code.lower() in (*_COLUMNS, _IGNORED)]:
        raise DataError(
            f"label set {labels.name!r}: lesion code {taken[0]} is a column of {TABLE_NAME}; choose another"
        )
    return (*_COLUMNS, *labels.codes, _IGNORED)


def _sample(found: _Found, name: str, root: Path, labels: LabelSet) -> Sample:
    row, where = found.row, found.where
    grade, ungradable = _parse_grade(row.get("grade", ""), where, labels)
    return Sample(
        photograph=found.path,
        name=name,
        patient=f"folder/{row.get('patient') or name}",
        dataset="folder",
        laterality=parse_eye(row.get("eye", ""), f"{where}, column eye"),
        grade=grade,
        ungradable=ungradable,
        official_split=_parse_split(row.get("side", ""), where),
        lesion_masks=_parse_masks(found, labels.codes, root),
        union_masks=_parse_masks(found, [column for column in row if "+" in column], root),
        ignored_mask=_parse_masks(found, (_IGNORED,), root).get(_IGNORED),
    )


def _parse_masks(found: _Found, columns: Iterable[str], root: Path) -> dict[str, Path | None]:
    """Masks of the columns that have a cell: a file, or None for the word none."""
    return {
        column: _parse_mask(cell, root, f"{found.where}, column {column}")
        for column in columns
        if (cell := found.row.get(column, ""))
    }


def _is_union(column: str, labels: LabelSet) -> bool:
    """Whether a column is a union label: at least two codes of the label set, in its order."""
    codes = union_codes(column)
    return len(codes) > 1 and list(codes) == [code for code in labels.codes if code in codes]


def _read_rows(table: Path, root: Path, labels: LabelSet) -> Iterator[_Found]:
    """Rows of the table, each photograph once; its file exists."""
    known, columns = table_columns(labels), read_column_names(table)
    for column in columns:
        if column not in known and not _is_union(column, labels):
            raise DataError(f"{table}, row 1: unknown column {column!r}; known are {', '.join(known)}")
        if columns.count(column) > 1:
            raise DataError(f"{table}, row 1: found the column {column} twice; expected it once")
    rows: dict[Path, str] = {}
    wanted = ("path", *(column for column in columns if column != "path"))
    for where, row in read_table(table, wanted, names=("path",)):
        if not row["path"]:
            raise DataError(f"{where}: found an empty cell in column path, expected the name of a photograph file")
        path = _file(row["path"], root, where, "photograph")
        first = f"one row for each; the first is {rows.get(path)}"
        add_once(rows, path, where, where, first)
        yield _Found(path, row, where)


def _walk(root: Path) -> Iterator[_Found]:
    """Every photograph below a folder, sorted. Links are followed, but no folder is read twice, so that loops end."""
    entered: set[tuple[int, int]] = set()

    def refuse(error: OSError) -> None:
        raise DataError(f"{error.filename}: cannot be listed ({error.strerror}); expected a folder")

    for at, folders, files in os.walk(root, onerror=refuse, followlinks=True):
        status = Path(at).stat()
        if (status.st_dev, status.st_ino) in entered:
            folders.clear()
            continue
        entered.add((status.st_dev, status.st_ino))
        folders[:] = sorted(folder for folder in folders if not folder.startswith("."))
        for file in sorted(files):
            if not file.startswith(".") and Path(file).suffix.lower() in READABLE_SUFFIXES:
                yield _Found(Path(at, file), {}, "")


def _file(cell: str, root: Path, where: str, what: str) -> Path:
    # An absolute path stays as it is; two spellings become one. A table from Windows has backslashes.
    spellings = dict.fromkeys((cell, cell.replace("\\", "/")))
    paths = [Path(os.path.normpath(root / spelling)) for spelling in spellings]
    found = next((path for path in paths if _is_file(path)), None)
    if found is None:
        drive = PureWindowsPath(cell).drive
        advice = f"; {drive} is a drive of Windows: write the path relative to {root}" if drive else ""
        raise DataError(f"{where}: found no {what} at {paths[0]}, expected an existing file{advice}")
    return found


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that no file can have
        return False


def _parse_grade(cell: str, where: str, labels: LabelSet) -> tuple[int | None, bool]:
    """Parse a cell: the grade, and whether the photograph is ungradable."""
    if cell.lower() == "ungradable":
        return None, True
    return (parse_grade(cell, f"{where}, column grade", labels) if cell else None), False


def _parse_split(cell: str, where: str) -> SplitName | None:
    if cell and cell not in get_args(SplitName):
        raise DataError(f"{where}, column side: expected {', '.join(get_args(SplitName))} or nothing, found {cell!r}")
    return cast(SplitName, cell) if cell else None


def _parse_mask(cell: str, root: Path, where: str) -> Path | None:
    return None if cell.lower() == "none" else _file(cell, root, where, "mask")


def _unique_names(relative: list[str]) -> list[str]:
    """A name for each path that can be a file name; a hash is added where a file system may take two names for one."""
    plain = [_plain_name(path) for path in relative]
    times = Counter(same_name_key(name) for name in plain)
    return [
        name
        if name and times[same_name_key(name)] == 1 and len(name.encode()) <= MAX_NAME_BYTES
        else shorten_name(name, path, separator="~")
        for name, path in zip(plain, relative, strict=True)
    ]


def _plain_name(path: str) -> str:
    readable = os.fsencode(path).decode("utf-8", "replace")  # file names may have bytes that are no UTF-8
    return os.path.splitext(readable)[0].replace(os.sep, "__").lstrip(".")  # noqa: PTH122
