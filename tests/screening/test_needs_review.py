"""Which graded photographs are marked for a person."""

from __future__ import annotations

import pytest

from deepmtdr.screening.needs_review import ReviewLimits, find_review_reasons
from deepmtdr.terms import ReferralThreshold

SURE = (0.9, 0.05, 0.03, 0.01, 0.01)


def test_a_sharp_photograph_with_a_sure_grade_stands_by_itself() -> None:
    assert find_review_reasons(0.95, SURE, None) == ()
    assert find_review_reasons(0.95, SURE, ReferralThreshold(0.9, 0.2)) == ()


def test_each_reason_says_what_was_found() -> None:
    unsure = (0.28, 0.24, 0.2, 0.18, 0.1)
    assert find_review_reasons(0.456, unsure, None) == (
        "borderline quality 0.46",
        "uncertain grade, probability 0.28",
        "P(referable) 0.48 close to one half",
    )


@pytest.mark.parametrize(("p", "marked"), [(0.03, False), (0.045, True), (0.05, True), (0.055, True), (0.07, False)])
def test_closeness_to_a_low_operating_point_is_a_share_of_the_way_to_its_end(p: float, marked: bool) -> None:
    reasons = find_review_reasons(1.0, (1 - p, 0.0, p, 0.0, 0.0), ReferralThreshold(0.9, 0.05))
    assert (f"P(referable) {p:.2f} close to the operating point 0.05" in reasons) == marked


@pytest.mark.parametrize(
    ("probabilities", "point", "said"),
    [
        (
            (0.50, 0.17, 0.12, 0.11, 0.10),
            ReferralThreshold(0.9, 0.25),
            "grade 0, but P(referable) 0.33 on the other side of the",
        ),
        ((0.32, 0.08, 0.20, 0.20, 0.20), None, "grade 0, but P(referable) 0.60 on the other side of one half"),
        ((0.30, 0.30, 0.40, 0.00, 0.00), None, "grade 2, but P(referable) 0.40 on the other side of one half"),
    ],
)
def test_a_grade_that_contradicts_the_call_is_marked(
    probabilities: tuple[float, ...], point: ReferralThreshold | None, said: str
) -> None:
    assert any(reason.startswith(said) for reason in find_review_reasons(1.0, probabilities, point))


def test_limits_can_be_set() -> None:
    assert find_review_reasons(0.95, SURE, None, ReviewLimits(quality=0.99)) == ("borderline quality 0.95",)
    assert find_review_reasons(0.95, SURE, None, ReviewLimits(confidence=0.95)) == (
        "uncertain grade, probability 0.90",
    )
