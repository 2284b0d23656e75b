"""Data sets, and drawings in their place."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from deepmtdr.cli.app import EXIT_SOME_FAILED, app, exit_on_error


def _shares(text: str) -> dict[str, float]:
    try:
        return {side.strip(): float(share) for side, _, share in (part.partition("=") for part in text.split(","))}
    except ValueError:
        raise typer.BadParameter(f"{text!r}, expected shares such as train=0.7,validation=0.1,test=0.2") from None


@app.command()
def prepare(
    name: Annotated[str, typer.Argument(help="Data set by name: ddr, idrid, eyepacs, ...; folder for one's own.")],
    root: Annotated[Path, typer.Argument(help="Folder in which it lies, as its makers give it.")],
    out: Annotated[Path, typer.Argument(help="Folder for the prepared set.")],
    size: Annotated[int, typer.Option(help="Side of the HR frame, px.")] = 1024,
    scale: Annotated[int, typer.Option(help="From the LR files to the frame: 2, 4 or 8.")] = 4,
    split: Annotated[
        str, typer.Option(help="Shares of the patients, where the set's makers made no such side.")
    ] = "train=0.7,validation=0.1,test=0.2",
    seed: Annotated[int, typer.Option(min=0, help="Another seed, another split.")] = 0,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; one for each core if not given.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit code 1 if there is any finding.")] = False,
) -> None:
    """Prepare a data set once: HR and LR files, masks, a manifest with a split, and a report of every doubt.

    A run that was stopped goes on where it stood.

    Example: deepmtdr prepare idrid data/idrid out/prepared/idrid
    """
    from deepmtdr.cli.tables import build_table
    from deepmtdr.preparation.report import prepare_and_report

    with exit_on_error():
        settings = {"size": size, "scale": scale, "shares": _shares(split), "seed": seed, "workers": workers}
        done = prepare_and_report(name, root, out, **settings)
    for table in done.tables:
        Console().print(build_table(*table))
    typer.echo(f"report: {done.page}")
    raise typer.Exit(EXIT_SOME_FAILED if strict and done.findings else 0)


@app.command()
def draw(
    out: Annotated[Path, typer.Argument(metavar="FOLDER", help="Gets photographs/, masks/ and photographs.csv.")],
    count: Annotated[int, typer.Option(min=1, help="How many drawings.")] = 10,
    seed: Annotated[int, typer.Option(min=0, help="Of the first one; 2p and 2p + 1 are one patient's eyes.")] = 0,
    grade: Annotated[int | None, typer.Option(min=0, max=4, help="Of all of them; else as grades are met.")] = None,
    size: Annotated[int, typer.Option(min=64, help="Diameter of the field of view, px.")] = 1024,
) -> None:
    """Draw fundus photographs of no patient, with lesion masks and grades: always the same from the same seed.

    Example: deepmtdr draw out/data/drawings --count 12
    """
    from deepmtdr.synthetic.drawings import write_drawings
    from deepmtdr.terms import Grade

    with exit_on_error():
        chosen = None if grade is None else Grade(grade)
        samples = write_drawings(out, range(seed, seed + count), grade=chosen, size=size)
    typer.echo(f"{len(samples)} drawings: {out}")
