"""The commands `ablate` and `leave-one-out`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from deepmtdr.cli.app import (
    EXIT_SOME_FAILED,
    DataFolder,
    InitGrading,
    InitSegmentation,
    RecipeName,
    RecipeSettings,
    app,
    exit_on_error,
)


def _parse_seeds(text: str) -> list[int]:
    """Parse numbers with commas between them."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise typer.BadParameter(f"found {text!r}, expected whole numbers such as 0,1,2") from None


@app.command()
def ablate(
    recipe: RecipeName,
    ablation: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Ablation to train; repeat the option for several. Default: none."),
    ] = None,
    seeds: Annotated[str, typer.Option(help="Seeds of the runs, with commas between them.")] = "0,1,2",
    data: DataFolder = Path("data"),
    out: Annotated[Path, typer.Option(help="Folder for seed-N/ARM with each run, study.json and study.md.")] = Path(
        "out/study"
    ),
    init_segmentation: InitSegmentation = None,
    init_grading: InitGrading = None,
    settings: RecipeSettings = None,
) -> None:
    """Compare joint training with its first stages alone and with ablations, over several seeds.

    For each seed the arms are "stage-1" (the first stages), "joint" (the whole recipe) and each ablation: "separate",
    "without-isr", "end-to-end", ... An unknown name lists all. Ablations of the joint stage start from the weights of
    stage-1; the others are trained from the start. A run that was stopped is resumed when the command is repeated.

    Example: deepmtdr ablate joint-study --ablation separate --ablation without-task-aware-losses --data data
    """
    from deepmtdr import training
    from deepmtdr.cli.tables import build_table
    from deepmtdr.experiments.ablation_study import run_ablation_study
    from deepmtdr.recipe import load_recipe

    start = training.StartWeights(segmentation=init_segmentation, grading=init_grading)
    names, numbers = ablation or (), _parse_seeds(seeds)
    with exit_on_error(stopped="finished runs are kept: run the same command again to go on"):
        loaded = load_recipe(recipe, settings or ())
        done = run_ablation_study(loaded, data, out, ablations=names, seeds=numbers, start=start)
    for table in done.tables:
        Console().print(build_table(*table))
    for failed in done.failed:
        typer.echo(f"{failed.arm}, seed {failed.seed}: {failed.reason}", err=True)
    raise typer.Exit(EXIT_SOME_FAILED if done.failed else 0)


@app.command()
def leave_one_out(
    recipe: RecipeName,
    dataset: Annotated[
        list[str],
        typer.Option(
            metavar="NAME",
            help="Data set to leave out; repeat the option for several runs. NAME+NAME: both in one run.",
        ),
    ],
    data: DataFolder = Path("data"),
    out: Annotated[Path, typer.Option(help="Folder for each run and leave-one-out.md.")] = Path("out/leave-one-out"),
    init_segmentation: InitSegmentation = None,
    init_grading: InitGrading = None,
    settings: RecipeSettings = None,
) -> None:
    """Train without one data set and score on all its photographs: what to expect of a camera unseen in training.

    A run that was stopped is resumed when the command is repeated.

    Example: deepmtdr leave-one-out joint-study --dataset idrid --dataset srahim --data data
    """
    from deepmtdr import training
    from deepmtdr.cli.tables import build_table
    from deepmtdr.experiments.leave_one_out import run_leave_one_out
    from deepmtdr.recipe import load_recipe

    start = training.StartWeights(segmentation=init_segmentation, grading=init_grading)
    left_out = [name.split("+") for name in dataset]
    with exit_on_error(stopped="finished runs are kept: run the same command again to go on"):
        done = run_leave_one_out(load_recipe(recipe, settings or ()), data, out, left_out=left_out, start=start)
    for table in done.tables:
        Console().print(build_table(*table))
    for failed in done.failed:
        typer.echo(f"without {failed.left_out}: {failed.reason}", err=True)
    raise typer.Exit(EXIT_SOME_FAILED if done.failed else 0)
