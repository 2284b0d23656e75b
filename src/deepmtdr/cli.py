"""The verbs: each a thin door to a function that Python can call too. Heavy imports stay inside them."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from deepmtdr import __version__
from deepmtdr.errors import DeepMTDRError

app = typer.Typer(
    help="Reads a low-resolution fundus photograph as if it were a good one. Research use: not a medical device.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

FAILED = 1
"""Exit code if something could not be done with an input; the others were done."""
REFUSED = 2
"""Exit code if nothing could be done: wrong arguments, damaged weights, a folder that cannot be written."""


@contextmanager
def one_line_errors(extra: str = "") -> Iterator[None]:
    """What goes wrong on purpose is one line on stderr and exit code 2; anything else is a bug, with its traceback.

    Args:
        extra: whose libraries may be missing.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if not extra or (error.name or "").startswith("deepmtdr"):
            raise
        typer.echo(f"deepmtdr: {error.name} is not installed; pip install 'deepmtdr[{extra}]'", err=True)
        raise typer.Exit(REFUSED) from None
    except (DeepMTDRError, OSError) as error:
        text = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else str(error)
        typer.echo(f"deepmtdr: {' '.join(text.split()) or type(error).__name__}", err=True)
        raise typer.Exit(REFUSED) from None


def _show_version(asked: bool) -> bool:
    if asked:
        typer.echo(f"deepmtdr {__version__}")
        raise typer.Exit
    return asked


def _low_resolution(size: int | None) -> int | None:
    if size not in (None, 128, 256, 512):
        raise typer.BadParameter(f"{size} is no low-resolution size, expected 128, 256 or 512")
    return size


Weights = Annotated[Path | None, typer.Option(help="Checkpoint (.safetensors) instead of the shipped weights.")]
AsLR = Annotated[int | None, typer.Option(callback=_low_resolution, help="Reduce to 128, 256 or 512 px first.")]


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Reads a low-resolution fundus photograph as if it were a good one. Research use: not a medical device."""


@app.command()
def grade(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Photographs, folders, globs.")],
    out: Annotated[Path | None, typer.Option(help="Folder for results.csv and a folder per photograph.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the reports as JSON instead of a table.")] = False,
    as_lr: AsLR = None,
    weights: Weights = None,
) -> None:
    """Grade photographs: DR grade, four lesion maps, super-resolved image, evidence.

    Exit code 0 only if every photograph was graded; 1 if one was not (its row says why); 2 if nothing could be done.

    Example: deepmtdr grade examples/drawings --out out/demo
    """
    from deepmtdr.screening.batch import find_photographs, grade_all, make_results_folder
    from deepmtdr.screening.engine import ScreeningEngine

    with one_line_errors():
        if out is not None:
            make_results_folder(out)
        inputs, left_out = find_photographs(paths, out)
        engine = ScreeningEngine.load(weights)
        reports = _watched(grade_all(engine, inputs, out, as_lr), len(inputs), "grading")
    _show_reports(reports, left_out, as_json)
    raise typer.Exit(FAILED if any(report.status != "ok" for report in reports) else 0)


@app.command()
def dicom(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="DICOM photographs, folders, globs.")],
    out: Annotated[Path, typer.Option(help="Folder for results.csv and a folder per photograph.")] = Path("out/dicom"),
    codes: Annotated[Path | None, typer.Option(help="TOML file of codes that differ from the shipped ones.")] = None,
    deidentify: Annotated[
        Path | None, typer.Option(metavar="KEYFILE", help="Take the patient out first, by this key; made if missing.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the reports as JSON instead of a table.")] = False,
    weights: Weights = None,
) -> None:
    """Answer DICOM photographs: DICOM objects, FHIR and a PDF, as files and without any network.

    Exit code as of `grade`. What is written can be read by its owner alone.

    Example: deepmtdr dicom examples/dicom --out out/dicom
    """
    with one_line_errors("clinic"):
        from deepmtdr.clinic.results import answer_paths

        answers, inputs, left_out = answer_paths(paths, out, weights, codes, deidentify)
        reports = _watched(answers, len(inputs), "answering")
    _show_reports(reports, left_out, as_json)
    raise typer.Exit(FAILED if any(report.status != "ok" for report in reports) else 0)


@app.command()
def info(weights: Weights = None, as_lr: AsLR = 256) -> None:
    """Show the model card, and parameters and operations of each subnet.

    Example: deepmtdr info
    """
    from deepmtdr import checkpoint
    from deepmtdr.baselines import build
    from deepmtdr.model.cost import cost
    from deepmtdr.screening.screen import card_table, cost_table

    with one_line_errors():
        loaded = checkpoint.load(weights)
    recipe, console = loaded.recipe, Console()
    frame, make = recipe.data.frame, partial(build, recipe.system, recipe.parts)
    scale = 1024 // (as_lr or 1024)
    console.print(card_table({"sha256": loaded.digest, **loaded.card}))
    console.print(cost_table(cost(recipe.model, scale, frame, make), f"{frame // scale} px into {frame} px"))


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
    from deepmtdr.data.report import prepare_and_report
    from deepmtdr.screening.screen import plain_table

    with one_line_errors():
        settings = {"size": size, "scale": scale, "shares": _shares(split), "seed": seed, "workers": workers}
        done = prepare_and_report(name, root, out, **settings)
    for table in done.tables:
        Console().print(plain_table(*table))
    typer.echo(f"report: {done.page}")
    raise typer.Exit(FAILED if strict and done.findings else 0)


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
    init_grading: Annotated[Path | None, typer.Option(help="ImageNet ResNet-18 weights (.safetensors).")] = None,
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

    with one_line_errors():
        chosen = load_recipe(recipe, settings or ())
        machine = {"accelerator": accelerator, "devices": devices, "nodes": nodes, "workers": workers}
        start = {"resume": resume, "init": init, "init_grading": init_grading}
        written = training.run(chosen, data, out, **start, **machine, tensorboard=tensorboard)
    typer.echo(f"weights: {written}")


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
    as_lr: AsLR = 256,
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
    from deepmtdr.evaluation import evaluate_systems

    with one_line_errors():
        photographs = {"split": split, "side": side, "datasets": dataset or (), "as_lr": as_lr}
        how = {"thorough": thorough, "removal": removal, "bf16": bf16, "pictures": pictures, "parquet": parquet}
        done = evaluate_systems(data, weights or [None], other=other, out=out, **photographs, **how)
    _show_scores(done.tables(), done.failures)


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
    as_lr: AsLR = None,
) -> None:
    """Fit the temperature of the grades' probabilities, and thresholds for a wanted sensitivity, into the checkpoint.

    What is said of the probabilities after it was judged on patients that it was not fitted on. Photographs are read
    as `grade` reads them. The weights stay as they are; calibrating again replaces.

    Example: deepmtdr calibrate out/train/weights.safetensors eyepacs --data data --split out/train/split.csv
    """
    from deepmtdr.evaluation.calibrate import SENSITIVITIES, calibrate_folder

    with one_line_errors():
        photographs = {"split": split, "side": side, "datasets": datasets, "as_lr": as_lr, "bf16": bf16}
        done = calibrate_folder(weights, data, out=out, **photographs, sensitivities=sensitivity or SENSITIVITIES)
    for warning in done.warnings:
        typer.echo(f"doubt: {warning}", err=True)
    typer.echo(f"weights: {out or weights}")
    _show_scores(done.tables(), done.failures)


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
    from deepmtdr.evaluation import score_systems

    with one_line_errors():
        done = score_systems(predictions, truth, other=other, out=out, binary=binary, allow_missing=allow_missing)
    _show_scores(done.tables(), done.failures)


@app.command()
def compare(
    system: Annotated[
        list[str] | None, typer.Argument(metavar="SYSTEM...", help="By name; all if none is given.")
    ] = None,
    recipe: Annotated[str, typer.Option(help="What the systems share: a shipped recipe or a .toml file.")] = "compared",
    data: Annotated[Path, typer.Option(help="Folder that holds a folder per data set.")] = Path("data"),
    out: Annotated[Path, typer.Option(help="Folder for a folder per system and compared.json.")] = Path("out/compared"),
    minutes: Annotated[float, typer.Option(min=0.01, help="Of training for each system.")] = 10.0,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a setting of the recipe.")
    ] = None,
) -> None:
    """Train and score the compared systems of Tables I, III and IV under one equal cap of time, on one split.

    A run that was stopped goes on where it stood.

    Example: deepmtdr compare DeepMT-DR U-Net ResNet-18 --minutes 10
    """
    from deepmtdr.experiments.compared import compared
    from deepmtdr.recipe import load_recipe
    from deepmtdr.screening.screen import plain_table

    with one_line_errors():
        tables = compared(load_recipe(recipe, settings or ()), data, out, systems=system or (), minutes=minutes)
    for table in tables:
        Console().print(plain_table(*table))


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
    from deepmtdr.data.synthetic import write_data_set
    from deepmtdr.terms import Grade

    with one_line_errors():
        chosen = None if grade is None else Grade(grade)
        samples = write_data_set(out, range(seed, seed + count), grade=chosen, size=size)
    typer.echo(f"{len(samples)} drawings: {out}")


def _watched(items: Iterator[Any], total: int, name: str) -> list[Any]:
    """Everything the iterator gives, with a progress bar on stderr, so that stdout is the result alone."""
    from rich.progress import track

    console = Console(stderr=True)
    return list(track(items, name, total, console=console, transient=True, disable=not console.is_terminal))


def _show_scores(tables: list[Any], failures: list[Any]) -> None:
    """Tables on stdout, a line on stderr for each photograph that is not in them, and the exit code."""
    from deepmtdr.screening.screen import plain_table

    for table in tables:
        Console().print(plain_table(*table))
    for failure in failures:
        typer.echo(f"{failure.dataset} {failure.name}: {failure.failure}", err=True)
    raise typer.Exit(FAILED if failures else 0)


def _show_reports(reports: list[Any], left_out: list[Path], as_json: bool) -> None:
    """The table or JSON on stdout; on stderr one line for each photograph that was not graded."""
    from deepmtdr.files import readable
    from deepmtdr.screening.screen import report_table

    if as_json:
        json.dump([report.to_json() for report in reports], sys.stdout, indent=2)
        typer.echo()
    else:
        Console().print(report_table(reports))
    for report in reports:
        if report.status != "ok":
            typer.echo(f"{report.status}: {report.message}", err=True)
    if left_out:
        named = ", ".join(readable(path) for path in left_out[:5]) + (", ..." if len(left_out) > 5 else "")
        typer.echo(f"left out, no photographs: {len(left_out)} files ({named})", err=True)


if __name__ == "__main__":
    app()
