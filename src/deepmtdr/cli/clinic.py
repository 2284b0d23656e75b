"""The clinic: DICOM in and out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deepmtdr.cli.door import FAILED, Weights, app, one_line_errors, show_reports, watched


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
        reports = watched(answers, len(inputs), "answering")
    show_reports(reports, left_out, as_json)
    raise typer.Exit(FAILED if any(report.status != "ok" for report in reports) else 0)
