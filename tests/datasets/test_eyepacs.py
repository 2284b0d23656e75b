"""EyePACS in Kaggle's layout: patient and eye from the name, the same patient in every copy."""

from __future__ import annotations

from pathlib import Path

import pytest

import dataset_trees
from deepmtdr.datasets.eyepacs import (
    EXPECTED,
    EXPECTED_PRIVATE,
    EXPECTED_PUBLIC,
    read_eyepacs,
    read_eyepacs256_equalised,
    read_eyepacs_testing,
)
from deepmtdr.datasets.layout import LabelCounts, count_labels
from deepmtdr.errors import DataError


def test_patient_eye_and_grade_are_read(tmp_path: Path) -> None:
    root = dataset_trees.make_eyepacs(tmp_path, {"1000_left": 0, "1000_right": 3, "99_left": 4})
    samples = {sample.name: sample for sample in read_eyepacs(root)}
    assert samples["1000_right"].photograph == root / "train/1000_right.jpeg"
    assert {name: (s.patient, s.laterality, s.grade) for name, s in samples.items()} == {
        "1000_left": ("eyepacs/1000", "L", 0),
        "1000_right": ("eyepacs/1000", "R", 3),
        "99_left": ("eyepacs/99", "L", 4),
    }
    assert {(s.dataset, s.official_split) for s in samples.values()} == {("eyepacs", "train")}
    assert not any(s.lesion_masks for s in samples.values())


def test_public_testing_part_is_validation_and_the_private_one_test(tmp_path: Path) -> None:
    root = dataset_trees.make_eyepacs(tmp_path, {"10_left": 0})
    dataset_trees.make_eyepacs_testing(root, ["1_left,0,Private", "1_right,2,Private", "2_left,4,Public"])
    assert [(s.name, s.patient, s.grade, s.official_split) for s in read_eyepacs(root)] == [
        ("10_left", "eyepacs/10", 0, "train"),
        ("1_left", "eyepacs/1", 0, "test"),
        ("1_right", "eyepacs/1", 2, "test"),
        ("2_left", "eyepacs/2", 4, "validation"),
    ]
    assert [s.name for s in read_eyepacs_testing(root, usage="Public")] == ["2_left"]
    assert {s.dataset for s in read_eyepacs256_equalised(root)} == {"eyepacs256_equalised"}


def test_testing_photographs_without_table_or_the_reverse_are_an_error(tmp_path: Path) -> None:
    root = dataset_trees.make_eyepacs_testing(dataset_trees.make_eyepacs(tmp_path, {"10_left": 0}), ["1_left,0,Public"])
    (root / "retinopathy_solution.csv").unlink()
    with pytest.raises(DataError, match=r"retinopathy_solution\.csv: cannot be read"):
        read_eyepacs(root)
    dataset_trees.make_eyepacs_testing(root, ["1_left,0,Public"])
    (root / "test/1_left.jpeg").unlink()
    (root / "test").rmdir()
    with pytest.raises(DataError, match="test: cannot be listed"):
        read_eyepacs(root)


def test_contradictions_of_the_testing_part_name_file_and_row(tmp_path: Path) -> None:
    root = dataset_trees.make_eyepacs(tmp_path, {"10_left": 0})
    with pytest.raises(DataError, match=r"solution\.csv, row 3: expected Public or Private in Usage, found 'public'"):
        read_eyepacs(dataset_trees.make_eyepacs_testing(root, ["1_left,0,Private", "1_right,0,public"]))
    with pytest.raises(DataError, match=r"solution\.csv, row 2: expected a grade 0-4, found '5'"):
        read_eyepacs(dataset_trees.make_eyepacs_testing(root, ["1_left,5,Private"]))
    dataset_trees.make_eyepacs_testing(root, ["1_left,0,Public", "1_right,0,Public", "10_left,0,Public"])
    with pytest.raises(DataError, match=r"train/10_left\.jpeg and .*test/10_left\.jpeg: two photographs named 10_left"):
        read_eyepacs(root)
    dataset_trees.touch(root / "test", "3_left.jpeg")
    with pytest.raises(DataError, match=r"solution\.csv: no row for 1 photographs, the first is .*3_left\.jpeg"):
        read_eyepacs(root)


def test_equalised_copy_has_its_own_name_and_the_same_patients(tmp_path: Path) -> None:
    (copy,) = read_eyepacs256_equalised(dataset_trees.make_eyepacs(tmp_path, {"1000_left": 0}))
    assert (copy.dataset, copy.patient) == ("eyepacs256_equalised", "eyepacs/1000")


@pytest.mark.parametrize("name", ["1000", "left_1000", "1000_Left", "a_left", "1000_left_2"])
def test_name_without_patient_and_eye_is_an_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=rf"{name}\.jpeg: expected a name such as 1000_left"):
        read_eyepacs(dataset_trees.make_eyepacs(tmp_path, {name: 0}))


def test_grade_out_of_range_names_file_and_row(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"trainLabels\.csv, row 3: expected a grade 0-4, found '5'"):
        read_eyepacs(dataset_trees.make_eyepacs(tmp_path, {"1_left": 0, "1_right": 5}))


def test_photographs_and_rows_have_to_match(tmp_path: Path) -> None:
    root = dataset_trees.make_eyepacs(tmp_path, {"1_left": 0, "1_right": 0})
    dataset_trees.touch(root / "train", "2_left.jpeg")
    with pytest.raises(DataError, match=r"no row for 1 photographs, the first is .*2_left\.jpeg"):
        read_eyepacs(root)
    (root / "train/2_left.jpeg").unlink()
    (root / "train/1_left.jpeg").unlink()
    with pytest.raises(DataError, match=r"1 photographs named in .* not found, the first is 1_left"):
        read_eyepacs(root)


def test_missing_root_and_missing_table_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere/train: cannot be listed"):
        read_eyepacs(tmp_path / "nowhere")
    dataset_trees.touch(tmp_path / "train", "1_left.jpeg")
    with pytest.raises(DataError, match=r"trainLabels\.csv: cannot be read"):
        read_eyepacs(tmp_path)


@pytest.mark.data
def test_real_copies_have_the_described_counts(real_data: Path) -> None:
    assert count_labels(read_eyepacs(real_data / "eyepacs")) == LabelCounts(732, (535, 42, 113, 20, 22))
    equalised = read_eyepacs256_equalised(real_data / "eyepacs256_equalised")
    assert count_labels(equalised) == LabelCounts(2160, (800, 355, 787, 131, 87))


def test_official_counts_sum_up() -> None:
    assert sum(EXPECTED.grades or ()) == EXPECTED.photographs == 35126
    testing = EXPECTED_PUBLIC, EXPECTED_PRIVATE
    assert [sum(counts.grades or ()) for counts in testing] == [counts.photographs for counts in testing]
    assert sum(counts.photographs for counts in (EXPECTED, *testing)) == 88702, "as in the paper"
