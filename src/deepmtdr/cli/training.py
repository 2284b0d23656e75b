"""`deepmtdr train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deepmtdr.cli.app import DataFolder, InitGrading, InitSegmentation, RecipeName, RecipeSettings, app, exit_on_error


@app.command()
def train(
    recipe: RecipeName,
    data: DataFolder = Path("data"),
    out: Annotated[Path, typer.Option(help="Folder for checkpoints, logs, split.csv, weights and report.")] = Path(
        "out/train"
    ),
    settings: RecipeSettings = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the last checkpoint in --out.")] = False,
    init: Annotated[
        Path | None, typer.Option(help="Checkpoint (.safetensors) whose weights training starts from.")
    ] = None,
    init_segmentation: InitSegmentation = None,
    init_grading: InitGrading = None,
    workers: Annotated[int, typer.Option(min=0, help="Number of processes that load batches.")] = 0,
    accelerator: Annotated[str, typer.Option(help="cpu, cuda, ..., as Lightning Fabric names them.")] = "auto",
    devices: Annotated[int, typer.Option(min=1, help="Devices on each machine; they share a batch.")] = 1,
    nodes: Annotated[int, typer.Option(min=1, help="Machines; start the same command on each with torchrun.")] = 1,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Write TensorBoard files too.")] = False,
) -> None:
    """Train a recipe: super-resolution and segmentation, then grading, then all three jointly.

    A run that was stopped continues with --resume. The report is OUT/report.html.

    Example: deepmtdr train smoke --data out/data --out out/smoke --set seed=1
    """
    from deepmtdr import training
    from deepmtdr.recipe import load_recipe

    with exit_on_error(stopped="prepared photographs are kept: run the same command again"):
        weights = training.run(
            load_recipe(recipe, settings or ()),
            data,
            out,
            resume=resume,
            start=training.StartWeights(checkpoint=init, segmentation=init_segmentation, grading=init_grading),
            hardware=training.Hardware(accelerator=accelerator, devices=devices, nodes=nodes, workers=workers),
            tensorboard=tensorboard,
        )
    typer.echo(f"weights: {weights}")
