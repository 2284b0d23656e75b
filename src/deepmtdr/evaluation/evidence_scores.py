"""Where the evidence lies, what rests on it: Fig. 4 (c), pointing game, deletion and insertion (Finding 3)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from deepmtdr.evaluation.curves import CurvePoints
from deepmtdr.evaluation.evidence import EvidenceScores, RegionScores
from deepmtdr.evaluation.measure import PhotographResult
from deepmtdr.evaluation.scores import Bootstrap, Score, ScoreKey, group_by_dataset, nan_mean
from deepmtdr.terms import Grade, Lesion

TASK = "evidence"
REMOVAL = "evidence removed"
LESIONS, BACKGROUND = "lesions", "background"
REGION_FIELDS = {"evidence_auc": "auc", "pointing_game": "hit", "pointing_chance": "chance"}
"""Scores of a region, and the fields of `RegionScores` they are means of."""
CURVES = ("deletion", "insertion", "random")


def region_scores(measured: Sequence[PhotographResult], bootstrap: Bootstrap) -> list[Score]:
    """Means over the annotated photographs that show the region, and areas under the curves of removal."""
    rows: list[Score] = []
    for dataset, group in group_by_dataset(measured):
        if shown := [m for m in group if m.evidence is not None]:
            rows += _region_rows(dataset, shown, bootstrap)
        if removed := [m for m in shown if _of(m).removal is not None]:
            rows += _removal_rows(dataset, removed, bootstrap)
    return rows


def _of(m: PhotographResult) -> EvidenceScores:
    assert m.evidence is not None
    return m.evidence


def _region_rows(dataset: str, group: list[PhotographResult], bootstrap: Bootstrap) -> Iterator[Score]:
    regions = {
        **{lesion.name: [_of(m).lesions.get(lesion) for m in group] for lesion in Lesion},
        LESIONS: [_of(m).any_lesion for m in group],
    }
    for subject, found in regions.items():
        for name, field in REGION_FIELDS.items():
            values = np.array([getattr(one, field) if isinstance(one, RegionScores) else np.nan for one in found])
            interval = bootstrap.interval(nan_mean, group, values)
            yield ScoreKey(TASK, dataset, subject).row(name, interval, group, "no such lesion on these photographs")
    background = np.array([_of(m).background for m in group])
    interval = bootstrap.interval(nan_mean, group, background)
    yield ScoreKey(TASK, dataset, BACKGROUND).row("evidence_auc", interval, group, "no lesion on these photographs")


def _removal_rows(dataset: str, group: list[PhotographResult], bootstrap: Bootstrap) -> Iterator[Score]:
    for subject, areas in (
        ("P(grade >= 1)", [removal.disease_areas() for m in group if (removal := _of(m).removal)]),
        ("P(predicted grade)", [removal.grade_areas() for m in group if (removal := _of(m).removal)]),
    ):
        for name in CURVES:
            values = np.array([getattr(one, name) for one in areas])
            yield ScoreKey(REMOVAL, dataset, subject).row(
                f"area_{name}", bootstrap.interval(nan_mean, group, values), group, ""
            )


def removal_curves(group: Sequence[PhotographResult]) -> dict[str, CurvePoints]:
    """Mean P(grade >= 1) after equal shares of the pixels, by curve; empty if nothing was removed.

    The random order is drawn forwards, as a deletion.
    """
    found = [removal for m in group if m.evidence is not None and (removal := m.evidence.removal) is not None]
    if not found:
        return {}
    curves = {}
    for name in CURVES:
        mean = np.mean([1 - getattr(one, name)[:, Grade.NEGATIVE] for one in found], axis=0)
        curves[name] = CurvePoints(np.linspace(0, 1, mean.size), mean)
    return curves
