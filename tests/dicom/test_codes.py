"""The codes: the shipped ones, a site's own over them, and what is no code."""

from __future__ import annotations

from pathlib import Path

import pytest

from deepmtdr.dicom.codes import Code, load_codes
from deepmtdr.errors import DataError
from deepmtdr.terms import Grade, Lesion


def test_every_grade_and_lesion_has_its_code() -> None:
    codes = load_codes()
    assert [codes[f"grade.{int(grade)}"].value for grade in Grade] == [
        *("LA18643-9", "LA18644-7", "LA18645-4", "LA18646-2", "LA18648-8")
    ]
    assert codes["question.R"].value == "71491-5" and codes["question.L"].value == "71490-7"
    assert len({codes[f"lesion.{lesion.name}"] for lesion in Lesion}) == 4
    assert all(code.scheme in codes.systems for code in codes.by_name.values())


def test_the_code_of_a_cleared_autonomous_system_is_never_used() -> None:
    assert all(code.value != "105914-6" for code in load_codes().by_name.values())


def test_a_sites_own_codes_stand_over_the_shipped_ones(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text(
        '[lesion]\nEX = ["99SITE", "17", "Hard exudates"]\n[system]\n99SITE = "urn:site"\n', encoding="utf-8"
    )
    codes = load_codes(tmp_path / "own.toml")
    assert codes["lesion.EX"] == Code("99SITE", "17", "Hard exudates")
    assert codes.systems["99SITE"] == "urn:site"
    assert codes["lesion.MA"] == load_codes()["lesion.MA"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[lesion]\nXX = []", r"no code \[lesion\] XX; known are place.retina"),
        ('lesion = "MA"', r"no code \[lesion\] None"),
        ('[lesion]\nMA = ["SCT", "1"]', r"lesion.MA = \['SCT', '1'\], expected \[scheme, value, meaning\] as texts"),
        ('[lesion]\nMA = ["SCT", "1", ""]', "expected .scheme, value, meaning. as texts"),
        ('[lesion]\nMA = ["SCT", "12345678901234567", "x"]', "value of 17 letters, expected at most 16"),
        ('[lesion]\nMA = ["99X", "1", "x"]', r"no \[system\] for '99X', expected one of SCT"),
        ("[lesion", "no TOML file"),
    ],
)
def test_what_is_no_code_is_named_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "own.toml").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=f"own.toml: .*{said}"):
        load_codes(tmp_path / "own.toml")
