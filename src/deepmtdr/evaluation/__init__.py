"""Predict a split once and score the three tasks, with intervals (Sec. V-B)."""

from __future__ import annotations

from deepmtdr.evaluation.compare import Comparison, compare
from deepmtdr.evaluation.measure import PhotographResult, measure
from deepmtdr.evaluation.multiple_runs import (
    EvaluationRuns,
    SeedScore,
    aggregate_seeds,
    evaluate_checkpoints,
    score_prediction_files,
)
from deepmtdr.evaluation.page import write_page
from deepmtdr.evaluation.predictions import score_predictions
from deepmtdr.evaluation.run import Evaluation, Table, evaluate, evaluate_folder, load_samples
from deepmtdr.evaluation.scores import Bootstrap, Score

__all__ = [
    "Bootstrap",
    "Comparison",
    "Evaluation",
    "EvaluationRuns",
    "PhotographResult",
    "Score",
    "SeedScore",
    "Table",
    "aggregate_seeds",
    "compare",
    "evaluate",
    "evaluate_checkpoints",
    "evaluate_folder",
    "load_samples",
    "measure",
    "score_prediction_files",
    "score_predictions",
    "write_page",
]
