"""A score in a table, with its confidence interval and the photographs from which it was computed (Sec. V-B)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

import numpy as np

from deepmtdr.evaluation.photograph_result import PhotographResult
from deepmtdr.metrics.intervals import Difference, Interval, bootstrap_difference, bootstrap_interval
from deepmtdr.metrics.stratified import MIN_PHOTOGRAPHS, strata_with_score, stratified_difference, stratified_interval

ALL = "all"
"""Name of the photographs of all data sets together: images, lesions and evidence."""
MEAN_OVER_SETS = "mean over sets"
"""Name of the mean of the scores of each data set, for grades: see `deepmtdr.metrics.stratified`."""
RESERVED_NAMES = (ALL, MEAN_OVER_SETS)
"""Names that no data set can have."""


class ScoreTable(StrEnum):
    """The tables of an evaluation."""

    SUPER_RESOLUTION = "super-resolution"
    BY_INPUT = "by input"
    NOT_ON_HR = "lesions not on HR"
    NOT_ANNOTATED = "lesions not annotated"
    LESIONS = "lesions"
    LESIONS_ON_ORIGINAL = "lesions on the photograph"
    EVIDENCE = "evidence"
    EVIDENCE_REMOVED = "evidence removed"
    GRADING = "grading"
    EACH_GRADE = "each grade"
    OPERATING_POINTS = "operating points"
    FLIPS = "flips"


class Score(NamedTuple):
    """One number of a table, with its interval."""

    task: str
    """The table, a `ScoreTable`."""
    dataset: str
    subject: str
    """What is scored: an image (`sr`, `bicubic`, `gain`), a lesion type (a code, or `mean`), `grade`, ..."""
    score: str
    value: float
    """Value of the score; nan if it is undefined. `note` gives the reason."""
    low: float
    high: float
    photographs: int
    patients: int
    note: str = ""
    """Why the value or its interval is undefined."""


class Bootstrap(NamedTuple):
    """Settings of the bootstrap over patients that gives the confidence intervals."""

    resamples: int = 1000
    seed: int = 0
    level: float = 0.95

    def interval(
        self,
        score: Callable[..., float],
        group: Sequence[PhotographResult],
        *arrays: np.ndarray,
        recentred: bool = False,
        over_sets: bool = False,
    ) -> Interval:
        """Compute the interval of a score of photographs.

        Args:
            score: function of `arrays`.
            group: the photographs.
            *arrays: arguments of the score, one row per photograph.
            recentred: see `bootstrap_interval`.
            over_sets: compute the mean of the scores of each data set, see `stratified_interval`.
        """
        settings = {**self._asdict(), "recentred": recentred}
        if over_sets:
            return stratified_interval(score, [m.dataset for m in group], patient_keys(group), *arrays, **settings)
        return bootstrap_interval(score, patient_keys(group), *arrays, **settings)

    def difference(
        self,
        score: Callable[..., float],
        group: Sequence[PhotographResult],
        a: Sequence[np.ndarray],
        b: Sequence[np.ndarray],
        *,
        over_sets: bool = False,
    ) -> Difference:
        """Compute the paired interval of score(*a) - score(*b); the same patients are drawn for both.

        Args:
            score: function of the arrays of `a` or of `b`.
            group: the photographs.
            a: arrays of one system, one row per photograph.
            b: arrays of the other system.
            over_sets: compute the mean of the differences of each data set, see `stratified_difference`.
        """
        if over_sets:
            return stratified_difference(score, [m.dataset for m in group], patient_keys(group), a, b, **self._asdict())
        return bootstrap_difference(score, patient_keys(group), a, b, **self._asdict())

    def to_protocol(self) -> dict[str, Any]:
        """Make the entry of a protocol."""
        return {"unit": "patient", **self._asdict()}


DEFAULT_BOOTSTRAP = Bootstrap()

NO_INTERVAL_REASON = "fewer than two patients, or undefined in more than a tenth of the resamples"
NO_INTERVAL = f"no interval: {NO_INTERVAL_REASON}"

EQUAL_IMAGES = "infinite: the images are equal"


def group_by_dataset(measured: Sequence[PhotographResult]) -> Iterator[tuple[str, list[PhotographResult]]]:
    """Group the photographs by data set; if there are several, all of them are added as `ALL`."""
    names = sorted({m.dataset for m in measured})
    for name in names:
        yield name, [m for m in measured if m.dataset == name]
    if len(names) > 1:
        yield ALL, list(measured)


def group_for_grades(measured: Sequence[PhotographResult]) -> Iterator[tuple[str, list[PhotographResult]]]:
    """Group the photographs by data set; if there are several, add all of them as `MEAN_OVER_SETS`, never as `ALL`."""
    for name, group in group_by_dataset(measured):
        yield MEAN_OVER_SETS if name == ALL else name, group


def patient_keys(group: Iterable[PhotographResult]) -> list[tuple[str, str]]:
    """Return data set and patient of each photograph: two data sets may use the same number for different patients."""
    return [(m.dataset, m.patient) for m in group]


def patient_count(group: Iterable[PhotographResult]) -> int:
    """Count the patients."""
    return len(set(patient_keys(group)))


class ScoreKey(NamedTuple):
    """Table, data set and subject of a score."""

    task: ScoreTable
    dataset: str
    subject: str

    def row(
        self, name: str, interval: Interval, group: Sequence[PhotographResult], why: str, infinite: str = EQUAL_IMAGES
    ) -> Score:
        """Build a score.

        Args:
            name: name of the score.
            interval: value of the score and its bounds.
            group: the photographs from which it was computed.
            why: the note if the value is undefined.
            infinite: the note if the value is infinite.
        """
        note = why if np.isnan(interval.value) else NO_INTERVAL if np.isnan(interval.low) else ""
        note = infinite if np.isinf(interval.value) else note
        return Score(*self, name, *interval, len(group), patient_count(group), note)


def score_row(
    key: ScoreKey,
    name: str,
    score: Callable[..., float],
    group: Sequence[PhotographResult],
    arrays: Sequence[np.ndarray],
    bootstrap: Bootstrap,
    why: str,
    infinite: str = EQUAL_IMAGES,
    *,
    recentred: bool = False,
) -> Score:
    """Compute a score of a data set, or the mean over the data sets if the key has `MEAN_OVER_SETS`.

    Args:
        key: table, data set and subject.
        name: name of the score.
        score: function of `arrays`.
        group: the photographs.
        arrays: arguments of the score, one row per photograph.
        bootstrap: how intervals are computed.
        why: the note if the value is undefined.
        infinite: the note if the value is infinite.
        recentred: see `bootstrap_interval`.

    Returns:
        The score. A mean has the photographs of the data sets that count, and a note if some do not.
    """
    if key.dataset != MEAN_OVER_SETS:
        interval = bootstrap.interval(score, group, *arrays, recentred=recentred)
        return key.row(name, interval, group, why, infinite)
    counted = strata_with_score(score, [m.dataset for m in group], *arrays)
    interval = bootstrap.interval(score, group, *arrays, recentred=recentred, over_sets=True)
    row = key.row(name, interval, [m for m in group if m.dataset in counted], why, infinite)
    left_out = sorted({m.dataset for m in group} - set(counted))
    if row.note or not left_out:
        return row
    few = f"fewer than {MIN_PHOTOGRAPHS} photographs"
    return row._replace(note=f"without {', '.join(left_out)}: undefined there, or {few}")
