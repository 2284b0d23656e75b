"""Points of the curves in a report: ROC, precision-recall, FROC (Sec. V-B)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Num

from deepmtdr.evaluation.lesions import CurveKey, PooledCurves
from deepmtdr.evaluation.scores import ALL
from deepmtdr.metrics import FrocCounts, PooledCurve

MAX_POINTS = 200
"""Largest number of points of a curve; more would not be visible."""


class CurvePoints(NamedTuple):
    """Points of a curve."""

    x: Float[np.ndarray, " n"]
    y: Float[np.ndarray, " n"]


NO_POINTS = CurvePoints(np.empty(0), np.empty(0))


class FrocPoints(NamedTuple):
    """An FROC curve, one point per threshold, from the highest threshold down."""

    thresholds: Float[np.ndarray, " t"]
    alarms_per_image: Float[np.ndarray, " t"]
    sensitivity: Float[np.ndarray, " t"]
    """Fraction of the lesions found; nan without lesions."""


def roc_curve(scores: Num[np.ndarray, " n"], positive: Bool[np.ndarray, " n"]) -> CurvePoints:
    """Sensitivity over 1 - specificity, one point per distinct score, from (0, 0) to (1, 1).

    Returns: The curve, without points if there is no positive or no negative case.
    """
    values, place = np.unique(scores, return_inverse=True)
    found, alarms = (
        np.append(0, np.cumsum(np.bincount(place[which], minlength=values.size)[::-1]))
        for which in (positive, ~positive)
    )
    if not (found[-1] and alarms[-1]):
        return NO_POINTS
    return CurvePoints(alarms / alarms[-1], found / found[-1])


def precision_recall_curve(curve: PooledCurve) -> CurvePoints:
    """Precision over recall, one point per distinct probability, the highest first.

    Returns: The curve, without points if no pixel is positive.
    """
    hits, alarms = np.cumsum(curve.positives[::-1]), np.cumsum(curve.negatives[::-1])
    if not (hits.size and hits[-1]):
        return NO_POINTS
    called = hits + alarms > 0
    return CurvePoints(hits[called] / hits[-1], (hits / np.maximum(hits + alarms, 1))[called])


def froc_points(counts: FrocCounts) -> FrocPoints:
    """Fraction of the lesions that are found, over false alarms per image."""
    sensitivity = (
        counts.true_positives / counts.lesions if counts.lesions else np.full(counts.true_positives.size, np.nan)
    )
    return FrocPoints(counts.thresholds[::-1], counts.false_positives[::-1] / counts.images, sensitivity[::-1])


def thin_curve(points: CurvePoints, most: int = MAX_POINTS) -> CurvePoints:
    """Keep at most `most` points at even distances along the curve, with the first and the last."""
    if points.x.size <= most:
        return points
    steps = np.hypot(np.diff(points.x), np.diff(points.y))
    length = np.append(0, np.cumsum(steps))
    kept = np.unique(np.searchsorted(length, np.linspace(0, length[-1], most)))
    return CurvePoints(points.x[kept], points.y[kept])


def lesion_curves(pooled: PooledCurves) -> dict[CurveKey, CurvePoints]:
    """Precision-recall curves of the pixels of each data set, and of `ALL` together, thinned."""
    together = {code: PooledCurve() for _, code in pooled}
    for (_, code), curve in pooled.items():
        together[code].merge(curve)
    curves = {**pooled, **{(ALL, code): curve for code, curve in together.items()}}
    return {key: thin_curve(precision_recall_curve(curve)) for key, curve in curves.items()}
