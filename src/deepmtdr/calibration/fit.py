"""Fit temperature, prior correction, grade thresholds and operating points, and measure their effect (R34).

The weights of the network do not change. Scores on the photographs of the fit would be too good. Therefore the patients
are divided into two halves, and each half is scored with everything that was fitted on the other half (cross-fitting).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from deepmtdr.calibration.grade_thresholds import fit_grade_thresholds
from deepmtdr.calibration.report import BeforeAfter, CalibratedThreshold, Calibration, DataSetScore
from deepmtdr.calibration.temperature import TEMPERATURE_RANGE, fit_temperature
from deepmtdr.calibration.vector_scaling import VectorScaling, fit_vector_scaling
from deepmtdr.errors import DataError
from deepmtdr.evaluation.grading import (
    CALIBRATION_SCORES,
    LABEL_SCORES,
    GradeArrays,
    GradingScore,
    GradingScores,
    grade_arrays,
    is_graded,
    threshold_title,
)
from deepmtdr.evaluation.photograph_result import PhotographResult
from deepmtdr.evaluation.scores import Bootstrap, patient_count, patient_keys
from deepmtdr.grade_decision import MOST_PROBABLE, GradeDecision, expected_grade
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
DECISION_DIGITS = 4
"""Decimal places of biases and grade thresholds in the card."""
JUDGED: GradingScores = {
    **CALIBRATION_SCORES,
    "kappa_quadratic": LABEL_SCORES["kappa_quadratic"],
    "accuracy": LABEL_SCORES["accuracy"],
}
"""Scores before and after the calibration: of the probabilities, lower is better; of the grades, higher is better."""
NEEDS_TWO_PATIENTS = "needs two patients with such a grade and two without"

Probabilities = Float[np.ndarray, "n c"]
Half = Bool[np.ndarray, " n"]


@dataclass(frozen=True, kw_only=True)
class FittedParts:
    """What is fitted beside the temperature and the operating points."""

    prior_correction: bool = True
    """Fit a bias for the logit of each grade."""
    grade_thresholds: bool = True
    """Decide the grade by thresholds of the expected grade; False: the most probable grade."""


EVERYTHING = FittedParts()


def fit_calibration(
    measured: Sequence[PhotographResult],
    sensitivities: Sequence[float],
    bootstrap: Bootstrap,
    labels: LabelSet = DIABETIC_RETINOPATHY,
    parts: FittedParts = EVERYTHING,
) -> Calibration:
    """Fit how logits become probabilities and grades, and operating points, and score them by cross-fitting.

    Args:
        measured: photographs that were predicted without calibration.
        sensitivities: target sensitivities of the thresholds, each in (0, 1].
        bootstrap: how intervals are computed; its seed also divides the patients.
        labels: grades and thresholds.
        parts: what is fitted beside the temperature.

    Raises:
        DataError: if there are too few graded photographs, grades or patients.
    """
    graded = [m for m in measured if is_graded(m)]
    failures = [m.failure for m in measured if m.failure]
    check_sample_size([(m.grade, m.dataset, m.patient) for m in graded if m.grade is not None], failures)
    case = _Case.of(graded, bootstrap, parts)
    decision = fit_decision(graded, case.logits, case.truth, parts, bootstrap.seed)
    scores = [_before_after(name, score, case, bootstrap) for name, score in JUDGED.items()]
    return Calibration(
        protocol={
            "photographs": len(graded),
            "failed": len(failures),
            "patients": patient_count(graded),
            "grades": np.bincount(case.truth, minlength=len(labels.grades)).tolist(),
            "datasets": sorted({m.dataset for m in graded}),
            "bootstrap": bootstrap.to_protocol(),
        },
        decision=decision,
        half_decisions=case.halves,
        scores=scores,
        by_dataset=list(_dataset_scores(case)),
        reliability_before=reliability_bins(case.before.probs, case.truth),
        reliability_after=reliability_bins(case.after.probs, case.truth),
        thresholds=list(_thresholds(case, decision, sensitivities, bootstrap, labels)),
        warnings=list(_warnings(decision, scores)),
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


def _warnings(decision: GradeDecision, scores: Iterable[BeforeAfter]) -> Iterator[str]:
    for end in TEMPERATURE_RANGE:
        if math.isclose(decision.temperature, end, rel_tol=0.01):
            yield f"temperature {end:g} is the end of the search range: these photographs do not determine it"
    for one in scores:
        worse = {"kappa_quadratic": "lower", "accuracy": ""}.get(one.score, "higher")  # thresholds may cost accuracy
        if (worse == "higher" and one.difference.value > 0) or (worse == "lower" and one.difference.value < 0):
            yield (
                f"{one.score} is {worse} after the calibration than before, on patients that were not used for the fit"
            )


def fit_decision(
    graded: Sequence[PhotographResult],
    logits: Probabilities,
    truth: Int[np.ndarray, " n"],
    parts: FittedParts,
    seed: int = 0,
) -> GradeDecision:
    """Fit temperature and biases on the photographs, then thresholds on the expected grades that result.

    Args:
        graded: the photographs; data set and patient are used.
        logits: their logits.
        truth: their true grades.
        parts: what is fitted beside the temperature.
        seed: of the resamples of the thresholds.
    """
    if parts.prior_correction:
        scaling = fit_vector_scaling(logits, truth)
    else:
        scaling = VectorScaling(fit_temperature(logits, truth), ())
    biases = tuple(round(bias, DECISION_DIGITS) for bias in scaling.biases)
    decision = GradeDecision(temperature=scaling.temperature, biases=biases)
    if not parts.grade_thresholds:
        return decision
    expected, datasets = expected_grade(decision.probabilities(logits)), [m.dataset for m in graded]
    thresholds = fit_grade_thresholds(
        expected, truth, datasets, patient_keys(graded), grades=logits.shape[1], seed=seed
    )
    return replace(decision, thresholds=tuple(round(threshold, DECISION_DIGITS) for threshold in thresholds))


class _Case(NamedTuple):
    """The graded photographs as arrays, and the two halves of their patients."""

    graded: list[PhotographResult]
    logits: Probabilities
    """Logits, except for an unknown constant per photograph, which does not change the softmax."""
    truth: Int[np.ndarray, " n"]
    first: Half
    halves: tuple[GradeDecision, GradeDecision]
    """Fitted on the first and on the second half of the patients."""
    before: GradeArrays
    """Predictions without calibration."""
    after: GradeArrays
    """Predictions of each half with the fit on the other half."""

    @property
    def over_sets(self) -> bool:
        """Whether scores are means over several data sets."""
        return len({m.dataset for m in self.graded}) > 1

    @classmethod
    def of(cls, graded: list[PhotographResult], bootstrap: Bootstrap, parts: FittedParts) -> _Case:
        """Divide the patients and fit each half."""
        _, probs, truth = grade_arrays(graded)
        logits = np.log(np.maximum(probs, np.finfo(np.float64).tiny))
        first = split_patients(graded, bootstrap.seed)
        one, other = (
            fit_decision([m for m, own in zip(graded, half, strict=True) if own], logits[half], truth[half], parts)
            for half in (first, ~first)
        )
        by_one, by_other = (_predict(half, logits) for half in (one, other))
        after = np.where(first[:, None], by_other[1], by_one[1])
        decided = np.where(first, by_other[0], by_one[0])
        before = _predict(MOST_PROBABLE, logits)
        return cls(
            graded, logits, truth, first, (one, other), GradeArrays(*before, truth), GradeArrays(decided, after, truth)
        )


def _predict(decision: GradeDecision, logits: Probabilities) -> tuple[Int[np.ndarray, " n"], Probabilities]:
    """Compute predicted grades and probabilities."""
    probs = decision.probabilities(logits)
    return decision.grades(probs), probs


def split_patients(graded: Sequence[PhotographResult], seed: int) -> Half:
    """Divide the patients at random into two halves with equal numbers of each highest grade, up to one patient.

    The numbers are equal within each data set.

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
    first = set(sorted(drawn, key=lambda patient: (patient[0], highest[patient]))[::2])
    return np.array([patient in first for patient in patients])


def _before_after(name: str, score: GradingScore, case: _Case, bootstrap: Bootstrap) -> BeforeAfter:
    function, group = score.function, case.graded
    before, after = (
        bootstrap.interval(function, group, *arrays, recentred=score.recentred, over_sets=case.over_sets)
        for arrays in (case.before, case.after)
    )
    change = bootstrap.difference(function, group, case.after, case.before, over_sets=case.over_sets)
    return BeforeAfter(name, before, after, change)


def _dataset_scores(case: _Case) -> Iterator[DataSetScore]:
    """Score each data set on its own, and fit a temperature on it alone: do the data sets need the same calibration?"""
    names = np.array([m.dataset for m in case.graded], dtype=object)
    for name in sorted(set(names)):
        rows = names == name
        before, after = ([array[rows] for array in arrays] for arrays in (case.before, case.after))
        scores = {key: (score.function(*before), score.function(*after)) for key, score in JUDGED.items()}
        own = fit_temperature(case.logits[rows], case.truth[rows])
        yield DataSetScore(name, int(rows.sum()), own, scores)


# --- Thresholds ---


def _thresholds(
    case: _Case, decision: GradeDecision, sensitivities: Iterable[float], bootstrap: Bootstrap, labels: LabelSet
) -> Iterator[CalibratedThreshold]:
    calibrated = decision.probabilities(case.logits)
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
    for half, decision in zip((case.first, ~case.first), case.halves, strict=True):
        own = decision.probabilities(case.logits[half])[:, least:].sum(axis=1)
        threshold = rounded_threshold(own, positive[half], target)
        found = case.after.probs[~half, least:].sum(axis=1) >= threshold
        called[~half] = np.nan if math.isnan(threshold) else found
    sensitivity = bootstrap.interval(lambda yes, truth: mean_or_nan(yes[truth]), case.graded, called, positive)
    specificity = bootstrap.interval(lambda yes, truth: mean_or_nan(1 - yes[~truth]), case.graded, called, positive)
    return sensitivity, specificity


def rounded_threshold(scores: Float[np.ndarray, " n"], positive: Bool[np.ndarray, " n"], sensitivity: float) -> float:
    """Compute `threshold_for_sensitivity`, rounded down to the precision of a report; nan without a positive case."""
    exact = threshold_for_sensitivity(scores, positive, sensitivity)
    return exact if math.isnan(exact) else max(math.floor(exact * THRESHOLD_STEPS), 1) / THRESHOLD_STEPS
