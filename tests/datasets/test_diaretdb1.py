"""DIARETDB1: masks of confidence, official splits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import dataset_trees
from deepmtdr.datasets.diaretdb1 import EXPECTED_TESTING, EXPECTED_TRAINING, FULL_CONFIDENCE, read_diaretdb1
from deepmtdr.datasets.frames import read_masks
from deepmtdr.errors import DataError
from deepmtdr.terms import Lesion


def test_masks_and_official_splits_are_read(tmp_path: Path) -> None:
    samples = read_diaretdb1(dataset_trees.make_diaretdb1(tmp_path))
    assert [(s.name, s.patient, s.official_split, s.grade) for s in samples] == [
        ("image001", "diaretdb1/image001", "train", None),
        ("image002", "diaretdb1/image002", "train", None),
        ("image003", "diaretdb1/image003", "test", None),
    ]
    folder = tmp_path / "resources/images/ddb1_groundtruth"
    assert samples[0].lesion_masks == {
        Lesion.MA: folder / "redsmalldots/image001.png",
        Lesion.HE: folder / "hemorrhages/image001.png",
        Lesion.EX: folder / "hardexudates/image001.png",
        Lesion.SE: folder / "softexudates/image001.png",
    }
    assert {(s.dataset, s.has_dr) for s in samples} == {("diaretdb1", None)}
    assert [s.name for s in read_diaretdb1(tmp_path, "test")] == ["image003"]


def test_pixel_is_lesion_from_a_confidence_of_three_quarters(tmp_path: Path) -> None:
    (sample,) = read_diaretdb1(dataset_trees.make_diaretdb1(tmp_path), "test")
    levels = np.array([[0, 63, 126, 188], [189, 190, FULL_CONFIDENCE, 255]], np.uint8)
    for path in sample.lesion_masks.values():
        Image.fromarray(levels).save(str(path))
    masks = read_masks(sample, (2, 4)).lesions
    assert all((mask == (levels / FULL_CONFIDENCE >= 0.75)).all() for mask in masks.values()), "as the makers evaluate"


def test_contradictions_are_errors_that_name_the_place(tmp_path: Path) -> None:
    root = dataset_trees.make_diaretdb1(tmp_path)
    dataset_trees.touch(root / "resources/images/ddb1_groundtruth/softexudates", "image004.png")
    with pytest.raises(DataError, match=r"softexudates/image004\.png: there is no photograph for this mask"):
        read_diaretdb1(root)
    dataset_trees.touch(root / "resources/images/ddb1_fundusimages", "image004.png")
    with pytest.raises(DataError, match=r"no row for 1 photographs, the first is .*image004\.png"):
        read_diaretdb1(root)
    dataset_trees.write_table(root / "resources/testdatasets/testset.txt", "image003.png", "", "image002.png")
    with pytest.raises(DataError, match=r"testset\.txt, row 3: found image002 for the second time"):
        read_diaretdb1(root)
    dataset_trees.write_table(
        root / "resources/testdatasets/testset.txt", "image003.png", "image004.png", "image005.png"
    )
    with pytest.raises(DataError, match=r"1 photographs named in .*resources not found, the first is image005"):
        read_diaretdb1(root)


def test_missing_folders_and_lists_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="ddb1_fundusimages: cannot be listed"):
        read_diaretdb1(tmp_path)
    root = dataset_trees.make_diaretdb1(tmp_path)
    (root / "resources/testdatasets/testset.txt").unlink()
    with pytest.raises(DataError, match=r"testset\.txt: cannot be read"):
        read_diaretdb1(root)
    root = dataset_trees.make_diaretdb1(tmp_path / "b")
    (root / "resources/images/ddb1_groundtruth/hemorrhages").rename(root / "elsewhere")
    with pytest.raises(DataError, match="hemorrhages: cannot be listed"):
        read_diaretdb1(root)


def test_official_counts_sum_up() -> None:
    assert EXPECTED_TRAINING.photographs + EXPECTED_TESTING.photographs == 89
