"""Tables on the terminal: reports, scores, the model card, the cost of the subnets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table
from rich.text import Text

from deepmtdr.files import printable_path
from deepmtdr.labels import DIABETIC_RETINOPATHY

if TYPE_CHECKING:
    from deepmtdr.model.cost import SubnetCost
    from deepmtdr.screening.report import ScreeningReport

MAX_ROWS = 40
"""Largest number of photographs in a table on the terminal; results.csv has all of them."""


def report_table(reports: Sequence[ScreeningReport]) -> Table:
    """Table with a row for each photograph: grade, probability of referable disease, lesions of each type."""
    labels = reports[0].labels if reports else DIABETIC_RETINOPATHY
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("photograph", overflow="fold")
    table.add_column("grade")
    table.add_column("referable", justify="right")
    for code in labels.codes:
        table.add_column(Text(code), justify="right")
    for report in reports[:MAX_ROWS]:
        table.add_row(Text(printable_path(report.path.name or report.path)), *_report_cells(report))
    if len(reports) > MAX_ROWS:
        table.add_row(Text(f"... and {len(reports) - MAX_ROWS} more"))
    return table


def _report_cells(report: ScreeningReport) -> list[Text]:
    if report.grade is None or report.p_referable is None:
        return [Text(report.status, "yellow")]
    counts = report.counts or {}
    cells = [f"{report.grade} {report.grade_name}", f"{report.p_referable:.0%}"]
    return [Text(cell) for cell in (*cells, *(str(counts.get(code, "")) for code in report.labels.codes))]


def build_table(title: str, columns: Iterable[str], rows: Iterable[Iterable[str]], *, numbers: bool = True) -> Table:
    """Make a table from cells that are text.

    Args:
        title: text above the table.
        columns: heads of the columns.
        rows: the cells.
        numbers: align all columns but the first to the right.
    """
    table = Table(title=Text(title), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(Text(column), justify="right" if number and numbers else "left")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return table


def cost_table(costs: Iterable[SubnetCost], scaling: str) -> Table:
    """Table of the parameters and operations of each subnet.

    Args:
        costs: the result of `count_cost`.
        scaling: text for the title: "256 px into 1024 px".
    """
    rows = [(cost.name, f"{cost.parameters:,}", f"{cost.flops / 1e9:,.1f}") for cost in costs]
    return build_table(f"Cost of one photograph, {scaling}", ("subnet", "parameters", "GFLOPs"), rows)


def card_table(card: Mapping[str, Any]) -> Table:
    """Table of the model card; nested entries get names with dots, such as `recipe.data.frame`."""
    return build_table("Model card", ("", ""), _flatten(card), numbers=False)


def _flatten(value: Any, name: str = "") -> Iterable[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flatten(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list) and any(isinstance(inner, Mapping | list) for inner in value):
        for number, inner in enumerate(value):
            yield from _flatten(inner, f"{name}.{number}")
    else:
        yield name, ", ".join(map(str, value)) if isinstance(value, list) else str(value)
