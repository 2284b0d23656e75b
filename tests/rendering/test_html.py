"""Pages, tables and figures: all text is escaped, and a page needs no other file."""

from __future__ import annotations

import pytest

from deepmtdr.rendering.html import (
    PAGE_STYLE,
    Table,
    figure_html,
    folded_html,
    heat_cell,
    page_html,
    table_html,
    table_markdown,
)

ODD, ESCAPED = 'a "<b>" & c', "a &quot;&lt;b&gt;&quot; &amp; c"


def test_page_has_its_title_styles_and_body() -> None:
    page = page_html(ODD, ["<p>one</p>", "<p>two</p>"], [".own { color: red; }"])
    assert page.startswith("<!doctype html><html lang=en><meta charset=utf-8>") and page.endswith("</html>\n")
    assert f"<title>{ESCAPED}</title>" in page and f"<h1>{ESCAPED}</h1><p>one</p><p>two</p>" in page
    assert f"<style>{PAGE_STYLE}.own {{ color: red; }}</style>" in page
    assert "<meta name=viewport" in page and "http" not in page and "<script" not in page


def test_text_of_tables_and_captions_is_escaped() -> None:
    table = table_html(Table("", (ODD, "n"), [(ODD, "1")]), "words")
    assert (
        table
        == f"<table class=words><tr><th>{ESCAPED}</th><th>n</th></tr><tr><td>{ESCAPED}</td><td>1</td></tr></table>"
    )
    assert figure_html(ODD, ["<b>caption</b>"], "<svg/>") == (
        f"<figure><figcaption>{ESCAPED}<small><b>caption</b></small></figcaption><svg/></figure>"
    )
    assert folded_html(ODD, "<p/>") == f"<details><summary>{ESCAPED}</summary><p/></details>"
    assert folded_html("x", "", opened=True).startswith("<details open>")


def test_markdown_table_has_its_title_and_a_rule() -> None:
    lines = table_markdown(Table("Scores", ("system", "AUC"), [("U-Net", "0.9")])).splitlines()
    assert lines == ["**Scores**", "", "| system | AUC |", "|---|---:|", "| U-Net | 0.9 |"]


@pytest.mark.parametrize(
    ("text", "share", "content"),
    [("7", 0.25, "7<small>25%</small>"), ("0", 0.0, "0"), ("", 0.25, "25%")],
)
def test_heat_cell_shows_text_and_share(text: str, share: float, content: str) -> None:
    assert heat_cell(text, share, False) == f'<td style="--share:{share:.2f}">{content}</td>'
    assert heat_cell(text, share, True).startswith("<td class=true ")
