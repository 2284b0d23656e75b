"""The command `dicom`: DICOM photographs in, result objects out, as files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deepmtdr.cli.app import EXIT_SOME_FAILED, Weights, app, collect_with_progress, exit_on_error, print_reports


@app.command()
def dicom(
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATH...", help="DICOM photographs, folders or glob patterns.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for results.csv and a folder per photograph.")] = Path("out/dicom"),
    codes: Annotated[
        Path | None,
        typer.Option(help="TOML file with the codes of the site. Codes that are not in the file stay as shipped."),
    ] = None,
    deidentify: Annotated[
        Path | None,
        typer.Option(
            metavar="KEYFILE",
            help="De-identify a copy of each photograph first, using the secret key in this file, which is created if "
            "missing.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the reports as JSON instead of a table.")] = False,
    weights: Weights = None,
) -> None:
    """Grade DICOM photographs and write DICOM objects, FHIR and PDF files. Uses no network connection.

    The exit codes are the same as those of `grade`. Only the owner can read the output files.

    Example: deepmtdr dicom examples/dicom --out out/dicom
    """
    with exit_on_error("clinic"):
        from deepmtdr.dicom.batch import process_paths
        from deepmtdr.screening.engine import ScreeningEngine

        results = process_paths(ScreeningEngine.load(weights), paths, out, codes, deidentify)
        reports = collect_with_progress(results.reports, len(results.inputs), "grading")
    print_reports(reports, results.skipped, as_json)
    raise typer.Exit(EXIT_SOME_FAILED if any(report.status != "ok" for report in reports) else 0)
