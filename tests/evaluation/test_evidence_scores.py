"""The table of Finding 3: means over photographs, and photographs that are left out."""

from __future__ import annotations

import math

import numpy as np
import pytest

from deepmtdr.evaluation.evidence import EvidenceScores, RegionScores, RemovalCurves
from deepmtdr.evaluation.evidence_scores import region_scores, removal_curves
from deepmtdr.evaluation.photograph_result import PhotographResult
from deepmtdr.evaluation.scores import Bootstrap, Score
from deepmtdr.labels import DIABETIC_RETINOPATHY

FEW = Bootstrap(resamples=50)
ALL_OF_12 = np.ones(12)
FIRST_OF_12 = 1 / np.arange(1, 13)
"""Only the patch with the most evidence touches the lesion."""
NOTHING = RegionScores(math.nan, math.nan, math.nan, np.full(12, math.nan), math.nan)


def curve(*healthy: float) -> np.ndarray:
    """Grade probabilities at several points of a curve; only grades 0 and 2 occur."""
    return np.array([[p, 0, 1 - p, 0, 0] for p in healthy], float)


def result(name: str, evidence: EvidenceScores | None) -> PhotographResult:
    return PhotographResult(dataset="x", name=name, patient=name, evidence=evidence)


def pick(rows: list[Score], subject: str, name: str) -> Score:
    (found,) = (row for row in rows if (row.subject, row.score) == (subject, name))
    return found


def test_photograph_without_the_region_is_left_out_of_the_mean() -> None:
    both = {"MA": RegionScores(0.9, 1, 0.1, FIRST_OF_12, 0.1), "HE": RegionScores(0.7, 0, 0.2, ALL_OF_12, 0.2)}
    second = RegionScores(0.5, 1, 0.4, FIRST_OF_12, 0.4)
    measured = [
        result("a", EvidenceScores(both, RegionScores(0.8, 1, 0.3, ALL_OF_12, 0.3), 0.2, None)),
        result("b", EvidenceScores({"HE": second}, second, 0.5, None)),
        result("c", EvidenceScores({}, NOTHING, math.nan, None)),
        result("d", None),
    ]
    rows = region_scores(measured, FEW, DIABETIC_RETINOPATHY)
    assert pick(rows, "MA", "evidence_auc").value == 0.9
    assert pick(rows, "HE", "evidence_auc").value == pytest.approx(0.6)
    assert pick(rows, "HE", "pointing_game").value == 0.5
    assert pick(rows, "HE", "pointing_chance").value == pytest.approx(0.3)
    assert pick(rows, "lesions", "evidence_auc").value == pytest.approx(0.65)
    assert pick(rows, "background", "evidence_auc").value == pytest.approx(0.35)
    assert pick(rows, "HE", "patch_precision_top_1").value == 1
    assert pick(rows, "HE", "patch_precision_top_12").value == pytest.approx((1 + 1 / 12) / 2)
    assert pick(rows, "MA", "patch_precision_mean").value == pytest.approx(FIRST_OF_12.mean())
    assert pick(rows, "HE", "patch_chance").value == pytest.approx(0.3)
    missing = pick(rows, "SE", "evidence_auc")
    assert math.isnan(missing.value) and missing.note == "no such lesion on these photographs"
    assert pick(rows, "HE", "evidence_auc").photographs == 3
    assert not any(row.task == "evidence removed" for row in rows)


def test_removal_scores_are_mean_areas_and_the_drawn_curve_is_the_mean_curve() -> None:
    removal = [
        RemovalCurves(curve(0, 0.5, 1), curve(1, 0, 0), curve(0, 0, 1)),
        RemovalCurves(curve(0, 1, 1), curve(1, 0, 0), curve(0, 1, 1)),
    ]
    measured = [result(f"{i}", EvidenceScores({}, NOTHING, math.nan, one)) for i, one in enumerate(removal)]
    rows = region_scores(measured, FEW, DIABETIC_RETINOPATHY)
    # P(grade >= 1) is 1, .5, 0 and 1, 0, 0: areas .5 and .25.
    assert pick(rows, "P(grade >= 1)", "area_deletion").value == pytest.approx(0.375)
    assert pick(rows, "P(grade >= 1)", "area_insertion").value == pytest.approx(0.75)
    curves = removal_curves(measured)
    assert curves["deletion"].y.tolist() == [1, 0.25, 0]
    assert curves["deletion"].x.tolist() == [0, 0.5, 1]
    assert removal_curves([result("a", None)]) == {}
