"""A user's own folder: any photographs, with what is known of them in one table.

ROOT/photographs.csv has a row for each photograph. Its column `path` is required; the others may be absent, and each of
their cells may be empty, which says that nobody knows:

    path        file of the photograph, relative to ROOT or absolute
    grade       0-4, or the word ungradable
    patient     whose eye; without it the photograph is its own patient
    eye         L, left, OS or OG (œil gauche); R, right or OD
    side        train, validation or test, where a split is given
    MA, HE, EX, SE
                file of the lesion mask, relative to ROOT or absolute, of the photograph's size, 0 where no lesion is;
                the word none: annotated, and none is there; an empty cell: not annotated (reading R11)

Without that table every photograph in ROOT and its subfolders is read, without labels; hidden files are left out, and
a folder that links lead to twice is read once.

A photograph's name is its path relative to ROOT without suffix, "/" written "__": sub/a.png is sub__a, for names become
file names. Where this gives two photographs one name, or a very long one, a hash of the path is added.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, cast, get_args

from deepmtdr.datasets.layout import PHOTOGRAPH_SUFFIXES, parse_grade, read_column_names, read_table
from deepmtdr.datasets.sample import Sample, SplitName
from deepmtdr.errors import DataError
from deepmtdr.terms import Grade, Laterality, Lesion

TABLE_NAME = "photographs.csv"
"""The table's name in the folder."""

READABLE_SUFFIXES = PHOTOGRAPH_SUFFIXES | {".jpe", ".jfif", ".pgm", ".pnm", ".dcm", ".dicom"}
"""Files that are read as photographs where there is no table; with one, the suffix does not matter."""

COLUMNS = ("path", "grade", "patient", "eye", "side", *(lesion.name for lesion in Lesion))
"""Every column that the table may have."""

MAX_NAME_BYTES = 120
"""Most bytes of a name: the prepared files add a hash and a suffix, and file systems take 255."""

_EYES: dict[str, Laterality] = {
    **dict.fromkeys(("l", "left", "os", "og"), "L"),
    **dict.fromkeys(("r", "right", "od"), "R"),
}


class _Found(NamedTuple):
    path: Path
    row: dict[str, str]
    where: str
    """ "FILE, row N", empty without a table."""


def read_folder(root: Path) -> list[Sample]:
    """The photographs of ROOT/photographs.csv or, without it, every photograph in ROOT and its subfolders.

    Raises:
        DataError: if there is no photograph; naming file and row, if the table has an unknown column, a photograph
            twice, a file that is not there, a grade out of range, or an eye or side of another word.
    """
    table = root / TABLE_NAME
    found = list(_read_rows(table, root) if table.exists() else _walk(root))
    if not found:
        raise DataError(f"{table if table.exists() else root}: expected photographs, found none")
    names = _unique_names([os.path.relpath(photograph.path, root) for photograph in found])
    return [_sample(photograph, name, root) for photograph, name in zip(found, names, strict=True)]


def _sample(found: _Found, name: str, root: Path) -> Sample:
    row, where = found.row, found.where
    grade, ungradable = _parse_grade(row.get("grade", ""), where)
    return Sample(
        photograph=found.path,
        name=name,
        patient=f"folder/{row.get('patient') or name}",
        dataset="folder",
        laterality=_parse_eye(row.get("eye", ""), where),
        grade=grade,
        ungradable=ungradable,
        official_split=_parse_side(row.get("side", ""), where),
        lesion_masks={
            lesion: _parse_mask(cell, root, f"{where}, column {lesion.name}")
            for lesion in Lesion
            if (cell := row.get(lesion.name, ""))
        },
    )


def _read_rows(table: Path, root: Path) -> Iterator[_Found]:
    """Rows of the table with the photographs they speak of, which are there, and each once."""
    columns = read_column_names(table)
    for column in columns:
        if column not in COLUMNS:
            raise DataError(f"{table}, row 1: unknown column {column!r}; known are {', '.join(COLUMNS)}")
        if columns.count(column) > 1:
            raise DataError(f"{table}, row 1: the column {column} stands there twice; expected it once")
    seen: dict[Path, str] = {}
    for where, row in read_table(table, ("path", *(column for column in columns if column != "path"))):
        if not row["path"]:
            raise DataError(f"{where}: expected the file of a photograph in path, found an empty cell")
        path = _file(row["path"], root, where, "photograph")
        if path in seen:
            raise DataError(f"{where}: {path} for the second time, first in {seen[path]}; expected one row for each")
        seen[path] = where
        yield _Found(path, row, where)


def _walk(root: Path) -> Iterator[_Found]:
    """Every photograph below a folder, sorted; links are followed, but no folder is read twice, so loops end."""
    seen: set[tuple[int, int]] = set()

    def refuse(error: OSError) -> None:
        raise DataError(f"{error.filename}: expected a folder, found none that can be listed ({error.strerror})")

    for at, folders, files in os.walk(root, onerror=refuse, followlinks=True):
        status = Path(at).stat()
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(folder for folder in folders if not folder.startswith("."))
        for file in sorted(files):
            if not file.startswith(".") and Path(file).suffix.lower() in READABLE_SUFFIXES:
                yield _Found(Path(at, file), {}, "")


def _file(cell: str, root: Path, where: str, what: str) -> Path:
    path = Path(os.path.normpath(root / cell))  # an absolute path stays as it is; two spellings become one
    try:
        there = path.is_file()
    except (OSError, ValueError):  # a name that no file can have
        there = False
    if not there:
        raise DataError(f"{where}: expected the file of a {what}, found none at {path}")
    return path


def _parse_grade(cell: str, where: str) -> tuple[Grade | None, bool]:
    """Grade, and whether the photograph is ungradable."""
    if cell.lower() == "ungradable":
        return None, True
    return (parse_grade(cell, f"{where}, column grade") if cell else None), False


def _parse_eye(cell: str, where: str) -> Laterality | None:
    if cell and cell.lower() not in _EYES:
        raise DataError(f"{where}, column eye: expected L, left, OS, OG, R, right, OD or nothing, found {cell!r}")
    return _EYES.get(cell.lower())


def _parse_side(cell: str, where: str) -> SplitName | None:
    if cell and cell not in get_args(SplitName):
        raise DataError(f"{where}, column side: expected {', '.join(get_args(SplitName))} or nothing, found {cell!r}")
    return cast(SplitName, cell) if cell else None


def _parse_mask(cell: str, root: Path, where: str) -> Path | None:
    return None if cell.lower() == "none" else _file(cell, root, where, "mask")


def _unique_names(relative: list[str]) -> list[str]:
    """Names that can be file names, one for each path; the same path has the same name wherever no other clashes."""
    plain = [_plain_name(path) for path in relative]
    times = Counter(name.casefold() for name in plain)  # some file systems know no capitals
    return [
        name
        if name and times[name.casefold()] == 1 and len(name.encode()) <= MAX_NAME_BYTES
        else _hashed_name(name, path)
        for name, path in zip(plain, relative, strict=True)
    ]


def _plain_name(path: str) -> str:
    readable = os.fsencode(path).decode("utf-8", "replace")  # a name of other bytes than UTF-8 still gets one
    return os.path.splitext(readable)[0].replace(os.sep, "__").lstrip(".")  # noqa: PTH122


def _hashed_name(name: str, path: str) -> str:
    digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:12]
    return f"{name.encode()[: MAX_NAME_BYTES - 13].decode('utf-8', 'ignore')}~{digest}"
