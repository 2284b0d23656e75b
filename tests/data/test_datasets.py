"""One dictionary makes a data set known."""

from __future__ import annotations

from pathlib import Path

import pytest

import trees
from deepmtdr.data.datasets import DATASETS, EXPECTED, read_datasets
from deepmtdr.errors import DataError


def test_several_data_sets_are_read_together_and_carry_their_keys(tmp_path: Path) -> None:
    roots = {
        "drive": trees.drive(tmp_path / "d"),
        "idrid": trees.idrid(tmp_path / "i"),
        "eyepacs": trees.eyepacs(tmp_path / "e", {"1_left": 0}),
        "eyepacs256_equalised": trees.eyepacs(tmp_path / "q", {"1_left": 0}),
        "aptos": trees.aptos(tmp_path / "a", {"a": 1}),
        "diaretdb0": trees.diaretdb0(tmp_path / "z", ["image001,0,0,0,0,0"]),
    }
    samples = read_datasets(roots)
    assert list(dict.fromkeys(sample.dataset for sample in samples)) == list(roots)
    assert set(roots) == set(DATASETS)
    assert len({(sample.dataset, sample.name) for sample in samples}) == len(samples) == 3 + 6 + 1 + 1 + 1 + 1


def test_unknown_data_set_is_an_error_that_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no data set is known as 'kaggle'; known are idrid, eyepacs"):
        read_datasets({"kaggle": tmp_path})


def test_expected_counts_speak_of_known_data_sets() -> None:
    assert set(EXPECTED) < set(DATASETS)
