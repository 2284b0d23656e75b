"""Training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deepmtdr.cli.app import app, exit_on_error


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="A shipped recipe by name, or a .toml file.")],
    data: Annotated[Path, typer.Option(help="Folder that holds a folder per data set.")] = Path("data"),
    out: Annotated[Path, typer.Option(help="Folder for checkpoints, metrics.csv, split.csv, weights.")] = Path(
        "out/train"
    ),
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a setting.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in --out.")] = False,
    init: Annotated[Path | None, typer.Option(help="Checkpoint (.safetensors) to start from.")] = None,
    init_segmentation: Annotated[
        Path | None, typer.Option(help="ImageNet weights (.safetensors) of CE-Net's encoder, a ResNet-34.")
    ] = None,
    init_grading: Annotated[
        Path | None,
        typer.Option(help="ImageNet weights (.safetensors) of the grader, a ResNet-18 in the paper."),
    ] = None,
    workers: Annotated[int, typer.Option(min=0, help="Processes that make batches ahead; 0: none.")] = 0,
    accelerator: Annotated[str, typer.Option(help="cpu, cuda, ... as Lightning Fabric has them.")] = "auto",
    devices: Annotated[int, typer.Option(min=1, help="How many on each machine share a batch.")] = 1,
    nodes: Annotated[int, typer.Option(min=1, help="Machines; the same command on each, by torchrun.")] = 1,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Write TensorBoard's files too.")] = False,
) -> None:
    """Train by a recipe: ISR and segmentation, grading, then all three jointly.

    A run that was stopped goes on with --resume. The report is OUT/report.html.

    Example: deepmtdr train smoke --data out/data --out out/smoke --set seed=1
    """
    from deepmtdr import training
    from deepmtdr.recipe import load_recipe

    with exit_on_error():
        chosen = load_recipe(recipe, settings or ())
        machine = {"accelerator": accelerator, "devices": devices, "nodes": nodes, "workers": workers}
        start = {"resume": resume, "init": init}
        start |= {"init_segmentation": init_segmentation, "init_grading": init_grading}
        written = training.run(chosen, data, out, **start, **machine, tensorboard=tensorboard)
    typer.echo(f"weights: {written}")
