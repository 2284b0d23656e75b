"""Which graded photographs are marked for a review by a person."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from deepmtdr.labels import DIABETIC_RETINOPATHY, LabelSet
from deepmtdr.screening.needs_review import ReviewLimits, find_review_reasons
from deepmtdr.screening.report import ScreeningReport
from deepmtdr.terms import ReferralThreshold
from fake_predictor import MACULAR_DEGENERATION

SURE = (0.9, 0.05, 0.03, 0.01, 0.01)


def graded(
    quality: float,
    probabilities: tuple[float, ...],
    point: ReferralThreshold | None = None,
    labels: LabelSet = DIABETIC_RETINOPATHY,
) -> ScreeningReport:
    return ScreeningReport(
        path=Path("eye.png"),
        status="ok",
        labels=labels,
        quality=quality,
        grade=int(np.argmax(probabilities)),
        probabilities=probabilities,
        operating_point=point,
    )


def test_a_sharp_photograph_with_a_certain_grade_needs_no_review() -> None:
    assert find_review_reasons(graded(0.95, SURE)) == ()
    assert find_review_reasons(graded(0.95, SURE, ReferralThreshold(0.9, 0.2))) == ()


def test_a_photograph_without_a_grade_needs_a_review() -> None:
    assert find_review_reasons(ScreeningReport(path=Path("eye.png"), status="error")) == ("not graded",)


def test_each_reason_has_its_value() -> None:
    unsure = (0.28, 0.24, 0.2, 0.18, 0.1)
    assert find_review_reasons(graded(0.456, unsure)) == (
        "borderline quality 0.46",
        "uncertain grade, probability 0.28",
        "P(referable) 0.48 close to one half",
    )


@pytest.mark.parametrize(("p", "marked"), [(0.03, False), (0.045, True), (0.05, True), (0.055, True), (0.07, False)])
def test_the_margin_around_a_low_operating_point_is_relative(p: float, marked: bool) -> None:
    reasons = find_review_reasons(graded(1.0, (1 - p, 0.0, p, 0.0, 0.0), ReferralThreshold(0.9, 0.05)))
    assert (f"P(referable) {p:.2f} close to the operating point 0.05" in reasons) == marked


@pytest.mark.parametrize(
    ("probabilities", "point", "reason"),
    [
        (
            (0.50, 0.17, 0.12, 0.11, 0.10),
            ReferralThreshold(0.9, 0.25),
            "grade 0, but P(referable) 0.33 on the other side of the operating point 0.25",
        ),
        ((0.32, 0.08, 0.20, 0.20, 0.20), None, "grade 0, but P(referable) 0.60 on the other side of one half"),
        ((0.30, 0.30, 0.40, 0.00, 0.00), None, "grade 2, but P(referable) 0.40 on the other side of one half"),
    ],
)
def test_a_grade_that_contradicts_p_referable_is_marked(
    probabilities: tuple[float, ...], point: ReferralThreshold | None, reason: str
) -> None:
    assert any(found.startswith(reason) for found in find_review_reasons(graded(1.0, probabilities, point)))


def test_review_and_report_agree_at_the_operating_point() -> None:
    """P(referable) is compared as it is written, with six decimals."""
    report = graded(1.0, (0.1, 0.2, 0.6999997, 0.0, 0.0), ReferralThreshold(0.9, 0.7))
    assert report.referable is True
    assert not any("other side" in reason for reason in find_review_reasons(report))


def test_limits_can_be_set() -> None:
    assert find_review_reasons(graded(0.95, SURE), ReviewLimits(quality=0.99)) == ("borderline quality 0.95",)
    assert find_review_reasons(graded(0.95, SURE), ReviewLimits(confidence=4.75)) == (
        "uncertain grade, probability 0.90",
    )


def test_limits_follow_the_number_of_grades_and_the_referable_grade() -> None:
    reasons = find_review_reasons(graded(1.0, (0.45, 0.35, 0.2), labels=MACULAR_DEGENERATION))
    assert reasons == ("uncertain grade, probability 0.45",)
    assert "close to one half" in find_review_reasons(graded(1.0, (0.0, 0.55, 0.45), labels=MACULAR_DEGENERATION))[0]
