"""HTML pages: head and style, tables, figures with captions, folded parts; light or dark, as the browser is set.

Each function returns HTML. Arguments that are plain text are escaped here; those called `body` are HTML already.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Literal, NamedTuple

PAGE_STYLE = """
:root { color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif; }
body { max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: .5rem 0 2rem; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .8rem; text-align: right; border-bottom: 1px solid #8884; }
th { font-weight: 600; vertical-align: bottom; }
th:first-child, td:first-child, .words td, .words th { text-align: left; }
.words td { overflow-wrap: break-word; max-width: 60ch; }
h3 { margin: 1.5rem 0 .5rem; }
summary { cursor: pointer; margin: .4rem 0; }
.lead { font-size: 1.1rem; }
.none { color: #2a7a3a; }
"""
"""The style of every page; `page_html` includes it."""

HEAT_STYLE = """
.heat td, .heat th { text-align: center; padding: .3rem .25rem; line-height: 1.25; }
.heat th:first-child { text-align: left; }
.heat tr > th { font-weight: 400; vertical-align: middle; } .heat tr:first-child > th { font-weight: 600; }
.heat td { background: rgb(80 140 230 / calc(.7 * var(--share, 0))); }
.heat td small { display: block; opacity: .75; }
.heat .true { box-shadow: inset 0 0 0 1px currentColor; }
figure .heat { width: 100%; table-layout: fixed; margin: .5rem 0; }
figure .heat th:first-child { width: 6.2em; padding-left: 0; }
"""
"""The style of a page with cells of `heat_cell`."""


class Table(NamedTuple):
    """A table whose cells are text."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


def page_html(title: str, body: Iterable[str], styles: Iterable[str] = ()) -> str:
    """Make a whole page that needs no other file.

    Args:
        title: title and heading of the page.
        body: HTML below the heading, in pieces.
        styles: CSS in addition to `PAGE_STYLE`.
    """
    name = escape(title)
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{name}</title>"
        '<meta name=viewport content="width=device-width">'
        f"<style>{PAGE_STYLE}{''.join(styles)}</style><h1>{name}</h1>{''.join(body)}</html>\n"
    )


def table_html(table: Table, kind: Literal["numbers", "words"] = "numbers") -> str:
    """Make a table without its title.

    Args:
        table: columns and cells.
        kind: "numbers" aligns all columns but the first on the right. "words" aligns them on the left and breaks long
            texts.
    """
    head = "".join(f"<th>{escape(column)}</th>" for column in table.columns)
    rows = ("".join(f"<td>{escape(cell)}</td>" for cell in row) for row in table.rows)
    return f"<table class={kind}><tr>{head}</tr>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"


def table_markdown(table: Table) -> str:
    """Make a table in Markdown, below its title."""
    rule = "|---" + "|---:" * (len(table.columns) - 1) + "|"
    head, *rows = (f"| {' | '.join(cells)} |" for cells in [table.columns, *table.rows])
    return "\n".join([f"**{table.title}**", "", head, rule, *rows])


def folded_html(summary: str, body: str, *, opened: bool = False) -> str:
    """Make a part of a page that opens and closes by a click on its summary."""
    return f"<details{' open' if opened else ''}><summary>{escape(summary)}</summary>{body}</details>"


def figure_html(title: str, captions: Iterable[str], body: str) -> str:
    """Make a figure below its title and small captions.

    Args:
        title: title of the figure.
        captions: HTML, one line each.
        body: the figure itself.
    """
    small = "".join(f"<small{' class=series' if line.startswith('<svg') else ''}>{line}</small>" for line in captions)
    return f"<figure><figcaption>{escape(title)}{small}</figcaption>{body}</figure>"


def heat_cell(text: str, share: float, is_true: bool) -> str:
    """Make a table cell that is darker for a higher share.

    Args:
        text: text in the cell, above the share; "" shows only the share.
        share: share in [0, 1].
        is_true: frame the cell.
    """
    small = f"<small>{share:.0%}</small>" if text and share else ""
    kind = " class=true" if is_true else ""
    return f'<td{kind} style="--share:{share:.2f}">{escape(text) or f"{share:.0%}"}{small}</td>'
