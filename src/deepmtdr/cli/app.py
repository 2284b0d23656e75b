"""What every verb has: the program, its options, errors in one line, progress and tables."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
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

EXIT_SOME_FAILED = 1
"""Exit code if something could not be done with an input; the others were done."""
EXIT_NOTHING_DONE = 2
"""Exit code if nothing could be done: wrong arguments, damaged weights, a folder that cannot be written."""


@contextmanager
def exit_on_error(extra: str = "") -> Iterator[None]:
    """What goes wrong on purpose is one line on stderr and exit code 2; anything else is a bug, with its traceback.

    Args:
        extra: whose libraries may be missing.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if not extra or missing == "deepmtdr":
            raise
        typer.echo(f"deepmtdr: {missing} is not installed; pip install 'deepmtdr[{extra}]'", err=True)
        raise typer.Exit(EXIT_NOTHING_DONE) from None
    except (DeepMTDRError, OSError) as error:
        text = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else str(error)
        typer.echo(f"deepmtdr: {' '.join(text.split()) or type(error).__name__}", err=True)
        raise typer.Exit(EXIT_NOTHING_DONE) from None


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
InputSize = Annotated[int | None, typer.Option(callback=_low_resolution, help="Reduce to 128, 256 or 512 px first.")]


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Reads a low-resolution fundus photograph as if it were a good one. Research use: not a medical device."""


def collect_with_progress(items: Iterator[Any], total: int, name: str) -> list[Any]:
    """Everything the iterator gives, with a progress bar on stderr, so that stdout is the result alone."""
    from rich.progress import track

    console = Console(stderr=True)
    return list(track(items, name, total, console=console, transient=True, disable=not console.is_terminal))


def print_scores(tables: list[Any], failures: list[Any]) -> None:
    """Tables on stdout, a line on stderr for each photograph that is not in them, and the exit code."""
    from deepmtdr.cli.tables import build_table

    for table in tables:
        Console().print(build_table(*table))
    for failure in failures:
        typer.echo(f"{failure.dataset} {failure.name}: {failure.failure}", err=True)
    raise typer.Exit(EXIT_SOME_FAILED if failures else 0)


def print_reports(reports: list[Any], skipped: list[Path], as_json: bool) -> None:
    """The table or JSON on stdout; on stderr one line for each photograph that was not graded."""
    from deepmtdr.cli.tables import report_table
    from deepmtdr.files import printable_path

    if as_json:
        json.dump([report.to_json() for report in reports], sys.stdout, indent=2)
        typer.echo()
    else:
        Console().print(report_table(reports))
    for report in reports:
        if report.status != "ok":
            typer.echo(f"{report.status}: {report.message}", err=True)
    if skipped:
        named = ", ".join(printable_path(path) for path in skipped[:5]) + (", ..." if len(skipped) > 5 else "")
        typer.echo(f"left out, no photographs: {len(skipped)} files ({named})", err=True)


if __name__ == "__main__":
    app()
