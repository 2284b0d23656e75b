"""Match the photographs of two systems, or of a table of predictions and a table of labels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from deepmtdr.errors import DataError
from deepmtdr.evaluation.photograph_result import PhotographResult

MAX_NAMES = 3
"""Largest number of photographs that an error message names."""

PhotographKey = tuple[str, str]
"""Data set and name."""


class Pair(NamedTuple):
    """The results of two systems, A and B, for one photograph."""

    a: PhotographResult
    b: PhotographResult

    @property
    def failed(self) -> bool:
        """Whether one of the systems has no prediction."""
        return bool(self.a.failure or self.b.failure)


def first_names(names: Iterable[str]) -> str:
    """List the first few names, for an error message."""
    names = list(names)
    return ", ".join(names[:MAX_NAMES]) + (", ..." if len(names) > MAX_NAMES else "")


def photograph_key(measured: PhotographResult) -> PhotographKey:
    """Return the data set and name of a photograph."""
    return measured.dataset, measured.name


def pair_results(a: Sequence[PhotographResult], b: Sequence[PhotographResult]) -> list[Pair]:
    """Match the results of two systems on the same photographs, in the order of A.

    Raises:
        DataError: if a photograph appears twice, or is missing in one of the systems, or the systems disagree on its
            true label or patient.
    """
    of_a, of_b = _by_key("A", a), _by_key("B", b)
    for system, missing in (("A", of_b.keys() - of_a.keys()), ("B", of_a.keys() - of_b.keys())):
        if missing:
            names = first_names(name for _, name in sorted(missing))
            raise DataError(
                f"system {system} lacks {len(missing)} photographs of the other system: {names}; expected the same"
            )
    pairs = [Pair(x, of_b[key]) for key, x in of_a.items()]
    for pair in pairs:
        _check_same_truth(pair)
    return pairs


def _by_key(system: str, measured: Iterable[PhotographResult]) -> dict[PhotographKey, PhotographResult]:
    found: dict[PhotographKey, PhotographResult] = {}
    for m in measured:
        if found.setdefault(photograph_key(m), m) is not m:
            raise DataError(f"{m.dataset} {m.name}: twice in system {system}, expected each photograph once")
    return found


def _check_same_truth(pair: Pair) -> None:
    truths: dict[str, Callable[[PhotographResult], object]] = {
        "grade": lambda m: m.grade,
        "positive": lambda m: m.positive,
        "patient": lambda m: m.patient,
    }
    for name, truth in truths.items():
        if truth(pair.a) != truth(pair.b):
            raise DataError(
                f"{pair.a.dataset} {pair.a.name}: true {name} {truth(pair.a)} in system A, {truth(pair.b)} in B; "
                "expected the same in both"
            )
