"""Report on a prepared set: counts, statistics and findings, as tables for the terminal and as an HTML page."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from deepmtdr.csv_tables import write_table
from deepmtdr.datasets.catalogue import count_parts, read_datasets
from deepmtdr.datasets.layout import LabelCounts, PartCounts
from deepmtdr.datasets.manifest import ManifestRow
from deepmtdr.datasets.prepared import PreparedSet
from deepmtdr.datasets.sample import Sample
from deepmtdr.datasets.split import split_by_patient
from deepmtdr.files import write_atomically
from deepmtdr.labels import DIABETIC_RETINOPATHY, LabelSet
from deepmtdr.preparation.audit import FINDING_KINDS, Finding, audit
from deepmtdr.preparation.prepare import prepare
from deepmtdr.rendering.html import Table, folded_html, page_html, table_html
from deepmtdr.rendering.numbers import format_count
from deepmtdr.terms import FRAME

FINDINGS_NAME, PAGE_NAME = "findings.csv", "report.html"
MAX_FINDINGS_SHOWN = 200
"""Largest number of findings of a kind on the page; findings.csv has all."""
MAX_FINDINGS_OPEN = 12
"""If there are more findings of a kind, the page shows them folded."""


class PreparationResult(NamedTuple):
    """A prepared set and the report on it."""

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
    labels: LabelSet = DIABETIC_RETINOPATHY,
    shares: Mapping[str, float],
    seed: int = 0,
    workers: int | None = None,
) -> PreparationResult:
    """Read a data set, split it, prepare it (`prepare`) and report possible problems (`audit`).

    Args:
        name: name of the data set.
        root: its folder, in the original layout.
        out: folder of the prepared set; gets `findings.csv` and `report.html` too.
        size: side of the HR frame, px.
        scale: enlargement factor from the LR files to the HR frame.
        labels: the lesion types and grades; other than those of diabetic retinopathy for the data set `folder` only.
        shares: split -> share of the patients, for photographs without an official split.
        seed: seed of the split.
        workers: see `prepare`.

    Raises:
        DataError: if the data set's reader finds an error, or as `prepare`.
        RecipeError: if the shares do not sum to 1.
    """
    samples = read_datasets({name: root}, labels)
    parts = count_parts(name, root)
    splits = _split(samples, shares, seed, labels)
    prepared = prepare(samples, root, out, size=size, scale=scale, labels=labels, splits=splits, workers=workers)
    findings = audit(prepared.rows, parts, labels)
    tables = [*summary_tables(prepared, parts), findings_table(findings)]
    _, page = write_report(prepared, findings, parts)
    return PreparationResult(prepared, findings, tables, page)


def _split(samples: Sequence[Sample], shares: Mapping[str, float], seed: int, labels: LabelSet) -> dict[str, str]:
    """Name -> split. A patient in two official splits is left in both; `audit` reports it."""
    official: dict[str, set[str | None]] = defaultdict(set)
    for sample in samples:
        official[sample.patient].add(sample.official_split)
    sound = [sample for sample in samples if len(official[sample.patient]) == 1]
    splits = split_by_patient(sound, shares, seed, labels=labels)
    drawn = {sample.name: split for split, own in splits.items() for sample in own}
    return {sample.name: drawn.get(sample.name, sample.official_split or "") for sample in samples}


def summary_tables(prepared: PreparedSet, parts: Iterable[PartCounts] = ()) -> list[Table]:
    """Tables of the counts beside the official ones, grades by split, lesions, and sizes of the photographs."""
    rows, labels = prepared.rows, prepared.labels
    tables = [
        _parts_table(parts, labels),
        _splits_table(rows, labels),
        _lesions_table(rows, labels),
        _sizes_table(rows),
    ]
    return [table for table in tables if table.rows]


def findings_table(findings: Sequence[Finding]) -> Table:
    """Table of the number of findings of each kind."""
    counts = Counter(finding.kind for finding in findings)
    rows = [(f"{kind}: {FINDING_KINDS[kind]}", format_count(n)) for kind, n in counts.items()] or [("none", "0")]
    return Table("Findings", ("", "findings"), rows)


def write_report(
    prepared: PreparedSet, findings: Sequence[Finding], parts: Iterable[PartCounts] = ()
) -> tuple[Path, Path]:
    """Write `findings.csv` and `report.html` into the prepared set's folder, each in one step.

    Returns:
        Their paths.
    """
    table_path, page_path = prepared.folder / FINDINGS_NAME, prepared.folder / PAGE_NAME
    rows = ((finding.kind, " ".join(finding.photographs), finding.detail) for finding in findings)
    write_table(table_path, ("kind", "photographs", "detail"), rows)
    write_atomically(page_path, _page(prepared, findings, summary_tables(prepared, parts)).encode())
    return table_path, page_path


def _parts_table(parts: Iterable[PartCounts], labels: LabelSet) -> Table:
    rows = []
    for part, found in parts:
        rows.append((part.title, "official", *_count_cells(part.expected)))
        rows.append(("", "here", *(_count_cells(found) if found else ("none",))))
    masks = f"masks {' '.join(labels.codes)}"
    columns = ("part", "", "photographs", _grades_title(labels), "ungradable", masks, "union labels")
    return Table("Counts", columns, rows)


def _count_cells(counts: LabelCounts) -> list[str]:
    return [
        format_count(counts.photographs),
        _join_counts(counts.grades or ()),
        format_count(counts.ungradable),
        _join_counts(counts.masks or ()),
        "  ".join(f"{union} {format_count(count)}" for union, count in (counts.unions or {}).items()),
    ]


def _join_counts(counts: Iterable[int]) -> str:
    return "  ".join(format_count(count) for count in counts)


def _grades_title(labels: LabelSet) -> str:
    return f"grades 0 to {len(labels.grades) - 1}"


def _splits_table(rows: Sequence[ManifestRow], labels: LabelSet) -> Table:
    table = []
    for split in sorted({row.split for row in rows}):
        own = [row for row in rows if row.split == split]
        grades = Counter(row.grade for row in own)
        table.append(
            (
                split or "all",
                format_count(len({row.patient for row in own})),
                format_count(len(own)),
                _join_counts(grades[grade] for grade in range(len(labels.grades))),
                format_count(grades[None]),
                format_count(sum(bool(row.areas or row.unions) for row in own)),
            )
        )
    columns = ("split", "patients", "photographs", _grades_title(labels), "no grade", "annotated")
    return Table("Splits", columns, table)


def _lesions_table(rows: Sequence[ManifestRow], labels: LabelSet) -> Table:
    unions = sorted({union for row in rows for union in row.unions})
    areas = {lesion.name: [row.areas.get(lesion.code) for row in rows] for lesion in labels.lesions}
    areas |= {labels.name_of(union): [row.unions.get(union) for row in rows] for union in unions}
    areas["ignored pixels"] = [row.ignored for row in rows]
    table = []
    for name, of_photographs in areas.items():
        annotated = [area for area in of_photographs if area is not None]
        shown = [area for area in annotated if area > 0]
        if annotated:
            sizes = (float(np.median(shown)), max(shown)) if shown else (0.0, 0.0)
            counts = (len(annotated), len(shown), *sizes)
            table.append((name, *(format_count(count) for count in counts)))
    columns = ("lesion", "annotated", "shown in", "median area, px", "largest area, px")
    return Table("Lesions, in pixels of the HR frame", columns, table)


def _sizes_table(rows: Sequence[ManifestRow]) -> Table:
    done = [row for row in rows if row.status == "ok"]
    counts = Counter(row.scale for row in done)
    table = [
        (
            "in the HR frame" if scale == 1 else f"low-resolution, x{scale}",
            format_count(counts[scale]),
            *_size_cells([row for row in done if row.scale == scale]),
        )
        for scale in sorted(counts, key=lambda scale: scale or 0)
    ]
    return Table("Photographs", ("kind", "photographs", "field of view, px", "sizes, px"), table)


def _size_cells(rows: Sequence[ManifestRow]) -> tuple[str, str]:
    """Smallest and largest field of view, and the three most frequent sizes."""
    fov_sides = [row.fov_side or 0 for row in rows]
    sizes = Counter(f"{row.width} x {row.height}" for row in rows).most_common(3)
    frequent = ", ".join(f"{size} ({format_count(n)})" for size, n in sizes)
    return f"{min(fov_sides)} to {max(fov_sides)}", frequent


def _page(prepared: PreparedSet, findings: Sequence[Finding], tables: Sequence[Table]) -> str:
    name = ", ".join(sorted({row.dataset for row in prepared.rows})) or "an empty set"
    done, total = (format_count(n) for n in (sum(row.status == "ok" for row in prepared.rows), len(prepared.rows)))
    head = (
        f"<p>{done} of {total} photographs prepared, HR frame of {prepared.size} px, LR images {prepared.scale} times "
        "smaller.</p>"
    )
    shown = (f"<h2>{table.title}</h2>{table_html(table)}" for table in tables)
    return page_html(name, [head, "<h2>Findings</h2>", *_findings_html(findings), *shown])


def _findings_html(findings: Sequence[Finding]) -> list[str]:
    if not findings:
        return ["<p class=none>None: every photograph could be decoded, and no labels contradict each other.</p>"]
    by_kind = {kind: [finding for finding in findings if finding.kind == kind] for kind in FINDING_KINDS}
    return [_kind_html(kind, own) for kind, own in by_kind.items() if own]


def _kind_html(kind: str, findings: Sequence[Finding]) -> str:
    rows = [(" ".join(finding.photographs), finding.detail) for finding in findings[:MAX_FINDINGS_SHOWN]]
    body = table_html(Table("", ("photographs", "detail"), rows), "words")
    if len(findings) > MAX_FINDINGS_SHOWN:
        body += f"<p>... and {format_count(len(findings) - MAX_FINDINGS_SHOWN)} more in {FINDINGS_NAME}</p>"
    summary = f"{format_count(len(findings))}: {FINDING_KINDS[kind]}"
    return folded_html(summary, body, opened=len(findings) <= MAX_FINDINGS_OPEN)
