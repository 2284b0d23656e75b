"""IDRiD: both parts, and photographs under two names."""

from __future__ import annotations

from pathlib import Path

import pytest

import dataset_trees
from deepmtdr.csv_tables import read_table
from deepmtdr.datasets.idrid import (
    ALSO_GRADED,
    EXPECTED_GRADING,
    EXPECTED_GRADING_TESTING,
    EXPECTED_SEGMENTATION,
    EXPECTED_SEGMENTATION_TESTING,
    SAME_EYE,
    SAME_EYE_ACROSS,
    SAME_PHOTOGRAPH,
    read_idrid,
    read_idrid_grading,
    read_idrid_segmentation,
)
from deepmtdr.datasets.layout import LabelCounts, count_labels
from deepmtdr.datasets.sample import Sample
from deepmtdr.errors import DataError
from deepmtdr.labels import DIABETIC_RETINOPATHY
from deepmtdr.terms import Grade, Lesion


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return dataset_trees.make_idrid(tmp_path)


def _by_name(samples: list[Sample]) -> dict[str, Sample]:
    return {sample.name: sample for sample in samples}


def test_segmentation_part_gives_masks_and_none_without_lesion(root: Path) -> None:
    samples = _by_name(read_idrid_segmentation(root))
    assert list(samples) == ["IDRiD_04", "IDRiD_05", "IDRiD_53"]
    masks = samples["IDRiD_53"].lesion_masks
    assert masks[Lesion.SE] == root / dataset_trees.MASKS / "4. Soft Exudates/IDRiD_53_SE.tif"
    assert masks[Lesion.HE] is None
    assert all(
        sample.annotated(DIABETIC_RETINOPATHY) == (True,) * 4 and sample.dataset == "idrid"
        for sample in samples.values()
    )


def test_grading_part_gives_grades_and_no_masks(root: Path) -> None:
    samples = read_idrid_grading(root)
    grades = {"001": 3, "012": 3, "021": 1, "082": 2, "391": 2}
    assert {sample.name[-3:]: sample.grade for sample in samples} == grades
    assert not any(any(sample.annotated(DIABETIC_RETINOPATHY)) for sample in samples)


def test_one_photograph_under_two_names_is_one_patient(root: Path) -> None:
    in_a, in_b = _by_name(read_idrid_segmentation(root)), _by_name(read_idrid_grading(root))
    assert in_a["IDRiD_05"].patient == in_b["IDRiD_082"].patient
    assert in_a["IDRiD_53"].patient == in_b["IDRiD_012"].patient
    assert in_b["IDRiD_021"].patient == in_b["IDRiD_391"].patient
    assert len({sample.patient for sample in [*in_a.values(), *in_b.values()]}) == 5


def test_two_exposures_of_one_eye_are_two_photographs_of_one_patient(root: Path) -> None:
    dataset_trees.touch(root / "A. Segmentation/1. Original Images/a. Training Set", "IDRiD_39.jpg")
    dataset_trees.touch(root / dataset_trees.GRADING_PHOTOGRAPHS, "IDRiD_013.jpg", "IDRiD_271.jpg", "IDRiD_397.jpg")
    with (root / dataset_trees.GRADING_TABLE).open("a") as table:
        table.write("IDRiD_013,3,1\nIDRiD_271,3,2\nIDRiD_397,2,1\n")
    samples = _by_name(read_idrid(root))
    assert samples["IDRiD_39"].patient == samples["IDRiD_271"].patient
    assert samples["IDRiD_013"].patient == samples["IDRiD_397"].patient
    assert samples["IDRiD_39"].grade is None, "another exposure was graded, not this one"


def test_row_of_an_unknown_photograph_in_the_table_of_twins_is_an_error(root: Path) -> None:
    header = "segmentation_image,grading_image,retinopathy_grade"
    dataset_trees.write_table(root / "same_photograph.csv", header, "IDRiD_99,IDRiD_001,3")
    with pytest.raises(DataError, match=r"same_photograph\.csv, row 2: expected one of the 3 .*found 'IDRiD_99'"):
        read_idrid(root)


def test_photograph_of_both_parts_is_read_once(root: Path) -> None:
    samples = _by_name(read_idrid(root))
    assert list(samples) == ["IDRiD_04", "IDRiD_05", "IDRiD_53", "IDRiD_001", "IDRiD_021", "IDRiD_391"]
    assert samples["IDRiD_05"].grade == Grade.MODERATE
    assert samples["IDRiD_53"].grade == Grade.SEVERE
    assert samples["IDRiD_04"].grade is None, "not graded: None, not 0"


def test_table_of_same_photographs_is_read_if_present(root: Path) -> None:
    header = "segmentation_image,grading_image,retinopathy_grade"
    dataset_trees.write_table(root / "same_photograph.csv", header, "IDRiD_04,IDRiD_001,3")
    assert _by_name(read_idrid_segmentation(root))["IDRiD_04"].grade == Grade.SEVERE
    samples = _by_name(read_idrid(root))
    assert "IDRiD_001" not in samples
    assert samples["IDRiD_04"].patient == "idrid/001"


def test_photograph_with_conflicting_grades_has_no_grade(root: Path) -> None:
    header = "segmentation_image,grading_image,retinopathy_grade"
    dataset_trees.write_table(root / "same_photograph.csv", header, "IDRiD_04,IDRiD_391,2")
    samples = _by_name(read_idrid(root))
    assert samples["IDRiD_04"].grade is None
    assert "IDRiD_021" not in samples
    assert "IDRiD_391" not in samples


def test_numbers_of_the_testing_part_are_not_those_of_the_training_part(tmp_path: Path) -> None:
    base = tmp_path / "B. Disease Grading"
    dataset_trees.touch(base / "1. Original Images/b. Testing Set", "IDRiD_021.jpg")
    table = base / "2. Groundtruths/b. IDRiD_Disease Grading_Testing Labels.csv"
    dataset_trees.write_table(table, "Image name,Retinopathy grade,Risk of macular edema ", "IDRiD_021,4,0")
    (sample,) = read_idrid_grading(tmp_path, "testing")
    assert (sample.name, sample.patient, sample.grade) == ("test_IDRiD_021", "idrid/test_021", 4)


def test_testing_parts_are_read_if_present(root: Path) -> None:
    alone = read_idrid(root)
    assert {sample.official_split for sample in alone} == {"train"}
    dataset_trees.make_idrid_testing_grading(dataset_trees.make_idrid_testing_segmentation(root))
    samples = read_idrid(root)
    assert samples[: len(alone)] == alone, "the training part does not change"
    testing = {sample.name: (sample.patient, sample.grade, sample.official_split) for sample in samples[len(alone) :]}
    assert testing == {
        "IDRiD_55": ("idrid/A55", None, "test"),
        "test_IDRiD_021": ("idrid/test_021", 4, "test"),
        "test_IDRiD_055": ("idrid/test_055", 0, "test"),
    }
    assert not {sample.patient for sample in alone} & {patient for patient, _, _ in testing.values()}
    assert _by_name(samples)["IDRiD_55"].lesion_masks[Lesion.SE] is None
    assert read_idrid(root, "training") == alone
    assert read_idrid(root, "testing") == samples[len(alone) :]


def test_testing_part_of_grading_is_read_without_that_of_segmentation(root: Path, tmp_path: Path) -> None:
    dataset_trees.make_idrid_testing_grading(root)
    assert [s.name for s in read_idrid(root) if s.official_split == "test"] == ["test_IDRiD_021", "test_IDRiD_055"]
    other = dataset_trees.make_idrid_testing_segmentation(dataset_trees.make_idrid(tmp_path / "other"))
    assert [s.name for s in read_idrid(other) if s.official_split == "test"] == ["IDRiD_55"]


def test_contradiction_in_the_testing_part_is_an_error(root: Path) -> None:
    dataset_trees.make_idrid_testing_grading(root)
    (root / dataset_trees.TESTING_TABLE).unlink()
    with pytest.raises(DataError, match=r"Testing Labels\.csv: cannot be read"):
        read_idrid(root)


def test_testing_photograph_with_a_training_number_is_an_error(root: Path) -> None:
    dataset_trees.make_idrid_testing_segmentation(root)
    dataset_trees.touch(root / "A. Segmentation/1. Original Images/b. Testing Set", "IDRiD_53.jpg")
    with pytest.raises(DataError, match=r"two photographs named IDRiD_53"):
        read_idrid(root)


def test_mask_without_photograph_is_an_error(root: Path) -> None:
    dataset_trees.touch(root / dataset_trees.MASKS / "2. Haemorrhages", "IDRiD_06_HE.tif")
    with pytest.raises(DataError, match=r"IDRiD_06_HE\.tif: there is no photograph for this mask"):
        read_idrid(root)


def test_mask_of_another_lesion_type_is_an_error(root: Path) -> None:
    dataset_trees.touch(root / dataset_trees.MASKS / "2. Haemorrhages", "IDRiD_53_EX.tif")
    with pytest.raises(DataError, match=r"IDRiD_53_EX\.tif: not the name of a mask of haemorrhages"):
        read_idrid(root)


def test_missing_mask_folder_is_an_error(root: Path) -> None:
    folder = root / dataset_trees.MASKS / "4. Soft Exudates"
    (folder / "IDRiD_53_SE.tif").unlink()
    folder.rmdir()
    with pytest.raises(DataError, match="Soft Exudates: cannot be listed"):
        read_idrid_segmentation(root)


def test_missing_root_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere"):
        read_idrid(tmp_path / "nowhere")


def test_grade_out_of_range_names_file_and_row(root: Path) -> None:
    table = root / dataset_trees.GRADING_TABLE
    table.write_text(table.read_text().replace("IDRiD_021,1", "IDRiD_021,7"))
    with pytest.raises(DataError, match=r"Training Labels\.csv, row 4: expected a grade 0-4, found '7'"):
        read_idrid_grading(root)


def test_photograph_of_another_name_is_an_error(root: Path) -> None:
    dataset_trees.touch(root / "A. Segmentation/1. Original Images/a. Training Set", "fundus.jpg")
    with pytest.raises(DataError, match="expected a name such as IDRiD_01, found 'fundus'"):
        read_idrid_segmentation(root)


@pytest.mark.data
def test_real_idrid_has_the_official_masks_and_no_photograph_twice(real_data: Path) -> None:
    root = real_data / "idrid"
    assert count_labels(read_idrid_segmentation(root))._replace(grades=None) == EXPECTED_SEGMENTATION
    graded, joined = read_idrid_grading(root), read_idrid(root, "training")
    assert len(graded) <= EXPECTED_GRADING.photographs
    assert len(joined) == 54 + len(graded) - len(ALSO_GRADED)
    eyes_taken_twice = len(SAME_EYE) + len(SAME_EYE_ACROSS)
    assert len({sample.patient for sample in joined}) == len(joined) - 3 - eyes_taken_twice
    assert count_labels(joined).grades == count_labels(graded).grades


@pytest.mark.data
def test_known_twins_are_those_of_the_table(real_data: Path) -> None:
    rows = read_table(real_data / "idrid/same_photograph.csv", ("segmentation_image", "grading_image"))
    table = {int(row["segmentation_image"][6:]): int(row["grading_image"][6:]) for _, row in rows}
    assert table == ALSO_GRADED
    assert not set(SAME_PHOTOGRAPH) & set(ALSO_GRADED.values())


def test_official_counts_sum_up() -> None:
    assert LabelCounts(413, (134, 20, 136, 74, 49)) == EXPECTED_GRADING
    for counts in (EXPECTED_GRADING, EXPECTED_GRADING_TESTING):
        assert sum(counts.grades or ()) == counts.photographs
    assert EXPECTED_SEGMENTATION.photographs + EXPECTED_SEGMENTATION_TESTING.photographs == 81
