"""Pooled curves against scikit-learn, for many distributions of probabilities; Dice and IoU."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn import metrics as reference

from deepmtdr.metrics import PooledCurve, dice, iou
from deepmtdr.metrics.intervals import nan_mean

PIXELS = 150_000


def sigmoid(x: np.ndarray) -> np.ndarray:
    return (1 / (1 + np.exp(-x.astype(np.float32)))).astype(np.float32)


def bfloat16(x: np.ndarray) -> np.ndarray:
    return torch.from_numpy(x).bfloat16().float().numpy()


SHAPES = {
    "even": sigmoid,
    "bfloat16": lambda x: bfloat16(sigmoid(x - 3)),
    "float16": lambda x: sigmoid(x - 3).astype(np.float16),
    "8 bits": lambda x: np.rint(255 * sigmoid(x)).astype(np.float32) / 255,
    "all below 1e-5": lambda x: sigmoid(x - 16),
    "all above 0.999": lambda x: sigmoid(x + 12),
    "saturated at both ends": lambda x: sigmoid(12 * x),
    "between 0.499 and 0.501": lambda x: (0.5 + 1e-3 * np.tanh(x)).astype(np.float32),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("prevalence", [0.2, 0.001])
def test_pooled_curve_agrees_with_scikit_learn_to_1e_4(shape: str, prevalence: float, rng: np.random.Generator) -> None:
    truth = rng.random(PIXELS) < prevalence
    probability = SHAPES[shape](rng.normal(2.5 * truth, 1))
    curve = PooledCurve()
    for part in np.array_split(np.arange(PIXELS), 3):  # three photographs
        curve.update(probability[part], truth[part])
    assert curve.average_precision() == pytest.approx(reference.average_precision_score(truth, probability), abs=1e-4)
    assert curve.auc() == pytest.approx(reference.roc_auc_score(truth, probability), abs=1e-4)
    assert curve.dice() == pytest.approx(reference.f1_score(truth, probability > 0.5, zero_division=0), abs=1e-9)
    assert curve.prevalence == pytest.approx(truth.mean())


@pytest.mark.parametrize("tolerance", [0.01, 0.001])
def test_memory_is_bounded_and_error_is_below_the_tolerance(tolerance: float, rng: np.random.Generator) -> None:
    curve, everything = PooledCurve(tolerance), []
    for n in range(
        40
    ):  # lesions become clearer from photograph to photograph, so later values fall between earlier ones
        truth = rng.random(10_000) < 0.01
        probability = sigmoid(rng.normal((1 + n / 10) * truth - 5, 1 + n / 40))
        curve.update(probability, truth)
        everything.append((truth, probability))
        assert curve.values.size < (np.log(10_000 * (n + 1)) + 3) / tolerance
    truth, probability = map(np.concatenate, zip(*everything, strict=True))
    assert curve.average_precision() == pytest.approx(
        reference.average_precision_score(truth, probability), abs=tolerance
    )
    assert curve.auc() == pytest.approx(reference.roc_auc_score(truth, probability), abs=tolerance)
    assert curve.dice() == pytest.approx(reference.f1_score(truth, probability > 0.5))


def test_r15_ap_per_image_and_pooled_worked_by_hand() -> None:
    # Image 1: 0.9 and 0.7 are lesion, with precision 1 and 2/3: AP 5/6. Image 2: only 0.5, the second: AP 1/2.
    # The healthy image has no AP and is left out, as in the authors' code: mean (5/6 + 1/2) / 2.
    # Pooled, 0.95 of the healthy image is first: precision 1/2 at 0.9, 2/4 at 0.7, 3/6 at 0.5.
    images = [
        ([0.9, 0.8, 0.7, 0.1], [True, False, True, False]),
        ([0.6, 0.5, 0.4, 0.2], [False, True, False, False]),
        ([0.95, 0.05], [False, False]),
    ]
    pooled, aps = PooledCurve(), []
    for p, truth in images:
        curve = PooledCurve()
        curve.update(np.array(p, np.float32), np.array(truth))
        pooled.merge(curve)
        aps.append(curve.average_precision())
    assert aps == pytest.approx([5 / 6, 1 / 2, math.nan], nan_ok=True)
    assert nan_mean(np.array(aps)) == pytest.approx(2 / 3)
    assert pooled.average_precision() == pytest.approx((1 / 2 + 2 / 4 + 3 / 6) / 3)


def test_minus_zero_equals_zero() -> None:
    curve = PooledCurve()
    curve.update(np.array([-0.0, 0.0], np.float32), np.array([True, False]))
    assert curve.auc() == 0.5


def test_pixels_outside_the_mask_do_not_count() -> None:
    curve = PooledCurve()
    outside = np.array([[0.9, 0.1], [7.0, np.nan]], np.float32)
    curve.update(outside, np.array([[True, False], [True, True]]), np.array([[True, True], [False, False]]))
    assert (curve.prevalence, curve.average_precision(), curve.auc()) == (0.5, 1, 1)


def test_merged_curves_equal_one_curve_of_all_pixels(rng: np.random.Generator) -> None:
    p, truth = rng.random(100, np.float32), rng.random(100) < 0.3
    together, first, second = PooledCurve(), PooledCurve(), PooledCurve()
    together.update(p, truth)
    first.update(p[:40], truth[:40])
    second.update(p[40:], truth[40:])
    first.merge(second)
    assert first.average_precision() == together.average_precision()
    assert first.auc() == together.auc()


def test_undefined_pooled_scores_are_nan() -> None:
    curve = PooledCurve()
    assert all(math.isnan(s) for s in (curve.prevalence, curve.average_precision(), curve.auc(), curve.dice()))
    curve.update(np.array([0.2, 0.7], np.float32), np.array([False, False]))
    assert (curve.prevalence, curve.dice()) == (0, 0)  # no lesion, one false pixel
    assert math.isnan(curve.average_precision())
    assert math.isnan(curve.auc())


@pytest.mark.parametrize("wrong", [np.nan, 1.1, -0.1])
def test_value_outside_0_to_1_is_an_error(wrong: float) -> None:
    with pytest.raises(ValueError, match=r"expected numbers in \[0, 1\]"):
        PooledCurve().update(np.array([0.5, wrong], np.float32), np.array([True, False]))


def test_dice_and_iou_worked_by_hand() -> None:
    predicted, truth = np.array([[True, True], [False, False]]), np.array([[True, False], [True, True]])
    assert dice(predicted, truth) == 2 * 1 / (2 + 3)
    assert iou(predicted, truth) == 1 / 4
    nothing = np.zeros((2, 2), bool)
    assert (dice(nothing, truth), iou(nothing, truth)) == (0, 0)  # a lesion that was not found
    assert math.isnan(dice(nothing, nothing))
    assert math.isnan(iou(nothing, nothing))
