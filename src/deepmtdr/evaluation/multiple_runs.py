"""Several systems on the same photographs: the seeds of one recipe, or one system against another (Sec. V-B)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from deepmtdr.errors import DataError
from deepmtdr.evaluation.compare import Comparison, compare
from deepmtdr.evaluation.measure import PhotographResult
from deepmtdr.evaluation.page import write_page
from deepmtdr.evaluation.predictions import score_predictions
from deepmtdr.evaluation.results import Evaluation, json_safe, score_table, write_json
from deepmtdr.evaluation.run import evaluate_folder
from deepmtdr.metrics.intervals import MeanAndSd, mean_and_sd
from deepmtdr.rendering.html import Table


class SeedScore(NamedTuple):
    """One score of several checkpoints."""

    task: str
    dataset: str
    subject: str
    score: str
    found: MeanAndSd
    values: tuple[float, ...]
    """Of each checkpoint; nan: undefined there."""


@dataclass(frozen=True, kw_only=True)
class EvaluationRuns:
    """What came out of several checkpoints."""

    evaluations: list[Evaluation]
    """One for each checkpoint of the first system."""
    other: Evaluation | None = None
    comparison: Comparison | None = None
    """With the other system, if there is one."""

    @property
    def seeds(self) -> list[SeedScore]:
        """Mean and standard deviation of each score; empty for a single checkpoint."""
        return aggregate_seeds(self.evaluations) if len(self.evaluations) > 1 else []

    @property
    def failures(self) -> list[PhotographResult]:
        """The photographs that could not be read, or that a system has not predicted; each reason once."""
        found = [m for one in (self.evaluations[0], self.other) if one is not None for m in one.failures]
        return list({(m.dataset, m.name, m.failure): m for m in found}.values())

    def write(self, folder: Path) -> None:
        """Write `seeds.json` and `comparison.json`, as far as there are seeds and a comparison.

        Raises:
            DataError: if the folder cannot be written.
        """
        if self.seeds:
            write_json(folder / "seeds.json", {"scores": [_row(row) for row in self.seeds]})
        if self.comparison is not None:
            self.comparison.write(folder)

    def tables(self) -> list[Table]:
        """Of the single checkpoint, or over the seeds; then of the comparison."""
        own = seed_tables(self.seeds) if self.seeds else self.evaluations[0].tables()
        return [*own, *(self.comparison.tables() if self.comparison else [])]


def evaluate_checkpoints(
    data: Path,
    weights: Sequence[Path | None] = (None,),
    *,
    other: Path | None = None,
    out: Path | None = None,
    **chosen: Any,
) -> EvaluationRuns:
    """What `deepmtdr evaluate` does: one checkpoint, the seeds of one recipe, or one checkpoint against another.

    Args:
        data: see `evaluate_folder`.
        weights: checkpoints; None is the shipped one. Several are seeds of one recipe.
        other: the checkpoint of another system.
        out: folder for all that is written: of a single checkpoint as `evaluate_folder` has it, of several in folders
            `seed-1`, `seed-2`, ... with `seeds.json` beside them; of the other system in `other`, with
            `comparison.json`. None writes nothing.
        **chosen: passed on to `evaluate_folder`.

    Raises:
        DataError: where `evaluate_folder` does; if several checkpoints are to be compared with another.
    """
    if other is not None and len(weights) > 1:
        raise DataError(f"{len(weights)} checkpoints to be compared with {other}, expected one")
    folders = [out] if out is None or len(weights) == 1 else [out / f"seed-{n + 1}" for n in range(len(weights))]
    folders = folders if out is not None else [None] * len(weights)
    done = [evaluate_folder(data, weights=w, out=folder, **chosen) for w, folder in zip(weights, folders, strict=True)]
    if other is None:
        systems = EvaluationRuns(evaluations=done)
    else:
        beside = evaluate_folder(data, weights=other, out=None if out is None else out / "other", **chosen)
        systems = EvaluationRuns(evaluations=done, other=beside, comparison=compare(done[0], beside))
    if out is not None:
        systems.write(out)
    return systems


def score_prediction_files(
    predictions: Path, truth: Path, *, other: Path | None = None, out: Path | None = None, **chosen: Any
) -> EvaluationRuns:
    """What `deepmtdr score` does: the predictions of one system, or of two.

    Args:
        predictions: see `score_predictions`.
        truth: see `score_predictions`.
        other: predictions of another system on the same photographs.
        out: folder for `evaluation.json` and `report.html` of the first system, and `comparison.json`; None writes
            nothing.
        **chosen: passed on to `score_predictions`.

    Raises:
        DataError: where `score_predictions` and `compare` do.
    """
    first, *others = (score_predictions(table, truth, **chosen) for table in (predictions, other) if table is not None)
    comparison = compare(first, others[0]) if others else None
    systems = EvaluationRuns(evaluations=[first], other=next(iter(others), None), comparison=comparison)
    if out is not None:
        first.write_scores(out)
        write_page(first, out)
        systems.write(out)
    return systems


def aggregate_seeds(evaluations: Sequence[Evaluation]) -> list[SeedScore]:
    """Mean and standard deviation of each score, as the paper's tables have them.

    Args:
        evaluations: of the checkpoints of one recipe on the same photographs.

    Raises:
        DataError: if they are not of the same photographs.
    """
    photographs = [sorted((m.dataset, m.name) for m in one.results) for one in evaluations]
    if any(names != photographs[0] for names in photographs):
        raise DataError(f"evaluations of {', '.join(str(len(n)) for n in photographs)} photographs, expected the same")
    values: dict[tuple[str, str, str, str], list[float]] = {}
    for one in evaluations:
        for score in one.scores:
            values.setdefault((score.task, score.dataset, score.subject, score.score), []).append(score.value)
    return [SeedScore(*place, mean_and_sd(found), tuple(found)) for place, found in values.items()]


def seed_tables(rows: Sequence[SeedScore]) -> list[Table]:
    """One table for each task and data set, with `mean (standard deviation)` in the cells."""
    places = dict.fromkeys((row.task, row.dataset) for row in rows)
    return [_seed_table([row for row in rows if (row.task, row.dataset) == place]) for place in places]


def _seed_table(rows: Sequence[SeedScore]) -> Table:
    first = rows[0]
    title = f"{first.task}, {first.dataset}: mean (standard deviation) of {len(first.values)} seeds"
    cells = {(row.subject, row.score): _cell(row) for row in rows}
    return score_table(title, cells)


def _cell(row: SeedScore) -> str:
    return "undefined for a seed" if math.isnan(row.found.mean) else str(row.found)


def _row(row: SeedScore) -> dict[str, Any]:
    place = {"task": row.task, "dataset": row.dataset, "subject": row.subject, "score": row.score}
    values = [value if math.isfinite(value) else None for value in row.values]
    return json_safe({**place, **row.found._asdict()}) | {"values": values}
