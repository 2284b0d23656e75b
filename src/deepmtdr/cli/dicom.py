"""The command `dicom`: DICOM photographs in, result objects out, as files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deepmtdr.cli.app import (
    CheckMirror,
    Overwrite,
    Resume,
    TestTimeAveraging,
    Weights,
    app,
    choose_existing,
    collect_reports,
    exit_on_error,
    print_reports,
)

if TYPE_CHECKING:
    from deepmtdr.screening.report import ScreeningReport


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
    tta: TestTimeAveraging = False,
    check_mirror: CheckMirror = False,
    resume: Resume = False,
    overwrite: Overwrite = False,
) -> None:
    """Grade DICOM photographs and write DICOM objects, FHIR and PDF files. Uses no network connection.

    A folder --out with results of an earlier run is refused, unless --resume or --overwrite is given.

    The exit codes are the same as those of `grade`. Only the owner can read the output files.

    Example: deepmtdr dicom examples/dicom --out out/dicom
    """
    existing = choose_existing(resume=resume, overwrite=overwrite, out=out)
    with exit_on_error("clinic"):
        from deepmtdr.dicom.batch import process_paths
        from deepmtdr.screening.engine import ScreeningEngine
        from deepmtdr.screening.turned_copies import choose_copies

        copies = choose_copies(tta=tta, check_mirror=check_mirror)
        engine = ScreeningEngine.load(weights, turned_copies=copies)
        results = process_paths(engine, paths, out, codes, deidentify, existing=existing)
        reports = collect_reports(results.reports, len(results.inputs), out)
    _warn_of_possible_text(reports)
    print_reports(reports, results.skipped, as_json)


def _warn_of_possible_text(reports: Sequence[ScreeningReport]) -> None:
    """Print a warning if de-identified photographs may show text, such as the patient's name."""
    from deepmtdr.dicom.text_in_pixels import POSSIBLE_TEXT

    number = sum(any(reason.startswith(POSSIBLE_TEXT) for reason in report.review_reasons) for report in reports)
    if number:
        typer.echo(
            f"deepmtdr: WARNING: {number} of {len(reports)} de-identified photographs may show the patient's name in "
            "their pixels, which are not changed; look at those with a reason in the column for_reader of results.csv "
            "before you pass them on",
            err=True,
        )
