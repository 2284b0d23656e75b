"""The commands `serve` and `queue`: the DICOM service and its queue."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from deepmtdr.cli.app import EXIT_SOME_FAILED, app, exit_on_error


@app.command()
def serve(
    settings: Annotated[Path | None, typer.Argument(help="TOML file of settings.")] = None,
    example: Annotated[bool, typer.Option("--example", help="Print example settings with comments, and exit.")] = False,
) -> None:
    """Run a DICOM service: receive photographs by C-STORE, examine them, and send the results on.

    Destinations are PACS (C-STORE), DICOMweb archives (STOW-RS) and FHIR servers. Runs until SIGTERM; after a restart
    it continues where it stopped.

    Example: deepmtdr serve --example > serve.toml && deepmtdr serve serve.toml
    """
    with exit_on_error("clinic", stopped="the queue is kept: start it again to go on"):
        from deepmtdr.service.settings_file import example_settings, load_settings

        if example:
            return typer.echo(example_settings(), nl=False)
        if settings is None:
            raise typer.BadParameter(
                "found no SETTINGS, expected a TOML file; `deepmtdr serve --example` prints an example"
            )
        chosen = load_settings(settings)
        from deepmtdr.service.examiner import load_examiner
        from deepmtdr.service.serve import serve as serve_until_signal

        make_examiner = partial(load_examiner, chosen.workers, chosen.namespaces)
        serve_until_signal(chosen, make_examiner)


@app.command()
def queue(
    settings: Annotated[Path, typer.Argument(help="TOML file of settings of `deepmtdr serve`.")],
    retry: Annotated[
        bool,
        typer.Option(
            "--retry",
            help="First put all dead letters (failed objects and deliveries) back into the queue, then show it.",
        ),
    ] = False,
    clear: Annotated[
        bool,
        typer.Option(
            "--clear",
            help="First remove originals and results of jobs that every destination has confirmed; with --older-than.",
        ),
    ] = False,
    older_than: Annotated[
        float | None,
        typer.Option(min=0, help="With --clear: only of objects that were received more than so many days ago."),
    ] = None,
) -> None:
    """Show how many objects `deepmtdr serve` has received, examined and sent, and its dead letters with their reasons.

    A dead letter is an object that could not be examined, or a result that could not be sent; the service does not try
    it again. Its reason may quote values of the object. Exit code 1 if there are dead letters.

    Example: deepmtdr queue serve.toml --retry

    Example: deepmtdr queue serve.toml --clear --older-than 90
    """
    from deepmtdr.cli.tables import build_table

    if clear != (older_than is not None):
        raise typer.BadParameter("found only one of --clear and --older-than, expected both, or none")
    with exit_on_error("clinic"):
        from deepmtdr.service.queue_tables import queue_tables
        from deepmtdr.service.settings_file import load_settings

        tables, dead = queue_tables(load_settings(settings), retry=retry, clear_older_than=older_than)
    for table in tables:
        Console().print(build_table(*table, numbers=False))
    raise typer.Exit(EXIT_SOME_FAILED if dead else 0)
