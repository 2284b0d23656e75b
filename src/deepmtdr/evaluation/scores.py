"""A score of a table, with its interval: what was measured on single photographs, brought together (Sec. V-B)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from deepmtdr.evaluation.measure import PhotographResult
from deepmtdr.metrics.intervals import Difference, Interval, bootstrap_difference, bootstrap_interval

ALL = "all"
"""The name of all data sets together."""


class Score(NamedTuple):
    """One number of a table, with its interval and what it was computed from."""

    task: str
    """The table: `super-resolution`, `lesions`, `grading`, ..."""
    dataset: str
    subject: str
    """What is scored: an image (`sr`, `bicubic`, `gain`), a lesion type (`MA` ... or `mean`), `grade`, ..."""
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

    def interval(self, score: Callable[..., float], group: Sequence[PhotographResult], *arrays: np.ndarray) -> Interval:
        """The interval of a score, patients drawn whole."""
        return bootstrap_interval(score, patient_keys(group), *arrays, **self._asdict())

    def difference(
        self,
        score: Callable[..., float],
        group: Sequence[PhotographResult],
        a: Sequence[np.ndarray],
        b: Sequence[np.ndarray],
    ) -> Difference:
        """The paired interval of score(*a) - score(*b), the same patients drawn for both."""
        return bootstrap_difference(score, patient_keys(group), a, b, **self._asdict())


NO_INTERVAL = "no interval: fewer than two patients, or undefined in more than a tenth of the resamples"

EQUAL_IMAGES = "infinite: equal images have no noise"


def group_by_dataset(measured: Sequence[PhotographResult]) -> Iterator[tuple[str, list[PhotographResult]]]:
    """The photographs of each data set, then all of them if there are several sets."""
    names = sorted({m.dataset for m in measured})
    for name in names:
        yield name, [m for m in measured if m.dataset == name]
    if len(names) > 1:
        yield ALL, list(measured)


def patient_keys(group: Iterable[PhotographResult]) -> list[tuple[str, str]]:
    """The patient of each photograph."""
    return [(m.dataset, m.patient) for m in group]  # two data sets may give two people the same number


class ScoreKey(NamedTuple):
    """Where in the tables a score stands."""

    task: str
    dataset: str
    subject: str

    def row(
        self, name: str, interval: Interval, group: Sequence[PhotographResult], why: str, infinite: str = EQUAL_IMAGES
    ) -> Score:
        """The score as a row.

        Args:
            name: of the score.
            interval: its value and bounds.
            group: the photographs that it was computed from.
            why: the reason, should the value be undefined.
            infinite: the reason, should it be infinite.
        """
        note = why if np.isnan(interval.value) else NO_INTERVAL if np.isnan(interval.low) else ""
        note = infinite if np.isinf(interval.value) else note
        return Score(*self, name, *interval, len(group), len(set(patient_keys(group))), note)


def nan_mean(values: np.ndarray) -> float:
    """Mean of what is defined; nan if nothing is."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else float("nan")
