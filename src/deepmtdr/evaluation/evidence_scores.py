"""Tables of the evidence: AUC by region as in Fig. 4 (c), pointing game, deletion and insertion (Finding 3)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from deepmtdr.evaluation.curves import CurvePoints
from deepmtdr.evaluation.evidence import EvidenceScores, RegionScores, RemovalAreas, RemovalCurves
from deepmtdr.evaluation.photograph_result import PhotographResult
from deepmtdr.evaluation.scores import Bootstrap, Score, ScoreKey, ScoreTable, group_by_dataset
from deepmtdr.labels import LabelSet
from deepmtdr.metrics.intervals import nan_mean

ALL_LESIONS, BACKGROUND = "lesions", "background"
"""Subjects of two regions: all lesions together, and the rest of the field of view."""
P_DISEASE, P_PREDICTED = "P(grade >= 1)", "P(predicted grade)"
"""Subjects of the areas: the probability that was observed."""
REGION_SCORES: Mapping[str, Callable[[RegionScores], float]] = {
    "evidence_auc": lambda region: region.auc,
    "pointing_game": lambda region: region.hit,
    "pointing_chance": lambda region: region.chance,
    "patch_precision_top_1": lambda region: float(region.patch_precision[0]),
    "patch_precision_top_12": lambda region: float(region.patch_precision[-1]),
    "patch_precision_mean": lambda region: float(region.patch_precision.mean()),
    "patch_chance": lambda region: region.patch_chance,
}


def region_scores(measured: Sequence[PhotographResult], bootstrap: Bootstrap, labels: LabelSet) -> list[Score]:
    """Compute means over the annotated photographs that contain a region, and areas under the removal curves."""
    rows: list[Score] = []
    for dataset, group in group_by_dataset(measured):
        annotated = [(m, m.evidence) for m in group if m.evidence is not None]
        if annotated:
            rows += _region_rows(dataset, annotated, bootstrap, labels)
        if removed := [(m, evidence.removal) for m, evidence in annotated if evidence.removal is not None]:
            rows += _removal_rows(dataset, removed, bootstrap)
    return rows


def _region_rows(
    dataset: str, annotated: Sequence[tuple[PhotographResult, EvidenceScores]], bootstrap: Bootstrap, labels: LabelSet
) -> Iterator[Score]:
    group = [m for m, _ in annotated]
    regions: dict[str, list[RegionScores | None]] = {
        **{code: [evidence.lesions.get(code) for _, evidence in annotated] for code in labels.codes},
        ALL_LESIONS: [evidence.any_lesion for _, evidence in annotated],
    }
    for subject, found in regions.items():
        for name, score in REGION_SCORES.items():
            values = np.array([np.nan if region is None else score(region) for region in found])
            interval = bootstrap.interval(nan_mean, group, values)
            key = ScoreKey(ScoreTable.EVIDENCE, dataset, subject)
            yield key.row(name, interval, group, "no such lesion on these photographs")
    background = np.array([evidence.background for _, evidence in annotated])
    interval = bootstrap.interval(nan_mean, group, background)
    key = ScoreKey(ScoreTable.EVIDENCE, dataset, BACKGROUND)
    yield key.row("evidence_auc", interval, group, "no lesion on these photographs")


def _removal_rows(
    dataset: str, removed: Sequence[tuple[PhotographResult, RemovalCurves]], bootstrap: Bootstrap
) -> Iterator[Score]:
    group = [m for m, _ in removed]
    areas = {
        P_DISEASE: [removal.disease_areas() for _, removal in removed],
        P_PREDICTED: [removal.grade_areas(m.predicted_grade or 0) for m, removal in removed],
    }
    for subject, found in areas.items():
        for name, values in zip(RemovalAreas._fields, np.array(found).T, strict=True):
            interval = bootstrap.interval(nan_mean, group, values)
            yield ScoreKey(ScoreTable.EVIDENCE_REMOVED, dataset, subject).row(f"area_{name}", interval, group, "")


def removal_curves(group: Sequence[PhotographResult]) -> dict[str, CurvePoints]:
    """Mean P(grade >= 1) after equal fractions of the pixels, by curve; empty if no evidence was removed.

    The random order is drawn as a deletion.
    """
    found = [removal for m in group if m.evidence is not None and (removal := m.evidence.removal) is not None]
    curves = {}
    for name, of_photographs in zip(RemovalCurves._fields, zip(*found, strict=True), strict=True) if found else ():
        mean = np.mean([1 - probs[:, 0] for probs in of_photographs], axis=0)
        curves[name] = CurvePoints(np.linspace(0, 1, mean.size), mean)
    return curves
