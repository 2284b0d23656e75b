"""CSV tables: read them with errors that name file and row, write them in one step.

A spreadsheet takes a cell that begins with = + - @ for a formula and runs it when the file is opened, so a hostile file
name could send data away. Every table is therefore written by `format_table`, which puts an apostrophe before these
characters, and `read_table` removes it: "=1+1.png" is written as "'=1+1.png" and read as "=1+1.png".
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Collection, Hashable, Iterable, Iterator, MutableMapping, Sequence
from pathlib import Path
from typing import TypeVar

from deepmtdr.errors import DataError
from deepmtdr.files import write_atomically

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

MISSING_CELLS = frozenset({"nan", "na", "n/a", "<na>", "null", "#n/a"})
"""What programs such as pandas and R write into a cell without a value, in lower case."""
MAX_PARQUET_CELLS = 10_000_000
"""Largest number of cells of a Parquet table: a file of some kilobytes can hold billions of equal ones."""
FLAGS = {"0": False, "1": True, "0.0": False, "1.0": True}
"""Cells that answer yes or no; pandas writes 1.0 if the column has empty cells."""

# A file with commas may be opened where semicolons separate cells: a cell of the spreadsheet then begins after them. A
# match begins only where blanks and quotes begin, and gives none of them back: a cell of blanks takes linear time.
_CELL_START = r"""((?:^[\s"]*+|;[\s"]*+|(?<![\s"])(?:"|[^\S\t\r\n])*+[\t\r\n][\s"]*+))"""
_FORMULA = re.compile(_CELL_START + r"('*[=+\-@\uff1d\uff0b\uff0d\uff20])")
_ESCAPED_FORMULA = re.compile(_CELL_START + r"'('*[=+\-@\uff1d\uff0b\uff0d\uff20])")
_FORMULA_CHARACTER = re.compile(r"[=+\-@\uff1d\uff0b\uff0d\uff20]")
_INTEGER = re.compile(r"([+-]?[0-9]+)(\.0*)?")
_NUMBER = re.compile(r"[+-]?((\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|inf)")


def read_table(path: Path, columns: Sequence[str], names: Collection[str] = ()) -> Iterator[tuple[str, dict[str, str]]]:
    """Read the rows of a CSV or Parquet table; blank rows are skipped.

    Spaces around column names and cells are removed, and columns that are not asked for are ignored: IDRiD's table has
    both. If the header has semicolons and no comma, as in Messidor-2's list of pairs, semicolons separate the cells. A
    cell of `MISSING_CELLS`, such as NaN or NA, is empty. The apostrophe that `format_table` writes before a formula is
    removed.

    Args:
        path: the table, UTF-8 with or without a byte order mark.
        columns: columns that are required.
        names: those of them in which NA and the like are names, not missing values.

    Yields:
        "FILE, row N" for error messages (the header is row 1), and the cells by column.

    Raises:
        DataError: if the file is missing, is not a table, lacks a column, or has a row that is too short.
    """
    rows = _read_rows(path)
    header = _header(rows)
    first = {column: place for place, column in reversed(list(enumerate(header)))}
    if missing := [column for column in columns if column not in first]:
        raise DataError(f"{path}, row 1: expected the columns {', '.join(columns)}; {', '.join(missing)} not found")
    places = {column: first[column] for column in columns}
    least = max(places.values(), default=-1) + 1
    for number, row in enumerate(rows[1:], start=2):
        if not any(cell.strip() for cell in row):
            continue
        if len(row) < least:
            raise DataError(f"{path}, row {number}: expected at least {least} cells, found {len(row)}")
        cells = {column: row[place].strip() for column, place in places.items()}
        yield (
            f"{path}, row {number}",
            {
                column: "" if cell.lower() in MISSING_CELLS and column not in names else cell
                for column, cell in cells.items()
            },
        )


def parse_integer(cell: str) -> int:
    """Parse a whole number from a cell, also one that pandas has written as 2.0 because the column has empty cells.

    Raises:
        ValueError: if the cell is not a whole number.
    """
    match = _INTEGER.fullmatch(cell)
    if match is None:
        raise ValueError(f"expected a whole number, found {cell!r}")
    return int(match[1])


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
    r"""Format rows with their header as CSV text with "\n" at the end of each line. No cell is a formula."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([escape_formula(cell) for cell in row] for row in rows)
    return text.getvalue()


def escape_formula(cell: object) -> object:
    """Put an apostrophe before each part of a text that a spreadsheet would take for a formula; keep numbers.

    An apostrophe is also put before text that begins with apostrophes and a formula, so that `unescape_formula` gives
    every text back as it was.
    """
    if not isinstance(cell, str) or not _FORMULA_CHARACTER.search(cell) or _NUMBER.fullmatch(cell):
        return cell
    return _FORMULA.sub(r"\1'\2", cell)


def unescape_formula(cell: str) -> str:
    """Remove the apostrophes that `escape_formula` added."""
    return _ESCAPED_FORMULA.sub(r"\1\2", cell) if "'" in cell else cell


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
        rows = csv.reader(io.StringIO(text, newline=""), delimiter=";" if semicolons else ",")
        return [[unescape_formula(cell) for cell in row] for row in rows]
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); expected a CSV table") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a CSV table in UTF-8 ({error}); save it as CSV in UTF-8") from error


def _read_parquet(path: Path) -> list[list[str]]:
    """Read the rows of a Parquet table, with cells as text like those of a CSV file."""
    try:
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise DataError(f"{path}: Parquet needs PyArrow; install it with `pip install deepmtdr[parquet]`") from error
    try:
        with ParquetFile(path) as file:
            rows, columns = file.metadata.num_rows, file.metadata.num_columns
            if rows * columns > MAX_PARQUET_CELLS:
                raise ValueError(f"found {rows} rows of {columns} columns, expected at most {MAX_PARQUET_CELLS} cells")
            table = file.read()
        cells = [["" if value is None else str(value) for value in column.to_pylist()] for column in table.columns]
        return [table.column_names, *map(list, zip(*cells, strict=True))]
    except Exception as error:  # damaged values raise almost anything when they become Python objects
        reason = str(error).partition("\n")[0]
        raise DataError(f"{path}: not a Parquet table ({reason})") from error
