"""Figures of an evaluation's report: the drawn points and the legends, worked by hand."""

from __future__ import annotations

import re
from html import escape

import numpy as np
import pytest

from deepmtdr.evaluation.evidence import EvidenceScores, RegionScores, RemovalCurves
from deepmtdr.evaluation.evidence_scores import P_DISEASE, P_PREDICTED
from deepmtdr.evaluation.figures import froc_figure, reliability_figure, removal_figure
from deepmtdr.evaluation.photograph_result import PhotographResult
from deepmtdr.evaluation.scores import Score, ScoreTable
from deepmtdr.labels import DIABETIC_RETINOPATHY
from deepmtdr.metrics import FALSE_POSITIVES_PER_IMAGE, FrocCounts
from deepmtdr.rendering.plots import LEFT, RIGHT, TOP, WIDTH

SIDE = WIDTH - LEFT - RIGHT
"""Length of both axes of a square plot, px."""
THRESHOLDS = np.array([0.2, 0.5, 0.8])


def on_axes(x: float | np.ndarray, y: float | np.ndarray) -> np.ndarray:
    """Positions on the axes, from 0 to 1, of pixels of a square plot."""
    return np.array([(np.asarray(x) - LEFT) / SIDE, 1 - (np.asarray(y) - TOP) / SIDE])


def line(figure: str, kind: str) -> np.ndarray:
    """The points of a line of a square plot."""
    (pairs,) = re.findall(rf'<polyline class="{kind}" points="(.*?)"', figure)
    return on_axes(*np.array([pair.split(",") for pair in pairs.split()], float).T)


def score(task: ScoreTable, subject: str, name: str, value: float) -> Score:
    return Score(task, "one", subject, name, value, value - 0.1, value + 0.1, 2, 2)


def test_froc_curve_passes_through_the_sensitivity_at_each_reported_rate() -> None:
    # Per image 8, 2 and 1/2 false alarms; of the lesions 8/8, 4/8 and 2/8 are found.
    counts = FrocCounts(THRESHOLDS, np.array([8, 4, 2]), np.array([16, 4, 1]), lesions=8, images=2)
    expected = [1 / 16, 1 / 8, 1 / 4, 1 / 3, 1 / 2, 2 / 3, 1]
    x, y = line(froc_figure({"MA": counts}, [], DIABETIC_RETINOPATHY), "c0")
    for tick, sensitivity in enumerate(expected):  # each tick has twice the rate of the one before
        (place,) = np.flatnonzero(np.abs(x - tick / 6) < 1e-3)
        assert y[place] == pytest.approx(sensitivity, abs=1e-3)
    assert len(expected) == len(FALSE_POSITIVES_PER_IMAGE)


def test_froc_legend_has_the_score_and_the_number_of_lesions() -> None:
    counts = FrocCounts(THRESHOLDS, np.array([8, 4, 2]), np.array([16, 4, 1]), lesions=8, images=2)
    none = FrocCounts(THRESHOLDS, np.array([0, 0, 0]), np.array([16, 4, 1]), lesions=0, images=2)
    scores = [
        score(ScoreTable.LESIONS, "MA", "froc_cpm", 0.4),
        score(ScoreTable.LESIONS, "MA", "froc_sensitivity_at_1", 0.7),
        score(ScoreTable.LESIONS_ON_ORIGINAL, "MA", "froc_cpm", 0.8),
    ]
    figure = froc_figure({"MA": counts, "HE": none}, scores, DIABETIC_RETINOPATHY)
    assert "microaneurysms: CPM 0.4 [0.3, 0.5]; 8 lesions" in figure
    assert 'class="c1"' not in figure, "no line without lesions"
    assert froc_figure({}, scores, DIABETIC_RETINOPATHY) == ""


def removed(*curves: list[float]) -> PhotographResult:
    """A photograph whose P(grade = 0) has the given curves; the rest is grade 2."""
    own = RemovalCurves(*(np.array([[p, 0, 1 - p, 0, 0] for p in curve]) for curve in curves))
    nothing = RegionScores(np.nan, np.nan, np.nan, np.full(12, np.nan), np.nan)
    evidence = EvidenceScores({}, nothing, np.nan, own)
    return PhotographResult(dataset="one", name="n", patient="p", evidence=evidence)


def test_removal_figure_draws_the_probability_of_disease_and_names_its_area() -> None:
    scores = [score(ScoreTable.EVIDENCE_REMOVED, P_PREDICTED, "area_deletion", 0.9)]
    scores += [
        score(ScoreTable.EVIDENCE_REMOVED, P_DISEASE, f"area_{name}", area)
        for name, area in (("deletion", 0.3), ("insertion", 0.7), ("random", 0.5))
    ]
    figure = removal_figure([removed([0, 0.8, 1], [1, 0.2, 0], [0, 0.5, 1])], scores)
    assert line(figure, "c0") == pytest.approx(np.array([[0, 0.5, 1], [1, 0.2, 0]]), abs=1e-3)
    assert line(figure, "c1") == pytest.approx(np.array([[0, 0.5, 1], [0, 0.8, 1]]), abs=1e-3)
    assert line(figure, "c2") == pytest.approx(np.array([[0, 0.5, 1], [1, 0.5, 0]]), abs=1e-3)
    for words in (
        "blurred, highest evidence first: area 0.3 [0.2, 0.4]",
        "restored, highest evidence first: area 0.7 [0.6, 0.8]",
        "blurred in random order: area 0.5 [0.4, 0.6]",
    ):
        assert f"</svg>{words}</small>" in figure
    assert "<figcaption>Evidence removed<" in figure
    assert f">{escape(P_DISEASE)}</text>" in figure


def test_reliability_figure_has_a_dot_and_a_bar_for_each_bin() -> None:
    probs = {0.87: (0.87, 0.13, 0.0, 0.0, 0.0), 0.63: (0.63, 0.37, 0.0, 0.0, 0.0)}
    group = [
        PhotographResult(dataset="one", name=f"{i}", patient=f"{i}", grade=grade, probs=probs[confidence])
        for i, (confidence, grade) in enumerate([(0.87, 0), (0.87, 1), (0.87, 0), (0.87, 1), (0.63, 0)])
    ]  # of those at 0.87 two of four are right; the one at 0.63 is right
    figure = reliability_figure(group, [score(ScoreTable.GRADING, "grade", "expected_calibration_error", 0.2)])
    dots = [on_axes(float(x), float(y)) for x, y in re.findall(r'<circle class="dot" cx="(.*?)" cy="(.*?)"', figure)]
    assert np.array(dots) == pytest.approx(np.array([[0.63, 1], [0.87, 0.5]]), abs=1e-3)
    assert line(figure, "smooth") == pytest.approx(np.array([[0.63, 0.87], [1, 0.5]]), abs=1e-3)
    heights = [float(height) / SIDE for height in re.findall(r'<rect class="bar".*? height="(.*?)"', figure)]
    assert heights == pytest.approx([0.05, 0.2], abs=1e-3)  # a fifth of the plot for the largest bin
    assert re.findall(r'class="count".*?>(\d+)<', figure) == ["1", "4"]
    assert "<small>expected calibration error 0.2 [0.1, 0.3]</small>" in figure
    assert "<small>bars: photographs in each of 15 bins</small>" in figure
