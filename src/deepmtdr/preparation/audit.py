"""Find possible problems of a prepared data set (Sec. V-A)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import NamedTuple

from deepmtdr.datasets.layout import LabelCounts, PartCounts
from deepmtdr.datasets.manifest import ManifestRow
from deepmtdr.datasets.mask_files import MaskProblem
from deepmtdr.labels import DIABETIC_RETINOPATHY, LabelSet
from deepmtdr.preparation.near_duplicates import find_near_duplicates, pack_hashes

NEAR_DUPLICATE_BITS = 40
"""Photographs whose perceptual hashes differ in at most this many of 256 bits count as one (measured: docs/data.md)."""
MAX_OVERLAP = 0.05
"""A photograph is reported if more than this share of its lesion pixels belongs to several types."""

FINDING_KINDS = {
    "counts": "is a part with other counts than published",
    "unreadable": "cannot be decoded",
    "no_fov": "shows no field of view",
    "bad_mask": "has a mask that is damaged or has another size",
    "large_mask": "has a mask that covers more than half of the field of view",
    "mask_colours": "has a mask of more than two colours: pixels above half of the range count as lesion",
    "jpeg_mask": "has a mask in JPEG, which is not exact: pixels above half of the range count as lesion",
    "black_masks": "has a referable grade, but every annotated lesion type is empty",
    "lesions_at_grade_0": "has grade 0, but a mask shows a lesion",
    "overlap": "has lesion pixels that belong to several types",
    "duplicate": "are the same file under several names",
    "near_duplicate": "look like one photograph",
    "conflict": "are one photograph with several grades",
    "duplicate_across": "are one photograph in several splits",
    "patient_across": "is a patient in several splits",
}
"""Kind of a finding -> the end of a sentence that begins with its photographs or patient."""


_MASK_FINDINGS = {
    "large_mask": MaskProblem.LARGE,
    "mask_colours": MaskProblem.COLOURS,
    "jpeg_mask": MaskProblem.JPEG,
}


class Finding(NamedTuple):
    """One possible problem."""

    kind: str
    """Kind of the finding, a key of `FINDING_KINDS`."""
    photographs: tuple[str, ...]
    """Names of the photographs; empty for a finding about a part."""
    detail: str


def audit(
    rows: Sequence[ManifestRow], parts: Iterable[PartCounts] = (), labels: LabelSet = DIABETIC_RETINOPATHY
) -> list[Finding]:
    """Search for every problem that `FINDING_KINDS` lists.

    Args:
        rows: rows of a manifest.
        parts: official parts of the data set with their counts in this copy.
        labels: lesion types and grades of the set.

    Returns:
        Findings in the order of `FINDING_KINDS`, then by name.
    """
    found = [*_audit_parts(parts), *_audit_photographs(rows, labels), *_audit_patients(rows), *_audit_duplicates(rows)]
    order = list(FINDING_KINDS)
    return sorted(found, key=lambda finding: (order.index(finding.kind), finding.photographs))


def _audit_parts(parts: Iterable[PartCounts]) -> Iterator[Finding]:
    """Find the parts that are present but have other counts than the official ones."""
    for part, found in parts:
        if found is None:
            continue
        pairs = zip(LabelCounts._fields, part.expected, found, strict=True)
        other = [
            f"{name} {here}, official {official}"
            for name, official, here in pairs
            if official is not None and here != official
        ]
        if other:
            yield Finding("counts", (), f"{part.title}: {'; '.join(other)}")


def _audit_photographs(rows: Iterable[ManifestRow], labels: LabelSet) -> Iterator[Finding]:
    """Find problems of single photographs."""
    for row in rows:
        areas = {**row.areas, **row.unions}
        shown = [f"{code} {areas[code]:.0f} px" for code in (*labels.codes, *row.unions) if areas.get(code)]
        empty = row.areas and not shown
        if row.status != "ok":
            yield Finding(row.status, (row.name,), row.problem)
        elif empty and row.grade is not None and row.grade >= labels.referable_from:
            yield Finding("black_masks", (row.name,), f"grade {row.grade:d}, {len(row.areas)} types annotated")
        elif shown and row.grade == 0:
            yield Finding("lesions_at_grade_0", (row.name,), ", ".join(shown))
        for kind, problem in _MASK_FINDINGS.items():
            start = f"{problem}:"
            if codes := [text.removeprefix(start) for text in row.mask_problems if text.startswith(start)]:
                yield Finding(kind, (row.name,), ", ".join(codes))
        if row.overlap is not None and row.overlap > MAX_OVERLAP:
            yield Finding("overlap", (row.name,), f"{row.overlap:.1%} of the lesion pixels")


def _audit_patients(rows: Iterable[ManifestRow]) -> Iterator[Finding]:
    for patient, own in _group(rows, lambda row: row.patient):
        if len(splits := _splits(own)) > 1:
            yield Finding("patient_across", _names(own), f"{patient}: {', '.join(splits)}")


def _audit_duplicates(rows: Sequence[ManifestRow]) -> Iterator[Finding]:
    """Find photographs with the same bytes or almost the same hash, and those with different grades or splits."""
    same = [own for digest, own in _group(rows, lambda row: row.sha256) if digest and len(own) > 1]
    for own in same:
        yield Finding("duplicate", _names(own), f"SHA-256 {own[0].sha256[:12]}")
        yield from _contradictions(own)
    hashed = [row for row in rows if row.perceptual_hash]
    for one, other, bits in find_near_duplicates(
        pack_hashes([row.perceptual_hash for row in hashed]), NEAR_DUPLICATE_BITS
    ):
        pair = [hashed[one], hashed[other]]
        if pair[0].sha256 != pair[1].sha256:
            yield Finding("near_duplicate", _names(pair), f"{bits} of 256 bits differ")
            yield from _contradictions(pair)


def _contradictions(own: Sequence[ManifestRow]) -> Iterator[Finding]:
    grades = sorted({int(row.grade) for row in own if row.grade is not None})
    if len(grades) > 1:
        yield Finding("conflict", _names(own), f"grades {', '.join(map(str, grades))}")
    if len(splits := _splits(own)) > 1:
        yield Finding("duplicate_across", _names(own), ", ".join(splits))


def _group(
    rows: Iterable[ManifestRow], key: Callable[[ManifestRow], Hashable]
) -> Iterator[tuple[Hashable, list[ManifestRow]]]:
    groups: dict[Hashable, list[ManifestRow]] = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)
    yield from groups.items()


def _splits(rows: Iterable[ManifestRow]) -> list[str]:
    return sorted({row.split for row in rows if row.split})


def _names(rows: Iterable[ManifestRow]) -> tuple[str, ...]:
    return tuple(sorted(row.name for row in rows))
