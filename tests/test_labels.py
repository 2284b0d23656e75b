"""Label sets: lesion types, grades and thresholds of a disease, from a TOML file or from a checkpoint's card."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from deepmtdr.errors import LabelSetError
from deepmtdr.labels import (
    DIABETIC_RETINOPATHY,
    GradeLabel,
    LabelSet,
    LesionType,
    label_set_from_dict,
    load_label_set,
)

DRUSEN = """
disease = "age-related macular degeneration"

[[lesions]]
code = "DR"
name = "drusen"
colour = [255, 0, 0]
coding = ["SCT", "112369005", "Drusen"]

[[lesions]]
code = "GA"
name = "geographic atrophies"

[[grades]]
name = "no degeneration"

[[grades]]
name = "early"

[[grades]]
name = "late"
condition = ["SCT", "1", "Late degeneration"]

[thresholds]
any = 1
referable = 2
late = 2
"""


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    path = tmp_path / "drusen.toml"
    path.write_text(DRUSEN, encoding="utf-8")
    return path


def test_default_is_diabetic_retinopathy_with_four_lesion_types_and_five_grades() -> None:
    assert DIABETIC_RETINOPATHY.codes == ("MA", "HE", "EX", "SE")
    assert DIABETIC_RETINOPATHY.grade_names == (
        "no diabetic retinopathy", "mild", "moderate", "severe", "proliferative",
    )  # fmt: skip
    assert DIABETIC_RETINOPATHY.thresholds == {"any": 1, "referable": 2, "sight_threatening": 3}
    assert DIABETIC_RETINOPATHY.referable_from == 2


def test_label_set_is_read_from_toml(toml: Path) -> None:
    assert load_label_set(toml) == LabelSet(
        name="drusen",
        disease="age-related macular degeneration",
        lesions=(
            LesionType(code="DR", name="drusen", colour=(255, 0, 0), coding=("SCT", "112369005", "Drusen")),
            LesionType(code="GA", name="geographic atrophies"),
        ),
        grades=(
            GradeLabel(name="no degeneration"),
            GradeLabel(name="early"),
            GradeLabel(name="late", condition=("SCT", "1", "Late degeneration")),
        ),
        thresholds={"any": 1, "referable": 2, "late": 2},
    )


def test_channels_follow_the_order_in_the_file(toml: Path) -> None:
    labels = load_label_set(toml)
    assert [labels.channel(code) for code in ("DR", "GA")] == [0, 1]
    assert labels.lesion("GA").name == "geographic atrophies"
    with pytest.raises(LabelSetError, match=r"'drusen': no lesion type 'MA', expected one of \('DR', 'GA'\)"):
        labels.channel("MA")


def test_label_set_survives_json(toml: Path) -> None:
    for labels in (load_label_set(toml), DIABETIC_RETINOPATHY):
        assert label_set_from_dict(json.loads(json.dumps(dataclasses.asdict(labels))), "card") == labels


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('disease = "age', '#disease = "age', "missing key disease"),
        ('name = "drusen"', "", r"lesions\[0\]: missing key name"),
        ('code = "GA"', 'code = "dr"', r"lesion codes \['DR', 'dr'\], expected at least one, each different"),
        ('code = "GA"', 'code = "G A"', "lesion code 'G A', expected 1 to 16 letters, digits or underscores"),
        ('name = "geographic atrophies"', 'name = ""', "lesion GA has no name"),
        ("[255, 0, 0]", "[256, 0, 0]", r"lesion DR has the colour \(256, 0, 0\), expected three numbers from 0 to 255"),
        ("[255, 0, 0]", "[0, 0]", r"lesions\[0\]: colour = \[0, 0\], expected 3 values"),
        ('["SCT", "112369005", "Drusen"]', '["SCT", 1, "Drusen"]', r"coding\[1\] = 1, expected str"),
        ('name = "early"', 'name = ""', r"grades \['no degeneration', '', 'late'\], expected at least two, each with"),
        ("any = 1", "", "thresholds without 'any', expected at least any and referable"),
        ("late = 2", "late = 3", "threshold late = 3, expected a grade from 1 to 2"),
        ("late = 2", "late = 0", "threshold late = 0, expected a grade from 1 to 2"),
        ("late = 2", "late = true", "thresholds.late = True, expected int"),
        ("[thresholds]", "[limits]", "unknown key limits; known are name, disease"),
        ("disease =", "disease", "not valid TOML"),
    ],
)
def test_wrong_label_file_is_an_error_that_names_file_and_value(toml: Path, old: str, new: str, message: str) -> None:
    changed = DRUSEN.replace(old, new, 1)
    assert changed != DRUSEN
    toml.write_text(changed, encoding="utf-8")
    with pytest.raises(LabelSetError, match=rf"drusen\.toml.*{message}"):
        load_label_set(toml)


def test_missing_label_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(LabelSetError, match=r"gone\.toml: cannot be read \(No such file or directory\)"):
        load_label_set(tmp_path / "gone.toml")
