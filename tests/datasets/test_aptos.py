"""APTOS 2019 in Kaggle's layout."""

from __future__ import annotations

from pathlib import Path

import pytest

import dataset_trees
from deepmtdr.datasets.aptos import EXPECTED, read_aptos
from deepmtdr.datasets.layout import LabelCounts, count_labels
from deepmtdr.errors import DataError


def test_each_photograph_is_a_patient(tmp_path: Path) -> None:
    root = dataset_trees.make_aptos(tmp_path, {"0a61bddab956": 2, "000c1434d8d7": 0})
    first, second = read_aptos(root)
    assert (first.name, first.patient, first.grade) == ("000c1434d8d7", "aptos/000c1434d8d7", 0)
    assert second.photograph == root / "train_images/0a61bddab956.png"
    assert (second.dataset, second.grade, second.laterality) == ("aptos", 2, None)


def test_set_has_no_official_split_and_test_photographs_are_not_read(tmp_path: Path) -> None:
    root = dataset_trees.make_aptos(tmp_path, {"0a61bddab956": 2})
    dataset_trees.touch(root / "test_images", "000c1434d8d7.png")
    (sample,) = read_aptos(root)
    assert (sample.name, sample.official_split) == ("0a61bddab956", None)


def test_contradictions_are_errors_that_name_the_place(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="train_images: cannot be listed"):
        read_aptos(tmp_path)
    with pytest.raises(DataError, match=r"train\.csv, row 2: expected a grade 0-4, found '-1'"):
        read_aptos(dataset_trees.make_aptos(tmp_path, {"a": -1}))
    dataset_trees.write_table(tmp_path / "train.csv", "id_code,diagnosis")
    with pytest.raises(DataError, match=r"no row for 1 photographs, the first is .*a\.png"):
        read_aptos(tmp_path)


@pytest.mark.data
def test_real_copy_has_eighty_of_each_grade(real_data: Path) -> None:
    assert count_labels(read_aptos(real_data / "aptos224_filtered")) == LabelCounts(400, (80, 80, 80, 80, 80))


def test_official_counts_sum_up() -> None:
    assert sum(EXPECTED.grades or ()) == EXPECTED.photographs == 3662
