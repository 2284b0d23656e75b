"""Scores of the lesion maps: over all pixels together, and image by image as in Table III (interpretation R15)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from deepmtdr.evaluation.photograph_result import LesionResult, PhotographResult
from deepmtdr.evaluation.scores import ALL, Bootstrap, Score, ScoreKey, ScoreTable, group_by_dataset
from deepmtdr.labels import LabelSet
from deepmtdr.metrics import FrocCounts, PooledCurve
from deepmtdr.metrics.intervals import nan_mean

MEAN = "mean"
"""Subject of the means over the lesion types."""
ABSENT = "one of the lesion types is not on these photographs"

CurveKey = tuple[str, str]
"""Data set and code of a lesion type, or union label."""
PooledCurves = Mapping[CurveKey, PooledCurve]
"""Fine pixel counts of many photographs."""

POOLED_SCORES: dict[str, Callable[[PooledCurve], float]] = {
    "aupr_pooled": PooledCurve.average_precision,
    "prevalence": lambda curve: curve.prevalence,
    "auc_pooled": PooledCurve.auc,
    "dice_pooled": PooledCurve.dice,
    "iou_pooled": PooledCurve.iou,
}

PER_IMAGE: dict[str, Callable[[LesionResult], float]] = {
    "ap_per_image": lambda pixels: pixels.average_precision,
    "auc_per_image": lambda pixels: pixels.auc,
    "dice_per_image": lambda pixels: pixels.dice,
    "iou_per_image": lambda pixels: pixels.iou,
}
"""Scores that are means over the photographs on which they are defined."""

AVERAGED = ("ap_per_image", "auc_per_image")
"""Scores that Table III averages over the lesion types."""

FROC_SCORES: dict[str, Callable[[FrocCounts], float]] = {
    "froc_cpm": FrocCounts.cpm,
    "froc_sensitivity_at_1": lambda counts: counts.sensitivity_at(1.0),
    "froc_sensitivity_at_8": lambda counts: counts.sensitivity_at(8.0),
}
"""Scores of the lesion types with `LesionType.froc`."""

BOOTSTRAP_TOLERANCE = 0.003
"""Tolerance of the pixel counts that the bootstrap resamples: about 7,000 values."""


def absent_note(labels: LabelSet, code: str) -> str:
    """Return the reason why the scores of a lesion type or union label are undefined."""
    return f"no {labels.name_of(code)} on these photographs"


def lesion_scores(
    measured: Sequence[PhotographResult],
    pooled: PooledCurves,
    bootstrap: Bootstrap,
    labels: LabelSet,
    table: ScoreTable = ScoreTable.LESIONS,
    kept: Callable[[str], bool] = lambda name: True,
) -> list[Score]:
    """Compute scores over all pixels together, and the paper's AP and AUC image by image.

    A photograph counts for the types and union labels that were annotated on it; a union label, such as "EX+SE", has
    its own rows and is in no mean over the types (interpretation R32). The intervals of the pooled scores come from
    coarser pixel counts than the scores themselves.

    Args:
        measured: photographs.
        pooled: fine pixel counts of the photographs.
        bootstrap: how intervals are computed.
        labels: the lesion types.
        table: the table to which the scores belong.
        kept: function of the name of a score; if it returns False, the score is left out.
    """
    rows = []
    for dataset, group in group_by_dataset(measured):
        curves = dataset_curves(pooled, dataset, labels)
        for code, curve in curves.items():
            annotated = [m for m in group if code in m.lesions]
            key = ScoreKey(table, dataset, code)
            rows += _lesion_rows(key, annotated, curve, bootstrap, absent_note(labels, code), kept)
        if annotated := [m for m in group if not m.lesions.keys().isdisjoint(labels.codes)]:
            key = ScoreKey(table, dataset, MEAN)
            rows.append(mean_aupr_score(key, annotated, curves, bootstrap, labels))
            rows += [_averaged(key, name, annotated, bootstrap, labels) for name in AVERAGED if kept(name)]
    return rows


def dataset_curves(pooled: PooledCurves, dataset: str, labels: LabelSet) -> dict[str, PooledCurve]:
    """Return the fine pixel counts of one data set, or of `ALL` together, by code.

    The lesion types are in the order of the label set; the union labels follow.
    """
    parts: dict[str, list[PooledCurve]] = {}
    for (name, code), curve in pooled.items():
        if dataset in (name, ALL):
            parts.setdefault(code, []).append(curve)
    unions = sorted(parts.keys() - set(labels.codes))
    return {code: _sum(parts[code]) for code in (*labels.codes, *unions) if code in parts}


def _sum(curves: Sequence[PooledCurve], tolerance: float = 1e-4) -> PooledCurve:
    total = PooledCurve(tolerance)
    for curve in curves:
        total.merge(curve)
    return total


def _lesion_rows(
    key: ScoreKey,
    group: list[PhotographResult],
    whole: PooledCurve,
    bootstrap: Bootstrap,
    why: str,
    kept: Callable[[str], bool],
) -> Iterator[Score]:
    """Compute all scores of one lesion type in one data set."""
    code = key.subject
    resampled, numbers = ResampledCurves(group, code), np.arange(len(group))
    for name, score in POOLED_SCORES.items():
        if kept(name):
            interval = bootstrap.interval(lambda rows, score=score: score(resampled(rows)), group, numbers)
            yield key.row(name, interval._replace(value=score(whole)), group, why)
    for name, score in PER_IMAGE.items():
        if kept(name):
            values = np.array([score(m.lesions[code]) for m in group])
            yield key.row(name, bootstrap.interval(nan_mean, group, values), group, why)
    yield from _froc_rows(key, group, bootstrap, why, kept)


def _froc_rows(
    key: ScoreKey, group: list[PhotographResult], bootstrap: Bootstrap, why: str, kept: Callable[[str], bool]
) -> Iterator[Score]:
    """Compute the FROC scores, if the lesions were counted on every photograph."""
    counts = [froc for m in group if (froc := m.lesions[key.subject].froc) is not None]
    if not counts or len(counts) < len(group):
        return
    for name, score in FROC_SCORES.items():
        if kept(name):
            interval = bootstrap.interval(
                lambda rows, score=score: score(_resampled_froc(counts, rows)), group, np.arange(len(group))
            )
            yield key.row(name, interval, group, why)


def _resampled_froc(counts: Sequence[FrocCounts], rows: np.ndarray) -> FrocCounts:
    """Sum the counts of the photographs with these indexes; an index may occur several times."""
    times = np.bincount(rows, minlength=len(counts))
    found = times @ np.stack([c.true_positives for c in counts])
    alarms = times @ np.stack([c.false_positives for c in counts])
    lesions = int(times @ np.array([c.lesions for c in counts]))
    images = int(times @ np.array([c.images for c in counts]))
    return FrocCounts(counts[0].thresholds, found, alarms, lesions, images)


def froc_curves(measured: Sequence[PhotographResult]) -> dict[CurveKey, FrocCounts]:
    """Sum the FROC counts of all photographs, by data set and code, for the types that were counted."""
    curves: dict[CurveKey, FrocCounts] = {}
    for dataset, group in group_by_dataset(measured):
        for m in group:
            for code, pixels in m.lesions.items():
                if pixels.froc is not None:
                    before = curves.get((dataset, code))
                    curves[dataset, code] = pixels.froc if before is None else before.merge(pixels.froc)
    return curves


def mean_aupr_score(
    key: ScoreKey,
    group: list[PhotographResult],
    whole: Mapping[str, PooledCurve],
    bootstrap: Bootstrap,
    labels: LabelSet,
) -> Score:
    """Compute the mean of the pooled AUPR over the lesion types; undefined if it is undefined for a type."""
    resampled = [ResampledCurves(group, code) for code in labels.codes]

    def mean_aupr(rows: np.ndarray) -> float:
        return float(np.mean([curves(rows).average_precision() for curves in resampled]))

    of_types = [whole[code].average_precision() if code in whole else np.nan for code in labels.codes]
    interval = bootstrap.interval(mean_aupr, group, np.arange(len(group)))
    return key.row("aupr_pooled", interval._replace(value=float(np.mean(of_types))), group, ABSENT)


def _averaged(key: ScoreKey, name: str, group: list[PhotographResult], bootstrap: Bootstrap, labels: LabelSet) -> Score:
    """Compute the mean over the lesion types of their means over photographs; undefined if one of them is."""
    score = PER_IMAGE[name]
    values = np.array(
        [[score(m.lesions[code]) if code in m.lesions else np.nan for code in labels.codes] for m in group]
    )

    def mean(drawn: np.ndarray) -> float:
        return float(np.mean([nan_mean(of_type) for of_type in drawn.T]))

    return key.row(name, bootstrap.interval(mean, group, values), group, ABSENT)


class ResampledCurves:
    """Function of indexes that sums the pixel counts of photographs drawn with replacement."""

    def __init__(self, group: Sequence[PhotographResult], code: str) -> None:
        """Express the counts of all photographs on the same list of probabilities.

        Args:
            group: photographs; those without annotation of the lesion type have no pixels.
            code: code of the lesion type.
        """
        curves = [m.lesions[code].counts if code in m.lesions else PooledCurve() for m in group]
        self._axis = _sum(curves, BOOTSTRAP_TOLERANCE).values
        # float64, because NumPy multiplies it by BLAS.
        self._positives = np.stack([self._on_axis(curve.values, curve.positives) for curve in curves])
        self._negatives = np.stack([self._on_axis(curve.values, curve.negatives) for curve in curves])

    def _on_axis(self, values: np.ndarray, counts: np.ndarray) -> np.ndarray:
        return np.bincount(np.searchsorted(self._axis, values), weights=counts, minlength=self._axis.size)

    def __call__(self, rows: np.ndarray) -> PooledCurve:
        """Sum the counts of the photographs with these indexes; an index may occur several times."""
        times = np.bincount(rows, minlength=len(self._positives)).astype(np.float64)
        curve = PooledCurve()
        curve.values = self._axis
        curve.positives, curve.negatives = ((times @ c).astype(np.int64) for c in (self._positives, self._negatives))
        return curve
