"""Reading the logs of a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from deepmtdr.errors import DataError
from deepmtdr.training.log_reader import read_log

HEADER = "stage,step,term,value\n"


def test_values_that_are_not_finite_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(HEADER + "joint,2,loss,0.5\njoint,1,loss,0.75\njoint,3,loss,nan\n")
    series = read_log(tmp_path / "a.csv", "term")["joint"]["loss"]
    assert (series.steps.tolist(), series.values.tolist()) == ([1, 2], [0.75, 0.5])


@pytest.mark.parametrize("step", ["1.5", "9" * 400, "9" * 5000])
def test_a_step_that_is_no_number_of_a_step_is_an_error(tmp_path: Path, step: str) -> None:
    (tmp_path / "a.csv").write_text(f"{HEADER}joint,{step},loss,0.5\n")
    with pytest.raises(DataError, match="row 2: expected an integer as step"):
        read_log(tmp_path / "a.csv", "term")
