"""e-ophtha: each part has one lesion type, a photograph of both parts is one sample."""

from __future__ import annotations

from pathlib import Path

import pytest

import dataset_trees
from deepmtdr.datasets.e_ophtha import read_e_ophtha, read_e_ophtha_part
from deepmtdr.datasets.layout import count_labels
from deepmtdr.errors import DataError
from deepmtdr.labels import DIABETIC_RETINOPATHY
from deepmtdr.terms import Lesion


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return dataset_trees.make_e_ophtha(tmp_path)


def test_each_part_annotates_one_type(root: Path) -> None:
    samples = read_e_ophtha_part(root, Lesion.EX)
    mask = root / "e_optha_EX/Annotation_EX/E0000404/C1_EX.png"
    assert [(s.name, s.lesion_masks) for s in samples] == [
        ("E0000404_C1", {Lesion.EX: mask}),
        ("E0000405_C2", {Lesion.EX: None}),
    ]
    assert count_labels(samples).masks == (0, 0, 1, 0)


def test_photograph_of_both_parts_is_one_sample_with_both_types(root: Path) -> None:
    samples = {sample.name: sample for sample in read_e_ophtha(root)}
    assert list(samples) == ["E0000404_C1", "E0000405_C2", "E0000405_C3", "E0000406_C3"]
    masks = root / "e_optha_MA/Annotation_MA"
    assert samples["E0000404_C1"].lesion_masks == {
        Lesion.EX: root / "e_optha_EX/Annotation_EX/E0000404/C1_EX.png",
        Lesion.MA: masks / "E0000404/C1.png",
    }
    assert samples["E0000405_C2"].lesion_masks == {Lesion.EX: None, Lesion.MA: masks / "E0000405/C2.png"}
    assert samples["E0000405_C3"].annotated(DIABETIC_RETINOPATHY) == (True, False, False, False)


def test_photograph_is_healthy_only_if_every_part_has_it_as_healthy(root: Path) -> None:
    samples = {sample.name: sample for sample in read_e_ophtha(root)}
    assert {name: sample.has_dr for name, sample in samples.items()} == {
        "E0000404_C1": True,
        "E0000405_C2": True,
        "E0000405_C3": True,
        "E0000406_C3": False,
    }
    assert {(s.grade, s.official_split, s.dataset) for s in samples.values()} == {(None, None, "e_ophtha")}


def test_each_case_is_a_patient(root: Path) -> None:
    samples = {sample.name: sample for sample in read_e_ophtha(root)}
    assert samples["E0000405_C2"].patient == samples["E0000405_C3"].patient == "e_ophtha/E0000405"
    assert samples["E0000406_C3"].patient == "e_ophtha/E0000406"


def test_photograph_outside_of_a_case_is_a_patient(root: Path) -> None:
    dataset_trees.touch(root / "e_optha_EX/healthy", "DS000U6I.jpg")
    (sample,) = (sample for sample in read_e_ophtha(root) if sample.name == "DS000U6I")
    assert (sample.patient, sample.lesion_masks) == ("e_ophtha/DS000U6I", {Lesion.EX: None})


def test_either_part_is_enough_and_none_is_an_error(tmp_path: Path) -> None:
    dataset_trees.make_e_ophtha(tmp_path / "a")
    (tmp_path / "a/e_optha_EX").rename(tmp_path / "elsewhere")
    assert len(read_e_ophtha(tmp_path / "a")) == 4
    with pytest.raises(DataError, match="nowhere: expected the folders e_optha_EX or e_optha_MA"):
        read_e_ophtha(tmp_path / "nowhere")


def test_photograph_without_mask_and_mask_without_photograph_are_errors(root: Path) -> None:
    dataset_trees.touch(root / "e_optha_EX/EX/E0000404", "C5.jpg")
    with pytest.raises(DataError, match=r"Annotation_EX/E0000404: expected a mask of .*C5\.jpg, found none"):
        read_e_ophtha(root)
    (root / "e_optha_EX/EX/E0000404/C5.jpg").unlink()
    dataset_trees.touch(root / "e_optha_EX/Annotation_EX/E0000404", "C6_EX.png")
    with pytest.raises(
        DataError, match=r"C6_EX\.png: there is no photograph for this mask; expected a photograph named C6"
    ):
        read_e_ophtha(root)
    (root / "e_optha_EX/Annotation_EX/E0000404/C6_EX.png").unlink()
    dataset_trees.touch(root / "e_optha_EX/Annotation_EX/E0000499", "C7_EX.png")
    with pytest.raises(
        DataError, match=r"C7_EX\.png: there is no photograph for this mask; expected one in the folder .*E0000499"
    ):
        read_e_ophtha(root)


def test_photograph_among_healthy_and_diseased_is_an_error(root: Path) -> None:
    dataset_trees.touch(root / "e_optha_MA/healthy/E0000405", "C2.jpg")
    with pytest.raises(DataError, match=r"MA/E0000405/C2\.jpg and .*healthy/E0000405/C2\.jpg: two photographs named"):
        read_e_ophtha(root)


def test_missing_folders_are_named(root: Path) -> None:
    (root / "e_optha_EX/healthy").rename(root / "elsewhere")
    with pytest.raises(DataError, match="e_optha_EX/healthy: cannot be listed"):
        read_e_ophtha(root)
    (root / "elsewhere").rename(root / "e_optha_EX/healthy")
    (root / "e_optha_EX/Annotation_EX/E0000404").rename(root / "elsewhere")
    with pytest.raises(DataError, match="Annotation_EX/E0000404: cannot be listed"):
        read_e_ophtha(root)
