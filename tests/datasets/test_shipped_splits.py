"""The shipped splits: v1 keeps the test photographs of v0, and its script makes it again."""

from __future__ import annotations

import runpy
from collections import Counter
from pathlib import Path

import pytest

from deepmtdr.datasets.catalogue import read_datasets
from deepmtdr.datasets.split import apply_split, read_split
from deepmtdr.recipe import find_split_file


def test_test_photographs_of_v0_are_test_photographs_of_v1() -> None:
    v0, v1 = (read_split(find_split_file(name)) for name in ("v0", "v1"))
    held_out = {key for key, row in v0.items() if row.split == "test"}
    assert {v1[key].split for key in held_out} == {"test"}
    kept = {key for key, row in v1.items() if row.split == "test" and key in v0}
    assert kept == held_out, "nothing that v0 was trained on"


def test_each_data_set_of_v1_has_the_splits_that_the_script_describes() -> None:
    counts = Counter((dataset, row.split) for (dataset, _), row in read_split(find_split_file("v1")).items())
    shares = {"idrid": 3, "eyepacs": 3, "diaretdb0": 3, "srahim": 3, "heimed": 3, "drive": 1}
    assert {name: sum(dataset == name for dataset, _ in counts) for name in shares} == shares
    assert counts["drive", "train"] == 20


def test_copy_of_eyepacs_has_the_splits_of_its_patients() -> None:
    rows = read_split(find_split_file("v1"))
    split_of = {row.patient: row.split for (dataset, _), row in rows.items() if dataset == "eyepacs"}
    copy = {row.patient: row.split for (dataset, _), row in rows.items() if dataset == "eyepacs256_equalised"}
    shared = split_of.keys() & copy.keys()
    assert len(shared) == 47 and all(split_of[patient] == copy[patient] for patient in shared)
    assert {split for patient, split in copy.items() if patient not in shared} == {"train"}


@pytest.mark.data
def test_script_makes_the_shipped_split_again(real_data: Path, root: Path) -> None:
    script = runpy.run_path(str(root / "release/make_split.py"))
    samples = read_datasets({name: real_data / name for name in script["SHARES"]})
    table = script["make_split"](samples, read_split(find_split_file("v0")))
    assert table == read_split(find_split_file("v1"))
    assert sum(map(len, apply_split(samples, table).values())) == len(samples) == 3958
