"""Possible problems of a prepared set: each kind of finding, and none in a set without problems."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import pytest

from deepmtdr.datasets.manifest import ManifestRow
from deepmtdr.preparation.audit import FINDING_KINDS, Finding, audit
from deepmtdr.terms import Grade


def row(name: str, **known: Any) -> ManifestRow:
    digest = hashlib.sha256(name.encode()).hexdigest()
    settled = {"status": "ok", "patient": f"p{name}", "split": "train", "sha256": digest, "perceptual_hash": digest}
    return ManifestRow(name=name, dataset="d", source=f"{name}.jpg", **{**settled, **known})


SOUND = [
    row("a", grade=2, areas={"MA": 12.0, "HE": 0.0}, overlap=0.0),
    row("b", grade=0, areas={"MA": 0.0}),
    row("c", patient="pd", split="test"),
    row("d", patient="pd", split="test", grade=3),
]


def test_set_without_problems_has_no_finding() -> None:
    assert audit(SOUND) == []
    assert audit([]) == []


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ({"status": "unreadable", "problem": "why"}, ("unreadable", ("x",), "why")),
        ({"status": "no_fov", "problem": "dark"}, ("no_fov", ("x",), "dark")),
        ({"status": "bad_mask", "problem": "90 px"}, ("bad_mask", ("x",), "90 px")),
        ({"grade": 2, "areas": {"MA": 0.0, "EX": 0.0}}, ("black_masks", ("x",), "grade 2, 2 types annotated")),
        ({"grade": 0, "areas": {"HE": 31.0}}, ("lesions_at_grade_0", ("x",), "HE 31 px")),
        ({"overlap": 0.2, "areas": {"MA": 5.0}}, ("overlap", ("x",), "20.0% of the lesion pixels")),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_each_fault_of_a_photograph_is_found(fault: dict[str, Any], expected: Finding) -> None:
    assert audit([*SOUND, row("x", **fault)]) == [expected]


@pytest.mark.parametrize("known", [{"grade": 1, "areas": {"MA": 0.0}}, {"areas": {"MA": 0.0}}, {"grade": 3}])
def test_empty_masks_are_no_problem_without_a_referable_grade(known: dict[str, Any]) -> None:
    assert audit([row("x", **known)]) == []


def test_patient_in_two_splits_is_found() -> None:
    moved = [*SOUND[:3], replace(SOUND[3], split="train")]
    assert audit(moved) == [Finding("patient_across", ("c", "d"), "pd: test, train")]


def test_same_file_under_two_names_is_found_with_its_contradictions() -> None:
    twin = replace(SOUND[0], name="x", grade=3, split="test", patient="px")
    assert audit([*SOUND, twin]) == [
        Finding("duplicate", ("a", "x"), f"SHA-256 {SOUND[0].sha256[:12]}"),
        Finding("conflict", ("a", "x"), "grades 2, 3"),
        Finding("duplicate_across", ("a", "x"), "test, train"),
    ]


def test_near_duplicate_is_found() -> None:
    bits = int(SOUND[1].perceptual_hash, 16) ^ 0b10110
    near = row("x", perceptual_hash=f"{bits:064x}", grade=Grade.NEGATIVE)
    assert audit([*SOUND, near]) == [Finding("near_duplicate", ("b", "x"), "3 of 256 bits differ")]


def test_findings_come_in_the_order_of_the_kinds() -> None:
    rows = [row("z", status="unreadable"), row("a", overlap=0.5, areas={"MA": 1.0}), row("b", status="no_fov")]
    assert [finding.kind for finding in audit(rows)] == ["unreadable", "no_fov", "overlap"]
    assert list(FINDING_KINDS)[:4] == ["counts", "unreadable", "no_fov", "bad_mask"]
