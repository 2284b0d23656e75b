"""CSV tables: read them with errors that name file and row, write them in one step."""

from __future__ import annotations

import csv
import io
from collections.abc import Hashable, Iterable, Iterator, MutableMapping, Sequence
from pathlib import Path
from typing import TypeVar

from deepmtdr.errors import DataError
from deepmtdr.files import write_atomically

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


def read_table(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Read the rows of a CSV or Parquet table; blank rows are skipped.

    Spaces around column names and cells are removed, and columns that are not asked for are ignored: IDRiD's table has
    both. If the header has semicolons and no comma, as in Messidor-2's list of pairs, semicolons separate the cells.

    Args:
        path: the table, UTF-8 with or without a byte order mark.
        columns: columns that are required.

    Yields:
        "FILE, row N" for error messages (the header is row 1), and the cells by column.

    Raises:
        DataError: if the file is missing, is not a table, lacks a column, or has a row that is too short.
    """
    rows = _read_rows(path)
    header = _header(rows)
    if missing := [column for column in columns if column not in header]:
        raise DataError(f"{path}, row 1: expected the columns {', '.join(columns)}; {', '.join(missing)} not found")
    places = {column: header.index(column) for column in columns}
    least = max(places.values(), default=-1) + 1
    for number, row in enumerate(rows[1:], start=2):
        if not any(cell.strip() for cell in row):
            continue
        if len(row) < least:
            raise DataError(f"{path}, row {number}: expected at least {least} cells, found {len(row)}")
        yield f"{path}, row {number}", {column: row[place].strip() for column, place in places.items()}


def read_column_names(path: Path) -> list[str]:
    """Names of the columns of a table; columns without a name are left out.

    Raises:
        DataError: if the file is missing or is not a table.
    """
    return [name for name in _header(_read_rows(path)) if name]


def add_once(
    table: MutableMapping[K, V], key: K, value: V, where: str, expected: str = "one row for each photograph"
) -> None:
    """Add an entry that must be new.

    Args:
        table: the table to which the entry is added.
        key: key of the entry, such as a photograph's name.
        value: value of the entry.
        where: "FILE, row N".
        expected: the end of the error message.

    Raises:
        DataError: if the key is there already.
    """
    if key in table:
        name = "/".join(map(str, key)) if isinstance(key, tuple) else key
        raise DataError(f"{where}: found {name} for the second time; expected {expected}")
    table[key] = value


def format_table(rows: Iterable[Iterable[object]]) -> str:
    r"""Format rows with their header as CSV text with "\n" at the end of each line."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def write_table(path: Path, columns: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """Write a CSV table in UTF-8, in one step (`write_atomically`).

    Raises:
        DataError: if a cell has a character that UTF-8 cannot express, such as a file name of other bytes.
        OSError: if the file cannot be written.
    """
    text = format_table([columns, *rows])
    try:
        content = text.encode()
    except UnicodeEncodeError as error:
        number, cell = text.count("\n", 0, error.start) + 1, text[error.start : error.end]
        raise DataError(f"{path}, row {number}: {cell!a} cannot be written as UTF-8; rename the file") from error
    write_atomically(path, content)


def _header(rows: list[list[str]]) -> list[str]:
    return [cell.strip() for cell in rows[0]] if rows else []


def _read_rows(path: Path) -> list[list[str]]:
    if path.suffix.lower() == ".parquet":
        return _read_parquet(path)
    try:
        # Not str.splitlines, which also splits at form feeds and other characters that a cell may hold.
        text = path.read_bytes().decode("utf-8-sig")
        first = text.partition("\n")[0]
        semicolons = ";" in first and "," not in first
        return list(csv.reader(io.StringIO(text, newline=""), delimiter=";" if semicolons else ","))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); expected a CSV table") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a CSV table in UTF-8 ({error}); save it as CSV in UTF-8") from error


def _read_parquet(path: Path) -> list[list[str]]:
    """Read the rows of a Parquet table, with cells as text like those of a CSV file."""
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import read_table as read_parquet
    except ImportError as error:
        raise DataError(f"{path}: Parquet needs PyArrow; install it with `pip install deepmtdr[parquet]`") from error
    try:
        table = read_parquet(path)
    except (OSError, ArrowException) as error:
        reason = str(error).partition("\n")[0]
        raise DataError(f"{path}: not a Parquet table ({reason})") from error
    columns = [["" if value is None else str(value) for value in column.to_pylist()] for column in table.columns]
    return [table.column_names, *map(list, zip(*columns, strict=True))]
