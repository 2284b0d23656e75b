"""Real-LR: DRIVE's photographs and the hospital's, negative and positive."""

from __future__ import annotations

from pathlib import Path

import pytest

import dataset_trees
from deepmtdr.datasets.drive import read_drive
from deepmtdr.datasets.real_lr import EXPECTED, read_real_lr
from deepmtdr.errors import DataError


def test_negative_is_grade_0_and_positive_has_no_grade(tmp_path: Path) -> None:
    samples = {sample.name: sample for sample in read_real_lr(dataset_trees.make_real_lr(tmp_path))}
    assert {name: (s.grade, s.has_dr) for name, s in samples.items()} == {
        "21_training": (0, False),
        "25_training": (0, False),
        "26_training": (None, True),
        "01_test": (0, False),
        "a": (0, False),
        "b": (None, True),
    }
    assert {(s.dataset, s.official_split) for s in samples.values()} == {("real_lr", "test")}, (
        "nothing of it is trained on"
    )


def test_patient_and_eye_are_read_if_known(tmp_path: Path) -> None:
    samples = {sample.name: sample for sample in read_real_lr(dataset_trees.make_real_lr(tmp_path))}
    assert (samples["a"].patient, samples["a"].laterality) == ("real_lr/7", "L")
    assert (samples["b"].patient, samples["b"].laterality) == ("real_lr/b", None)
    dataset_trees.write_table(tmp_path / "hospital/labels.csv", "image,label", "a,negative", "b,positive")
    assert [s.patient for s in read_real_lr(tmp_path)[-2:]] == ["real_lr/a", "real_lr/b"]


def test_photographs_of_drive_keep_their_patients(tmp_path: Path) -> None:
    patients = [sample.patient for sample in read_real_lr(dataset_trees.make_real_lr(tmp_path))]
    assert patients[:4] == [sample.patient for sample in read_drive(tmp_path / "drive")]


def test_either_part_is_enough_and_none_is_an_error(tmp_path: Path) -> None:
    root = dataset_trees.make_real_lr(tmp_path)
    (root / "hospital").rename(root / "elsewhere")
    assert len(read_real_lr(root)) == 4
    (root / "drive").rename(root / "neither")
    (root / "elsewhere").rename(root / "hospital")
    assert len(read_real_lr(root)) == 2
    with pytest.raises(DataError, match="nowhere: expected the folders drive or hospital"):
        read_real_lr(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a,1,,", "row 2: expected negative or positive in label, found '1'"),
        ("a,negative,,both", "row 2: expected L, left, OS, OG, R, right, OD or nothing as eye, found 'both'"),
    ],
)
def test_contradictions_in_a_row_name_file_and_row(tmp_path: Path, row: str, message: str) -> None:
    root = dataset_trees.make_real_lr(tmp_path)
    dataset_trees.write_table(root / "hospital/labels.csv", "image,label,patient,eye", row, "b,positive,,")
    with pytest.raises(DataError, match=rf"labels\.csv, {message}"):
        read_real_lr(root)


def test_photographs_and_rows_have_to_match(tmp_path: Path) -> None:
    root = dataset_trees.make_real_lr(tmp_path)
    dataset_trees.write_table(root / "hospital/labels.csv", "image,label", "a,negative", "a.jpg,negative")
    with pytest.raises(DataError, match=r"labels\.csv, row 3: found a for the second time"):
        read_real_lr(root)
    dataset_trees.write_table(root / "hospital/labels.csv", "image,label", "a,negative")
    with pytest.raises(DataError, match=r"labels\.csv: no row for 1 photographs, the first is .*b\.png"):
        read_real_lr(root)
    dataset_trees.touch(root / "hospital/images", "21_training.jpg")
    rows = ("a,negative", "b,positive", "21_training,positive")
    dataset_trees.write_table(root / "hospital/labels.csv", "image,label", *rows)
    with pytest.raises(DataError, match=r"21_training\.tif and .*21_training\.jpg: two photographs named 21_training"):
        read_real_lr(root)


def test_official_counts_are_those_of_the_paper() -> None:
    assert EXPECTED.photographs == 40 + 858 == 611 + 287
