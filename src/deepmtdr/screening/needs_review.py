"""Why a person should look at a photograph although it has a grade (Sec. I: screening is for those who then look)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from deepmtdr.terms import Grade, ReferralThreshold

NOT_GRADED = ("not graded",)
"""Of a photograph without a grade."""


@dataclass(frozen=True, kw_only=True)
class ReviewLimits:
    """Beyond these a graded photograph is marked for a human reader. The figures behind them: docs/clinic.md."""

    quality: float = 0.8
    """Score of the photograph below which it is borderline."""
    confidence: float = 0.3
    """Probability of the grade below which it is uncertain; five grades alike have 0.2 each."""
    margin: float = 0.2
    """How near P(referable) may come to the operating point, as a share of the way from there to 0 or 1, whichever is
    nearer. Without an operating point it is held against 1/2: 0.4 to 0.6 is too near."""


def find_review_reasons(
    quality: float,
    probabilities: Sequence[float],
    operating_point: ReferralThreshold | None,
    limits: ReviewLimits | None = None,
) -> tuple[str, ...]:
    """Say why a person should look at a graded photograph.

    Args:
        quality: the gate's score, in [0, 1].
        probabilities: of the grades 0-4.
        operating_point: the operating point; None where the weights have none.
        limits: where to draw the lines.

    Returns:
        One clause for each reason, each without a semicolon; empty if there is none.
    """
    return tuple(_reasons(quality, probabilities, operating_point, limits or ReviewLimits()))


def _reasons(
    quality: float, probabilities: Sequence[float], operating_point: ReferralThreshold | None, limits: ReviewLimits
) -> Iterator[str]:
    if quality < limits.quality:
        yield f"borderline quality {quality:.2f}"
    if max(probabilities) < limits.confidence:
        yield f"uncertain grade, probability {max(probabilities):.2f}"
    p = sum(p for grade, p in zip(Grade, probabilities, strict=True) if grade.referable)
    point = 0.5 if operating_point is None else operating_point.value
    named = "one half" if operating_point is None else f"the operating point {point:.2f}"
    if abs(p - point) < limits.margin * min(point, 1 - point):
        yield f"P(referable) {p:.2f} close to {named}"
    grade = Grade(max(range(len(probabilities)), key=probabilities.__getitem__))
    if grade.referable != (p >= point):
        yield f"grade {int(grade)}, but P(referable) {p:.2f} on the other side of {named}"
