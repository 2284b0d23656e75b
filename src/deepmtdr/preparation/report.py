"""The report on a prepared set: its counts, its statistics and every doubt, for the screen and as one HTML page."""

from __future__ import annotations

import csv
import io
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

import numpy as np

from deepmtdr.datasets.catalogue import count_parts, read_datasets
from deepmtdr.datasets.layout import LabelCounts, PartCounts
from deepmtdr.datasets.prepared import ManifestRow, PreparedSet
from deepmtdr.datasets.sample import Sample
from deepmtdr.datasets.split import split_by_patient
from deepmtdr.files import write_atomically
from deepmtdr.preparation.audit import FINDING_KINDS, Finding, audit
from deepmtdr.preparation.prepare import prepare
from deepmtdr.rendering.html import PAGE_STYLE, Table, table_html
from deepmtdr.terms import FRAME, Grade, Lesion

FINDINGS_NAME, PAGE_NAME = "findings.csv", "report.html"
MAX_FINDINGS_SHOWN = 200
"""Findings of a kind on the page; all of them stand in findings.csv."""
MAX_FINDINGS_OPEN = 12
"""More of a kind are folded away until asked for."""


class PreparationResult(NamedTuple):
    """What a preparation ended with."""

    prepared: PreparedSet
    findings: list[Finding]
    tables: list[Table]
    page: Path
    """The HTML report."""


def prepare_and_report(
    name: str,
    root: Path,
    out: Path,
    *,
    size: int = FRAME,
    scale: int = 4,
    shares: Mapping[str, float],
    seed: int = 0,
    workers: int | None = None,
) -> PreparationResult:
    """Read a data set, divide it, prepare it (`prepare`) and say all that is doubtful about it (`audit`).

    Args:
        name: of the data set.
        root: folder in which it lies, as its makers give it.
        out: folder of the prepared set, which gets `findings.csv` and `report.html` too.
        size: side of the HR frame, px.
        scale: from the LR files to the HR frame.
        shares: side of the split -> share of the patients, for what the set's makers did not divide.
        seed: of the split.
        workers: see `prepare`.

    Raises:
        DataError: whatever the data set's reader finds wrong, or as `prepare`.
        RecipeError: if the shares do not sum to 1.
    """
    parts = count_parts(name, root)
    samples = read_datasets({name: root})
    sides = _sides(samples, shares, seed)
    prepared = prepare(samples, root, out, size=size, scale=scale, sides=sides, workers=workers)
    findings = audit(prepared.rows, parts)
    shown = [*summary_tables(prepared, parts), findings_table(findings)]
    _, page = write_report(prepared, findings, parts)
    return PreparationResult(prepared, findings, shown, page)


def _sides(samples: Sequence[Sample], shares: Mapping[str, float], seed: int) -> dict[str, str]:
    """Name -> side. Where the makers have a patient on two sides, that is left as it is, to be found."""
    official: dict[str, set[str | None]] = defaultdict(set)
    for sample in samples:
        official[sample.patient].add(sample.official_split)
    sound = [sample for sample in samples if len(official[sample.patient]) == 1]
    drawn = {sample.name: side for side, own in split_by_patient(sound, shares, seed).items() for sample in own}
    return {sample.name: drawn.get(sample.name, sample.official_split or "") for sample in samples}


def summary_tables(prepared: PreparedSet, parts: Iterable[PartCounts] = ()) -> list[Table]:
    """Counts beside the official ones, grades by side, lesions."""
    rows = prepared.rows
    shown = [_counts(parts), _grades(rows), _lesions(rows), _photographs(rows)]
    return [table for table in shown if table.rows]


def findings_table(findings: Sequence[Finding]) -> Table:
    """How many findings there are of each kind."""
    counts = Counter(finding.kind for finding in findings)
    rows = [(f"{kind}: {FINDING_KINDS[kind]}", f"{n:,}") for kind, n in counts.items()] or [("none", "0")]
    return Table("Findings", ("", "findings"), rows)


def write_report(
    prepared: PreparedSet, findings: Sequence[Finding], parts: Iterable[PartCounts] = ()
) -> tuple[Path, Path]:
    """Write `findings.csv` and `report.html` into the prepared set's folder, each all or nothing.

    Returns:
        Their paths.
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerows(
        [("kind", "photographs", "detail"), *((f.kind, " ".join(f.photographs), f.detail) for f in findings)]
    )
    table_path, page_path = prepared.folder / FINDINGS_NAME, prepared.folder / PAGE_NAME
    write_atomically(table_path, text.getvalue().encode())
    write_atomically(page_path, _page(prepared, findings, summary_tables(prepared, parts)).encode())
    return table_path, page_path


def _counts(parts: Iterable[PartCounts]) -> Table:
    rows = []
    for part, found in parts:
        rows.append((part.title, "official", *_count_cells(part.expected)))
        rows.append(("", "here", *(_count_cells(found) if found else ("none",))))
    return Table("Counts", ("part", "", "photographs", "grades 0 to 4", "ungradable", "masks MA HE EX SE"), rows)


def _count_cells(counts: LabelCounts) -> list[str]:
    ungradable = "" if counts.ungradable is None else f"{counts.ungradable:,}"
    return [f"{counts.photographs:,}", _in_a_row(counts.grades or ()), ungradable, _in_a_row(counts.masks or ())]


def _in_a_row(counts: Iterable[int]) -> str:
    return "  ".join(f"{count:,}" for count in counts)


def _grades(rows: Sequence[ManifestRow]) -> Table:
    table = []
    for side in sorted({row.split for row in rows}):
        own = [row for row in rows if row.split == side]
        grades = Counter(row.grade for row in own)
        annotated = sum(any(area is not None for area in row.areas) for row in own)
        cells = (f"{len({row.patient for row in own}):,}", f"{len(own):,}", _in_a_row(grades[g] for g in Grade))
        table.append((side or "all", *cells, f"{grades[None]:,}", f"{annotated:,}"))
    columns = ("side", "patients", "photographs", "grades 0 to 4", "no grade", "annotated")
    return Table("Sides of the split", columns, table)


def _lesions(rows: Sequence[ManifestRow]) -> Table:
    table = []
    for lesion in Lesion:
        annotated = [area for row in rows if (area := row.areas[lesion]) is not None]
        shown = [area for area in annotated if area > 0]
        if annotated:
            median, most = (f"{value:,.0f}" for value in ((np.median(shown), max(shown)) if shown else (0, 0)))
            table.append((lesion.full_name, f"{len(annotated):,}", f"{len(shown):,}", median, most))
    columns = ("lesion", "annotated", "shown in", "median area, px", "largest area, px")
    return Table("Lesions, in pixels of the HR frame", columns, table)


def _photographs(rows: Sequence[ManifestRow]) -> Table:
    done = [row for row in rows if row.status == "ok"]
    ways = Counter(row.scale for row in done)
    table = [
        ("in the HR frame" if scale == 1 else f"low-resolution, x{scale}", f"{ways[scale]:,}", *_span(done, scale))
        for scale in sorted(ways, key=lambda scale: scale or 0)
    ]
    return Table("Photographs", ("way", "photographs", "field of view, px", "sizes, px"), table)


def _span(rows: Sequence[ManifestRow], scale: int | None) -> tuple[str, str]:
    own = [row for row in rows if row.scale == scale]
    sides = [row.fov_side or 0 for row in own]
    sizes = Counter(f"{row.width} x {row.height}" for row in own).most_common(3)
    return f"{min(sides)} to {max(sides)}", ", ".join(f"{size} ({n:,})" for size, n in sizes)


def _page(prepared: PreparedSet, findings: Sequence[Finding], shown: Sequence[Table]) -> str:
    name = escape(", ".join(sorted({row.dataset for row in prepared.rows})) or "an empty set")
    done = sum(row.status == "ok" for row in prepared.rows)
    head = (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{name}</title><style>{PAGE_STYLE}</style>"
        f"<h1>{name}</h1><p>{done:,} of {len(prepared.rows):,} photographs prepared, HR frame of {prepared.size} px, "
        f"LR by x{prepared.scale}.</p>"
    )
    tables = "".join(f"<h2>{escape(table.title)}</h2>{table_html(table)}" for table in shown)
    return f"{head}{_findings(findings)}{tables}</html>\n"


def _findings(findings: Sequence[Finding]) -> str:
    text = "<h2>Findings</h2>"
    if not findings:
        return f"{text}<p class=none>None: every photograph was read, and nothing contradicts anything.</p>"
    for kind, meaning in FINDING_KINDS.items():
        own = [finding for finding in findings if finding.kind == kind]
        if own:
            rows = [(" ".join(finding.photographs), finding.detail) for finding in own[:MAX_FINDINGS_SHOWN]]
            more = (
                f"<p>... and {len(own) - MAX_FINDINGS_SHOWN:,} more in {FINDINGS_NAME}</p>"
                if len(own) > MAX_FINDINGS_SHOWN
                else ""
            )
            table = table_html(Table("", ("photographs", "detail"), rows), "words")
            opened = " open" if len(own) <= MAX_FINDINGS_OPEN else ""
            text += f"<details{opened}><summary>{len(own):,}: {escape(meaning)}</summary>{table}{more}</details>"
    return text
