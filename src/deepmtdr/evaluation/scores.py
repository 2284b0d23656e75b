"""The tables: what was measured on single photographs, brought together by data set with intervals (Sec. V-B)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from deepmtdr import metrics
from deepmtdr.evaluation.measure import Measured
from deepmtdr.metrics import PooledCurve
from deepmtdr.statistics import (
    Difference,
    Interval,
    bootstrap_difference,
    bootstrap_interval,
    brier,
    expected_calibration_error,
)
from deepmtdr.terms import Lesion

ALL = "all"
"""The name of all data sets together."""


class Score(NamedTuple):
    """One number of a table, with its interval and what it was computed from."""

    task: str
    """`super-resolution`, `lesions` or `grading`."""
    dataset: str
    subject: str
    """What is scored: an image (`sr`, `bicubic`, `gain`), a lesion type (`MA` ... or `mean`), or `grade`."""
    score: str
    value: float
    """Nan: undefined, for the reason in `note`."""
    low: float
    high: float
    photographs: int
    patients: int
    note: str = ""
    """Why the value, or its interval, is undefined."""


class Bootstrap(NamedTuple):
    """How the intervals are made."""

    resamples: int = 1000
    seed: int = 0
    level: float = 0.95

    def of(self, score: Callable[..., float], group: Sequence[Measured], *arrays: np.ndarray) -> Interval:
        """The interval of a score, patients drawn whole."""
        return bootstrap_interval(score, patients(group), *arrays, **self._asdict())

    def difference(
        self, score: Callable[..., float], group: Sequence[Measured], a: Sequence[np.ndarray], b: Sequence[np.ndarray]
    ) -> Difference:
        """The paired interval of score(*a) - score(*b), the same patients drawn for both."""
        return bootstrap_difference(score, patients(group), a, b, **self._asdict())


NO_INTERVAL = "no interval: fewer than two patients, or undefined in more than a tenth of the resamples"

EQUAL = "infinite: equal images have no noise"


def by_dataset(measured: Sequence[Measured]) -> Iterator[tuple[str, list[Measured]]]:
    """The photographs of each data set, then all of them if there are several sets."""
    names = sorted({m.dataset for m in measured})
    for name in names:
        yield name, [m for m in measured if m.dataset == name]
    if len(names) > 1:
        yield ALL, list(measured)


def patients(group: Iterable[Measured]) -> list[tuple[str, str]]:
    """The patient of each photograph."""
    return [(m.dataset, m.patient) for m in group]  # two data sets may give two people the same number


def _row(
    task: str, dataset: str, subject: str, name: str, interval: Interval, group: list[Measured], why: str
) -> Score:
    """A row of a table; `why` is the reason should the value be undefined."""
    note = why if np.isnan(interval.value) else NO_INTERVAL if np.isnan(interval.low) else ""
    note = EQUAL if np.isinf(interval.value) else note
    return Score(task, dataset, subject, name, *interval, len(group), len(set(patients(group))), note)


def _mean(values: np.ndarray) -> float:
    """Mean of what is defined; nan if nothing is."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else float("nan")


# --- Super-resolution ---


def super_resolution_scores(measured: Sequence[Measured], bootstrap: Bootstrap) -> list[Score]:
    """Mean PSNR and SSIM of SR, of bicubic, and the gain from one to the other, over photographs with an HR frame."""
    return [
        _row("super-resolution", dataset, subject, name, bootstrap.of(_mean, having, values), having, "no pixel counts")
        for dataset, group in by_dataset(measured)
        if (having := [m for m in group if m.image])
        for subject, name, values in _image_values(having)
    ]


def _image_values(having: list[Measured]) -> Iterator[tuple[str, str, np.ndarray]]:
    for name in ("psnr_fov", "ssim_fov", "psnr_whole", "ssim_whole"):
        sr, plain = (np.array([m.image[f"{name}_{image}"] for m in having]) for image in ("sr", "bicubic"))
        yield from (("sr", name, sr), ("bicubic", name, plain), ("gain", name, sr - plain))


# --- Lesions ---


Pooled = Mapping[tuple[str, Lesion], PooledCurve]
"""Fine pixel counts by data set and lesion type."""

POOLED_SCORES: dict[str, Callable[[PooledCurve], float]] = {
    "aupr_pooled": PooledCurve.average_precision,
    "prevalence": lambda curve: curve.prevalence,
    "auc_pooled": PooledCurve.auc,
    "dice_pooled": PooledCurve.dice,
}


def lesion_scores(measured: Sequence[Measured], pooled: Pooled, bootstrap: Bootstrap) -> list[Score]:
    """The field's scores, over all pixels together, and the paper's AP, image by image (reading R15).

    A photograph counts for the types that were annotated on it. Intervals of the pooled scores come from coarser pixel
    counts than the scores themselves.
    """
    rows = []
    for dataset, group in by_dataset(measured):
        parts: dict[Lesion, list[PooledCurve]] = {}
        for (name, lesion), curve in pooled.items():
            if dataset in (name, ALL):
                parts.setdefault(lesion, []).append(curve)
        whole = {lesion: _sum(curves) for lesion, curves in sorted(parts.items())}
        for lesion, curve in whole.items():
            rows += _lesion_rows(dataset, lesion, [m for m in group if lesion in m.lesions], curve, bootstrap)
        if whole:
            rows.append(_mean_row(dataset, [m for m in group if m.lesions], whole, bootstrap))
    return rows


AXIS = 0.003
"""Tolerance of the axis on which the bootstrap counts pixels: about 7,000 values."""


def _sum(curves: Sequence[PooledCurve], tolerance: float = 1e-4) -> PooledCurve:
    total = PooledCurve(tolerance)
    for curve in curves:
        total.merge(curve)
    return total


def _lesion_rows(
    dataset: str, lesion: Lesion, group: list[Measured], whole: PooledCurve, bootstrap: Bootstrap
) -> Iterator[Score]:
    absent = f"no {lesion.full_name} on these photographs"
    drawn = _Drawn(group, lesion)
    for name, score in POOLED_SCORES.items():
        interval = bootstrap.of(lambda rows, score=score: score(drawn(rows)), group, np.arange(len(group)))
        yield _row("lesions", dataset, lesion.name, name, interval._replace(value=score(whole)), group, absent)
    per_image = np.array([m.lesions[lesion].average_precision for m in group])
    yield _row("lesions", dataset, lesion.name, "ap_per_image", bootstrap.of(_mean, group, per_image), group, absent)


def _mean_row(dataset: str, group: list[Measured], whole: Mapping[Lesion, PooledCurve], bootstrap: Bootstrap) -> Score:
    """Mean of the types' pooled AUPR; undefined as soon as one of the four is."""
    drawn = {lesion: _Drawn(group, lesion) for lesion in Lesion}

    def mean_aupr(rows: np.ndarray) -> float:
        return float(np.mean([drawn[lesion](rows).average_precision() for lesion in Lesion]))

    value = float(np.mean([whole[n].average_precision() if n in whole else np.nan for n in Lesion]))
    interval = bootstrap.of(mean_aupr, group, np.arange(len(group)))
    why = "one of the four types is not on these photographs"
    return _row("lesions", dataset, "mean", "aupr_pooled", interval._replace(value=value), group, why)


class _Drawn:
    """The pooled counts of photographs drawn with replacement, on one coarse axis."""

    def __init__(self, group: list[Measured], lesion: Lesion) -> None:
        curves = [m.lesions[lesion].counts if lesion in m.lesions else PooledCurve() for m in group]
        self._axis = _sum(curves, AXIS).values
        self._positives, self._negatives = (  # float64: products by BLAS
            np.stack([self._placed(curve.values, counts(curve)) for curve in curves])
            for counts in (lambda curve: curve.positives, lambda curve: curve.negatives)
        )

    def _placed(self, values: np.ndarray, counts: np.ndarray) -> np.ndarray:
        return np.bincount(np.searchsorted(self._axis, values), weights=counts, minlength=self._axis.size)

    def __call__(self, rows: np.ndarray) -> PooledCurve:
        times = np.bincount(rows, minlength=len(self._positives)).astype(np.float64)
        curve = PooledCurve()
        curve.values = self._axis
        curve.positives, curve.negatives = ((times @ c).astype(np.int64) for c in (self._positives, self._negatives))
        return curve


# --- Grading ---


NO_PHOTOGRAPH_OF_BOTH = "needs photographs of both kinds, found one"
ONE_CLASS = "truth and predictions are one single grade"
NO_PROBABILITIES = "needs probabilities, found grades alone"

Functions = Mapping[str, tuple[Callable[[np.ndarray, np.ndarray], float], str]]
"""Each takes what was predicted and the truth; beside it, why it may be undefined."""


def _auc_from(least: int) -> Callable[[np.ndarray, np.ndarray], float]:
    """AUC for grade >= `least`, by the probability of those grades."""
    return lambda probs, truth: metrics.auc(probs[:, least:].sum(axis=1), truth >= least)


GRADING_SCORES: Functions = {
    "kappa_quadratic": (lambda probs, truth: metrics.kappa_quadratic(probs.argmax(1), truth), ONE_CLASS),
    "kappa_linear": (lambda probs, truth: metrics.kappa_linear(probs.argmax(1), truth), ONE_CLASS),
    "kappa": (lambda probs, truth: metrics.kappa(probs.argmax(1), truth), ONE_CLASS),
    "accuracy": (lambda probs, truth: metrics.accuracy(probs.argmax(1), truth), ""),
    "precision_weighted": (lambda p, truth: metrics.precision_recall_f1(p.argmax(1), truth).precision, ""),
    "f1_weighted": (lambda probs, truth: metrics.precision_recall_f1(probs.argmax(1), truth).f1, ""),
    "f1_macro": (lambda probs, truth: metrics.precision_recall_f1(probs.argmax(1), truth, "macro").f1, ""),
    "auc_any": (_auc_from(1), NO_PHOTOGRAPH_OF_BOTH),
    "auc_referable": (_auc_from(2), NO_PHOTOGRAPH_OF_BOTH),
    "auc_sight_threatening": (_auc_from(3), NO_PHOTOGRAPH_OF_BOTH),
    "expected_calibration_error": (expected_calibration_error, ""),
    "brier": (brier, ""),
}
"""Each takes the probabilities "n 5" and the true grades; beside it, why it may be undefined."""

OF_THE_GRADE = frozenset(
    {"kappa_quadratic", "kappa_linear", "kappa", "accuracy", "precision_weighted", "f1_weighted", "f1_macro"}
)
"""Those of them that a predicted grade without probabilities has too."""


class Grading(NamedTuple):
    """What is asked of each photograph, and how the answers are scored."""

    subject: str
    functions: Functions
    of_the_grade: frozenset[str]
    """The names of the functions that need no probability."""
    is_scored: Callable[[Measured], bool]
    """Whether truth and prediction are both there."""
    arrays: Callable[[list[Measured]], tuple[np.ndarray, np.ndarray]]
    """Predictions and truths, as the functions take them."""
    is_right: Callable[[np.ndarray, np.ndarray], np.ndarray]
    """From the same two arrays: True where the prediction is right."""
    ranked: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
    """From the same two arrays: the scores and the truth of the AUC by which two systems are compared."""

    def defined(self, scored: Iterable[Measured]) -> Functions:
        """The functions; those that need probabilities are nan where a photograph has none."""
        if not any(m.grade_alone for m in scored):
            return self.functions
        undefined = (lambda _predicted, _truth: float("nan")), NO_PROBABILITIES
        return {name: both if name in self.of_the_grade else undefined for name, both in self.functions.items()}


def _graded_arrays(graded: list[Measured]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([m.probs for m in graded]), np.array([m.grade for m in graded], dtype=np.int64)


GRADES = Grading(
    subject="grade",
    functions=GRADING_SCORES,
    of_the_grade=OF_THE_GRADE,
    is_scored=lambda m: bool(m.probs) and m.grade is not None,
    arrays=_graded_arrays,
    is_right=lambda probs, truth: probs.argmax(1) == truth,
    ranked=lambda probs, truth: (probs[:, 2:].sum(axis=1), truth >= 2),
)
"""The five grades; two systems are compared by `auc_referable`."""


def grading_scores(measured: Sequence[Measured], bootstrap: Bootstrap, grading: Grading = GRADES) -> list[Score]:
    """The paper's scores (weighted precision and F1, quadratic kappa: reading R14) and the field's."""
    return [
        _row("grading", dataset, grading.subject, name, bootstrap.of(score, scored, *arrays), scored, why)
        for dataset, group in by_dataset(measured)
        if (scored := [m for m in group if grading.is_scored(m)])
        for arrays in [grading.arrays(scored)]
        for name, (score, why) in grading.defined(scored).items()
    ]


def confusion_matrices(measured: Sequence[Measured]) -> dict[str, list[list[int]]]:
    """By data set: photographs by true grade (row) and predicted grade (column)."""
    matrices = {}
    for dataset, group in by_dataset(measured):
        graded = [m for m in group if GRADES.is_scored(m)]
        if graded:
            probs, truth = _graded_arrays(graded)
            matrices[dataset] = metrics.confusion_matrix(probs.argmax(1), truth).tolist()
    return matrices
