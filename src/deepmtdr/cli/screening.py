"""The commands `grade` and `info`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from deepmtdr.cli.app import (
    CheckMirror,
    InputSize,
    Overwrite,
    Precision,
    Resume,
    TestTimeAveraging,
    Weights,
    app,
    choose_existing,
    collect_reports,
    exit_on_error,
    print_reports,
)


@app.command()
def grade(
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATH...", help="Photographs, folders of photographs, glob patterns.")
    ],
    out: Annotated[Path | None, typer.Option(help="Folder for results.csv and a folder for each photograph.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the reports as JSON instead of a table.")] = False,
    as_lr: InputSize = None,
    weights: Weights = None,
    precision: Precision = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="Number of PyTorch's threads.")] = None,
    tta: TestTimeAveraging = False,
    check_mirror: CheckMirror = False,
    resume: Resume = False,
    overwrite: Overwrite = False,
) -> None:
    """Grade photographs: grade, lesion maps, super-resolved image, evidence.

    A folder --out with results of an earlier run is refused, unless --resume or --overwrite is given.

    Exit code: 0 if every photograph was graded; 1 if some were not (the reason is in their rows); 2 if nothing was
    done.

    Example: deepmtdr grade examples/drawings --out out/demo
    """
    from deepmtdr.screening.batch import grade_photographs
    from deepmtdr.screening.engine import ScreeningEngine
    from deepmtdr.screening.inputs import find_photographs
    from deepmtdr.screening.turned_copies import choose_copies

    existing = choose_existing(resume=resume, overwrite=overwrite, out=out)
    with exit_on_error():
        inputs, skipped = find_photographs(paths, out)
        copies = choose_copies(tta=tta, check_mirror=check_mirror)
        engine = ScreeningEngine.load(weights, precision=precision, threads=threads, turned_copies=copies)
        graded = grade_photographs(engine, inputs, out, as_lr, existing=existing, skipped=skipped)
        reports = collect_reports(graded, len(inputs), out)
    print_reports(reports, skipped, as_json)


@app.command()
def info(
    weights: Weights = None,
    as_lr: Annotated[
        int | None, typer.Option(min=1, help="Size of the photograph for which the operations are counted, px.")
    ] = None,
) -> None:
    """Show the model card, and the parameters and operations of each subnet.

    The operations are those for one photograph of the size --as-lr (default: a quarter of the frame).

    Example: deepmtdr info
    """
    from deepmtdr.checkpoint import load
    from deepmtdr.cli.tables import card_table, cost_table
    from deepmtdr.model.cost import count_cost
    from deepmtdr.photographs.geometry import choose_input_scale
    from deepmtdr.systems import build_system

    with exit_on_error():
        loaded = load(weights)
        recipe, frame = loaded.recipe, loaded.recipe.data.frame
        way = choose_input_scale(frame // 4, as_lr, frame)
    make = partial(build_system, recipe.system, recipe.parts, labels=recipe.labels)
    costs = count_cost(recipe.model, way.scale, frame, make)
    Console().print(card_table({"sha256": loaded.digest, **loaded.card}))
    Console().print(cost_table(costs, f"{way.lr_size} px into {frame} px"))
