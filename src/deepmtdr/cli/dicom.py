"""The clinic: DICOM in and out."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from deepmtdr.cli.app import EXIT_SOME_FAILED, Weights, app, collect_with_progress, exit_on_error, print_reports


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
    with exit_on_error("clinic"):
        from deepmtdr.dicom.results import process_paths

        answers, inputs, skipped = process_paths(paths, out, weights, codes, deidentify)
        reports = collect_with_progress(answers, len(inputs), "answering")
    print_reports(reports, skipped, as_json)
    raise typer.Exit(EXIT_SOME_FAILED if any(report.status != "ok" for report in reports) else 0)


@app.command()
def serve(
    settings: Annotated[Path | None, typer.Argument(help="TOML file; --example shows one.")] = None,
    example: Annotated[bool, typer.Option("--example", help="Print settings with comments, and do nothing.")] = False,
) -> None:
    """Receive photographs from cameras and PACS by C-STORE, send results to PACS, DICOMweb and FHIR servers.

    Runs until SIGTERM. What was received is examined and sent, whatever happens in between.

    Example: deepmtdr serve --example > serve.toml && deepmtdr serve serve.toml
    """
    with exit_on_error("clinic"):
        from deepmtdr.service.settings import example_settings, load_settings

        if example:
            return typer.echo(example_settings(), nl=False)
        if settings is None:
            raise typer.BadParameter("no SETTINGS, expected a TOML file; `deepmtdr serve --example` prints one")
        chosen = load_settings(settings)
        from deepmtdr.service.examiner import load_examiner
        from deepmtdr.service.serve import serve as serve_until_told

        make = partial(load_examiner, chosen.workers.weights, chosen.workers.codes, chosen.namespaces)
        serve_until_told(chosen, make)


@app.command()
def queue(
    settings: Annotated[Path, typer.Argument(help="The TOML file of `deepmtdr serve`.")],
    retry: Annotated[bool, typer.Option("--retry", help="Put the dead letters back first.")] = False,
) -> None:
    """Show what `deepmtdr serve` has received, examined and sent, and the dead letters with their reasons.

    A reason may quote what stands in an object. Exit code 1 if there are dead letters.

    Example: deepmtdr queue serve.toml --retry
    """
    from deepmtdr.cli.tables import build_table

    with exit_on_error("clinic"):
        from deepmtdr.service.queue_tables import queue_tables
        from deepmtdr.service.settings import load_settings

        tables, dead = queue_tables(load_settings(settings), retry=retry)
    for table in tables:
        Console().print(build_table(*table, numbers=False))
    raise typer.Exit(EXIT_SOME_FAILED if dead else 0)
