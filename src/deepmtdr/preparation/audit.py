"""What is wrong, or may be, with a prepared set: every doubt a finding, nothing skipped (Sec. V-A)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import NamedTuple

from deepmtdr.datasets.layout import LabelCounts, PartCounts
from deepmtdr.datasets.prepared import ManifestRow
from deepmtdr.preparation.near_duplicates import find_near_duplicates, pack_hashes
from deepmtdr.terms import Grade, Lesion

NEAR_DUPLICATE_BITS = 40
"""Bits of 256: photographs whose perceptual hashes differ in no more are looked at as one (docs/data.md: measured)."""
MAX_OVERLAP = 0.05
"""Share of the lesion pixels that several types claim, from which on a photograph is named."""

FINDING_KINDS = {
    "counts": "is a part with other counts than its makers state",
    "unreadable": "cannot be decoded",
    "no_fov": "shows no field of view",
    "bad_mask": "has a mask that is damaged, or not of its size",
    "black_masks": "is graded 2 or more, yet every annotated lesion type is empty",
    "lesions_at_grade_0": "is graded 0, yet a mask shows a lesion",
    "overlap": "has lesion pixels that several types claim",
    "duplicate": "are the same file under several names",
    "near_duplicate": "look like one photograph",
    "conflict": "are one photograph with several grades",
    "duplicate_across": "are one photograph on several sides of the split",
    "patient_across": "is a patient on several sides of the split",
}
"""Kind of a finding -> what it says of its photographs or patient."""


class Finding(NamedTuple):
    """One doubt."""

    kind: str
    """Of `FINDING_KINDS`."""
    photographs: tuple[str, ...]
    """Names, one or several; none of a finding about a part."""
    detail: str


def audit(rows: Sequence[ManifestRow], parts: Iterable[PartCounts] = ()) -> list[Finding]:
    """Look for everything that `FINDING_KINDS` lists.

    Args:
        rows: of a manifest.
        parts: the set's official parts with the counts they have here.

    Returns:
        Findings in the order of `FINDING_KINDS`, then by name.
    """
    found = [*_parts(parts), *_single(rows), *_patients(rows), *_duplicates(rows)]
    order = list(FINDING_KINDS)
    return sorted(found, key=lambda finding: (order.index(finding.kind), finding.photographs))


def _parts(parts: Iterable[PartCounts]) -> Iterator[Finding]:
    """Parts that are there, but not as their makers count them."""
    for part, found in parts:
        if found is None:
            continue
        pairs = zip(LabelCounts._fields, part.expected, found, strict=True)
        other = [f"{name} {here}, official {made}" for name, made, here in pairs if made is not None and here != made]
        if other:
            yield Finding("counts", (), f"{part.title}: {'; '.join(other)}")


def _single(rows: Iterable[ManifestRow]) -> Iterator[Finding]:
    """What one photograph shows by itself."""
    for row in rows:
        areas = [area for area in row.areas if area is not None]
        shown = [f"{lesion.name} {area:.0f} px" for lesion, area in zip(Lesion, row.areas, strict=True) if area]
        if row.status != "ok":
            yield Finding(row.status, (row.name,), row.problem)
        elif areas and not shown and row.grade is not None and row.grade >= Grade.MODERATE:
            yield Finding("black_masks", (row.name,), f"grade {row.grade:d}, {len(areas)} types annotated")
        elif shown and row.grade == Grade.NEGATIVE:
            yield Finding("lesions_at_grade_0", (row.name,), ", ".join(shown))
        if row.overlap is not None and row.overlap > MAX_OVERLAP:
            yield Finding("overlap", (row.name,), f"{row.overlap:.1%} of the lesion pixels")


def _patients(rows: Iterable[ManifestRow]) -> Iterator[Finding]:
    for patient, own in _grouped(rows, lambda row: row.patient):
        if len(sides := _sides(own)) > 1:
            yield Finding("patient_across", _names(own), f"{patient}: {', '.join(sides)}")


def _duplicates(rows: Sequence[ManifestRow]) -> Iterator[Finding]:
    """The same bytes, or the same look; and where such photographs contradict each other."""
    same = [own for digest, own in _grouped(rows, lambda row: row.sha256) if digest and len(own) > 1]
    for own in same:
        yield Finding("duplicate", _names(own), f"SHA-256 {own[0].sha256[:12]}")
        yield from _contradictions(own)
    seen = [row for row in rows if row.perceptual_hash]
    for one, other, bits in find_near_duplicates(
        pack_hashes([row.perceptual_hash for row in seen]), NEAR_DUPLICATE_BITS
    ):
        pair = [seen[one], seen[other]]
        if pair[0].sha256 != pair[1].sha256:
            yield Finding("near_duplicate", _names(pair), f"{bits} of 256 bits differ")
            yield from _contradictions(pair)


def _contradictions(own: Sequence[ManifestRow]) -> Iterator[Finding]:
    grades = sorted({int(row.grade) for row in own if row.grade is not None})
    if len(grades) > 1:
        yield Finding("conflict", _names(own), f"grades {', '.join(map(str, grades))}")
    if len(sides := _sides(own)) > 1:
        yield Finding("duplicate_across", _names(own), ", ".join(sides))


def _grouped(
    rows: Iterable[ManifestRow], key: Callable[[ManifestRow], Hashable]
) -> Iterator[tuple[Hashable, list[ManifestRow]]]:
    groups: dict[Hashable, list[ManifestRow]] = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)
    yield from groups.items()


def _sides(rows: Iterable[ManifestRow]) -> list[str]:
    return sorted({row.split for row in rows if row.split})


def _names(rows: Iterable[ManifestRow]) -> tuple[str, ...]:
    return tuple(sorted(row.name for row in rows))
