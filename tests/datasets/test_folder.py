"""A folder of the user's own photographs, with and without a table of labels."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from dataset_trees import touch, write_table
from deepmtdr.datasets.folder import MAX_NAME_BYTES, read_folder
from deepmtdr.datasets.sample import Sample
from deepmtdr.errors import DataError
from deepmtdr.terms import Lesion


def _table(root: Path, *rows: str) -> Path:
    write_table(root / "photographs.csv", *rows)
    return root


def _one(root: Path, header: str, row: str) -> Sample:
    touch(root, "a.png")
    (sample,) = read_folder(_table(root, header, row))
    return sample


def test_all_columns_of_the_table_are_read(tmp_path: Path) -> None:
    touch(tmp_path, "ma.png", "ex.png")
    header = "path,grade,patient,eye,side,MA,HE,EX,SE"
    sample = _one(tmp_path, header, "a.png,3,P7,OS,validation,ma.png,none,ex.png,")
    assert sample.photograph == tmp_path / "a.png"
    assert (sample.name, sample.patient, sample.dataset) == ("a", "folder/P7", "folder")
    assert (sample.laterality, sample.grade, sample.official_split) == ("L", 3, "validation")
    masks = {Lesion.MA: tmp_path / "ma.png", Lesion.HE: None, Lesion.EX: tmp_path / "ex.png"}
    assert sample.lesion_masks == masks, "an empty cell is not annotated, the word none is none there"
    assert sample.mask_threshold is None


def test_union_labels_and_ignored_pixels_are_read(tmp_path: Path) -> None:
    touch(tmp_path, "e.png", "i.png")
    sample = _one(tmp_path, "path,MA,EX+SE,MA+HE,ignored", "a.png,none,e.png,,i.png")
    assert (sample.lesion_masks, sample.union_masks) == ({"MA": None}, {"EX+SE": tmp_path / "e.png"})
    assert sample.ignored_mask == tmp_path / "i.png"
    empty = _one(tmp_path, "path,EX+SE,ignored", "a.png,none,")
    assert (empty.union_masks, empty.ignored_mask) == ({"EX+SE": None}, None)


@pytest.mark.parametrize("column", ["SE+EX", "EX+", "EX+XX", "EX+EX"])
def test_union_label_of_other_codes_or_another_order_is_an_unknown_column(tmp_path: Path, column: str) -> None:
    with pytest.raises(DataError, match="row 1: unknown column"):
        _one(tmp_path, f"path,{column}", "a.png,none")


def test_only_the_path_is_required(tmp_path: Path) -> None:
    empty = _one(tmp_path, "path,grade,patient,eye,side,MA,HE,EX,SE", "a.png,,,,,,,,")
    assert empty == _one(tmp_path, "path", "a.png")
    assert (empty.grade, empty.patient, empty.laterality, empty.official_split) == (None, "folder/a", None, None)
    assert (empty.ungradable, empty.has_dr, empty.lesion_masks) == (False, None, {})


@pytest.mark.parametrize("cell", ["0", "1", "2", "3", "4"])
def test_every_grade_is_read(tmp_path: Path, cell: str) -> None:
    assert _one(tmp_path, "path,grade", f"a.png,{cell}").grade == int(cell)


@pytest.mark.parametrize(("cell", "grade"), [("2.0", 2), ("2.", 2), ("NaN", None), ("NA", None), ("<NA>", None)])
def test_grade_is_read_as_pandas_or_r_writes_it(tmp_path: Path, cell: str, grade: int | None) -> None:
    sample = _one(tmp_path, "path,grade,patient,eye,MA", f"a.png,{cell},{cell},,NA")
    assert (sample.grade, sample.lesion_masks) == (grade, {})
    assert (sample.patient == "folder/a") == (grade is None)


@pytest.mark.parametrize("cell", ["2.5", "2,0", "-1.0", "5.0", "2e0", "\u0662"])
def test_number_that_is_not_a_grade_is_an_error(tmp_path: Path, cell: str) -> None:
    with pytest.raises(DataError, match="row 2, column grade: expected a grade 0-4"):
        _one(tmp_path, "path,grade", f'a.png,"{cell}"')


def test_paths_of_windows_are_taken(tmp_path: Path) -> None:
    touch(tmp_path / "sub", "b.png", "m.png")
    (sample,) = read_folder(_table(tmp_path, "path,MA", "sub\\b.png,.\\sub\\m.png"))
    assert (sample.photograph, sample.name) == (tmp_path / "sub/b.png", "sub__b")
    assert sample.lesion_masks == {"MA": tmp_path / "sub/m.png"}


def test_file_whose_name_has_a_backslash_comes_first(tmp_path: Path) -> None:
    touch(tmp_path, "sub\\b.png")
    touch(tmp_path / "sub", "b.png")
    assert read_folder(_table(tmp_path, "path", "sub\\b.png"))[0].photograph == tmp_path / "sub\\b.png"


def test_drive_of_windows_is_an_error_that_says_what_to_write(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="C: is a drive of Windows: write the path relative to"):
        _one(tmp_path, "path", "C:\\photographs\\a.png")


def test_names_that_differ_in_unicode_form_only_get_a_hash(tmp_path: Path) -> None:
    touch(tmp_path, "caf\u00e9.png", "cafe\u0301.png")
    names = [sample.name for sample in read_folder(tmp_path)]
    assert all(name.startswith("caf") and "~" in name for name in names) and len(set(names)) == 2


@pytest.mark.parametrize("cell", ["ungradable", "Ungradable"])
def test_ungradable_is_a_word_in_the_grade_cell(tmp_path: Path, cell: str) -> None:
    sample = _one(tmp_path, "path,grade", f"a.png,{cell}")
    assert (sample.grade, sample.ungradable) == (None, True)


@pytest.mark.parametrize(
    ("cell", "laterality"),
    [(cell, "L") for cell in ("L", "l", "left", "OS", "OG")] + [(cell, "R") for cell in ("R", "right", "Right", "OD")],
)
def test_every_word_for_an_eye_is_read(tmp_path: Path, cell: str, laterality: str) -> None:
    assert _one(tmp_path, "path,eye", f"a.png,{cell}").laterality == laterality


@pytest.mark.parametrize("side", ["train", "validation", "test"])
def test_every_split_is_read(tmp_path: Path, side: str) -> None:
    assert _one(tmp_path, "path,side", f"a.png,{side}").official_split == side


@pytest.mark.parametrize(
    ("header", "row", "message"),
    [
        ("path,DR", "a.png,1", r"row 1: unknown column 'DR'; known are path, grade, .*MA, HE, EX, SE"),
        ("path,grade,grade", "a.png,1,2", "row 1: found the column grade twice"),
        ("file,grade", "a.png,1", "row 1: unknown column 'file'"),
        ("grade", "1", "row 1: expected the columns path, grade; path not found"),
        ("path,grade", ",1", "row 2: found an empty cell in column path"),
        ("path", "b.png", r"row 2: found no photograph at .*b\.png"),
        ("path", "b\0.png", "row 2: found no photograph at"),
        ("path", "b" * 300, "row 2: found no photograph at"),
        ("path,MA", "a.png,m.png", r"row 2, column MA: found no mask at .*m\.png"),
        ("path,grade", "a.png,5", "row 2, column grade: expected a grade 0-4, found '5'"),
        ("path,eye", "a.png,OU", "row 2, column eye: expected L, left, .* found 'OU'"),
        ("path,side", "a.png,valid", "row 2, column side: expected train, validation, test or nothing, found 'valid'"),
        ("path,grade,eye", "a.png,1", "row 2: expected at least 3 cells, found 2"),
    ],
)
def test_contradictions_name_file_and_row(tmp_path: Path, header: str, row: str, message: str) -> None:
    with pytest.raises(DataError, match=rf"photographs\.csv, {message}"):
        _one(tmp_path, header, row)


def test_photograph_twice_is_an_error_in_any_spelling(tmp_path: Path) -> None:
    touch(tmp_path / "sub", "a.png")
    for again in ("sub/a.png", "sub/../sub/./a.png", str(tmp_path / "sub/a.png")):
        with pytest.raises(DataError, match=r"row 3: found .*sub/a\.png for the second time.* the first is .*row 2"):
            read_folder(_table(tmp_path, "path", "sub/a.png", again))


def test_path_may_be_absolute_and_outside_the_folder(tmp_path: Path) -> None:
    touch(tmp_path / "elsewhere", "a.png")
    touch(tmp_path / "root", "a.png")
    root = _table(tmp_path / "root", "path", str(tmp_path / "elsewhere/a.png"), str(tmp_path / "root/a.png"))
    samples = read_folder(root)
    assert [sample.photograph for sample in samples] == [tmp_path / "elsewhere/a.png", tmp_path / "root/a.png"]
    assert [sample.name for sample in samples] == ["__elsewhere__a", "a"]


def test_table_of_a_spreadsheet_with_semicolons_is_read(tmp_path: Path) -> None:
    assert _one(tmp_path, "path;grade;eye", "a.png;2;R").grade == 2


def test_table_without_rows_and_folder_without_photographs_are_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: cannot be listed"):
        read_folder(tmp_path / "nowhere")
    with pytest.raises(DataError, match="found no photographs"):
        read_folder(tmp_path)
    with pytest.raises(DataError, match=r"photographs\.csv: found no photographs"):
        read_folder(_table(tmp_path, "path,grade"))


def test_without_a_table_every_photograph_below_is_read_without_labels(tmp_path: Path) -> None:
    touch(tmp_path, "b.JPG", "notes.txt", ".hidden.png", "scan.dcm")
    touch(tmp_path / "sub/deep", "a.tif")
    touch(tmp_path / ".thumbnails", "a.png")
    samples = read_folder(tmp_path)
    assert [sample.name for sample in samples] == ["b", "scan", "sub__deep__a"]
    assert {(s.grade, s.official_split, s.laterality, len(s.lesion_masks)) for s in samples} == {(None, None, None, 0)}
    assert [sample.patient for sample in samples] == ["folder/b", "folder/scan", "folder/sub__deep__a"]


def test_circular_links_do_not_hang(tmp_path: Path) -> None:
    touch(tmp_path / "a", "1.png")
    (tmp_path / "a/up").symlink_to(tmp_path)
    (tmp_path / "a/self").symlink_to(tmp_path / "a")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    assert [sample.name for sample in read_folder(tmp_path)] == ["a__1"]


def test_photographs_of_one_name_are_named_by_their_paths(tmp_path: Path) -> None:
    touch(tmp_path / "left", "a.png")
    touch(tmp_path / "right", "a.png")
    assert [sample.name for sample in read_folder(tmp_path)] == ["left__a", "right__a"]


def test_only_names_that_clash_get_a_hash(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "a.jpg", "b.png", "sub__c.png")
    touch(tmp_path / "sub", "c.png")
    names = {str(sample.photograph.relative_to(tmp_path)): sample.name for sample in read_folder(tmp_path)}
    assert names["b.png"] == "b"
    assert len(set(names.values())) == 5
    assert names["a.png"].startswith("a~")
    assert names["sub/c.png"].startswith("sub__c~")
    again = {str(sample.photograph.relative_to(tmp_path)): sample.name for sample in read_folder(tmp_path)}
    assert names == again


def test_long_and_foreign_names_become_file_names(tmp_path: Path) -> None:
    touch(tmp_path, "Übersicht œil gauche 左眼.png", "眼" * 80 + ".png", "眼" * 80 + "2.png")
    samples = read_folder(tmp_path)
    assert "Übersicht œil gauche 左眼" in {sample.name for sample in samples}
    assert len({sample.name for sample in samples}) == 3
    assert all(len(sample.name.encode()) <= MAX_NAME_BYTES for sample in samples)


def test_name_that_is_not_utf8_becomes_one_that_can_be_written(tmp_path: Path) -> None:
    try:
        (tmp_path / os.fsdecode(b"l\xe9sion.png")).touch()
    except OSError as error:
        if error.errno != errno.EILSEQ:
            raise
        pytest.skip("this file system takes UTF-8 only")
    (sample,) = read_folder(tmp_path)
    assert sample.name.encode().decode() == "l\ufffdsion"
    assert sample.photograph.exists()


def test_path_with_a_comma_or_a_quote_can_be_written(tmp_path: Path) -> None:
    touch(tmp_path, 'a, "b".png')
    (sample,) = read_folder(_table(tmp_path, "path,grade", '"a, ""b"".png",1'))
    assert (sample.name, sample.grade) == ('a, "b"', 1)
