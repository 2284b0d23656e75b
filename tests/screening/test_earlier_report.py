"""Reading the report of an earlier run: a damaged one is an error, so that the photograph is graded again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from benchmarks.fuzzing.text_seeds import reports

from deepmtdr.errors import DataError
from deepmtdr.labels import DIABETIC_RETINOPATHY
from deepmtdr.screening.earlier_report import read_report

GRADED = json.loads(next(reports()))


def read_values(folder: Path, text: str) -> dict[str, object]:
    (folder / "report.json").write_text(text)
    return read_report(folder, Path("a.png"), DIABETIC_RETINOPATHY).to_json()


def test_a_report_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert read_values(tmp_path, json.dumps(GRADED)) == GRADED


DAMAGED = {
    "cut": json.dumps(GRADED)[:-9],
    "deep": "[" * 100_000,
    "not finite": json.dumps({**GRADED, "p0": float("nan")}),
    "unknown grade": json.dumps({**GRADED, "grade": 7}),
    "text as a number": json.dumps({**GRADED, "quality": "good"}),
    "digits": json.dumps({**GRADED, "quality": 10**400}),
    "list as a grade": json.dumps({**GRADED, "grade": []}),
    "number as a reason": json.dumps({**GRADED, "for_reader": [1]}),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_report_is_an_error(tmp_path: Path, kind: str) -> None:
    with pytest.raises(DataError, match="expected the report of a photograph"):
        read_values(tmp_path, DAMAGED[kind])
