"""Scores at the size of a test set: pooled AUPR beside scikit-learn's, FROC, and a thousand resamples of patients.

The pixels are drawn, as crowded at 0 as a network's: 0.3 % of them are lesion.
"""

from __future__ import annotations

import time

import numpy as np
from scipy.ndimage import gaussian_filter

from deepmtdr.metrics import PooledCurve, auc, froc, kappa_quadratic
from deepmtdr.paired import delong
from deepmtdr.statistics import bootstrap_interval

PHOTOGRAPHS = 12
SIDE = 1024
GRADED = 4000


def measure() -> dict[str, object]:
    return {"pooled AUPR": _pooled(), "FROC": _froc(), "1000 resamples of 4000 photographs": _bootstrap()}


def _pooled() -> dict[str, float]:
    from sklearn.metrics import average_precision_score

    rng = np.random.default_rng(0)
    curve, truths, probabilities, ours = PooledCurve(), [], [], 0.0
    for _ in range(PHOTOGRAPHS):
        truth = rng.random((SIDE, SIDE)) < 0.003
        probability = (1 / (1 + np.exp(6 - rng.normal(3 * truth, 1.5)))).astype(np.float32)
        begun = time.perf_counter()
        curve.update(probability, truth)
        ours += time.perf_counter() - begun
        truths.append(truth.ravel())
        probabilities.append(probability.ravel())
    begun = time.perf_counter()
    theirs = average_precision_score(np.concatenate(truths), np.concatenate(probabilities))
    seconds = time.perf_counter() - begun
    return {
        "photographs": PHOTOGRAPHS,
        "seconds": round(ours, 2),
        "seconds of scikit-learn": round(seconds, 2),
        "ratio": round(seconds / ours, 2),
        "difference": abs(curve.average_precision() - float(theirs)),
        "values kept": curve.values.size,
    }


def _froc() -> dict[str, float]:
    """One photograph, 100 lesions of nine pixels and as many spots that only look like one."""
    rng = np.random.default_rng(0)
    truth, spots = np.zeros((2, SIDE, SIDE), dtype=bool)
    for drawn in (truth, spots):
        for y, x in rng.integers(0, SIDE - 3, (100, 2)):
            drawn[y : y + 3, x : x + 3] = True
    likely = gaussian_filter(10.0 * truth + 9.0 * spots + rng.normal(0, 6, truth.shape), 1)
    begun = time.perf_counter()
    counts = froc(1 / (1 + np.exp(6 - likely)), truth)
    return {"seconds per photograph": round(time.perf_counter() - begun, 2), "CPM": round(counts.cpm(), 2)}


def _bootstrap() -> dict[str, float]:
    rng = np.random.default_rng(0)
    truth, patients = rng.integers(0, 5, GRADED), np.repeat(np.arange(GRADED // 2), 2).tolist()
    predicted = np.where(rng.random(GRADED) < 0.7, truth, rng.integers(0, 5, GRADED))
    seconds = {}
    for name, score, arrays in (
        ("kappa_quadratic", kappa_quadratic, (predicted, truth)),
        ("auc", auc, (predicted + rng.random(GRADED), truth >= 2)),
    ):
        begun = time.perf_counter()
        bootstrap_interval(score, patients, *arrays)
        seconds[f"seconds of {name}"] = round(time.perf_counter() - begun, 2)
    begun = time.perf_counter()
    delong(predicted + rng.random(GRADED), predicted + rng.random(GRADED), truth >= 2)
    return seconds | {"seconds of DeLong, which draws nothing": round(time.perf_counter() - begun, 4)}
