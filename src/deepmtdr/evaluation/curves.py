"""The points of an evaluation's curves: ROC, precision over recall, reliability (Sec. V-B)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Num

from deepmtdr.evaluation.lesions import PooledCurves
from deepmtdr.evaluation.scores import ALL
from deepmtdr.metrics import FrocCounts, PooledCurve
from deepmtdr.terms import Lesion

MAX_POINTS = 200
"""Most points of a curve; more would not be seen."""


class CurvePoints(NamedTuple):
    """A curve ready to be drawn."""

    x: Float[np.ndarray, " n"]
    y: Float[np.ndarray, " n"]


class FrocPoints(NamedTuple):
    """An FROC curve, a point for each threshold from the highest down."""

    thresholds: Float[np.ndarray, " t"]
    alarms_per_image: Float[np.ndarray, " t"]
    sensitivity: Float[np.ndarray, " t"]
    """Nan without lesions."""


class ReliabilityBin(NamedTuple):
    """The photographs whose predicted grade was given about the same probability."""

    photographs: int
    confidence: float
    """Mean probability of the predicted grade."""
    accuracy: float
    """Share of them that are graded right."""


def roc_curve(scores: Num[np.ndarray, " n"], positive: Bool[np.ndarray, " n"]) -> CurvePoints:
    """Sensitivity over 1 - specificity, a point for each distinct score, from (0, 0) to (1, 1).

    Returns:
        No point if there is no positive or no negative case.
    """
    values, place = np.unique(scores, return_inverse=True)
    found, alarms = (
        np.append(0, np.cumsum(np.bincount(place[which], minlength=values.size)[::-1]))
        for which in (positive, ~positive)
    )
    if not (found[-1] and alarms[-1]):
        return CurvePoints(np.empty(0), np.empty(0))
    return CurvePoints(alarms / alarms[-1], found / found[-1])


def precision_recall_curve(curve: PooledCurve) -> CurvePoints:
    """Precision over recall, a point for each distinct probability, the highest first.

    Returns:
        No point if no pixel is positive.
    """
    hits, alarms = np.cumsum(curve.positives[::-1]), np.cumsum(curve.negatives[::-1])
    if not (hits.size and hits[-1]):
        return CurvePoints(np.empty(0), np.empty(0))
    called = hits + alarms > 0
    return CurvePoints(hits[called] / hits[-1], (hits / np.maximum(hits + alarms, 1))[called])


def froc_points(counts: FrocCounts) -> FrocPoints:
    """Share of the lesions found over false alarms per image."""
    sensitivity = (
        counts.true_positives / counts.lesions if counts.lesions else np.full(counts.true_positives.size, np.nan)
    )
    return FrocPoints(counts.thresholds[::-1], counts.false_positives[::-1] / counts.images, sensitivity[::-1])


def thin_curve(points: CurvePoints, most: int = MAX_POINTS) -> CurvePoints:
    """At most so many of the points, evenly along the curve, the first and the last among them."""
    if points.x.size <= most:
        return points
    steps = np.hypot(np.diff(points.x), np.diff(points.y))
    way = np.append(0, np.cumsum(steps))
    kept = np.unique(np.searchsorted(way, np.linspace(0, way[-1], most)))
    return CurvePoints(points.x[kept], points.y[kept])


def lesion_curves(pooled: PooledCurves) -> dict[tuple[str, Lesion], CurvePoints]:
    """Precision over recall of each data set's pixels, and of `ALL` together, thinned."""
    together = {lesion: PooledCurve() for _, lesion in pooled}
    for (_, lesion), curve in pooled.items():
        together[lesion].merge(curve)
    whole = {**pooled, **{(ALL, lesion): curve for lesion, curve in together.items()}}
    return {key: thin_curve(precision_recall_curve(curve)) for key, curve in whole.items()}


def reliability_bins(
    probs: Float[np.ndarray, "n classes"], truth: Int[np.ndarray, " n"], bins: int = 15
) -> list[ReliabilityBin]:
    """How often the predicted grade is right where it is given about the same probability.

    Args:
        probs: of each class, rows sum to 1.
        truth: true classes.
        bins: of equal width in (0, 1], as `expected_calibration_error` has them.

    Returns:
        The bins that are not empty, the lowest first.
    """
    confidence = probs.max(axis=1)
    place = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    right = probs.argmax(axis=1) == truth
    own = [place == number for number in np.unique(place)]
    return [ReliabilityBin(int(one.sum()), float(confidence[one].mean()), float(right[one].mean())) for one in own]
