"""Text in a PDF: order of the letters, and lines of limited length."""

from __future__ import annotations

from deepmtdr.rendering.pdf_text import TextWriter, visual_order


def test_text_from_right_to_left_is_reversed() -> None:
    assert visual_order("ID (אב גד) 17") == "ID (דג בא) 17"


def test_long_texts_end_in_three_dots() -> None:
    letters = TextWriter()
    lines = letters.wrap("word " * 200, 9, 200, 2)
    assert len(lines) == 2 and lines[1].endswith("...")
    assert max(letters.width(line, 9) for line in lines) <= 200
    assert letters.width(letters.wrap("X" * 500, 9, 200, 2)[0], 9) <= 200


def test_letters_that_no_font_has_are_found() -> None:
    letters = TextWriter()
    assert not letters.has_missing_glyphs("Müller 山田 김철수")
    assert letters.has_missing_glyphs("สมชาย")
