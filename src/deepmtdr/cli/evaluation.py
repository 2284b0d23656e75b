"""The commands `evaluate`, `calibrate`, `score` and `benchmark-baselines`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from deepmtdr.cli.app import EXIT_SOME_FAILED, DataFolder, InputSize, RecipeSettings, app, exit_on_error, print_scores

SplitFile = Annotated[
    Path | None, typer.Option(help="split.csv of a training run. Default: all photographs of the data sets.")
]
BFloat16 = Annotated[bool, typer.Option("--bf16", help="Compute convolutions in bfloat16: faster on recent CPUs.")]


@app.command()
def evaluate(
    data: DataFolder = Path("data"),
    split: SplitFile = None,
    side: Annotated[
        str, typer.Option(help="Which photographs of split.csv to use: train, validation or test.")
    ] = "test",
    dataset: Annotated[
        list[str] | None, typer.Option(help="Name of a data set; repeat the option for several.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for evaluation.json, predictions.csv and report.html.")
    ] = None,
    pictures: Annotated[bool, typer.Option(help="Show the photographs of the worst cases in report.html.")] = True,
    thorough: Annotated[
        bool,
        typer.Option(
            "--thorough/--quick",
            help="Also predict from the bicubic image and the HR frame. --quick skips this: a third of the time.",
        ),
    ] = True,
    removal: Annotated[
        int,
        typer.Option(
            min=0, help="Number of steps of the deletion and insertion test of the evidence; slow. 0: no test."
        ),
    ] = 0,
    flips: Annotated[
        bool,
        typer.Option("--flips", help="Also predict each photograph mirrored and turned: eight more predictions each."),
    ] = False,
    parquet: Annotated[bool, typer.Option("--parquet", help="Write predictions.parquet too.")] = False,
    bf16: BFloat16 = False,
    as_lr: InputSize = None,
    weights: Annotated[
        list[Path] | None,
        typer.Option(
            help="Checkpoint instead of the shipped weights. Repeat the option for several seeds of the same recipe."
        ),
    ] = None,
    other: Annotated[
        Path | None, typer.Option("--compare", metavar="OTHER", help="Checkpoint of another system to compare with.")
    ] = None,
) -> None:
    """Score a checkpoint on labelled photographs: super-resolution, lesions and grades, with 95 % intervals.

    Each photograph is first reduced to a quarter of the frame (256 px for 1024 px), or to --as-lr. Intervals are
    computed by bootstrap over patients. A star marks the scores of the paper's tables.

    Example: deepmtdr evaluate --data data --split out/train/split.csv --out out/evaluation
    """
    from deepmtdr.evaluation import EvaluationConfig, ReportConfig, SampleSelection, evaluate_checkpoints

    selection = SampleSelection(data=data, split_file=split, split=side, datasets=tuple(dataset or ()))
    report = ReportConfig(out=out, pictures=pictures, parquet=parquet)
    config = EvaluationConfig(as_lr=as_lr, bf16=bf16, thorough=thorough, removal_steps=removal, flips=flips)
    with exit_on_error():
        done = evaluate_checkpoints(selection, weights or [None], other=other, config=config, report=report)
    print_scores(done.tables(), done.failures)


@app.command()
def calibrate(
    weights: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="The weights (.safetensors).")],
    datasets: Annotated[list[str], typer.Argument(metavar="DATASET...", help="Names of data sets with grades.")],
    data: DataFolder = Path("data"),
    split: SplitFile = None,
    side: Annotated[
        str,
        typer.Option(
            help="Which photographs of split.csv to use: train, validation or test. Do not use those of the final test."
        ),
    ] = "validation",
    sensitivity: Annotated[
        list[float] | None,
        typer.Option(min=0.01, max=1, help="Target sensitivity of a threshold; repeat the option for several."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write this .safetensors file instead of CHECKPOINT.")] = None,
    bf16: BFloat16 = False,
    as_lr: InputSize = None,
) -> None:
    """Fit how probabilities and grades are computed on graded photographs, and store it in the checkpoint.

    A temperature and a correction for each grade make the probabilities agree better with how often they are right.
    Thresholds of the expected grade decide the grade, and thresholds of the probability decide who is referred. All
    scores after calibration are measured on patients that were not used for the fit. The weights do not change. A
    second calibration replaces the first.

    Example: deepmtdr calibrate out/train/weights.safetensors eyepacs --data data --split out/train/split.csv
    """
    from deepmtdr.calibration import TARGET_SENSITIVITIES, CalibrationConfig, calibrate_folder
    from deepmtdr.evaluation import SampleSelection

    selection = SampleSelection(data=data, split_file=split, split=side, datasets=tuple(datasets))
    targets = tuple(sensitivity or TARGET_SENSITIVITIES)
    with exit_on_error():
        config = CalibrationConfig(sensitivities=targets, as_lr=as_lr, bf16=bf16)
        done = calibrate_folder(weights, selection, config, out=out)
    for warning in done.warnings:
        typer.echo(f"warning: {warning}", err=True)
    typer.echo(f"weights: {out or weights}")
    print_scores(done.tables(), done.failures)


@app.command()
def score(
    predictions: Annotated[
        Path, typer.Argument(help="CSV or Parquet with the columns name, and p0, p1, ... or predicted_grade.")
    ],
    truth: Annotated[
        Path, typer.Argument(help="CSV or Parquet with the columns name, grade and, if known, patient and dataset.")
    ],
    other: Annotated[
        Path | None, typer.Option("--compare", metavar="OTHER", help="Predictions of another system to compare with.")
    ] = None,
    binary: Annotated[
        bool, typer.Option("--binary", help="Only score whether there is any disease (grade >= 1) or not.")
    ] = False,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Count a photograph without a prediction as a failure.")
    ] = False,
    labels: Annotated[
        Path | None, typer.Option(help="TOML file with the lesion types and grades. Default: diabetic retinopathy.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for evaluation.json, report.html and comparison.json.")
    ] = None,
) -> None:
    """Score a table of grades predicted by any system, and compare two systems.

    Exit code: 0 if every photograph has a prediction; 1 if a photograph has none (listed on stderr); 2 if a table is
    wrong.

    Example: deepmtdr score out/evaluation/predictions.csv labels.csv --compare other.csv
    """
    from deepmtdr.evaluation import score_prediction_files
    from deepmtdr.labels import DIABETIC_RETINOPATHY, load_label_set

    with exit_on_error():
        done = score_prediction_files(
            predictions,
            truth,
            other=other,
            out=out,
            binary=binary,
            allow_missing=allow_missing,
            labels=DIABETIC_RETINOPATHY if labels is None else load_label_set(labels),
        )
    print_scores(done.tables(), done.failures)


def _split_file(text: str) -> tuple[str, Path]:
    """Split SYSTEM=FILE."""
    system, equals, file = text.partition("=")
    if not equals:
        raise typer.BadParameter(f"found {text!r}, expected SYSTEM=FILE", param_hint="--imagenet")
    return system, Path(file)


@app.command("benchmark-baselines")
@app.command("compare", hidden=True, help="Renamed: use `deepmtdr benchmark-baselines`.")
def benchmark_baselines(
    system: Annotated[
        list[str] | None, typer.Argument(metavar="SYSTEM...", help="Names of systems. Default: all systems.")
    ] = None,
    recipe: Annotated[
        str, typer.Option(help="Settings that all systems share: a shipped recipe or a .toml file.")
    ] = "compared",
    data: DataFolder = Path("data"),
    out: Annotated[Path, typer.Option(help="Folder for one folder per system, compared.json and compared.md.")] = Path(
        "out/compared"
    ),
    imagenet: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SYSTEM=FILE", help="Train this system from ImageNet weights (.safetensors), as a row of its own."
        ),
    ] = None,
    minutes: Annotated[float, typer.Option(min=0.01, help="Training time of each system.")] = 10.0,
    settings: RecipeSettings = None,
) -> None:
    """Train and score the systems of Tables I, III and IV with the same training time and the same split.

    A run that was stopped is resumed when the command is repeated.

    Systems named by --imagenet are trained from ImageNet weights. Name them among the systems too to train them from
    random weights as well.

    Example: deepmtdr benchmark-baselines DeepMT-DR U-Net --imagenet "SqueezeNet 1.1=squeezenet1_1.safetensors"
    """
    from deepmtdr.cli.tables import build_table
    from deepmtdr.experiments.system_comparison import compare_systems
    from deepmtdr.recipe import load_recipe

    files = dict(map(_split_file, imagenet or ()))
    with exit_on_error(stopped="finished runs are kept: run the same command again to go on"):
        loaded = load_recipe(recipe, settings or ())
        done = compare_systems(loaded, data, out, systems=system or (), imagenet=files, minutes=minutes)
    for table in done.tables:
        Console().print(build_table(*table))
    for failed in done.failed:
        typer.echo(f"{failed.system}: {failed.reason}", err=True)
    raise typer.Exit(EXIT_SOME_FAILED if done.failed else 0)
