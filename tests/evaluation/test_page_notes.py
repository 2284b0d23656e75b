"""The notes of a report about values that have no interval, or are infinite."""

from __future__ import annotations

import math
import re
from pathlib import Path

from deepmtdr.evaluation import Evaluation, PhotographResult
from deepmtdr.evaluation.page import write_page
from deepmtdr.evaluation.scores import EQUAL_IMAGES, NO_INTERVAL, NO_INTERVAL_REASON, Score, ScoreTable


def score(task: ScoreTable, subject: str, name: str, value: float, note: str) -> Score:
    return Score(task, "one", subject, name, value, math.nan, math.nan, 2, 1, note)


def test_each_reason_is_written_once_with_all_its_scores(tmp_path: Path) -> None:
    scores = [
        score(ScoreTable.GRADING, "grade", "accuracy", 0.5, NO_INTERVAL),
        score(ScoreTable.SUPER_RESOLUTION, "sr", "psnr_fov", math.inf, EQUAL_IMAGES),
        score(ScoreTable.SUPER_RESOLUTION, "sr", "ssim_fov", 1.0, NO_INTERVAL),
        score(ScoreTable.GRADING, "grade", "auc_any", math.nan, "one kind only"),  # its cell has the reason
    ]
    results = [PhotographResult(dataset="one", name="n", patient="p")]
    page = write_page(Evaluation(protocol={}, scores=scores, confusion={}, results=results), tmp_path)
    notes = re.findall("<p class=note>(.*?)</p>", page.read_text(encoding="utf-8"))
    assert sorted(notes) == [
        f"No interval for accuracy of grade, ssim_fov of sr: {NO_INTERVAL_REASON}.",
        f"{EQUAL_IMAGES}: psnr_fov of sr.",
    ]
