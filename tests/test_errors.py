"""Errors: what their text may contain."""

from __future__ import annotations

from deepmtdr.errors import CheckpointError, DataError, InputSizeError


def test_text_is_one_line_of_printable_characters() -> None:
    assert str(DataError("a.csv, row 2: found é\x1b[31m\n\ud800")) == r"a.csv, row 2: found é\x1b[31m\n\ud800"
    assert str(InputSizeError("a\tb")) == r"a\tb"


def test_plain_text_is_unchanged() -> None:
    assert str(CheckpointError("é = 1")) == "é = 1"
    assert str(CheckpointError()) == ""
