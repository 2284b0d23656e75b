"""DRIVE: both halves, the stated absence of retinopathy, the fields of view."""

from __future__ import annotations

from pathlib import Path

import pytest

import trees
from deepmtdr.data.drive import EXPECTED, fov_mask_path, read_drive
from deepmtdr.data.layout import count
from deepmtdr.errors import DataError


def test_background_retinopathy_is_no_grade_and_absence_is_grade_0(tmp_path: Path) -> None:
    samples = read_drive(trees.drive(tmp_path))
    assert [(s.patient, s.grade) for s in samples] == [("drive/21", 0), ("drive/25", 0), ("drive/26", None)]
    assert not any(s.lesion_masks for s in samples)


def test_nothing_is_stated_of_the_test_half(tmp_path: Path) -> None:
    (sample,) = read_drive(trees.drive(tmp_path), "test")
    assert (sample.name, sample.patient, sample.grade) == ("01_test", "drive/01", None)


def test_field_of_view_is_found_or_its_absence_named(tmp_path: Path) -> None:
    samples = read_drive(trees.drive(tmp_path))
    assert fov_mask_path(samples[0]) == tmp_path / "training/mask/21_training_mask.gif"
    with pytest.raises(DataError, match=r"26_training_mask\.gif: expected the field of view of .*26_training\.tif"):
        fov_mask_path(samples[2])


def test_missing_root_and_foreign_names_are_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="images: expected a folder"):
        read_drive(tmp_path)
    trees.touch(trees.drive(tmp_path) / "training/images", "copy of 21.tif")
    with pytest.raises(DataError, match=r"copy of 21\.tif: expected a name such as 21_training"):
        read_drive(tmp_path)


@pytest.mark.data
def test_real_training_half_is_whole_and_has_fields_of_view(real_data: Path) -> None:
    samples = read_drive(real_data / "drive")
    assert count(samples) == EXPECTED
    assert len({fov_mask_path(sample) for sample in samples}) == 20
