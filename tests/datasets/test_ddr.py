"""DDR in its official layout: grades, the ungradable class, masks, and a photograph in two official splits."""

from __future__ import annotations

from pathlib import Path

import pytest

import dataset_trees
from deepmtdr.datasets.ddr import (
    EXPECTED_GRADING,
    EXPECTED_SEGMENTATION,
    read_ddr,
    read_ddr_grading,
    read_ddr_segmentation,
)
from deepmtdr.datasets.layout import count_labels
from deepmtdr.datasets.sample import Sample
from deepmtdr.errors import DataError
from deepmtdr.labels import DIABETIC_RETINOPATHY
from deepmtdr.terms import Lesion


def _by_name(samples: list[Sample]) -> dict[str, Sample]:
    return {sample.name: sample for sample in samples}


def test_every_label_is_read_and_label_5_is_not_a_grade(tmp_path: Path) -> None:
    root = dataset_trees.make_ddr_grading(tmp_path, train=[f"007-000{label}-000.jpg {label}" for label in range(6)])
    samples = read_ddr_grading(root, "train")
    assert [sample.grade for sample in samples] == [0, 1, 2, 3, 4, None]
    assert [sample.ungradable for sample in samples] == [False] * 5 + [True]
    assert samples[0].photograph == root / "DR_grading/train/007-0000-000.jpg"
    assert {sample.dataset for sample in samples} == {"ddr"}
    assert count_labels(samples).ungradable == 1


def test_folders_are_the_official_splits_and_each_photograph_a_patient(tmp_path: Path) -> None:
    root = dataset_trees.make_ddr_grading(
        tmp_path, train=["a.jpg 0"], valid=["b.jpg 1"], test=["20170413102628830.jpg 2"]
    )
    assert {sample.name: (sample.official_split, sample.patient) for sample in read_ddr(root)} == {
        "a": ("train", "ddr/a"),
        "b": ("validation", "ddr/b"),
        "20170413102628830": ("test", "ddr/20170413102628830"),
    }


def test_mask_folders_use_the_letters_of_the_data_set(tmp_path: Path) -> None:
    root = dataset_trees.make_ddr_segmentation(tmp_path, train=["a"], valid=["b"])
    (annotated,) = read_ddr_segmentation(root, "train")
    labels = root / "lesion_segmentation/train/label"
    assert annotated.lesion_masks == {lesion: labels / lesion.name / "a.tif" for lesion in Lesion}
    assert annotated.lesion_masks[Lesion.HE] == labels / "HE/a.tif", "haemorrhages"
    assert annotated.mask_threshold is None
    (valid,) = read_ddr_segmentation(root, "valid")
    assert valid.lesion_masks[Lesion.MA] == root / "lesion_segmentation/valid/segmentation label/MA/b.tif"


def test_valid_part_may_have_the_same_mask_folder_as_the_others(tmp_path: Path) -> None:
    root = dataset_trees.make_ddr_segmentation(tmp_path, valid=["b"])
    valid = root / "lesion_segmentation/valid"
    (valid / "segmentation label").rename(valid / "label")
    (sample,) = read_ddr_segmentation(root, "valid")
    assert sample.lesion_masks[Lesion.MA] == valid / "label/MA/b.tif"


def test_missing_mask_file_means_no_such_lesion(tmp_path: Path) -> None:
    root = dataset_trees.make_ddr_segmentation(tmp_path, test=["a"])
    (root / "lesion_segmentation/test/label/SE/a.tif").unlink()
    (sample,) = read_ddr_segmentation(root, "test")
    assert sample.annotated(DIABETIC_RETINOPATHY) == (True,) * 4
    assert sample.lesion_masks[Lesion.SE] is None


def test_photograph_of_both_parts_is_one_sample_with_masks_and_grade(tmp_path: Path) -> None:
    samples = read_ddr(dataset_trees.make_ddr(tmp_path))
    assert len(samples) == len(_by_name(samples)) == 6
    both = _by_name(samples)["20170413102628830"]
    assert (both.grade, both.annotated(DIABETIC_RETINOPATHY)) == (3, (True,) * 4)
    assert both.photograph == tmp_path / "lesion_segmentation/test/image/20170413102628830.jpg", "masks are of its size"
    assert _by_name(samples)["007-2846-100"].grade is None, "annotated, not graded"
    assert not _by_name(samples)["007-0004-000"].lesion_masks


def test_photograph_in_two_official_splits_is_in_the_stricter_one(tmp_path: Path) -> None:
    samples = _by_name(read_ddr(dataset_trees.make_ddr(tmp_path)))
    assert samples["20170413102628830"].official_split == "test", "graded for training, annotated for testing"
    assert samples["007-1789-100"].official_split == "test", "graded for testing, annotated for training"
    assert samples["007-2846-100"].official_split == "validation"
    dataset_trees.make_ddr_grading(tmp_path / "b", valid=["a.jpg 5"])
    (sample,) = read_ddr(dataset_trees.make_ddr_segmentation(tmp_path / "b", train=["a"]))
    assert (sample.official_split, sample.ungradable, sample.grade) == ("validation", True, None)


def test_either_part_is_enough_and_none_is_an_error(tmp_path: Path) -> None:
    assert len(read_ddr(dataset_trees.make_ddr_grading(tmp_path / "g", train=["a.jpg 0"]))) == 1
    assert len(read_ddr(dataset_trees.make_ddr_segmentation(tmp_path / "s", train=["a"]))) == 1
    with pytest.raises(DataError, match="nowhere: expected DR_grading or lesion_segmentation"):
        read_ddr(tmp_path / "nowhere")


@pytest.mark.parametrize("line", ["b.jpg 6", "b.jpg -1", "b.jpg 1.0", "b.jpg", "b.jpg,1"])
def test_line_without_name_and_label_is_an_error_with_file_and_row(tmp_path: Path, line: str) -> None:
    root = dataset_trees.make_ddr_grading(tmp_path, valid=["a.jpg 0"])
    dataset_trees.write_table(root / "DR_grading/valid.txt", "a.jpg 0", line)
    with pytest.raises(DataError, match=rf"valid\.txt, row 2: expected a name and a label 0-5, found '{line}'"):
        read_ddr(root)


def test_missing_list_and_missing_folder_are_named(tmp_path: Path) -> None:
    root = dataset_trees.make_ddr_grading(tmp_path)
    (root / "DR_grading/test.txt").unlink()
    with pytest.raises(DataError, match=r"test\.txt: cannot be read"):
        read_ddr(root)
    (root / "DR_grading/test").rmdir()
    with pytest.raises(DataError, match="DR_grading/test: cannot be listed"):
        read_ddr(root)
    root = dataset_trees.make_ddr_segmentation(tmp_path / "s")
    (root / "lesion_segmentation/train/label/HE").rmdir()
    with pytest.raises(DataError, match="train/label/HE: cannot be listed"):
        read_ddr(root)


def test_photographs_and_lines_have_to_match(tmp_path: Path) -> None:
    root = dataset_trees.make_ddr_grading(tmp_path, train=["a.jpg 0", "b.jpg 1"])
    dataset_trees.touch(root / "DR_grading/train", "c.jpg")
    with pytest.raises(DataError, match=r"train\.txt: no row for 1 photographs, the first is .*c\.jpg"):
        read_ddr(root)
    (root / "DR_grading/train/c.jpg").unlink()
    (root / "DR_grading/train/a.jpg").unlink()
    with pytest.raises(DataError, match=r"1 photographs named in .*train\.txt not found, the first is a"):
        read_ddr(root)


def test_photograph_twice_is_an_error_in_a_list_and_over_two_folders(tmp_path: Path) -> None:
    root = dataset_trees.make_ddr_grading(tmp_path, train=["a.jpg 0", "a.jpg 1"])
    with pytest.raises(DataError, match=r"train\.txt, row 2: found a for the second time"):
        read_ddr(root)
    dataset_trees.make_ddr_grading(tmp_path / "b", train=["a.jpg 0"], test=["a.jpg 0"])
    with pytest.raises(DataError, match=r"train/a\.jpg and .*test/a\.jpg: two photographs named a"):
        read_ddr(tmp_path / "b")


def test_mask_without_photograph_is_an_error(tmp_path: Path) -> None:
    root = dataset_trees.make_ddr_segmentation(tmp_path, train=["a"])
    dataset_trees.touch(root / "lesion_segmentation/train/label/EX", "b.tif")
    with pytest.raises(
        DataError, match=r"EX/b\.tif: there is no photograph for this mask; expected a photograph named b"
    ):
        read_ddr(root)


def test_official_counts_sum_up() -> None:
    grading = EXPECTED_GRADING.values()
    assert [sum(c.grades or ()) + (c.ungradable or 0) for c in grading] == [c.photographs for c in grading]
    assert sum(c.photographs for c in grading) == 13673, "as in the paper"
    assert sum(c.ungradable or 0 for c in grading) == 1151
    assert EXPECTED_GRADING["test"].grades == (1880, 189, 1344, 71, 275)
    assert sum(c.photographs for c in EXPECTED_SEGMENTATION.values()) == 757, "as in the paper"
