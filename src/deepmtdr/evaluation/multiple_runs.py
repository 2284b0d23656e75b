"""Evaluate several checkpoints: the seeds of one recipe, or one system against another (Sec. V-B)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from deepmtdr.errors import DataError
from deepmtdr.evaluation.compare import compare
from deepmtdr.evaluation.comparison import Comparison
from deepmtdr.evaluation.config import DEFAULT_CONFIG, NO_REPORT, EvaluationConfig, ReportConfig, SampleSelection
from deepmtdr.evaluation.page import write_page
from deepmtdr.evaluation.photograph_result import PhotographResult
from deepmtdr.evaluation.prediction_table import reports_write_errors
from deepmtdr.evaluation.predictions import score_predictions
from deepmtdr.evaluation.results import Evaluation, finite_or_none, json_safe, score_table
from deepmtdr.evaluation.run import evaluate_folder
from deepmtdr.evaluation.scores import DEFAULT_BOOTSTRAP, Bootstrap
from deepmtdr.files import write_json
from deepmtdr.labels import DIABETIC_RETINOPATHY, LabelSet
from deepmtdr.metrics.intervals import MeanAndSd, mean_and_sd
from deepmtdr.rendering.html import Table
from deepmtdr.rendering.numbers import format_mean_sd


class SeedScore(NamedTuple):
    """One score of several checkpoints."""

    task: str
    dataset: str
    subject: str
    score: str
    found: MeanAndSd
    values: tuple[float, ...]
    """The score of each checkpoint; nan where it is undefined."""


@dataclass(frozen=True, kw_only=True)
class EvaluationRuns:
    """The results of one or several checkpoints."""

    evaluations: list[Evaluation]
    """Evaluation of each checkpoint of the first system."""
    other: Evaluation | None = None
    """Evaluation of the second system; None if there is none."""
    comparison: Comparison | None = None
    """Comparison of the first system with the second; None if there is none."""

    @property
    def seeds(self) -> list[SeedScore]:
        """Compute mean and standard deviation of each score over the checkpoints; empty for a single one."""
        return aggregate_seeds(self.evaluations) if len(self.evaluations) > 1 else []

    @property
    def failures(self) -> list[PhotographResult]:
        """List the photographs without prediction of the first checkpoint or of the other system; each reason once."""
        found = [m for one in (self.evaluations[0], self.other) if one is not None for m in one.failures]
        return list({(m.dataset, m.name, m.failure): m for m in found}.values())

    def write(self, folder: Path) -> None:
        """Write `seeds.json` if there are several seeds, and `comparison.json` if there is a comparison.

        Raises:
            DataError: if a file cannot be written.
        """
        if self.seeds:
            with reports_write_errors(path := folder / "seeds.json"):
                write_json(path, {"scores": [_seed_entry(row) for row in self.seeds]})
        if self.comparison is not None:
            self.comparison.write(folder)

    def tables(self) -> list[Table]:
        """Return the tables of the single checkpoint or of the seeds, then the tables of the comparison."""
        own = seed_tables(self.seeds) if self.seeds else self.evaluations[0].tables()
        return [*own, *(self.comparison.tables() if self.comparison else [])]


def evaluate_checkpoints(
    selection: SampleSelection,
    weights: Sequence[Path | None] = (None,),
    *,
    other: Path | None = None,
    config: EvaluationConfig = DEFAULT_CONFIG,
    report: ReportConfig = NO_REPORT,
) -> EvaluationRuns:
    """Evaluate one checkpoint, the seeds of one recipe, or one checkpoint against another: `deepmtdr evaluate`.

    Files of a single checkpoint are written to `report.out`. Several checkpoints have folders `seed-1`, `seed-2`, ...
    there, next to `seeds.json`; another system has the folder `other`, next to `comparison.json`.

    Args:
        selection: the photographs.
        weights: checkpoints; None: the shipped weights. Several: the same recipe trained with different seeds.
        other: the checkpoint of another system.
        config: how photographs are measured.
        report: what is written.

    Raises:
        CheckpointError: as `evaluate_folder`.
        DataError: as `evaluate_folder`; also if there are several checkpoints and another system.
        InputSizeError: as `evaluate_folder`.
    """
    if other is not None and len(weights) > 1:
        raise DataError(f"found {len(weights)} checkpoints to be compared with {other}, expected one")
    out = report.out
    folders = [out] if out is None or len(weights) == 1 else [out / f"seed-{n + 1}" for n in range(len(weights))]
    folders = folders if out is not None else [None] * len(weights)
    done = [
        evaluate_folder(selection, path, config=config, report=replace(report, out=folder))
        for path, folder in zip(weights, folders, strict=True)
    ]
    if other is None:
        runs = EvaluationRuns(evaluations=done)
    else:
        other_report = replace(report, out=None if out is None else out / "other")
        second = evaluate_folder(selection, other, config=config, report=other_report)
        comparison = compare(done[0], second, bootstrap=config.bootstrap)
        runs = EvaluationRuns(evaluations=done, other=second, comparison=comparison)
    if out is not None:
        runs.write(out)
    return runs


def score_prediction_files(
    predictions: Path,
    truth: Path,
    *,
    other: Path | None = None,
    out: Path | None = None,
    binary: bool = False,
    allow_missing: bool = False,
    labels: LabelSet = DIABETIC_RETINOPATHY,
    bootstrap: Bootstrap = DEFAULT_BOOTSTRAP,
) -> EvaluationRuns:
    """Score the predictions of one system, or compare those of two: `deepmtdr score`.

    Args:
        predictions: see `score_predictions`.
        truth: see `score_predictions`.
        other: predictions of another system for the same photographs.
        out: folder for `evaluation.json` and `report.html` of the first system, and `comparison.json`. None: nothing is
            written.
        binary: see `score_predictions`.
        allow_missing: see `score_predictions`.
        labels: see `score_predictions`.
        bootstrap: how intervals are computed.

    Raises:
        DataError: as `score_predictions` and `compare`; also if a file cannot be written.
    """
    first, *others = (
        score_predictions(table, truth, binary=binary, allow_missing=allow_missing, labels=labels, bootstrap=bootstrap)
        for table in (predictions, other)
        if table is not None
    )
    comparison = compare(first, others[0], bootstrap=bootstrap) if others else None
    runs = EvaluationRuns(evaluations=[first], other=next(iter(others), None), comparison=comparison)
    if out is not None:
        first.write_scores(out)
        write_page(first, out)
        runs.write(out)
    return runs


def aggregate_seeds(evaluations: Sequence[Evaluation]) -> list[SeedScore]:
    """Compute mean and standard deviation of each score over the checkpoints, as in the paper's tables.

    Args:
        evaluations: evaluations of the checkpoints of one recipe, on the same photographs.

    Raises:
        DataError: if the photographs differ.
    """
    photographs = [sorted((m.dataset, m.name) for m in one.results) for one in evaluations]
    if any(names != photographs[0] for names in photographs):
        counts = ", ".join(str(len(names)) for names in photographs)
        raise DataError(f"found evaluations of {counts} photographs, expected the same photographs")
    values: dict[tuple[str, str, str, str], list[float]] = {}
    for one in evaluations:
        for score in one.scores:
            values.setdefault((score.task, score.dataset, score.subject, score.score), []).append(score.value)
    return [SeedScore(*place, mean_and_sd(found), tuple(found)) for place, found in values.items()]


def seed_tables(rows: Sequence[SeedScore]) -> list[Table]:
    """Make one table for each task and data set, with `mean (standard deviation)` in the cells."""
    places = dict.fromkeys((row.task, row.dataset) for row in rows)
    return [_seed_table([row for row in rows if (row.task, row.dataset) == place]) for place in places]


def _seed_table(rows: Sequence[SeedScore]) -> Table:
    first = rows[0]
    title = f"{first.task}, {first.dataset}: mean (standard deviation) of {len(first.values)} seeds"
    return score_table(title, {(row.subject, row.score): _seed_cell(row) for row in rows})


def _seed_cell(row: SeedScore) -> str:
    return "undefined for a seed" if math.isnan(row.found.mean) else format_mean_sd(*row.found)


def _seed_entry(row: SeedScore) -> dict[str, Any]:
    place = {"task": row.task, "dataset": row.dataset, "subject": row.subject, "score": row.score}
    return json_safe({**place, **row.found._asdict()}) | {"values": [finite_or_none(value) for value in row.values]}
