"""Speed and memory of scores on a test set of realistic size: pooled AUPR, FROC, bootstrap; coverage of intervals.

The size is that of DDR's test set: 225 photographs and four lesion types. The probabilities are synthetic: smooth and
mostly close to 0, with clear, faint and missed lesions. They are made photograph by photograph. Each library pools them
in a separate process, so that its peak memory can be measured. "MiB to score" is what it allocates in addition to the
current photograph. Seconds are processor time without the time for making the photographs.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.special import expit, ndtr
from sklearn.metrics import average_precision_score

from deepmtdr.labels import DIABETIC_RETINOPATHY
from deepmtdr.metrics import PooledCurve, auc, count_froc, kappa_quadratic
from deepmtdr.metrics.intervals import bootstrap_interval
from deepmtdr.metrics.paired_tests import delong

CODES = DIABETIC_RETINOPATHY.codes
SIDE = 1024
PHOTOGRAPHS, SUBSET = 225, 8
GRADED = 4000
REPETITIONS, QUICK_REPETITIONS = 1000, 100


def measure(quick: bool = False) -> dict[str, object]:
    """Run all measurements; `quick` leaves out the 225 photographs and simulates a tenth of the studies."""
    figures: dict[str, object] = {f"pooled AUPR, {SUBSET} photographs x 4 types": _beside_scikit_learn()}
    if not quick:
        figures[f"pooled AUPR, {PHOTOGRAPHS} photographs x 4 types"] = _in_a_process("project", PHOTOGRAPHS)
    return figures | {
        "FROC": _froc(),
        f"1000 resamples of {GRADED} photographs": _bootstrap(),
        "coverage of 95 % intervals": _coverage(QUICK_REPETITIONS if quick else REPETITIONS),
    }


# Pooled AUPR.


def _beside_scikit_learn() -> dict[str, Any]:
    ours, theirs = (_in_a_process(library, SUBSET) for library in LIBRARIES)
    pairs = zip(ours["AUPR"].values(), theirs["AUPR"].values(), strict=True)
    return {
        "project": ours,
        "scikit-learn": theirs,
        "ratio of seconds": round(theirs["seconds"] / ours["seconds"], 2),
        "ratio of MiB to score": round(theirs["MiB to score"] / ours["MiB to score"], 2),
        "ratio of MiB of the process": round(theirs["MiB of the process"] / ours["MiB of the process"], 2),
        "largest difference": max(abs(a - b) for a, b in pairs),
    }


def _in_a_process(library: str, photographs: int) -> dict[str, Any]:
    command = [sys.executable, "-m", __name__, library, str(photographs)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _measured(library: str, photographs: int) -> dict[str, object]:
    scored = LIBRARIES[library](photographs)
    return {
        "seconds": round(scored.seconds, 2),
        "MiB to score": round(scored.peak / 2**20, 1),
        "MiB of the process": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,  # KiB on Linux
        "AUPR": scored.aupr,
    }


class Scored(NamedTuple):
    """Processor seconds, peak memory in bytes, and the scores by code."""

    seconds: float
    peak: int
    aupr: dict[str, float]


def _by_the_project(photographs: int) -> Scored:
    curves, seconds, peak = {code: PooledCurve() for code in CODES}, 0.0, 0
    tracemalloc.start()
    for code, probability, truth in _photographs(photographs):
        tracemalloc.reset_peak()
        begun = time.process_time()
        curves[code].update(probability, truth)
        seconds += time.process_time() - begun
        peak = max(peak, tracemalloc.get_traced_memory()[1] - probability.nbytes - truth.nbytes)
    begun = time.process_time()
    aupr = {code: curve.average_precision() for code, curve in curves.items()}
    return Scored(seconds + time.process_time() - begun, peak, aupr)


def _by_scikit_learn(photographs: int) -> Scored:
    """scikit-learn needs all pixels at once; they are stored in small types, one lesion type at a time."""
    aupr, seconds, peak = {}, 0.0, 0
    tracemalloc.start()
    for code in CODES:
        probabilities, truths = np.empty((photographs, SIDE**2), np.float32), np.empty((photographs, SIDE**2), bool)
        _fill(probabilities, truths, code)
        tracemalloc.reset_peak()
        begun = time.process_time()
        aupr[code] = float(average_precision_score(truths.ravel(), probabilities.ravel()))
        seconds += time.process_time() - begun
        peak = max(peak, tracemalloc.get_traced_memory()[1])
        del probabilities, truths
    return Scored(seconds, peak, aupr)


def _fill(probabilities: np.ndarray, truths: np.ndarray, code: str) -> None:
    for n, (_, probability, truth) in enumerate(_photographs(len(truths), (code,))):
        probabilities[n], truths[n] = probability.ravel(), truth.ravel()


LIBRARIES: dict[str, Callable[[int], Scored]] = {"project": _by_the_project, "scikit-learn": _by_scikit_learn}

SPOTS = {"MA": (30, 2), "HE": (12, 7), "EX": (40, 4), "SE": (3, 14)}
"""Number of lesions on an eye that has this type, and their radius, px."""


def _photographs(photographs: int, codes: Sequence[str] = CODES) -> Iterator[tuple[str, Any, Any]]:
    """Probability and truth of each photograph and lesion type; a third of the eyes has no lesion of a type."""
    for n in range(photographs):
        for code in codes:
            channel = CODES.index(code)
            rng = np.random.default_rng((n, channel))
            logits = rng.normal(0, 0.3, (SIDE, SIDE)).astype(np.float32)
            texture = gaussian_filter(rng.standard_normal((SIDE // 4, SIDE // 4), np.float32), 1.5)
            logits += np.kron(texture / texture.std() - 7, np.ones((4, 4), np.float32))
            truth = np.zeros((SIDE, SIDE), dtype=bool)
            if (n + channel) % 3:
                _add_spots(rng, *SPOTS[code], logits, truth)
            yield code, expit(logits), truth


def _add_spots(rng: np.random.Generator, number: int, radius: int, logits: np.ndarray, truth: np.ndarray) -> None:
    """Add lesions, detected more or less clearly and slightly displaced, and half as many false detections."""
    reach = 2 * radius + 2
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    for spot, (row, column) in enumerate(rng.integers(reach + 1, SIDE - reach - 2, (number + number // 2, 2)).tolist()):
        near = np.s_[row - reach : row + reach + 1, column - reach : column + reach + 1]
        if spot < number:
            truth[near] |= np.hypot(y, x) <= radius
        aside = rng.normal(0, radius / 4, 2)
        strength = rng.normal(9, 3) if spot < number else rng.normal(5, 2)
        logits[near] += np.maximum(strength, 0) * np.exp(
            -((((y - aside[0]) ** 2 + (x - aside[1]) ** 2) / radius**2) ** 2)
        )


# FROC.


def _froc() -> dict[str, float]:
    """One photograph with 100 lesions of nine pixels and 100 spots that look like lesions."""
    rng = np.random.default_rng(0)
    truth, spots = np.zeros((2, SIDE, SIDE), dtype=bool)
    for drawn in (truth, spots):
        for y, x in rng.integers(0, SIDE - 3, (100, 2)):
            drawn[y : y + 3, x : x + 3] = True
    likely = gaussian_filter(10.0 * truth + 9.0 * spots + rng.normal(0, 6, truth.shape), 1)
    begun = time.process_time()
    counts = count_froc(expit(likely - 6), truth)
    return {"seconds per photograph": round(time.process_time() - begun, 2), "CPM": round(counts.cpm(), 2)}


# Intervals.


def _bootstrap() -> dict[str, float]:
    rng = np.random.default_rng(0)
    truth, patients = rng.integers(0, 5, GRADED), np.repeat(np.arange(GRADED // 2), 2).tolist()
    predicted = np.where(rng.random(GRADED) < 0.7, truth, rng.integers(0, 5, GRADED))
    seconds = {}
    for name, score, arrays in (
        ("kappa_quadratic", kappa_quadratic, (predicted, truth)),
        ("auc", auc, (predicted + rng.random(GRADED), truth >= 2)),
    ):
        begun = time.process_time()
        bootstrap_interval(score, patients, *arrays)
        seconds[f"seconds of {name}"] = round(time.process_time() - begun, 2)
    begun = time.process_time()
    delong(predicted + rng.random(GRADED), predicted + rng.random(GRADED), truth >= 2)
    return seconds | {"seconds of DeLong, without resampling": round(time.process_time() - begun, 4)}


TWO_EYES = np.repeat(np.arange(200), 2)
"""The patient of each photograph of a simulated study: two eyes each."""

CUTS = np.array([0.0, 0.3, 1.2, 1.6])
"""Borders between the five grades, in standard deviations of the severity."""


def _shared(rng: np.random.Generator, patients: np.ndarray, share: float) -> np.ndarray:
    """A standard normal number per photograph; the eyes of one patient share this fraction of the variance."""
    of_patient, of_eye = rng.normal(size=patients.max() + 1)[patients], rng.normal(size=patients.size)
    return np.sqrt(share) * of_patient + np.sqrt(1 - share) * of_eye


def _grades(rng: np.random.Generator, patients: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Predicted and true grades: both eyes have similar severity and similar errors."""
    severity = _shared(rng, patients, 0.8)
    return np.searchsorted(CUTS, severity + 0.5 * _shared(rng, patients, 0.5)), np.searchsorted(CUTS, severity)


def _scores(rng: np.random.Generator, patients: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both eyes of a patient are diseased or none; diseased ones score higher by one standard deviation."""
    positive = (rng.random(patients.max() + 1) < 0.4)[patients]
    return positive + _shared(rng, patients, 0.5), positive


def _coverage(repetitions: int) -> dict[str, object]:
    """How often the interval contains the true score, with patients and with single photographs resampled."""
    many = np.repeat(np.arange(1_000_000), 2)
    true = {
        "kappa_quadratic": kappa_quadratic(*_grades(np.random.default_rng(0), many)),  # known to 0.001
        "auc": float(ndtr(np.sqrt(0.5))),
    }
    studies = (("kappa_quadratic", kappa_quadratic, _grades), ("auc", auc, _scores))
    figures: dict[str, object] = {"studies": repetitions, "photographs": TWO_EYES.size, "resamples": 400}
    for name, score, simulated in studies:
        covered = np.zeros(2, np.int64)
        for seed in range(repetitions):
            arrays = simulated(np.random.default_rng((1, seed)), TWO_EYES)
            for way, clusters in enumerate((TWO_EYES.tolist(), range(TWO_EYES.size))):
                interval = bootstrap_interval(score, clusters, *arrays, resamples=400, seed=seed)
                covered[way] += interval.low <= true[name] <= interval.high
        ways = ("patients drawn", "photographs drawn, as if independent")
        figures[name] = dict(zip(ways, (covered / repetitions).tolist(), strict=True))
    return figures


if __name__ == "__main__":
    print(json.dumps(_measured(sys.argv[1], int(sys.argv[2]))))
