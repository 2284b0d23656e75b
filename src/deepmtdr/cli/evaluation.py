"""Scores, and what they are compared with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from deepmtdr.cli.app import EXIT_SOME_FAILED, InputSize, app, exit_on_error, print_scores


@app.command()
def evaluate(
    data: Annotated[Path, typer.Option(help="Folder that holds a folder per data set.")] = Path("data"),
    split: Annotated[Path | None, typer.Option(help="split.csv of a training; without it whole data sets.")] = None,
    side: Annotated[str, typer.Option(help="Side of the split.")] = "test",
    dataset: Annotated[list[str] | None, typer.Option(help="A data set, by name; several times for several.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for evaluation.json, predictions.csv and report.html.")
    ] = None,
    pictures: Annotated[bool, typer.Option(help="Show the photographs that are graded worst in report.html.")] = True,
    thorough: Annotated[
        bool, typer.Option("--thorough/--quick", help="Read bicubic and HR beside SR too: three times as long.")
    ] = True,
    removal: Annotated[
        int, typer.Option(min=0, help="Steps of deletion and insertion of the evidence; 0: none. Slow.")
    ] = 0,
    parquet: Annotated[bool, typer.Option("--parquet", help="Write predictions.parquet too.")] = False,
    bf16: Annotated[bool, typer.Option("--bf16", help="Convolutions in bfloat16: twice as fast on new CPUs.")] = False,
    as_lr: InputSize = 256,
    weights: Annotated[
        list[Path] | None, typer.Option(help="Checkpoint instead of the shipped one; several: mean over the seeds.")
    ] = None,
    other: Annotated[
        Path | None, typer.Option("--compare", metavar="OTHER", help="Checkpoint of another system, to be B.")
    ] = None,
) -> None:
    """Score the three tasks on photographs with known labels, with 95 % intervals by bootstrap over patients.

    A star marks the scores that stand in the paper's tables; the others are the field's.

    Example: deepmtdr evaluate --data data --split out/train/split.csv --out out/evaluation
    """
    from deepmtdr.evaluation import evaluate_checkpoints

    with exit_on_error():
        photographs = {"split": split, "side": side, "datasets": dataset or (), "as_lr": as_lr}
        how = {"thorough": thorough, "removal": removal, "bf16": bf16, "pictures": pictures, "parquet": parquet}
        done = evaluate_checkpoints(data, weights or [None], other=other, out=out, **photographs, **how)
    print_scores(done.tables(), done.failures)


@app.command()
def calibrate(
    weights: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="The weights (.safetensors).")],
    datasets: Annotated[list[str], typer.Argument(metavar="DATASET...", help="Graded photographs, by name.")],
    data: Annotated[Path, typer.Option(help="Folder that holds a folder per data set.")] = Path("data"),
    split: Annotated[Path | None, typer.Option(help="split.csv of a training; without it whole data sets.")] = None,
    side: Annotated[str, typer.Option(help="Side of the split; not the one to be tested on.")] = "validation",
    sensitivity: Annotated[
        list[float] | None, typer.Option(min=0.01, max=1, help="Wanted of a threshold; several times for several.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write this .safetensors file instead of CHECKPOINT.")] = None,
    bf16: Annotated[bool, typer.Option("--bf16", help="Convolutions in bfloat16: twice as fast on new CPUs.")] = False,
    as_lr: InputSize = None,
) -> None:
    """Fit the temperature of the grades' probabilities, and thresholds for a wanted sensitivity, into the checkpoint.

    What is said of the probabilities after it was judged on patients that it was not fitted on. Photographs are read
    as `grade` reads them. The weights stay as they are; calibrating again replaces.

    Example: deepmtdr calibrate out/train/weights.safetensors eyepacs --data data --split out/train/split.csv
    """
    from deepmtdr.calibration.calibrate import TARGET_SENSITIVITIES, calibrate_folder

    with exit_on_error():
        photographs = {"split": split, "side": side, "datasets": datasets, "as_lr": as_lr, "bf16": bf16}
        done = calibrate_folder(
            weights, data, out=out, **photographs, sensitivities=sensitivity or TARGET_SENSITIVITIES
        )
    for warning in done.warnings:
        typer.echo(f"doubt: {warning}", err=True)
    typer.echo(f"weights: {out or weights}")
    print_scores(done.tables(), done.failures)


@app.command()
def score(
    predictions: Annotated[Path, typer.Argument(help="CSV with name, and p0 ... p4 or predicted_grade.")],
    truth: Annotated[Path, typer.Argument(help="CSV with name, grade and, if known, patient and dataset.")],
    other: Annotated[
        Path | None, typer.Option("--compare", metavar="OTHER", help="Predictions of another system, to be B.")
    ] = None,
    binary: Annotated[bool, typer.Option("--binary", help="Negative or positive (grade >= 1) alone.")] = False,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="A photograph without a prediction is a failure, not an error.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="Folder for evaluation.json, report.html and comparison.json.")
    ] = None,
) -> None:
    """Score the grades that any system predicted, as `evaluate` scores this one's, and compare two systems.

    Exit code 0 only if every photograph was predicted; 1 if one was not (a line says which); 2 if a table is wrong.

    Example: deepmtdr score out/evaluation/predictions.csv labels.csv --compare other.csv
    """
    from deepmtdr.evaluation import score_prediction_files

    with exit_on_error():
        done = score_prediction_files(
            predictions, truth, other=other, out=out, binary=binary, allow_missing=allow_missing
        )
    print_scores(done.tables(), done.failures)


@app.command()
def compare(
    system: Annotated[
        list[str] | None, typer.Argument(metavar="SYSTEM...", help="By name; all if none is given.")
    ] = None,
    recipe: Annotated[str, typer.Option(help="What the systems share: a shipped recipe or a .toml file.")] = "compared",
    data: Annotated[Path, typer.Option(help="Folder that holds a folder per data set.")] = Path("data"),
    out: Annotated[Path, typer.Option(help="Folder for a folder per system, compared.json and compared.md.")] = Path(
        "out/compared"
    ),
    minutes: Annotated[float, typer.Option(min=0.01, help="Of training for each system.")] = 10.0,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a setting of the recipe.")
    ] = None,
) -> None:
    """Train and score the compared systems of Tables I, III and IV under one equal cap of time, on one split.

    A run that was stopped goes on where it stood.

    Example: deepmtdr compare DeepMT-DR U-Net ResNet-18 --minutes 10
    """
    from deepmtdr.cli.tables import build_table
    from deepmtdr.experiments.system_comparison import compare_systems
    from deepmtdr.recipe import load_recipe

    with exit_on_error():
        done = compare_systems(load_recipe(recipe, settings or ()), data, out, systems=system or (), minutes=minutes)
    for table in done.tables:
        Console().print(build_table(*table))
    for failed in done.failed:
        typer.echo(f"{failed.system}: {failed.reason}", err=True)
    raise typer.Exit(EXIT_SOME_FAILED if done.failed else 0)
