"""SRahimDR: grades by patient and eye; advanced disease without a grade; a patient that is there twice."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import dataset_trees
from deepmtdr.datasets.layout import LabelCounts, count_labels
from deepmtdr.datasets.srahim import read_srahim
from deepmtdr.errors import DataError


def row(number: str, eye: str, grade: str, note: str = "") -> str:
    return f"Patient{number}_{eye}.jpg,Patient{number},{eye},{grade},0,{note}"


def test_patient_eye_and_grade_are_read(tmp_path: Path) -> None:
    samples = read_srahim(dataset_trees.make_srahim(tmp_path, [row("001", "L", "0"), row("001", "R", "3")]))
    assert [(s.name, s.patient, s.laterality, s.grade) for s in samples] == [
        ("Patient001_L", "srahim/Patient001", "L", 0),
        ("Patient001_R", "srahim/Patient001", "R", 3),
    ]
    assert samples[0].photograph == tmp_path / "photographs/Patient001_L.jpg"
    assert {(s.dataset, s.official_split, s.dr_present) for s in samples} == {("srahim", None, None)}
    assert not any(s.has_masks for s in samples)


def test_advanced_disease_has_no_grade_but_retinopathy(tmp_path: Path) -> None:
    advanced = row("031", "L", "", "advanced diabetic eye disease")
    (sample,) = read_srahim(dataset_trees.make_srahim(tmp_path, [advanced]))
    assert (sample.grade, sample.has_dr, sample.ungradable) == (None, True, False)


def test_patient_that_is_there_twice_is_one_patient(tmp_path: Path) -> None:
    rows = [row("299", "L", "2"), row("300", "L", "3"), row("067", "R", "2"), row("237", "R", "1")]
    samples = read_srahim(dataset_trees.make_srahim(tmp_path, rows))
    assert {(s.name, s.patient) for s in samples} == {
        ("Patient067_R", "srahim/Patient067"),
        ("Patient237_R", "srahim/Patient067"),
        ("Patient299_L", "srahim/Patient299"),
        ("Patient300_L", "srahim/Patient299"),
    }


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (row("001", "L", "5"), "row 2: expected a grade 0-4, found '5'"),
        (row("001", "L", ""), "row 2: expected either a grade or the note 'advanced diabetic eye disease', found"),
        (row("001", "L", "4", "advanced diabetic eye disease"), "found grade '4' and note 'advanced"),
        ("Patient001_L.jpg,,L,0,0,", "row 2: expected a patient, found an empty cell"),
        ("Patient001_L.jpg,Patient001,X,0,0,", "row 2, column eye"),
    ],
)
def test_wrong_cells_name_file_and_row(tmp_path: Path, wrong: str, message: str) -> None:
    with pytest.raises(DataError, match=rf"labels\.csv, {re.escape(message)}" if message[0] == "r" else message):
        read_srahim(dataset_trees.make_srahim(tmp_path, [wrong]))


def test_photographs_and_rows_have_to_match(tmp_path: Path) -> None:
    root = dataset_trees.make_srahim(tmp_path, [row("001", "L", "0")])
    dataset_trees.touch(root / "photographs", "Patient002_L.jpg")
    with pytest.raises(DataError, match=r"no row for 1 photographs, the first is .*Patient002_L\.jpg"):
        read_srahim(root)
    with pytest.raises(DataError, match="row 3: found Patient001_L for the second time"):
        read_srahim(dataset_trees.make_srahim(root, [row("001", "L", "0"), row("001", "L", "1")]))


@pytest.mark.data
def test_real_copy_has_the_described_counts(real_data: Path) -> None:
    samples = read_srahim(real_data / "srahim")
    assert count_labels(samples) == LabelCounts(420, (188, 74, 115, 30, 9))
    assert len({s.patient for s in samples}) == 208
    assert sum(s.has_dr is True and s.grade is None for s in samples) == 4
    files = {s.name: s.photograph for s in samples}
    assert files["Patient299_L"].read_bytes() == files["Patient300_L"].read_bytes()
