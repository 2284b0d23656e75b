"""Predict photographs with a checkpoint and score the three tasks, with confidence intervals (Sec. V-B)."""

from __future__ import annotations

from deepmtdr.evaluation.compare import compare
from deepmtdr.evaluation.comparison import Comparison
from deepmtdr.evaluation.config import EvaluationConfig, ReportConfig, SampleSelection
from deepmtdr.evaluation.measure import measure
from deepmtdr.evaluation.multiple_runs import (
    EvaluationRuns,
    SeedScore,
    aggregate_seeds,
    evaluate_checkpoints,
    score_prediction_files,
)
from deepmtdr.evaluation.page import write_page
from deepmtdr.evaluation.photograph_result import InputImage, PhotographResult
from deepmtdr.evaluation.predictions import score_predictions
from deepmtdr.evaluation.results import Evaluation
from deepmtdr.evaluation.run import evaluate, evaluate_folder
from deepmtdr.evaluation.samples import load_samples
from deepmtdr.evaluation.scores import Bootstrap, Score

__all__ = [
    "Bootstrap",
    "Comparison",
    "Evaluation",
    "EvaluationConfig",
    "EvaluationRuns",
    "InputImage",
    "PhotographResult",
    "ReportConfig",
    "SampleSelection",
    "Score",
    "SeedScore",
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
