"""Photographs to reports."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from deepmtdr.cli.app import (
    EXIT_SOME_FAILED,
    InputSize,
    Weights,
    app,
    collect_with_progress,
    exit_on_error,
    print_reports,
)


@app.command()
def grade(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Photographs, folders, globs.")],
    out: Annotated[Path | None, typer.Option(help="Folder for results.csv and a folder per photograph.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the reports as JSON instead of a table.")] = False,
    as_lr: InputSize = None,
    weights: Weights = None,
) -> None:
    """Grade photographs: DR grade, four lesion maps, super-resolved image, evidence.

    Exit code 0 only if every photograph was graded; 1 if one was not (its row says why); 2 if nothing could be done.

    Example: deepmtdr grade examples/drawings --out out/demo
    """
    from deepmtdr.screening.batch import find_photographs, grade_photographs, make_results_folder
    from deepmtdr.screening.engine import ScreeningEngine

    with exit_on_error():
        if out is not None:
            make_results_folder(out)
        inputs, skipped = find_photographs(paths, out)
        engine = ScreeningEngine.load(weights)
        reports = collect_with_progress(grade_photographs(engine, inputs, out, as_lr), len(inputs), "grading")
    print_reports(reports, skipped, as_json)
    raise typer.Exit(EXIT_SOME_FAILED if any(report.status != "ok" for report in reports) else 0)


@app.command()
def info(weights: Weights = None, as_lr: InputSize = 256) -> None:
    """Show the model card, and parameters and operations of each subnet.

    Example: deepmtdr info
    """
    from deepmtdr import checkpoint
    from deepmtdr.cli.tables import card_table, cost_table
    from deepmtdr.model.cost import count_cost
    from deepmtdr.systems import build_system

    with exit_on_error():
        loaded = checkpoint.load(weights)
    recipe, console = loaded.recipe, Console()
    frame, make = recipe.data.frame, partial(build_system, recipe.system, recipe.parts)
    scale = 1024 // (as_lr or 1024)
    console.print(card_table({"sha256": loaded.digest, **loaded.card}))
    console.print(cost_table(count_cost(recipe.model, scale, frame, make), f"{frame // scale} px into {frame} px"))
