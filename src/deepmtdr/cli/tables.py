"""What a person sees on the screen: a table of reports, tables of anything else, the model card."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from deepmtdr.files import printable_path
from deepmtdr.model.cost import SubnetCost
from deepmtdr.screening.report import ScreeningReport
from deepmtdr.terms import Lesion

MAX_ROWS = 40
"""Rows of a table of photographs; all of them stand in results.csv."""


def report_table(reports: Sequence[ScreeningReport]) -> Table:
    """One row a photograph: grade, probability of referable disease, lesions by type."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("photograph", overflow="fold")
    table.add_column("grade")
    table.add_column("referable", justify="right")
    for lesion in Lesion:
        table.add_column(lesion.name, justify="right")
    for report in reports[:MAX_ROWS]:
        table.add_row(Text(printable_path(report.path.name or report.path)), *_cells(report))
    if len(reports) > MAX_ROWS:
        table.add_row(Text(f"... and {len(reports) - MAX_ROWS} more"))
    return table


def _cells(report: ScreeningReport) -> list[str]:
    if report.grade is None or report.p_referable is None:
        return [f"[yellow]{report.status}[/]"]
    grade = f"{int(report.grade)} {report.grade.full_name}"
    counts = report.counts or {}
    return [grade, f"{report.p_referable:.0%}", *(str(counts.get(lesion, "")) for lesion in Lesion)]


def build_table(title: str, columns: Iterable[str], rows: Iterable[Iterable[str]], *, numbers: bool = True) -> Table:
    """A table of cells that are ready; all but the first column are numbers, or all are words."""
    table = Table(title=Text(title), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(Text(column), justify="right" if number and numbers else "left")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return table


def cost_table(costs: Iterable[SubnetCost], way: str) -> Table:
    """Parameters and operations of each subnet."""
    rows = [(cost.name, f"{cost.parameters:,}", f"{cost.flops / 1e9:,.1f}") for cost in costs]
    return build_table(f"Cost of one photograph, {way}", ("subnet", "parameters", "GFLOPs"), rows)


def card_table(card: Mapping[str, Any]) -> Table:
    """The model card: what is nested is named with dots."""
    return build_table("Model card", ("", ""), _flat(card), numbers=False)


def _flat(value: Any, name: str = "") -> Iterable[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list) and any(isinstance(inner, Mapping | list) for inner in value):
        for number, inner in enumerate(value):
            yield from _flat(inner, f"{name}.{number}")
    else:
        yield name, ", ".join(map(str, value)) if isinstance(value, list) else str(value)
