"""Fit a temperature and decision thresholds on graded photographs, and measure their effect on other patients.

The temperature divides the grade logits; the predicted grades and the weights do not change. Scores on the same
photographs on which the temperature was fitted would be too good. Therefore the patients are divided into two halves,
and each half is scored with the temperature and the thresholds of the other half (cross-fitting).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from deepmtdr.calibration.report import BeforeAfter, CalibratedThreshold, Calibration
from deepmtdr.calibration.temperature import TEMPERATURE_RANGE, fit_temperature, softmax_probabilities
from deepmtdr.errors import DataError
from deepmtdr.evaluation.grading import CALIBRATION_SCORES, GradingFunction, grade_arrays, is_graded, threshold_title
from deepmtdr.evaluation.photograph_result import PhotographResult
from deepmtdr.evaluation.scores import Bootstrap, patient_count, patient_keys
from deepmtdr.labels import DIABETIC_RETINOPATHY, LabelSet
from deepmtdr.metrics.calibration import reliability_bins
from deepmtdr.metrics.intervals import Interval, mean_or_nan
from deepmtdr.metrics.ranking import threshold_for_sensitivity

MIN_PHOTOGRAPHS = 20
"""Smallest number of graded photographs for a calibration; they must have at least two different grades."""
MIN_PATIENTS = 4
"""Smallest number of patients for a calibration."""
THRESHOLD_STEPS = 1_000_000
"""Thresholds are rounded down to a multiple of 1 / THRESHOLD_STEPS, the precision of probabilities in a report."""
NEEDS_TWO_PATIENTS = "needs two patients with such a grade and two without"

Probabilities = Float[np.ndarray, "n c"]
Half = Bool[np.ndarray, " n"]


def fit_calibration(
    measured: Sequence[PhotographResult],
    sensitivities: Sequence[float],
    bootstrap: Bootstrap,
    labels: LabelSet = DIABETIC_RETINOPATHY,
) -> Calibration:
    """Fit a temperature and thresholds, and score them by cross-fitting.

    Args:
        measured: photographs that were predicted at temperature 1.
        sensitivities: target sensitivities of the thresholds, each in (0, 1].
        bootstrap: how intervals are computed; its seed also divides the patients.
        labels: grades and thresholds.

    Raises:
        DataError: if there are too few graded photographs, grades or patients.
    """
    graded = [m for m in measured if is_graded(m)]
    failures = [m.failure for m in measured if m.failure]
    check_sample_size([(m.grade, m.dataset, m.patient) for m in graded if m.grade is not None], failures)
    case = _Case.of(graded, bootstrap)
    temperature = fit_temperature(case.logits, case.truth)
    scores = [_before_after(name, score, case, bootstrap) for name, score in CALIBRATION_SCORES.items()]
    calibrated = softmax_probabilities(case.logits, temperature)
    return Calibration(
        protocol={
            "photographs": len(graded),
            "failed": len(failures),
            "patients": patient_count(graded),
            "grades": np.bincount(case.truth, minlength=len(labels.grades)).tolist(),
            "datasets": sorted({m.dataset for m in graded}),
            "bootstrap": bootstrap.to_protocol(),
        },
        temperature=temperature,
        half_temperatures=case.temperatures,
        scores=scores,
        reliability_before=reliability_bins(softmax_probabilities(case.logits), case.truth),
        reliability_after=reliability_bins(case.after, case.truth),
        thresholds=list(_thresholds(case, calibrated, sensitivities, bootstrap, labels)),
        warnings=list(_warnings(temperature, scores)),
        results=list(measured),
    )


def check_sample_size(graded: Sequence[tuple[int, str, str]], failures: Sequence[str] = ()) -> None:
    """Check that there are enough photographs for a calibration.

    Args:
        graded: grade, data set and patient of each photograph.
        failures: why other photographs could not be read.

    Raises:
        DataError: if there are fewer than `MIN_PHOTOGRAPHS` photographs, two grades or `MIN_PATIENTS` patients.
    """
    grades, people = sorted({grade for grade, *_ in graded}), {tuple(patient) for _, *patient in graded}
    if len(graded) < MIN_PHOTOGRAPHS or len(grades) < 2 or len(people) < MIN_PATIENTS:
        found = f"{len(graded)} graded photographs of {len(people)} patients, grades {grades}"
        others = f"; {len(failures)} could not be read, the first: {failures[0]}" if failures else ""
        raise DataError(
            f"{found}; expected at least {MIN_PHOTOGRAPHS} of {MIN_PATIENTS} patients and two grades{others}"
        )


def _warnings(temperature: float, scores: Iterable[BeforeAfter]) -> Iterator[str]:
    for end in TEMPERATURE_RANGE:
        if math.isclose(temperature, end, rel_tol=0.01):
            yield f"temperature {end:g} is the end of the search range: these photographs do not determine it"
    for one in scores:
        if one.difference.value > 0:
            yield f"{one.score} is higher after the calibration than before, on patients that were not used for the fit"


class _Case(NamedTuple):
    """The graded photographs as arrays, and the two halves of their patients."""

    graded: list[PhotographResult]
    logits: Probabilities
    """Logits, except for an unknown constant per photograph, which does not change the softmax."""
    truth: Int[np.ndarray, " n"]
    first: Half
    temperatures: tuple[float, float]
    """Temperatures fitted on the first and on the second half of the patients."""
    after: Probabilities
    """Probabilities of each half at the temperature of the other half."""

    @classmethod
    def of(cls, graded: list[PhotographResult], bootstrap: Bootstrap) -> _Case:
        """Divide the patients and fit the temperature of each half."""
        probs, truth = grade_arrays(graded)
        logits = np.log(np.maximum(probs, np.finfo(np.float64).tiny))
        first = split_patients(graded, bootstrap.seed)
        one, other = (fit_temperature(logits[half], truth[half]) for half in (first, ~first))
        after = np.where(first[:, None], softmax_probabilities(logits, other), softmax_probabilities(logits, one))
        return cls(graded, logits, truth, first, (one, other), after)


def split_patients(graded: Sequence[PhotographResult], seed: int) -> Half:
    """Divide the patients at random into two halves with equal numbers of each highest grade, up to one patient.

    Args:
        graded: photographs with a true grade, in any order.
        seed: of the random division.

    Returns:
        True for the photographs of the first half. Photographs of one patient are in the same half.
    """
    patients = patient_keys(graded)
    highest: dict[tuple[str, str], int] = {}
    for patient, m in zip(patients, graded, strict=True):
        highest[patient] = max(highest.get(patient, 0), m.grade or 0)
    ordered = sorted(highest)
    drawn = [ordered[place] for place in np.random.default_rng(seed).permutation(len(ordered))]
    first = set(sorted(drawn, key=highest.__getitem__)[::2])
    return np.array([patient in first for patient in patients])


def _before_after(name: str, score: GradingFunction, case: _Case, bootstrap: Bootstrap) -> BeforeAfter:
    before, after = (softmax_probabilities(case.logits), case.truth), (case.after, case.truth)
    return BeforeAfter(
        name,
        bootstrap.interval(score, case.graded, *before),
        bootstrap.interval(score, case.graded, *after),
        bootstrap.difference(score, case.graded, after, before),
    )


# --- Thresholds ---


def _thresholds(
    case: _Case, calibrated: Probabilities, sensitivities: Iterable[float], bootstrap: Bootstrap, labels: LabelSet
) -> Iterator[CalibratedThreshold]:
    for name, least in labels.thresholds.items():
        positive = case.truth >= least
        note = NEEDS_TWO_PATIENTS if positive.any() else f"no photograph of grade {least} or worse"
        for target in sorted(set(sensitivities)):
            threshold = rounded_threshold(calibrated[:, least:].sum(axis=1), positive, target)
            reached = _cross_fitted(case, least, target, bootstrap)
            yield CalibratedThreshold(threshold_title(name), least, target, threshold, *reached, note=note)


def _cross_fitted(case: _Case, least: int, target: float, bootstrap: Bootstrap) -> tuple[Interval, Interval]:
    """Compute sensitivity and specificity of each half at the threshold of the other half; nan without a threshold."""
    positive, called = case.truth >= least, np.zeros(case.truth.size)
    for half, temperature in zip((case.first, ~case.first), case.temperatures, strict=True):
        own = softmax_probabilities(case.logits[half], temperature)[:, least:].sum(axis=1)
        threshold = rounded_threshold(own, positive[half], target)
        found = case.after[~half, least:].sum(axis=1) >= threshold
        called[~half] = np.nan if math.isnan(threshold) else found
    sensitivity = bootstrap.interval(lambda yes, truth: mean_or_nan(yes[truth]), case.graded, called, positive)
    specificity = bootstrap.interval(lambda yes, truth: mean_or_nan(1 - yes[~truth]), case.graded, called, positive)
    return sensitivity, specificity


def rounded_threshold(scores: Float[np.ndarray, " n"], positive: Bool[np.ndarray, " n"], sensitivity: float) -> float:
    """Compute `threshold_for_sensitivity`, rounded down to the precision of a report; nan without a positive case."""
    exact = threshold_for_sensitivity(scores, positive, sensitivity)
    return exact if math.isnan(exact) else max(math.floor(exact * THRESHOLD_STEPS), 1) / THRESHOLD_STEPS
