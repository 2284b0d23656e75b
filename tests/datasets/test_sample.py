"""One photograph of a data set with its labels."""

from __future__ import annotations

from pathlib import Path

import pytest

from deepmtdr.datasets.sample import Sample
from deepmtdr.errors import DataError
from deepmtdr.labels import DIABETIC_RETINOPATHY, union_codes


def sample(**labels: object) -> Sample:
    return Sample(photograph=Path("a.png"), name="a", patient="p", dataset="d", **labels)  # type: ignore[arg-type]


def test_ungradable_photograph_with_a_grade_is_an_error() -> None:
    assert sample(ungradable=True).grade is None
    with pytest.raises(DataError, match=r"a\.png: found grade 2 for an ungradable photograph, expected no grade"):
        sample(ungradable=True, grade=2)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({"grade": 0}, False),
        ({"grade": 1}, True),
        ({"dr_present": True}, True),
        ({}, None),
        ({"grade": 0, "dr_present": True}, False),
    ],
)
def test_disease_is_present_by_grade_or_else_as_stated(labels: dict[str, object], expected: bool | None) -> None:
    assert sample(**labels).has_dr is expected


def test_annotated_types_are_in_channel_order() -> None:
    annotated = sample(lesion_masks={"EX": None, "MA": Path("m.png")}).annotated(DIABETIC_RETINOPATHY)
    assert annotated == (True, False, True, False)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"union_masks": {"EX": None}}, "found the union label 'EX', expected codes joined by"),
        ({"union_masks": {"EX+": None}}, "found the union label 'EX\\+', expected codes joined by"),
        ({"union_masks": {"EX+SE": None}, "lesion_masks": {"SE": None}}, "found SE annotated twice, in EX\\+SE"),
        ({"union_masks": {"EX+SE": None, "MA+EX": None}}, "found EX annotated twice, in MA\\+EX"),
    ],
)
def test_wrong_union_labels_are_errors(labels: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        sample(**labels)


def test_annotation_is_removed_as_a_whole() -> None:
    annotated = sample(
        lesion_masks={"MA": None}, union_masks={"EX+SE": Path("e.png")}, ignored_mask=Path("i.png"), grade=2
    )
    assert annotated.has_masks and sample(union_masks={"EX+SE": None}).has_masks and not sample().has_masks
    assert annotated.without_masks() == sample(grade=2)
    assert union_codes("EX+SE") == ("EX", "SE")
