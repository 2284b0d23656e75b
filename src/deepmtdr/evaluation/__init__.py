"""Predict a split once and score the three tasks, with intervals (Sec. V-B)."""

from __future__ import annotations

from deepmtdr.evaluation.calibrate import calibrate, calibrate_folder
from deepmtdr.evaluation.calibration import Calibration
from deepmtdr.evaluation.compare import Comparison, compare
from deepmtdr.evaluation.measure import Measured, measure
from deepmtdr.evaluation.page import write_page
from deepmtdr.evaluation.predictions import score_predictions
from deepmtdr.evaluation.run import Evaluation, Table, evaluate, evaluate_folder, held_out
from deepmtdr.evaluation.scores import Bootstrap, Score
from deepmtdr.evaluation.systems import OverSeeds, Systems, evaluate_systems, over_seeds, score_systems

__all__ = [
    "Bootstrap",
    "Calibration",
    "Comparison",
    "Evaluation",
    "Measured",
    "OverSeeds",
    "Score",
    "Systems",
    "Table",
    "calibrate",
    "calibrate_folder",
    "compare",
    "evaluate",
    "evaluate_folder",
    "evaluate_systems",
    "held_out",
    "measure",
    "over_seeds",
    "score_predictions",
    "score_systems",
    "write_page",
]
