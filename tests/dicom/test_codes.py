"""Codes: the shipped ones, those of another label set, a site's own codes, and invalid ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from deepmtdr.dicom.codes import Code, load_codes
from deepmtdr.dicom.label_codes import codes_from_labels
from deepmtdr.errors import DataError, DicomError
from deepmtdr.labels import DIABETIC_RETINOPATHY, GradeLabel, LabelSet, LesionType
from dicom_reports import GLAUCOMA_LABELS


def test_every_grade_and_lesion_type_has_its_code() -> None:
    codes = load_codes()
    assert [codes[f"grade.{grade}"].value for grade in range(5)] == [
        "LA18643-9",
        "LA18644-7",
        "LA18645-4",
        "LA18646-2",
        "LA18648-8",
    ]
    assert codes["question.R"].value == "71491-5" and codes["question.L"].value == "71490-7"
    assert [codes[f"lesion.{code}"].value for code in DIABETIC_RETINOPATHY.codes] == [
        "25412000",
        "28998008",
        "EX",
        "SE",
    ]
    assert all(code.scheme in codes.systems for code in codes.by_name.values())


def test_the_code_of_a_cleared_autonomous_system_is_never_used() -> None:
    assert all(code.value != "105914-6" for code in load_codes().by_name.values())


def test_a_site_can_replace_codes(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text(
        '[lesion]\nEX = ["99SITE", "17", "Hard exudates"]\n[system]\n99SITE = "urn:site"\n', encoding="utf-8"
    )
    codes = load_codes(tmp_path / "own.toml")
    assert codes["lesion.EX"] == Code("99SITE", "17", "Hard exudates")
    assert codes.systems["99SITE"] == "urn:site"
    assert codes["lesion.MA"] == load_codes()["lesion.MA"]
    assert codes.fingerprint != load_codes().fingerprint


def test_a_replaced_uri_does_not_change_the_fingerprint(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text('[system]\n99DEEPMTDR = "urn:site"\n', encoding="utf-8")
    assert load_codes(tmp_path / "own.toml").fingerprint == load_codes().fingerprint


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("[lesion]\nXX = []", r"unknown code lesion\.XX, expected one of place\.retina"),
        ('lesion = "MA"', r"found the key lesion outside of a table, expected \[lesion\] with codes in it"),
        (
            '[lesion]\nMA = ["SCT", "1"]',
            r"lesion.MA = \['SCT', '1'\], expected \[scheme, value, meaning\], each a text",
        ),
        ('[lesion]\nMA = ["SCT", "1", ""]', "expected .scheme, value, meaning., each a text"),
        ('[lesion]\nMA = ["SCT", "12345678901234567", "x"]', "value of 17 characters, expected at most 16"),
        ('[lesion]\nMA = ["SCT", "1", "a\\\\b"]', "meaning of 3 characters, expected .* without a backslash"),
        ('[lesion]\nMA = ["99X", "1", "x"]', r"no \[system\] for '99X', expected one of SCT"),
        ("[lesion", "not valid TOML"),
    ],
)
def test_the_error_for_an_invalid_code_gives_file_and_name(tmp_path: Path, text: str, error: str) -> None:
    (tmp_path / "own.toml").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=f"own.toml: .*{error}"):
        load_codes(tmp_path / "own.toml")


# Other label sets


def test_a_label_set_brings_its_own_codes() -> None:
    codes = load_codes(labels=GLAUCOMA_LABELS)
    assert codes["document.disease"] == Code("SCT", "23986001", "Glaucoma")
    assert codes["grade.1"] == Code("LN", "LA1-1", "Suspected")
    assert codes["condition.2"] == Code("SCT", "23986001", "Glaucoma")
    assert codes["lesion.report"] == Code("99DEEPMTDR", "RNFL", "A defect")
    assert codes["place.retina"] == load_codes()["place.retina"]


def test_no_code_of_diabetic_retinopathy_is_used_for_another_label_set() -> None:
    codes, retinopathy = load_codes(labels=GLAUCOMA_LABELS), load_codes()
    for name in ("document.disease", "question.R", "grade.0", "grade.1", "grade.2", "condition.2", "measured.p0"):
        assert codes[name] != retinopathy[name]
    assert {"condition.0", "condition.1", "grade.3", "lesion.MA"}.isdisjoint(codes.by_name)
    assert not [code for code in codes.by_name.values() if "retinopathy" in code.meaning.lower()]


def test_a_concept_without_a_coding_gets_a_private_code_that_is_always_the_same() -> None:
    codes = load_codes(labels=GLAUCOMA_LABELS)
    assert codes["lesion.DH"] == Code("99DEEPMTDR", "DH-c2b5a7", "Disc haemorrhages")
    assert codes["grade.0"].scheme == "99DEEPMTDR" and codes["grade.0"].meaning == "No glaucoma"
    assert codes["question.L"].meaning == "Left eye: severity of glaucoma"
    private = [code.value for code in codes.by_name.values() if code.scheme == "99DEEPMTDR"]
    assert len(set(private)) == len(private)


def test_private_codes_of_two_label_sets_differ() -> None:
    other = LabelSet(name="other", disease="x", lesions=GLAUCOMA_LABELS.lesions, grades=GLAUCOMA_LABELS.grades)
    assert codes_from_labels(GLAUCOMA_LABELS)["lesion.DH"] != codes_from_labels(other)["lesion.DH"]


def test_long_names_become_codes_that_dicom_can_hold() -> None:
    labels = LabelSet(
        name="long",
        disease="d" * 80,
        lesions=(LesionType(code="A" * 16, name="back\\slash\nline " * 9),),
        grades=(GradeLabel(name="g" * 80), GradeLabel(name="h")),
        thresholds={"any": 1, "referable": 1},
    )
    codes = load_codes(labels=labels)
    assert len(codes["lesion." + "A" * 16].value) == 16
    assert codes["lesion." + "A" * 16].meaning.startswith("Back slash line")
    assert max(len(code.meaning) for code in codes.by_name.values()) == 64


def test_an_invalid_coding_of_a_label_set_is_an_error_that_names_it() -> None:
    lesion = LesionType(code="A", name="a", coding=("99X", "1", "x"))
    grades = (GradeLabel(name="g"), GradeLabel(name="h"))
    labels = LabelSet(name="mine", disease="x", lesions=(lesion,), grades=grades, thresholds={"any": 1, "referable": 1})
    with pytest.raises(DataError, match=r"label set 'mine': lesion\.A = .*: no \[system\] for '99X'"):
        load_codes(labels=labels)


def test_codes_of_another_label_set_are_refused() -> None:
    with pytest.raises(DicomError, match="report of label set 'glaucoma' and codes of 'diabetic-retinopathy'"):
        load_codes().check_labels(GLAUCOMA_LABELS)
