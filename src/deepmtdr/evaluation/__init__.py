"""Predict a split once and score the three tasks, with intervals (Sec. V-B)."""

from __future__ import annotations

from deepmtdr.evaluation.compare import Comparison, compare
from deepmtdr.evaluation.measure import Measured, measure
from deepmtdr.evaluation.page import write_page
from deepmtdr.evaluation.predictions import score_predictions
from deepmtdr.evaluation.run import Evaluation, Table, evaluate, evaluate_folder, held_out
from deepmtdr.evaluation.scores import Bootstrap, Score

__all__ = [
    "Bootstrap",
    "Comparison",
    "Evaluation",
    "Measured",
    "Score",
    "Table",
    "compare",
    "evaluate",
    "evaluate_folder",
    "held_out",
    "measure",
    "score_predictions",
    "write_page",
]
