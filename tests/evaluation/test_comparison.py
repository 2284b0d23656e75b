"""The tables of a comparison, with hand-written rows."""

from __future__ import annotations

import math

from deepmtdr.evaluation.comparison import Comparison, PairedTest, ScoreDifference


def difference(**changes: object) -> ScoreDifference:
    row = ScoreDifference("x", "grade", "kappa", 0.8, 0.5, 0.3, 0.1, 0.45, 0.012, 20, 10)
    return row._replace(**changes)


def comparison(differences: list[ScoreDifference], tests: list[PairedTest]) -> Comparison:
    return Comparison(protocol={}, differences=differences, tests=tests, left_out=[])


def test_row_has_both_scores_and_the_difference_with_its_interval_and_p_value() -> None:
    table, _ = comparison([difference()], []).tables()
    assert table.columns == ("", "score", "A", "B", "A - B", "p")
    assert table.rows == [("grade", "kappa", "0.8", "0.5", "0.3 [0.1, 0.45]", "0.012")]


def test_undefined_difference_has_its_reason_and_no_p_value() -> None:
    undefined = difference(b=math.nan, difference=math.nan, low=math.nan, high=math.nan, p_value=math.nan, note="why")
    table, _ = comparison([undefined], []).tables()
    assert table.rows == [("grade", "kappa", "0.8", "undefined", "undefined: why", "")]


def test_title_has_the_largest_number_of_photographs() -> None:
    rows = [difference(photographs=5, patients=4), difference(score="accuracy")]
    table, _ = comparison(rows, []).tables()
    assert table.title == "difference, x (20 photographs, 10 patients)"


def test_row_of_a_test_leaves_out_undefined_results() -> None:
    tests = [
        PairedTest("x", "mcnemar", {"only_a": 3.0, "only_b": 1.0}, 0.625),
        PairedTest("x", "delong", {"auc_a": 0.75, "auc_b": math.nan}, math.nan, "one class"),
        PairedTest("y", "mcnemar", {}, 1.0),
    ]
    _, table = comparison([difference()], tests).tables()
    assert table.rows == [
        ("mcnemar", "only_a 3, only_b 1", "0.625", ""),
        ("delong", "auc_a 0.75", "undefined", "one class"),
    ]
