"""Messidor-2: adjudicated grades, ungradable photographs, pairs of eyes."""

from __future__ import annotations

from pathlib import Path

import pytest

import dataset_trees
from deepmtdr.datasets.layout import LabelCounts, count_labels
from deepmtdr.datasets.messidor2 import EXPECTED, read_messidor2
from deepmtdr.errors import DataError


def test_grades_are_read_with_suffixes_in_any_case(tmp_path: Path) -> None:
    samples = read_messidor2(dataset_trees.make_messidor2(tmp_path))
    assert [(s.photograph.name, s.grade, s.ungradable) for s in samples] == [
        ("20051020_43808_0100_PP.png", 0, False),
        ("20051020_43832_0100_PP.png", 2, False),
        ("IM000012.JPG", 4, False),
        ("IM000013.JPG", None, True),
    ]
    assert count_labels(samples) == LabelCounts(4, (1, 0, 1, 0, 1), ungradable=1)
    assert {(s.dataset, s.official_split) for s in samples} == {("messidor2", None)}


def test_pairs_give_patients_and_eyes(tmp_path: Path) -> None:
    samples = read_messidor2(dataset_trees.make_messidor2_pairs(dataset_trees.make_messidor2(tmp_path)))
    assert {s.name: (s.patient, s.laterality) for s in samples} == {
        "20051020_43808_0100_PP": ("messidor2/20051020_43808_0100_PP", "L"),
        "20051020_43832_0100_PP": ("messidor2/20051020_43808_0100_PP", "R"),
        "IM000012": ("messidor2/IM000013", "R"),
        "IM000013": ("messidor2/IM000013", "L"),
    }


def test_without_pairs_each_photograph_is_a_patient(tmp_path: Path) -> None:
    samples = read_messidor2(dataset_trees.make_messidor2(tmp_path))
    assert {(s.patient, s.laterality) for s in samples} == {(f"messidor2/{s.name}", None) for s in samples}


def test_pairs_may_list_absent_photographs_but_must_list_all_present(tmp_path: Path) -> None:
    root = dataset_trees.make_messidor2_pairs(dataset_trees.make_messidor2(tmp_path, dataset_trees.MESSIDOR2[:3]))
    assert len(read_messidor2(root)) == 3
    dataset_trees.write_table(root / "messidor-2.csv", "left;right", "IM000013.JPG;IM000012.JPG")
    with pytest.raises(
        DataError, match=r"messidor-2\.csv: no row for 2 photographs, the first is .*43808_0100_PP\.png"
    ):
        read_messidor2(root)
    dataset_trees.write_table(root / "messidor-2.csv", "left;right", "a.png;b.png", "c.png;a.PNG")
    with pytest.raises(DataError, match=r"messidor-2\.csv, row 3: found a for the second time"):
        read_messidor2(root)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a.png,5,0,1", "row 2: expected a grade 0-4, found '5'"),
        ("a.png,,0,1", "row 2: expected a grade 0-4, found ''"),
        ("a.png,1,0,yes", "row 2: expected 0 or 1 in adjudicated_gradable, found 'yes'"),
        ("a.png,1,0,0", "row 2: expected no grade of an ungradable photograph, found '1'"),
    ],
)
def test_contradictions_in_a_row_name_file_and_row(tmp_path: Path, row: str, message: str) -> None:
    with pytest.raises(DataError, match=rf"messidor_data\.csv, {message}"):
        read_messidor2(dataset_trees.make_messidor2(tmp_path, [row]))


def test_photographs_and_rows_have_to_match(tmp_path: Path) -> None:
    root = dataset_trees.make_messidor2(tmp_path)
    dataset_trees.touch(root / "IMAGES", "im000012.png")
    with pytest.raises(DataError, match=r"two files of one name, IM000012\.JPG and im000012\.png"):
        read_messidor2(root)
    (root / "IMAGES/IM000012.JPG").unlink()
    (root / "IMAGES/im000012.png").unlink()
    with pytest.raises(
        DataError, match=r"1 photographs named in .*messidor_data\.csv not found, the first is im000012"
    ):
        read_messidor2(root)
    dataset_trees.write_table(
        root / "messidor_data.csv", "image_id,adjudicated_dr_grade,adjudicated_gradable", "im000013,,0"
    )
    with pytest.raises(DataError, match=r"messidor_data\.csv: no row for 2 photographs"):
        read_messidor2(root)


def test_row_twice_and_missing_files_are_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="IMAGES: cannot be listed"):
        read_messidor2(tmp_path)
    dataset_trees.touch(tmp_path / "IMAGES", "a.png")
    with pytest.raises(DataError, match=r"messidor_data\.csv: cannot be read"):
        read_messidor2(tmp_path)
    header = "image_id,adjudicated_dr_grade,adjudicated_gradable"
    with pytest.raises(DataError, match=r"row 3: found a for the second time"):
        dataset_trees.write_table(tmp_path / "messidor_data.csv", header, "a.png,0,1", "a.PNG,1,1")
        read_messidor2(tmp_path)


def test_official_counts_sum_up() -> None:
    assert sum(EXPECTED.grades or ()) == 1744
    assert EXPECTED.photographs == 1744 + (EXPECTED.ungradable or 0) == 2 * 874
