"""DIARETDB0: lesion types without masks and grades."""

from __future__ import annotations

from pathlib import Path

import pytest

import dataset_trees
from deepmtdr.datasets.diaretdb0 import Presence, read_diaretdb0, read_presence
from deepmtdr.datasets.layout import LabelCounts, count_labels
from deepmtdr.errors import DataError
from deepmtdr.terms import Lesion


def test_photographs_are_neither_graded_nor_annotated(tmp_path: Path) -> None:
    samples = read_diaretdb0(dataset_trees.make_diaretdb0(tmp_path, ["image001,1,1,0,0,1", "image002,0,0,0,0,0"]))
    assert [(s.name, s.patient, s.grade) for s in samples] == [
        ("image001", "diaretdb0/image001", None),
        ("image002", "diaretdb0/image002", None),
    ]
    assert {(s.official_split, s.has_dr, s.ungradable) for s in samples} == {(None, None, False)}
    assert not any(s.lesion_masks for s in samples), "presence in the photograph is no annotation of pixels"


def test_presence_is_read_by_lesion_type(tmp_path: Path) -> None:
    root = dataset_trees.make_diaretdb0(tmp_path, ["image001,1,0,0,1,1", "image002,0,1,1,0,0"])
    assert read_presence(root) == {
        "image001": Presence(frozenset({Lesion.MA, Lesion.SE}), True),
        "image002": Presence(frozenset({Lesion.HE, Lesion.EX}), False),
    }


def test_contradictions_are_errors_that_name_the_place(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"labels\.csv, row 2: expected 0 or 1 in hardexudates, found 'yes'"):
        read_diaretdb0(dataset_trees.make_diaretdb0(tmp_path, ["image001,0,0,yes,0,0"]))
    with pytest.raises(DataError, match="row 3: found image001 for the second time"):
        read_diaretdb0(dataset_trees.make_diaretdb0(tmp_path, ["image001,0,0,0,0,0", "image001,1,0,0,0,0"]))
    root = dataset_trees.make_diaretdb0(tmp_path, ["image001,0,0,0,0,0"])
    dataset_trees.touch(root / "images", "image009.jpg")
    with pytest.raises(DataError, match=r"no row for 1 photographs, the first is .*image009\.jpg"):
        read_diaretdb0(root)


def test_photograph_that_is_there_twice_has_one_patient(tmp_path: Path) -> None:
    first, second = read_diaretdb0(dataset_trees.make_diaretdb0(tmp_path, ["image028,1,1,1,0,0", "image072,1,1,1,1,0"]))
    assert first.patient == second.patient


@pytest.mark.data
def test_real_copy_has_118_photographs_and_one_twice(real_data: Path) -> None:
    samples = {sample.name: sample.photograph for sample in read_diaretdb0(real_data / "diaretdb0")}
    assert count_labels(read_diaretdb0(real_data / "diaretdb0")) == LabelCounts(118)
    assert samples["image028"].read_bytes() == samples["image072"].read_bytes()
