"""Folders and label tables of data sets: contents, and errors that name file and row."""

from __future__ import annotations

from pathlib import Path

import pytest

from dataset_trees import touch, write_table
from deepmtdr.datasets.layout import (
    LabelCounts,
    check_labels_match,
    check_unique_names,
    count_labels,
    find_files,
    find_masks,
    parse_grade,
    photograph_name,
    read_grades,
)
from deepmtdr.datasets.sample import Sample
from deepmtdr.errors import DataError
from deepmtdr.terms import Grade, Lesion


def test_files_are_found_by_stem_and_other_files_are_left_out(tmp_path: Path) -> None:
    touch(tmp_path, "b.JPEG", "a.png", "readme.txt", ".hidden.jpg", "Thumbs.db")
    assert find_files(tmp_path) == {"a": tmp_path / "a.png", "b": tmp_path / "b.JPEG"}


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: cannot be listed"):
        find_files(tmp_path / "nowhere")


def test_two_photographs_of_one_name_are_an_error(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "a.jpg")
    with pytest.raises(DataError, match=r"a\.jpg and a\.png"):
        find_files(tmp_path)


def test_only_suffixes_of_photographs_are_removed_from_a_name() -> None:
    assert [photograph_name(file) for file in ("a.JPG", " b.tif ", "c", "d.1", "e.1.png")] == [
        "a",
        "b",
        "c",
        "d.1",
        "e.1",
    ]


def test_photographs_of_one_name_in_two_parts_are_an_error() -> None:
    def sample(path: str) -> Sample:
        return Sample(photograph=Path(path), name=Path(path).stem, patient="p", dataset="d")

    check_unique_names([sample("train/a.png"), sample("test/b.png")])
    with pytest.raises(DataError, match=r"train/a\.png and test/a\.png: two photographs named a"):
        check_unique_names([sample("train/a.png"), sample("test/b.png"), sample("test/a.png")])


def test_masks_are_found_by_name_with_and_without_ending(tmp_path: Path) -> None:
    touch(tmp_path, "a_EX.png", "b.png")
    photographs = {"a": Path("a.jpg"), "b": Path("b.jpg")}
    found = find_masks(tmp_path, Lesion.EX, photographs, ("_EX", ""))
    assert found == {"a": tmp_path / "a_EX.png", "b": tmp_path / "b.png"}
    with pytest.raises(
        DataError, match=r"b\.png: not the name of a mask of hard exudates; expected a name that ends in _EX"
    ):
        find_masks(tmp_path, Lesion.EX, photographs, ("_EX",))
    with pytest.raises(DataError, match=r"b\.png: there is no photograph for this mask; expected a photograph named b"):
        find_masks(tmp_path, Lesion.EX, {"a": Path("a.jpg")}, ("_EX", ""))


@pytest.mark.parametrize("text", ["5", "-1", "", "1.5", "two", "²"])
def test_grade_out_of_range_is_named_with_file_and_row(text: str) -> None:
    with pytest.raises(DataError, match=r"t\.csv, row 7: expected a grade 0-4"):
        parse_grade(text, "t.csv, row 7")


def test_photograph_in_two_rows_is_an_error(tmp_path: Path) -> None:
    write_table(tmp_path / "t.csv", "image,level", "a,1", "b,0", "a,1")
    with pytest.raises(DataError, match="row 4: found a for the second time"):
        read_grades(tmp_path / "t.csv", "image", "level")


def test_photograph_without_label_and_label_without_photograph_are_errors(tmp_path: Path) -> None:
    table, photographs = tmp_path / "t.csv", {"a": tmp_path / "a.jpg"}
    check_labels_match(photographs, {"a": 0}, tmp_path, table)
    with pytest.raises(DataError, match=r"t\.csv: no row for 1 photographs, the first is .*a\.jpg"):
        check_labels_match(photographs, {}, tmp_path, table)
    with pytest.raises(DataError, match=r"2 photographs named in .*t\.csv not found, the first is b"):
        check_labels_match(photographs, {"a": 0, "c": 0, "b": 1}, tmp_path, table)


def test_counts_are_none_if_nothing_was_graded_or_annotated() -> None:
    def sample(name: str, **labels: object) -> Sample:
        return Sample(photograph=Path(name), name=name, patient=name, dataset="d", **labels)  # type: ignore[arg-type]

    assert count_labels([]) == count_labels([]) == LabelCounts(0, None, None)
    assert count_labels([sample("a")]) == LabelCounts(1, None, None)
    masks = {Lesion.MA: Path("m"), Lesion.HE: None}
    graded = [sample("a", grade=Grade.MODERATE, lesion_masks=masks), sample("b", grade=Grade.NEGATIVE)]
    assert count_labels(graded) == LabelCounts(2, (1, 0, 1, 0, 0), (1, 0, 0, 0))
    assert count_labels([*graded, sample("c", ungradable=True)]) == LabelCounts(3, (1, 0, 1, 0, 0), (1, 0, 0, 0), 1)
