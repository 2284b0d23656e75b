"""Points of the curves in a report, worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from deepmtdr.evaluation.curves import froc_points, precision_recall_curve, roc_curve
from deepmtdr.metrics import FrocCounts, PooledCurve


def test_froc_points_begin_at_the_highest_threshold() -> None:
    counts = FrocCounts(np.array([0.2, 0.5, 0.8]), np.array([4, 3, 1]), np.array([6, 2, 0]), lesions=4, images=2)
    points = froc_points(counts)
    assert points.thresholds.tolist() == [0.8, 0.5, 0.2]
    assert points.alarms_per_image.tolist() == [0, 1, 3]
    assert points.sensitivity.tolist() == [0.25, 0.75, 1]


def test_froc_sensitivity_is_undefined_without_lesions() -> None:
    points = froc_points(FrocCounts(np.array([0.2, 0.8]), np.array([0, 0]), np.array([5, 1]), lesions=0))
    assert points.alarms_per_image.tolist() == [1, 5]
    assert np.isnan(points.sensitivity).all()


def test_probability_without_pixels_has_no_point_of_precision_and_recall() -> None:
    curve = PooledCurve()
    curve.values = np.array([0.1, 0.4, 0.6, 0.9], np.float32)
    curve.positives, curve.negatives = np.array([1, 2, 1, 0]), np.array([4, 0, 1, 0])  # no pixel has 0.9
    points = precision_recall_curve(curve)
    assert points.x.tolist() == [1 / 4, 3 / 4, 1]
    assert points.y == pytest.approx([1 / 2, 3 / 4, 4 / 9])


def test_roc_curve_ends_at_one_one_if_the_lowest_score_is_negative() -> None:
    points = roc_curve(np.array([0.9, 0.7, 0.4, 0.1]), np.array([True, False, True, False]))
    assert points.x.tolist() == [0, 0, 0.5, 0.5, 1]
    assert points.y.tolist() == [0, 0.5, 0.5, 1, 1]
