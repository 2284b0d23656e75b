"""Commands for data sets: `prepare`, and `draw` for synthetic photographs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from deepmtdr.cli.app import EXIT_SOME_FAILED, app, exit_on_error
from deepmtdr.terms import FRAME, Grade


def _parse_shares(text: str) -> dict[str, float]:
    try:
        return {split.strip(): float(share) for split, _, share in (part.partition("=") for part in text.split(","))}
    except ValueError:
        raise typer.BadParameter(f"found {text!r}, expected shares such as train=0.7,validation=0.1,test=0.2") from None


@app.command()
def prepare(
    name: Annotated[
        str, typer.Argument(help="Name of the data set: ddr, idrid, eyepacs, ...; `folder` for your own photographs.")
    ],
    root: Annotated[
        Path, typer.Argument(help="Folder of the data set, with the files as its authors distribute them.")
    ],
    out: Annotated[Path, typer.Argument(help="Folder for the prepared set.")],
    size: Annotated[int, typer.Option(help="Side of the HR frame, px.")] = FRAME,
    scale: Annotated[int, typer.Option(help="Enlargement factor from the LR image to the HR frame: 2, 4 or 8.")] = 4,
    split: Annotated[
        str, typer.Option(help="Shares of the patients in each split, for photographs without an official split.")
    ] = "train=0.7,validation=0.1,test=0.2",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the split.")] = 0,
    labels: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.toml",
            help="TOML file of the lesion types and grades of the data set `folder`. Default: diabetic retinopathy.",
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Number of worker processes. Default: one per core, fewer for a small data set."),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with code 1 if a possible problem is found.")] = False,
) -> None:
    """Prepare a data set for training: HR and LR images, masks, a manifest with a split, a report of possible problems.

    A run that was interrupted continues where it stopped.

    Example: deepmtdr prepare idrid data/idrid out/prepared/idrid
    """
    from deepmtdr.cli.tables import build_table
    from deepmtdr.labels import DIABETIC_RETINOPATHY, load_label_set
    from deepmtdr.preparation.report import prepare_and_report

    shares = _parse_shares(split)
    with exit_on_error(stopped="finished photographs are kept: run the same command again to go on"):
        chosen = DIABETIC_RETINOPATHY if labels is None else load_label_set(labels)
        done = prepare_and_report(
            name, root, out, size=size, scale=scale, labels=chosen, shares=shares, seed=seed, workers=workers
        )
    for table in done.tables:
        Console().print(build_table(*table))
    typer.echo(f"report: {done.page}")
    raise typer.Exit(EXIT_SOME_FAILED if strict and done.findings else 0)


@app.command()
def draw(
    out: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Folder for photographs/, masks/ and the table photographs.csv.")
    ],
    count: Annotated[int, typer.Option(min=1, help="Number of drawings.")] = 10,
    seed: Annotated[
        int, typer.Option(min=0, help="Seed of the first drawing; 2p and 2p + 1 are the eyes of one patient.")
    ] = 0,
    grade: Annotated[
        int | None,
        typer.Option(min=min(Grade), max=max(Grade), help="Grade of all drawings. Default: all grades occur."),
    ] = None,
    size: Annotated[int, typer.Option(min=64, help="Diameter of the field of view, px.")] = FRAME,
) -> None:
    """Draw synthetic fundus photographs with lesion masks and grades, the same for the same seed.

    Example: deepmtdr draw out/data/drawings --count 12
    """
    from deepmtdr.synthetic.drawings import write_drawings

    with exit_on_error(stopped="there is no photographs.csv: run the same command again"):
        chosen = None if grade is None else Grade(grade)
        samples = write_drawings(out, range(seed, seed + count), grade=chosen, size=size)
    typer.echo(f"{len(samples)} drawings: {out}")
