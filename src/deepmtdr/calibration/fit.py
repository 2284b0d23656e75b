"""Fit a temperature (Guo et al. 2017) and thresholds to graded photographs, and judge them on other patients.

One number, fitted on all photographs, divides the logits from now on; no grade and no weight changes. A number judged
on the photographs that it was fitted on flatters itself: what is said of the probabilities after it comes from two
halves of the patients, each at the temperature and the thresholds of the other.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.special import softmax

from deepmtdr.calibration.report import BeforeAfter, CalibratedThreshold, Calibration
from deepmtdr.calibration.temperature import TEMPERATURE_RANGE, fit_temperature
from deepmtdr.errors import DataError
from deepmtdr.evaluation.curves import reliability_bins
from deepmtdr.evaluation.grading import GRADE_TASK, GRADE_THRESHOLDS
from deepmtdr.evaluation.measure import PhotographResult
from deepmtdr.evaluation.scores import Bootstrap, patient_keys
from deepmtdr.metrics.calibration import brier, expected_calibration_error, negative_log_likelihood
from deepmtdr.metrics.intervals import Interval
from deepmtdr.metrics.ranking import threshold_for_sensitivity
from deepmtdr.terms import Grade

MIN_PHOTOGRAPHS = 20
"""Graded photographs, of two grades and four patients; fewer say nothing of a probability."""
MIN_PATIENTS = 4
CALIBRATION_SCORES = {
    "expected_calibration_error": expected_calibration_error,
    "brier": brier,
    "negative_log_likelihood": negative_log_likelihood,
}
THRESHOLD_STEPS = 1_000_000
"""A threshold is rounded down to 1 / this, as the probabilities of a report are written."""
NEEDS_TWO_PATIENTS = "needs two patients with such a grade and two without"

Logits = Float[np.ndarray, "n 5"]
Half = Bool[np.ndarray, " n"]


def fit_calibration(
    measured: Sequence[PhotographResult], sensitivities: Sequence[float], bootstrap: Bootstrap
) -> Calibration:
    """Fit and judge, from photographs that were read at temperature 1."""
    graded = [m for m in measured if GRADE_TASK.is_scored(m)]
    failures = [m.failure for m in measured if m.failure]
    check_sample_size([(m.grade, m.dataset, m.patient) for m in graded if m.grade is not None], failures)
    case = _Case.of(graded, bootstrap)
    temperature = fit_temperature(case.logits, case.truth)
    scores = [_before_after(name, case, bootstrap) for name in CALIBRATION_SCORES]
    return Calibration(
        protocol={
            "photographs": len(graded),
            "failed": len(failures),
            "patients": len(set(patient_keys(graded))),
            "grades": np.bincount(case.truth, minlength=len(Grade)).tolist(),
            "datasets": sorted({m.dataset for m in graded}),
            "bootstrap": {"unit": "patient", **bootstrap._asdict()},
        },
        temperature=temperature,
        half_temperatures=case.temperatures,
        scores=scores,
        reliability_before=reliability_bins(softmax_probabilities(case.logits), case.truth),
        reliability_after=reliability_bins(case.after, case.truth),
        thresholds=list(_operating(case, softmax_probabilities(case.logits, temperature), sensitivities, bootstrap)),
        warnings=list(_doubts(temperature, scores)),
        results=list(measured),
    )


def _doubts(temperature: float, scores: Iterable[BeforeAfter]) -> Iterator[str]:
    for end in TEMPERATURE_RANGE:
        if math.isclose(temperature, end, rel_tol=0.01):
            yield f"temperature {end:g} is the end of the search: these photographs do not determine it"
    for one in scores:
        if one.difference.value > 0:
            yield f"{one.score} is higher after than before, on patients that the temperature was not fitted on"


def softmax_probabilities(logits: Logits, temperature: float = 1.0) -> Logits:
    """Softmax of the logits divided by the temperature."""
    return softmax(logits / temperature, axis=1)


class _Case(NamedTuple):
    """The graded photographs as arrays, and the two halves of their patients."""

    graded: list[PhotographResult]
    logits: Logits
    """Up to a constant for each photograph, which no softmax sees."""
    truth: Int[np.ndarray, " n"]
    first: Half
    temperatures: tuple[float, float]
    """Fitted on the first half, and on the second."""
    after: Logits
    """Probabilities of each half at the temperature of the other."""

    @classmethod
    def of(cls, graded: list[PhotographResult], bootstrap: Bootstrap) -> _Case:
        probs, truth = GRADE_TASK.arrays(graded)
        logits = np.log(np.maximum(probs, np.finfo(np.float64).tiny))
        first = split_patients(graded, bootstrap.seed)
        one, other = (fit_temperature(logits[half], truth[half]) for half in (first, ~first))
        after = np.where(first[:, None], softmax_probabilities(logits, other), softmax_probabilities(logits, one))
        return cls(graded, logits, truth, first, (one, other), after)


def split_patients(graded: Sequence[PhotographResult], seed: int) -> Half:
    """Divide the patients in two, drawn so that either half has as many of each highest grade, give or take one.

    Args:
        graded: photographs with a true grade, in any order.
        seed: another seed, other halves.

    Returns:
        True for the photographs of the first half; those of one patient stay together.
    """
    of = patient_keys(graded)
    worst: dict[tuple[str, str], int] = {}
    for patient, m in zip(of, graded, strict=True):
        worst[patient] = max(worst.get(patient, 0), m.grade or 0)
    ordered = sorted(worst)
    drawn = [ordered[place] for place in np.random.default_rng(seed).permutation(len(ordered))]
    first = set(sorted(drawn, key=worst.__getitem__)[::2])
    return np.array([patient in first for patient in of])


def _before_after(name: str, case: _Case, bootstrap: Bootstrap) -> BeforeAfter:
    score, truth = CALIBRATION_SCORES[name], case.truth
    before, after = (softmax_probabilities(case.logits), truth), (case.after, truth)
    difference = bootstrap.difference(score, case.graded, after, before)
    return BeforeAfter(
        name,
        bootstrap.interval(score, case.graded, *before),
        bootstrap.interval(score, case.graded, *after),
        difference,
    )


# --- Thresholds ---


def _operating(
    case: _Case, kept: Logits, sensitivities: Iterable[float], bootstrap: Bootstrap
) -> Iterator[CalibratedThreshold]:
    for asked, least in GRADE_THRESHOLDS.items():
        positive = case.truth >= least
        for wanted in sorted(set(sensitivities)):
            point = asked, least, wanted, rounded_threshold(kept[:, least:].sum(axis=1), positive, wanted)
            yield CalibratedThreshold(*point, *_judged(case, least, wanted, bootstrap), note=_note(positive, least))


def _note(positive: Bool[np.ndarray, " n"], least: int) -> str:
    return NEEDS_TWO_PATIENTS if positive.any() else f"no photograph of grade {least} or worse"


def _judged(case: _Case, least: int, wanted: float, bootstrap: Bootstrap) -> tuple[Interval, Interval]:
    """Sensitivity and specificity of each half at the threshold of the other; nan where one cannot be had."""
    positive, called = case.truth >= least, np.zeros(case.truth.size)
    for half, temperature in zip((case.first, ~case.first), case.temperatures, strict=True):
        own = softmax_probabilities(case.logits[half], temperature)[:, least:].sum(axis=1)
        from_here = rounded_threshold(own, positive[half], wanted)
        found = case.after[~half, least:].sum(axis=1) >= from_here
        called[~half] = np.nan if math.isnan(from_here) else found
    sensitivity = bootstrap.interval(lambda yes, truth: _mean(yes[truth]), case.graded, called, positive)
    return sensitivity, bootstrap.interval(lambda yes, truth: _mean(1 - yes[~truth]), case.graded, called, positive)


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else float("nan")


def rounded_threshold(scores: Float[np.ndarray, " n"], positive: Bool[np.ndarray, " n"], wanted: float) -> float:
    """`threshold_for_sensitivity`, rounded down to what a report shows; nan without a positive photograph."""
    exact = threshold_for_sensitivity(scores, positive, wanted)
    return exact if math.isnan(exact) else max(math.floor(exact * THRESHOLD_STEPS), 1) / THRESHOLD_STEPS


def check_sample_size(graded: Sequence[tuple[int, str, str]], failures: Sequence[str] = ()) -> None:
    """Photographs of which too little could be said are no ground for a calibration.

    Args:
        graded: grade, data set and patient of each.
        failures: why others could not be read.

    Raises:
        DataError: if they are fewer than `MIN_PHOTOGRAPHS`, of one grade, or of fewer patients than `MIN_PATIENTS`.
    """
    grades, people = sorted({grade for grade, *_ in graded}), {tuple(patient) for _, *patient in graded}
    if len(graded) < MIN_PHOTOGRAPHS or len(grades) < 2 or len(people) < MIN_PATIENTS:
        found = f"{len(graded)} graded photographs of {len(people)} patients, grades {grades}"
        others = f"; {len(failures)} were not read, the first: {failures[0]}" if failures else ""
        raise DataError(
            f"{found}; expected at least {MIN_PHOTOGRAPHS} of {MIN_PATIENTS} patients and two grades{others}"
        )
