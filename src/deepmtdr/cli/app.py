"""The program `deepmtdr`: shared options, exit codes, one-line errors, progress and output."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from rich.console import Console

from deepmtdr._version import __version__
from deepmtdr.errors import DeepMTDRError
from deepmtdr.terms import PRECISIONS

if TYPE_CHECKING:
    from deepmtdr.evaluation.photograph_result import PhotographResult
    from deepmtdr.rendering.html import Table
    from deepmtdr.screening.report import ScreeningReport
    from deepmtdr.screening.results_folder import ExistingResults

T = TypeVar("T")

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

EXIT_SOME_FAILED = 1
"""Exit code if some of the inputs could not be processed."""
EXIT_NOTHING_DONE = 2
"""Exit code if nothing could be done: wrong arguments, damaged weights, a folder that cannot be written."""
EXIT_STOPPED = 130
"""Exit code after Ctrl-C, as shells expect it."""


@contextmanager
def exit_on_error(extra: str = "", *, stopped: str = "nothing was written") -> Iterator[None]:
    """Context manager that prints an expected error as one line and exits with code 2. Other errors are bugs.

    Args:
        extra: the optional dependencies of this package that the command needs, for the error message.
        stopped: what is done when Ctrl-C was pressed, and how to go on.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if not extra or missing == "deepmtdr":
            raise
        typer.echo(f"deepmtdr: {missing} is not installed; run pip install 'deepmtdr[{extra}]'", err=True)
        raise typer.Exit(EXIT_NOTHING_DONE) from None
    except KeyboardInterrupt:
        typer.echo(f"deepmtdr: stopped by Ctrl-C; {stopped}", err=True)
        raise typer.Exit(EXIT_STOPPED) from None
    except (DeepMTDRError, OSError) as error:
        text = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else str(error)
        typer.echo(f"deepmtdr: {' '.join(text.split()) or type(error).__name__}", err=True)
        raise typer.Exit(EXIT_NOTHING_DONE) from None


def _show_version(requested: bool) -> bool:
    if requested:
        typer.echo(f"deepmtdr {__version__}")
        raise typer.Exit
    return requested


def _check_precision(name: str) -> str:
    if name not in PRECISIONS:
        raise typer.BadParameter(f"found {name!r}, expected auto, fp32 or bf16")
    return name


RecipeName = Annotated[str, typer.Argument(help="Name of a shipped recipe, or a .toml file.")]
RecipeSettings = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a setting of the recipe.")
]
DataFolder = Annotated[Path, typer.Option(help="Folder that contains one folder per data set.")]
InitSegmentation = Annotated[
    Path | None, typer.Option(help="ImageNet weights (.safetensors) for the segmentation network.")
]
InitGrading = Annotated[Path | None, typer.Option(help="ImageNet weights (.safetensors) for the grading network.")]
Weights = Annotated[Path | None, typer.Option(help="Checkpoint (.safetensors) instead of the shipped weights.")]
InputSize = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Resize every photograph to this many px first: 1/8, 1/4 or 1/2 of the frame (128, 256 or 512 for 1024).",
    ),
]
Precision = Annotated[
    str,
    typer.Option(
        callback=_check_precision,
        help="Number format of the convolutions: fp32, bf16, or auto (bf16 where the processor supports it).",
    ),
]


TestTimeAveraging = Annotated[
    bool,
    typer.Option(
        "--tta",
        help="Average over the eight turns of each photograph (mirrored and turned): takes eight times as long.",
    ),
]
CheckMirror = Annotated[
    bool,
    typer.Option(
        "--check-mirror",
        help="Mark a photograph for review if its mirror image gets another grade: takes twice as long.",
    ),
]
Resume = Annotated[
    bool,
    typer.Option(
        "--resume",
        help="Continue an earlier run in --out: keep what it has graded, with the same weights and settings.",
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Remove the results of an earlier run in --out first.")]


def choose_existing(*, resume: bool, overwrite: bool, out: Path | None) -> ExistingResults:
    """What to do with results of an earlier run in the results folder."""
    from deepmtdr.screening.results_folder import ExistingResults

    if resume and overwrite:
        raise typer.BadParameter("found --resume and --overwrite, expected one of them")
    if out is None and (resume or overwrite):
        raise typer.BadParameter("found --resume or --overwrite without --out, expected the results folder in --out")
    if resume:
        return ExistingResults.RESUME
    return ExistingResults.OVERWRITE if overwrite else ExistingResults.REFUSE


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Grade low-resolution fundus photographs: super-resolution, lesions, grade, evidence (DeepMT-DR).

    Research use: not a medical device.
    """


def collect_reports(reports: Iterator[ScreeningReport], total: int, out: Path | None) -> list[ScreeningReport]:
    """Collect the reports of a run, with a progress bar on stderr; Ctrl-C tells how many are done and how to go on.

    Args:
        reports: graded one after another.
        total: number of photographs.
        out: the results folder; None: nothing is written.
    """
    from rich.progress import track

    done: list[ScreeningReport] = []
    console = Console(stderr=True)
    hidden = not console.is_terminal
    try:
        for report in track(reports, "grading", total, console=console, transient=True, disable=hidden):
            done.append(report)
    except KeyboardInterrupt:
        if isinstance(reports, Generator):
            reports.close()  # writes results.csv
        kept = "use --out to keep results" if out is None else f"results are in {out}: go on with --resume"
        typer.echo(f"deepmtdr: stopped by Ctrl-C after {len(done)} of {total} photographs; {kept}", err=True)
        raise typer.Exit(EXIT_STOPPED) from None
    return done


def print_scores(tables: Iterable[Table], failures: Sequence[PhotographResult]) -> None:
    """Print tables on stdout and a line on stderr for each photograph that failed, then exit."""
    from deepmtdr.cli.tables import build_table

    for table in tables:
        Console().print(build_table(*table))
    for failed in failures:
        typer.echo(f"{failed.dataset} {failed.name}: {failed.failure}", err=True)
    raise typer.Exit(EXIT_SOME_FAILED if failures else 0)


def print_reports(reports: Sequence[ScreeningReport], skipped: Sequence[Path], as_json: bool) -> None:
    """Print a table or JSON on stdout, and a line on stderr for each photograph that was not graded, then exit."""
    from deepmtdr.cli.tables import report_table
    from deepmtdr.files import printable_path

    if as_json:
        typer.echo(json.dumps([report.to_json() for report in reports], indent=2, allow_nan=False))
    else:
        Console().print(report_table(reports))
    failed = [report for report in reports if report.status != "ok"]
    for report in failed:
        typer.echo(f"{report.status}: {report.message}", err=True)
    if skipped:
        names = ", ".join(printable_path(path) for path in skipped[:5]) + (", ..." if len(skipped) > 5 else "")
        typer.echo(f"skipped, no photographs: {len(skipped)} files ({names})", err=True)
    raise typer.Exit(EXIT_SOME_FAILED if failed else 0)


if __name__ == "__main__":
    app()
