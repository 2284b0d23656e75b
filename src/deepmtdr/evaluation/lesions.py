"""The scores of the lesion maps: all pixels together as the field has it, image by image as Table III (reading R15)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from deepmtdr.evaluation.measure import LesionResult, PhotographResult
from deepmtdr.evaluation.scores import ALL, Bootstrap, Score, ScoreKey, group_by_dataset, nan_mean
from deepmtdr.metrics import FrocCounts, PooledCurve
from deepmtdr.terms import Lesion

TASK = "lesions"
MEAN = "mean"
"""The subject that is the four types together."""
ABSENT = "one of the four types is not on these photographs"

PooledCurves = Mapping[tuple[str, Lesion], PooledCurve]
"""Fine pixel counts by data set and lesion type."""

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
"""Means over the photographs on which they are defined."""

AVERAGED = ("ap_per_image", "auc_per_image")
"""The scores of which Table III has the average over the four types."""

FROC_SCORES: dict[str, Callable[[FrocCounts], float]] = {
    "froc_cpm": FrocCounts.cpm,
    "froc_sensitivity_at_1": lambda counts: counts.sensitivity_at(1.0),
    "froc_sensitivity_at_8": lambda counts: counts.sensitivity_at(8.0),
}
"""Of the types that are counted lesion by lesion."""


def lesion_scores(
    measured: Sequence[PhotographResult],
    pooled: PooledCurves,
    bootstrap: Bootstrap,
    task: str = TASK,
    kept: Callable[[str], bool] = lambda name: True,
) -> list[Score]:
    """The field's scores, over all pixels together, and the paper's AP and AUC, image by image.

    A photograph counts for the types that were annotated on it. Intervals of the pooled scores come from coarser pixel
    counts than the scores themselves.

    Args:
        measured: photographs.
        pooled: their pixels.
        bootstrap: how the intervals are made.
        task: the table's name.
        kept: whether a score of this name is wanted.
    """
    rows = []
    for dataset, group in group_by_dataset(measured):
        for lesion, curve in dataset_curves(pooled, dataset).items():
            place = ScoreKey(task, dataset, lesion.name)
            having = [m for m in group if lesion in m.lesions]
            rows += _lesion_rows(place, lesion, having, curve, bootstrap, kept)
        if having := [m for m in group if m.lesions]:
            place = ScoreKey(task, dataset, MEAN)
            rows.append(mean_aupr_score(place, having, dataset_curves(pooled, dataset), bootstrap))
            rows += [_averaged(place, name, having, bootstrap) for name in AVERAGED if kept(name)]
    return rows


def dataset_curves(pooled: PooledCurves, dataset: str) -> dict[Lesion, PooledCurve]:
    """All pixels of one data set, or of `ALL` together, by lesion type."""
    parts: dict[Lesion, list[PooledCurve]] = {}
    for (name, lesion), curve in pooled.items():
        if dataset in (name, ALL):
            parts.setdefault(lesion, []).append(curve)
    return {lesion: _sum(curves) for lesion, curves in sorted(parts.items())}


BOOTSTRAP_TOLERANCE = 0.003
"""Tolerance of the axis on which the bootstrap counts pixels: about 7,000 values."""


def _sum(curves: Sequence[PooledCurve], tolerance: float = 1e-4) -> PooledCurve:
    total = PooledCurve(tolerance)
    for curve in curves:
        total.merge(curve)
    return total


def _lesion_rows(
    place: ScoreKey,
    lesion: Lesion,
    group: list[PhotographResult],
    whole: PooledCurve,
    bootstrap: Bootstrap,
    kept: Callable[[str], bool],
) -> Iterator[Score]:
    absent = f"no {lesion.full_name} on these photographs"
    drawn, numbers = ResampledCurves(group, lesion), np.arange(len(group))
    for name, score in POOLED_SCORES.items():
        if kept(name):
            interval = bootstrap.interval(lambda rows, score=score: score(drawn(rows)), group, numbers)
            yield place.row(name, interval._replace(value=score(whole)), group, absent)
    for name, score in PER_IMAGE.items():
        if kept(name):
            values = np.array([score(m.lesions[lesion]) for m in group])
            yield place.row(name, bootstrap.interval(nan_mean, group, values), group, absent)
    counts = [m.lesions[lesion].froc for m in group]
    counted = [c for c in counts if c is not None]
    if counted and len(counted) == len(group):
        for name, score in FROC_SCORES.items():
            if kept(name):
                interval = bootstrap.interval(lambda rows, score=score: score(_froc_of(counted, rows)), group, numbers)
                yield place.row(name, interval, group, absent)


def _froc_of(counts: Sequence[FrocCounts], rows: np.ndarray) -> FrocCounts:
    """Lesions counted on photographs drawn with replacement."""
    times = np.bincount(rows, minlength=len(counts))
    hits, alarms = (
        times @ np.stack(c) for c in ([c.true_positives for c in counts], [c.false_positives for c in counts])
    )
    lesions, images = (int(times @ np.array(c)) for c in ([c.lesions for c in counts], [c.images for c in counts]))
    return FrocCounts(counts[0].thresholds, hits, alarms, lesions, images)


def froc_curves(measured: Sequence[PhotographResult]) -> dict[tuple[str, Lesion], FrocCounts]:
    """All photographs' lesions counted together, by data set and type, as far as they were counted."""
    curves: dict[tuple[str, Lesion], FrocCounts] = {}
    for dataset, group in group_by_dataset(measured):
        for m in group:
            for lesion, pixels in m.lesions.items():
                if pixels.froc is not None:
                    before = curves.get((dataset, lesion))
                    curves[dataset, lesion] = pixels.froc if before is None else before.merge(pixels.froc)
    return curves


def mean_aupr_score(
    place: ScoreKey, group: list[PhotographResult], whole: Mapping[Lesion, PooledCurve], bootstrap: Bootstrap
) -> Score:
    """Mean of the types' pooled AUPR; undefined as soon as one of the four is."""
    drawn = {lesion: ResampledCurves(group, lesion) for lesion in Lesion}

    def mean_aupr(rows: np.ndarray) -> float:
        return float(np.mean([drawn[lesion](rows).average_precision() for lesion in Lesion]))

    value = float(np.mean([whole[n].average_precision() if n in whole else np.nan for n in Lesion]))
    interval = bootstrap.interval(mean_aupr, group, np.arange(len(group)))
    return place.row("aupr_pooled", interval._replace(value=value), group, ABSENT)


def _averaged(place: ScoreKey, name: str, group: list[PhotographResult], bootstrap: Bootstrap) -> Score:
    """Mean of the types' means over photographs; undefined as soon as one of the four is."""
    score = PER_IMAGE[name]
    values = np.array([[score(m.lesions[n]) if n in m.lesions else np.nan for n in Lesion] for m in group])

    def mean(drawn: np.ndarray) -> float:
        return float(np.mean([nan_mean(of_type) for of_type in drawn.T]))

    return place.row(name, bootstrap.interval(mean, group, values), group, ABSENT)


class ResampledCurves:
    """The pooled counts of photographs drawn with replacement, on one coarse axis."""

    def __init__(self, group: list[PhotographResult], lesion: Lesion) -> None:
        curves = [m.lesions[lesion].counts if lesion in m.lesions else PooledCurve() for m in group]
        self._axis = _sum(curves, BOOTSTRAP_TOLERANCE).values
        self._positives, self._negatives = (  # float64: products by BLAS
            np.stack([self._placed(curve.values, counts(curve)) for curve in curves])
            for counts in (lambda curve: curve.positives, lambda curve: curve.negatives)
        )

    def _placed(self, values: np.ndarray, counts: np.ndarray) -> np.ndarray:
        return np.bincount(np.searchsorted(self._axis, values), weights=counts, minlength=self._axis.size)

    def __call__(self, rows: np.ndarray) -> PooledCurve:
        """The counts of these photographs, given by their numbers in the group."""
        times = np.bincount(rows, minlength=len(self._positives)).astype(np.float64)
        curve = PooledCurve()
        curve.values = self._axis
        curve.positives, curve.negatives = ((times @ c).astype(np.int64) for c in (self._positives, self._negatives))
        return curve
