"""DRIVE: both parts, grades from the makers' notes, masks of the field of view."""

from __future__ import annotations

from pathlib import Path

import pytest

import dataset_trees
from deepmtdr.datasets.drive import EXPECTED, EXPECTED_TEST, fov_mask_path, read_drive
from deepmtdr.datasets.layout import count_labels
from deepmtdr.errors import DataError


def test_background_retinopathy_has_no_grade_and_absence_is_grade_0(tmp_path: Path) -> None:
    samples = read_drive(dataset_trees.make_drive(tmp_path), "training")
    assert [(s.patient, s.grade) for s in samples] == [("drive/21", 0), ("drive/25", 0), ("drive/26", None)]
    assert [s.has_dr for s in samples] == [False, False, True]
    assert not any(s.lesion_masks for s in samples)


def test_notes_cover_the_test_part_too(tmp_path: Path) -> None:
    dataset_trees.touch(
        dataset_trees.make_drive(tmp_path) / "test/images", "03_test.tif", "08_test.tif", "14_test.tif", "17_test.tif"
    )
    samples = read_drive(tmp_path, "test")
    assert [s.name for s in samples if s.has_dr] == ["03_test", "14_test", "17_test"]
    assert [(s.name, s.grade) for s in samples if not s.has_dr] == [("01_test", 0), ("08_test", 0)]


def test_both_parts_are_read_if_present_with_their_splits(tmp_path: Path) -> None:
    samples = read_drive(dataset_trees.make_drive(tmp_path))
    splits = [(s.name, s.official_split) for s in samples]
    assert splits == [*((f"{n}_training", "train") for n in (21, 25, 26)), ("01_test", "test")]
    (tmp_path / "test/images/01_test.tif").unlink()
    (tmp_path / "test/images").rmdir()
    with pytest.raises(DataError, match="test/images: cannot be listed"):
        read_drive(tmp_path)
    (tmp_path / "test").rmdir()
    assert [s.official_split for s in read_drive(tmp_path)] == ["train"] * 3


def test_mask_of_the_field_of_view_is_found_or_its_absence_named(tmp_path: Path) -> None:
    samples = read_drive(dataset_trees.make_drive(tmp_path), "training")
    assert fov_mask_path(samples[0]) == tmp_path / "training/mask/21_training_mask.gif"
    with pytest.raises(DataError, match=r"26_training_mask\.gif: expected the field of view of .*26_training\.tif"):
        fov_mask_path(samples[2])


def test_missing_folder_and_other_names_are_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="images: cannot be listed"):
        read_drive(tmp_path)
    dataset_trees.touch(dataset_trees.make_drive(tmp_path) / "training/images", "copy of 21.tif")
    with pytest.raises(DataError, match=r"copy of 21\.tif: expected a name such as 21_training"):
        read_drive(tmp_path)
    dataset_trees.touch(tmp_path / "b/training/images", "21.tif")
    with pytest.raises(DataError, match=r"21\.tif: expected a name such as 21_training"):
        read_drive(tmp_path / "b")


def test_official_counts_are_those_of_the_notes() -> None:
    assert EXPECTED.grades is not None
    assert EXPECTED_TEST.grades is not None
    assert (20 - EXPECTED.grades[0], 20 - EXPECTED_TEST.grades[0]) == (2, 3)


@pytest.mark.data
def test_real_training_part_is_complete_and_has_masks_of_the_field_of_view(real_data: Path) -> None:
    samples = read_drive(real_data / "drive", "training")
    assert count_labels(samples) == EXPECTED
    assert len({fov_mask_path(sample) for sample in samples}) == 20
