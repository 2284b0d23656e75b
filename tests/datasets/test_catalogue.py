"""Data sets by name: read, counted, unknown names."""

from __future__ import annotations

from pathlib import Path

import pytest

import dataset_trees
from deepmtdr.datasets.catalogue import DATASETS, DataSet, count_parts, read_datasets
from deepmtdr.datasets.layout import LabelCounts
from deepmtdr.errors import DataError


@pytest.fixture
def roots(tmp_path: Path) -> dict[str, Path]:
    """Every data set, in another order than the dictionary's."""
    dataset_trees.touch(tmp_path / "f", "a.png")
    return {
        "drive": dataset_trees.make_drive(tmp_path / "d"),
        "idrid": dataset_trees.make_idrid(tmp_path / "i"),
        "eyepacs": dataset_trees.make_eyepacs(tmp_path / "e", {"1_left": 0}),
        "eyepacs256_equalised": dataset_trees.make_eyepacs(tmp_path / "q", {"1_left": 0}),
        "aptos": dataset_trees.make_aptos(tmp_path / "a", {"a": 1}),
        "srahim": dataset_trees.make_srahim(tmp_path / "s", ["Patient001_L.jpg,Patient001,L,0,0,"]),
        "heimed": dataset_trees.make_heimed(tmp_path / "x", ["a.jpg,2,0,0,0"]),
        "diaretdb0": dataset_trees.make_diaretdb0(tmp_path / "z", ["image001,0,0,0,0,0"]),
        "ddr": dataset_trees.make_ddr(tmp_path / "ddr"),
        "messidor2": dataset_trees.make_messidor2(tmp_path / "m"),
        "diaretdb1": dataset_trees.make_diaretdb1(tmp_path / "o"),
        "e_ophtha": dataset_trees.make_e_ophtha(tmp_path / "h"),
        "real_lr": dataset_trees.make_real_lr(tmp_path / "r"),
        "drawings": dataset_trees.make_drawings(tmp_path / "w"),
        "folder": tmp_path / "f",
    }


def test_several_data_sets_are_read_together_with_their_names(roots: dict[str, Path]) -> None:
    samples = read_datasets(roots)
    assert list(dict.fromkeys(sample.dataset for sample in samples)) == list(roots)
    assert set(roots) == set(DATASETS)
    assert len({(sample.dataset, sample.name) for sample in samples}) == len(samples)
    assert len(samples) == 4 + 6 + 1 + 1 + 1 + 1 + 1 + 1 + 6 + 4 + 3 + 4 + 6 + 1 + 1


def test_unknown_data_set_is_an_error_that_lists_the_known_ones(tmp_path: Path) -> None:
    for ask in (lambda: read_datasets({"kaggle": tmp_path}), lambda: count_parts("kaggle", tmp_path)):
        with pytest.raises(DataError, match="unknown data set 'kaggle'; known are idrid, eyepacs"):
            ask()


def test_counts_are_given_with_the_official_ones(roots: dict[str, Path]) -> None:
    found = {part.title: (counts, part.expected) for part, counts in count_parts("idrid", roots["idrid"])}
    assert found["A. Segmentation, training"] == (
        LabelCounts(3, None, (3, 2, 3, 1)),
        LabelCounts(54, None, (54, 53, 54, 26)),
    )
    assert found["B. Disease Grading, training"][0] == LabelCounts(5, (0, 1, 2, 2, 0))
    assert found["B. Disease Grading, testing"] == (None, LabelCounts(103, (34, 5, 32, 19, 13)))
    eyepacs = dataset_trees.make_eyepacs_testing(
        roots["eyepacs"], ["2_left,0,Public", "3_left,1,Private", "3_right,2,Private"]
    )
    assert [counts for _, counts in count_parts("eyepacs", eyepacs)] == [
        LabelCounts(1, (1, 0, 0, 0, 0)),
        LabelCounts(1, (1, 0, 0, 0, 0)),
        LabelCounts(2, (0, 1, 1, 0, 0)),
    ]
    ddr = dict(zip(("train", "valid", "test"), count_parts("ddr", roots["ddr"]), strict=False))
    assert ddr["train"][1] == LabelCounts(3, (1, 0, 0, 1, 0), ungradable=1)


def test_part_without_its_table_is_an_error(roots: dict[str, Path]) -> None:
    (roots["aptos"] / "train.csv").unlink()
    with pytest.raises(DataError, match=r"train\.csv: cannot be read"):
        count_parts("aptos", roots["aptos"])


@pytest.mark.parametrize("name", [name for name, dataset in DATASETS.items() if dataset.parts])
def test_parts_have_different_titles_and_are_read_or_absent(name: str, roots: dict[str, Path], tmp_path: Path) -> None:
    parts = DATASETS[name].parts
    assert len({part.title for part in parts}) == len(parts)
    for part, counts in count_parts(name, roots[name]):
        assert counts is None or 0 < counts.photographs < part.expected.photographs or counts.photographs == 0
    assert all(counts is None for _, counts in count_parts(name, tmp_path / "nowhere"))


def test_new_data_set_is_one_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DATASETS, "mine", DataSet(lambda root: [], ()))
    assert read_datasets({"mine": tmp_path}) == []
    assert count_parts("mine", tmp_path) == []
