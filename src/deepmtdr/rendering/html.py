"""What pages are made of: the style of HTML, light or dark as the reader has it, and tables, in Markdown too."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

PAGE_STYLE = """
:root { color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif; }
body { max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: .5rem 0 2rem; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .8rem; text-align: right; border-bottom: 1px solid #8884; }
th { font-weight: 600; vertical-align: bottom; }
th:first-child, td:first-child, .words td, .words th { text-align: left; }
.words td { overflow-wrap: break-word; max-width: 60ch; }
summary { cursor: pointer; margin: .4rem 0; }
.none { color: #2a7a3a; }
"""
"""Of every page that is written."""


class Table(NamedTuple):
    """A table of cells that are ready."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


def table_html(table: Table, kind: str = "numbers") -> str:
    """A table for a page of `PAGE_STYLE`; of the kind "words", text is on the left and long text is broken."""
    head = "".join(f"<th>{escape(column)}</th>" for column in table.columns)
    rows = ("".join(f"<td>{escape(cell)}</td>" for cell in row) for row in table.rows)
    return f"<table class={kind}><tr>{head}</tr>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"


def table_markdown(table: Table) -> str:
    """A table for a page in Markdown, under its title."""
    rule = "|---" + "|---:" * (len(table.columns) - 1) + "|"
    head, *rows = (f"| {' | '.join(cells)} |" for cells in [table.columns, *table.rows])
    return "\n".join([f"**{table.title}**", "", head, rule, *rows])
