"""Why a person should review a photograph although it has a grade (Sec. I)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from deepmtdr.screening.report import PROBABILITY_DIGITS, ScreeningReport

NOT_GRADED = "not graded"
"""The reason for a review of a photograph without a grade."""


@dataclass(frozen=True, kw_only=True)
class ReviewLimits:
    """Limits beyond which a graded photograph is marked for review. How they were chosen: docs/clinic.md."""

    quality: float = 0.8
    """Quality score below which the photograph is borderline."""
    confidence: float = 1.5
    """Probability of the predicted grade below which the grade is uncertain, as a multiple of the probability that
    each grade has when all are alike: 0.3 for five grades."""
    margin: float = 0.2
    """How near P(referable) may come to the operating point, as a share of the distance from the operating point to 0
    or 1, whichever is nearer. Without an operating point 1/2 is used: 0.4 to 0.6 is then too near."""


def find_review_reasons(report: ScreeningReport, limits: ReviewLimits | None = None) -> tuple[str, ...]:
    """Find the reasons why a person should review a photograph.

    Args:
        report: report of the photograph; its `review_reasons` are not used.
        limits: limits for a graded photograph; None: the defaults.

    Returns:
        One clause for each reason, without semicolons; empty if there is none.
    """
    return tuple(_reasons(report, limits or ReviewLimits()))


def _reasons(report: ScreeningReport, limits: ReviewLimits) -> Iterator[str]:
    if report.grade is None or report.probabilities is None or report.p_referable is None:
        yield NOT_GRADED
        return
    if report.quality is not None and report.quality < limits.quality:
        yield f"borderline quality {report.quality:.2f}"
    confidence = report.probabilities[report.grade]
    if confidence < limits.confidence / len(report.probabilities):
        yield f"uncertain grade, probability {confidence:.2f}"
    p = round(report.p_referable, PROBABILITY_DIGITS)
    point = 0.5 if report.operating_point is None else report.operating_point.value
    name = "one half" if report.operating_point is None else f"the operating point {point:.2f}"
    # These texts are values of the column `for_reader` of results.csv: scripts may compare them.
    if abs(p - point) < limits.margin * min(point, 1 - point):
        yield f"P(referable) {p:.2f} close to {name}"
    if (report.grade >= report.labels.referable_from) != (p >= point):
        yield f"grade {report.grade}, but P(referable) {p:.2f} on the other side of {name}"
    if len(set(report.turn_grades)) > 1:
        grades = ", ".join(map(str, sorted(set(report.turn_grades))))
        yield f"grades {grades} for the photograph and its turned copies"
