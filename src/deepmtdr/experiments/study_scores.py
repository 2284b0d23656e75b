"""Scores of the arms of an ablation study, and their paired differences to joint training."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from deepmtdr.evaluation.grading import auc_name, grade_arrays, grading_functions, is_graded
from deepmtdr.evaluation.lesions import MEAN, ResampledCurves
from deepmtdr.evaluation.pairing import PhotographKey, photograph_key
from deepmtdr.evaluation.photograph_result import InputImage, PhotographResult
from deepmtdr.evaluation.results import finite_or_none, json_safe
from deepmtdr.evaluation.scores import ALL, DEFAULT_BOOTSTRAP, Bootstrap, ScoreTable, patient_count, patient_keys
from deepmtdr.evaluation.super_resolution import image_scores
from deepmtdr.labels import DIABETIC_RETINOPATHY, LabelSet
from deepmtdr.metrics.intervals import Difference, nan_mean, resampled_scores, tested_difference

JOINT = "joint"
"""The arm to which the others are compared: the recipe itself."""
REFERABLE = auc_name("referable")
IMAGE_COLUMNS = ("psnr_whole", "psnr_fov", "psnr_fov_eroded")
AUPR = "aupr_pooled"

StudyRuns = Mapping[str, Mapping[int, Sequence[PhotographResult]]]
"""Arm -> seed -> photographs."""
ScoreOfRows = Callable[[np.ndarray], float]
"""Function of the indexes of photographs, some of them several times."""


class Column(NamedTuple):
    """A column of the tables."""

    task: ScoreTable
    subject: str
    """What is scored, as in `Score.subject`."""
    score: str


class StudyScore(NamedTuple):
    """One score of one arm."""

    task: str
    dataset: str
    subject: str
    score: str
    arm: str
    values: dict[int, float]
    """Seed -> score."""
    difference: Difference | None
    """Mean over the seeds of this arm's score minus that of `JOINT`, with its 95 % interval; None for `JOINT` itself,
    and if the two have no seed or photograph in common.
    """
    photographs: int
    patients: int

    @property
    def mean(self) -> float:
        """Mean over the seeds."""
        return float(np.mean([*self.values.values()]))

    @property
    def differs(self) -> bool:
        """Whether the interval of the difference does not contain 0."""
        return self.difference is not None and (self.difference.low > 0 or self.difference.high < 0)

    def as_dict(self) -> dict[str, Any]:
        """Convert for JSON; an undefined value is None."""
        values = {str(seed): finite_or_none(value) for seed, value in self.values.items()}
        difference = None if self.difference is None else json_safe(self.difference._asdict())
        row = self._asdict() | {"values": values, "difference": difference, "mean": finite_or_none(self.mean)}
        return row | {"differs": self.differs}


class StudyScorer:
    """Computes the scores of all arms; scores of resamples that were computed before are not computed again."""

    def __init__(self, labels: LabelSet = DIABETIC_RETINOPATHY, bootstrap: Bootstrap = DEFAULT_BOOTSTRAP) -> None:
        """Choose the lesion types, and how intervals are computed."""
        self.labels = labels
        self.bootstrap = bootstrap
        self._known: dict[tuple[object, ...], tuple[float, np.ndarray]] = {}

    def scores(self, runs: StudyRuns) -> list[StudyScore]:
        """Compute each score of each arm that has it.

        The difference to `JOINT` is computed on the photographs and seeds of both arms. A resample draws patients with
        replacement, the same for both arms and all seeds; its difference is the mean over the seeds. Grades are scored
        within each data set; images and lesions also over all together.

        Args:
            runs: the photographs of each run.
        """
        everything = [m for seeds in runs.values() for results in seeds.values() for m in results]
        return [
            score
            for column, dataset in self._places(everything)
            for arm in runs
            if (score := self._score(column, dataset, arm, runs)) is not None
        ]

    def _places(self, results: Sequence[PhotographResult]) -> Iterator[tuple[Column, str]]:
        """Yield the columns, those of a table one after the other."""
        datasets = sorted({m.dataset for m in results})
        together = [*datasets, ALL] if len(datasets) > 1 else datasets
        unions = sorted({code for m in results for code in m.lesions} - set(self.labels.codes))
        columns = {
            ScoreTable.GRADING: [("grade", "kappa_quadratic"), ("grade", REFERABLE)],
            ScoreTable.LESIONS: [(subject, AUPR) for subject in (*self.labels.codes, MEAN, *unions)],
            ScoreTable.SUPER_RESOLUTION: [(InputImage.SR.value, name) for name in IMAGE_COLUMNS],
        }
        for task, own in columns.items():
            for dataset in datasets if task == ScoreTable.GRADING else together:
                yield from ((Column(task, *place), dataset) for place in own)

    def _score(self, column: Column, dataset: str, arm: str, runs: StudyRuns) -> StudyScore | None:
        groups = {seed: self._counted(column, dataset, results) for seed, results in sorted(runs[arm].items())}
        common = _common_keys(groups.values())
        if not common:
            return None
        values = {seed: self._resampled(column, arm, seed, group, common)[0] for seed, group in groups.items()}
        if np.isnan([*values.values()]).all():
            return None
        first = [m for m in next(iter(groups.values())) if photograph_key(m) in common]
        difference = None if arm == JOINT else self._difference(column, dataset, arm, groups, runs.get(JOINT, {}))
        return StudyScore(
            column.task.value,
            dataset,
            column.subject,
            column.score,
            arm,
            values,
            difference,
            len(first),
            patient_count(first),
        )

    def _difference(
        self,
        column: Column,
        dataset: str,
        arm: str,
        groups: Mapping[int, list[PhotographResult]],
        joint: Mapping[int, Sequence[PhotographResult]],
    ) -> Difference | None:
        others = {seed: self._counted(column, dataset, joint[seed]) for seed in groups if seed in joint}
        if not others:
            return None
        common = _common_keys([*others.values(), *(groups[seed] for seed in others)])
        if not common:
            return None
        pairs = [
            (
                self._resampled(column, arm, seed, groups[seed], common),
                self._resampled(column, JOINT, seed, others[seed], common),
            )
            for seed in others
        ]
        value = float(np.mean([own[0] - other[0] for own, other in pairs]))
        drawn = np.mean([own[1] - other[1] for own, other in pairs], axis=0)
        return tested_difference(value, drawn, self.bootstrap.level)

    def _counted(self, column: Column, dataset: str, results: Sequence[PhotographResult]) -> list[PhotographResult]:
        """Return the photographs of a data set that have this score, by name: the same order in all runs."""
        own = [m for m in results if dataset in (m.dataset, ALL) and self._has(column, m)]
        return sorted(own, key=photograph_key)

    def _has(self, column: Column, m: PhotographResult) -> bool:
        if column.task == ScoreTable.GRADING:
            return is_graded(m)
        if column.task == ScoreTable.SUPER_RESOLUTION:
            return f"{column.score}_{InputImage.SR}" in m.image
        return not m.lesions.keys().isdisjoint(self.labels.codes if column.subject == MEAN else (column.subject,))

    def _resampled(
        self, column: Column, arm: str, seed: int, group: Sequence[PhotographResult], keys: frozenset[PhotographKey]
    ) -> tuple[float, np.ndarray]:
        """Return the score of the photographs with these keys, and the scores of the resamples of their patients."""
        place = (column, arm, seed, keys)
        if place not in self._known:
            kept = [m for m in group if photograph_key(m) in keys]
            score = self._score_of_rows(column, kept)
            settings = self.bootstrap.resamples, self.bootstrap.seed
            self._known[place] = resampled_scores(score, patient_keys(kept), [], *settings)
        return self._known[place]

    def _score_of_rows(self, column: Column, group: list[PhotographResult]) -> ScoreOfRows:
        if column.task == ScoreTable.GRADING:
            arrays, score = grade_arrays(group), grading_functions(self.labels).get(column.score)
            return lambda rows: float("nan") if score is None else score.function(*(array[rows] for array in arrays))
        if column.task == ScoreTable.SUPER_RESOLUTION:
            values = image_scores(group, column.score, InputImage.SR)
            return lambda rows: nan_mean(values[rows])
        codes = self.labels.codes if column.subject == MEAN else (column.subject,)
        curves = [ResampledCurves(group, code) for code in codes]
        return lambda rows: float(np.mean([curve(rows).average_precision() for curve in curves]))


def _common_keys(groups: Iterable[Sequence[PhotographResult]]) -> frozenset[PhotographKey]:
    keys = [frozenset(map(photograph_key, group)) for group in groups]
    return frozenset.intersection(*keys) if keys else frozenset()
