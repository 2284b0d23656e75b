"""The figures of an evaluation's page: plots as inline SVG, the confusion matrix as a table of heat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

import numpy as np

from deepmtdr.evaluation.binary import BINARY_TASK
from deepmtdr.evaluation.curves import CurvePoints, reliability_bins, roc_curve, thin_curve
from deepmtdr.evaluation.evidence_scores import removal_curves
from deepmtdr.evaluation.grading import GRADE_TASK
from deepmtdr.evaluation.measure import PhotographResult
from deepmtdr.evaluation.results import format_score
from deepmtdr.evaluation.scores import Score
from deepmtdr.metrics import FALSE_POSITIVES_PER_IMAGE, FrocCounts
from deepmtdr.rendering.plots import BOTTOM, LEFT, RIGHT, TOP, UNIT_AXIS, WIDTH, Axis, Panel, linear_axis
from deepmtdr.terms import Grade, Lesion

FIGURE_STYLE = """
:root { --c0: #1f5fbf; --c1: #b4520a; --c2: #857000; --c3: #a0407f; }
@media (prefers-color-scheme: dark) { :root { --c0: #7fb2ff; --c1: #ff8f52; --c2: #e6d84a; --c3: #e79ccb; } }
.c0 { stroke: var(--c0); } .c1 { stroke: var(--c1); stroke-dasharray: 7 3; }
.c2 { stroke: var(--c2); stroke-dasharray: 2 2.5; } .c3 { stroke: var(--c3); stroke-dasharray: 9 3 2 3; }
.c0, .c1, .c2, .c3 { fill: none; stroke-width: 1.8; stroke-linejoin: round; }
.curve .level { stroke-width: 1; opacity: .6; }
.curve .even { stroke: currentColor; opacity: .45; stroke-dasharray: 4 4; }
.curve .bar { fill: var(--line); opacity: .3; }
.curve .count { font-size: 10px; opacity: .8; }
figcaption .series { padding-left: 2.4em; text-indent: -2.4em; margin: .15em 0; }
figcaption svg { width: 1.9em; height: .6em; margin-right: .5em; }
.heat td, .heat th { text-align: center; padding: .3rem .25rem; line-height: 1.25; }
.heat th:first-child { text-align: left; }
.heat tr > th { font-weight: 400; vertical-align: middle; } .heat tr:first-child > th { font-weight: 600; }
.heat td { background: rgb(80 140 230 / calc(.7 * var(--share, 0))); }
.heat td small { display: block; opacity: .75; }
.heat .true { box-shadow: inset 0 0 0 1px currentColor; }
figure .heat { width: 100%; table-layout: fixed; margin: .5rem 0; }
figure .heat th:first-child { width: 6.2em; padding-left: 0; }
"""
"""For a page that has `plots.PLOT_STYLE`."""

SHORT_GRADE_NAMES = ("none", "mild", "moderate", "severe", "prolif.")

SQUARE = TOP + BOTTOM + WIDTH - LEFT - RIGHT
"""Height of a plot whose two axes run from 0 to 1."""
THRESHOLDS = {
    "auc_any": ("any retinopathy, grade 1 or worse", 1),
    "auc_referable": ("referable, grade 2 or worse", 2),
    "auc_sight_threatening": ("sight-threatening, grade 3 or worse", 3),
}


FROC_ENDS = (FALSE_POSITIVES_PER_IMAGE[0], FALSE_POSITIVES_PER_IMAGE[-1])
FROC_AXIS = Axis(
    lambda which: np.log2(which / FROC_ENDS[0]) / np.log2(FROC_ENDS[1] / FROC_ENDS[0]), FALSE_POSITIVES_PER_IMAGE
)
"""Of false alarms per image, each tick twice the one before."""


class Series(NamedTuple):
    """A line of a plot with its line of the legend."""

    name: str
    label: str
    """Its score, with the interval, or why there is none."""
    points: CurvePoints
    level: float | None = None
    """Of the horizontal line beside it: what a guess would reach."""


def figure_html(title: str, lines: Sequence[str], body: str) -> str:
    """A figure with its legend; `lines` and `body` are HTML."""
    small = "".join(f"<small{' class=series' if line.startswith('<svg') else ''}>{line}</small>" for line in lines)
    return f"<figure><figcaption>{escape(title)}{small}</figcaption>{body}</figure>"


def roc_figure(group: Sequence[PhotographResult], scores: Sequence[Score]) -> str:
    """ROC of grade >= 1, 2 and 3, or of positive photographs; empty without probabilities."""
    said = {score.score: format_score(score) for score in scores if score.task == "grading"}
    series = []
    graded = [m for m in group if GRADE_TASK.is_scored(m) and not m.grade_only]
    if graded:
        probs, truth = GRADE_TASK.arrays(graded)
        for score, (name, least) in THRESHOLDS.items():
            points = roc_curve(probs[:, least:].sum(axis=1), truth >= least)
            series.append(Series(name, f"AUC {said.get(score, '')}", thin_curve(points)))
    elif answered := [m for m in group if BINARY_TASK.is_scored(m)]:
        points = roc_curve(*BINARY_TASK.auc_inputs(*BINARY_TASK.arrays(answered)))
        series.append(Series("positive", f"AUC {said.get('auc', '')}", thin_curve(points)))
    if not series:
        return ""
    return _lines("ROC", series, ("1 - specificity", "sensitivity"), even=True)


def precision_recall_figure(curves: Mapping[Lesion, CurvePoints], scores: Sequence[Score]) -> str:
    """Precision over recall of each lesion type's pixels, with the prevalence; empty if no type was annotated."""
    found = {(score.subject, score.score): score for score in scores if score.task == "lesions"}
    series = []
    for lesion, points in curves.items():
        area, share = (found.get((lesion.name, name)) for name in ("aupr_pooled", "prevalence"))
        if area is not None and share is not None:
            said = f"AUPR {format_score(area)}, prevalence {share.value:.2g}"
            series.append(Series(lesion.full_name, said, points, share.value))
    if not series:
        return ""
    return _lines("Lesions, pixel by pixel", series, ("recall", "precision"), even=False)


def froc_figure(curves: Mapping[Lesion, FrocCounts], scores: Sequence[Score]) -> str:
    """Share of the lesions found over false alarms per image; empty if no lesion was counted."""
    found = {score.subject: score for score in scores if (score.task, score.score) == ("lesions", "froc_cpm")}
    alarms = np.geomspace(*FROC_ENDS, 49)
    series = []
    for lesion, counts in curves.items():
        said = f"CPM {format_score(found[lesion.name])}; {counts.lesions} lesions" if lesion.name in found else ""
        points = CurvePoints(alarms, np.array([counts.sensitivity_at(float(rate)) for rate in alarms]))
        empty = CurvePoints(np.empty(0), np.empty(0))
        series.append(Series(lesion.full_name, said, points if counts.lesions else empty))
    if not series:
        return ""
    labels = "false alarms per image", "share of the lesions found"
    return _lines("FROC, lesion by lesion", series, labels, even=False, x=FROC_AXIS)


def removal_figure(group: Sequence[PhotographResult], scores: Sequence[Score]) -> str:
    """P(grade >= 1) as the pixels of the highest evidence go, or come; empty if that was not asked for."""
    areas = {score.score: format_score(score) for score in scores if score.subject == "P(grade >= 1)"}
    said = {"deletion": "spoilt, highest evidence first", "insertion": "brought back so", "random": "spoilt at random"}
    series = [
        Series(said[name], f"area {areas.get(f'area_{name}', '')}", points)
        for name, points in removal_curves(group).items()
    ]
    if not series:
        return ""
    return _lines("Evidence removed", series, ("share of the pixels", "P(grade >= 1)"), even=False)


def _lines(title: str, series: Sequence[Series], labels: tuple[str, str], even: bool, x: Axis = UNIT_AXIS) -> str:
    panel = Panel(x, UNIT_AXIS, SQUARE)
    parts, legend = [panel.axes(*labels)], []
    if even:
        parts.append(panel.line("even", np.array([0.0, 1]), np.array([0.0, 1])))
    for number, (name, said, points, level) in enumerate(series):
        if points.x.size:
            parts.append(panel.line(f"c{number}", *points))
        if points.x.size and level is not None:
            parts.append(panel.line(f"c{number} level", np.array([0, 1]), np.array([level, level])))
        swatch = f'<svg viewBox="0 0 24 8" aria-hidden=true><path class=c{number} d="M0 4H24"></path></svg>'
        legend.append(f"{swatch}{escape(name)}: {escape(said)}")
    said = f"{title}: " + "; ".join(f"{one.name} {one.label}" for one in series)
    return figure_html(title, legend, panel.svg(said, parts))


def reliability_figure(group: Sequence[PhotographResult], scores: Sequence[Score]) -> str:
    """How often the predicted grade is right over how probable it was called, with counts; empty without these."""
    graded = [m for m in group if GRADE_TASK.is_scored(m) and not m.grade_only]
    if not graded:
        return ""
    bins = reliability_bins(*GRADE_TASK.arrays(graded))
    panel, most = Panel(UNIT_AXIS, UNIT_AXIS, SQUARE), max(one.photographs for one in bins)
    parts = [panel.axes("probability of the predicted grade", "share graded right")]
    parts.append(panel.line("even", np.array([0.0, 1]), np.array([0.0, 1])))
    for one in bins:
        place = min(max(np.ceil(one.confidence * 15 - 1e-9) - 1, 0), 14) / 15
        parts.append(_bar(panel, place, place + 1 / 15, 0.2 * one.photographs / most, str(one.photographs)))
    x, y = np.array([one.confidence for one in bins]), np.array([one.accuracy for one in bins])
    parts.append(panel.line("smooth", x, y))
    dots = zip(panel.x_pixels(x), panel.y_pixels(y), strict=True)
    parts += [f'<circle class="dot" cx="{across:.1f}" cy="{up:.1f}" r="3.5"/>' for across, up in dots]
    errors = [format_score(score) for score in scores if score.score == "expected_calibration_error"]
    lines = [*(f"expected calibration error {escape(said)}" for said in errors), "bars: photographs in each of 15 bins"]
    said = f"Reliability: {len(graded)} photographs; " + ", ".join(
        f"{one.accuracy:.2f} right at {one.confidence:.2f} ({one.photographs})" for one in bins
    )
    return figure_html("Reliability of the grade", lines, panel.svg(said, parts))


def gain_figure(group: Sequence[PhotographResult], scores: Sequence[Score]) -> str:
    """How many photographs gain how much PSNR over bicubic; empty where there is no HR frame."""
    gains = [m.image["psnr_fov_sr"] - m.image["psnr_fov_bicubic"] for m in group if m.image]
    finite = np.array([gain for gain in gains if np.isfinite(gain)])
    if not finite.size:
        return ""
    counts, edges = np.histogram(finite, bins=int(np.clip(np.sqrt(finite.size) * 1.5, 5, 24)))
    panel = Panel(linear_axis(edges), linear_axis(np.array([0, 1.1 * counts.max()]), whole=True), SQUARE)
    parts = [panel.axes("gain over bicubic, dB", "photographs")]
    for count, left, right in zip(counts.tolist(), edges.tolist(), edges[1:].tolist(), strict=False):
        parts.append(_bar(panel, left, right, count, str(count) if count else ""))
    if edges[0] < 0 < edges[-1]:
        parts.append(
            f'<path class="axis" d="M{panel.x_pixels(np.array(0)):.1f} {TOP}V{panel.y_pixels(np.array(0)):.1f}"/>'
        )
    means = [s for s in scores if (s.subject, s.score) == ("gain", "psnr_fov")]
    lines = [f"in the field of view: mean {escape(format_score(mean))} dB" for mean in means]
    lines.append(f"{int((finite > 0).sum())} of {len(gains)} photographs gain")
    said = f"PSNR gain: {finite.min():.2f} to {finite.max():.2f} dB, {finite.size} photographs"
    return figure_html("PSNR gain by photograph", lines, panel.svg(said, parts))


def _bar(panel: Panel, left: float, right: float, top: float | int, count: str) -> str:
    x, end = (float(panel.x_pixels(np.array(place))) for place in (left, right))
    y, base = float(panel.y_pixels(np.array(top))), float(panel.y_pixels(np.array(0)))
    size = f'width="{max(end - x - 1, 1):.1f}" height="{base - y:.1f}"'
    words = f'<text class="count" x="{(x + end) / 2:.1f}" y="{y - 3:.1f}" text-anchor="middle">{count}</text>'
    return f'<rect class="bar" x="{x + 0.5:.1f}" y="{y:.1f}" {size}/>{words if count else ""}'


def confusion_figure(counts: Sequence[Sequence[int]]) -> str:
    """Photographs by true and predicted grade; the heat is the share of the row."""
    head = "".join(f"<th>{grade:d}</th>" for grade in Grade)
    rows = ""
    for grade, row in zip(Grade, counts, strict=True):
        cells = (heat_cell(str(n), n / max(sum(row), 1), grade == column) for column, n in enumerate(row))
        rows += f"<tr><th>{grade:d} {SHORT_GRADE_NAMES[grade]}</th>{''.join(cells)}<th>{sum(row)}</th></tr>"
    right = sum(row[grade] for grade, row in enumerate(counts))
    lines = [f"{right} of {sum(map(sum, counts))} graded right; small: the share of the row"]
    table = f"<table class=heat><tr><th>true \\ predicted</th>{head}<th>all</th></tr>{rows}</table>"
    return figure_html("Grades", lines, table)


def heat_cell(text: str, share: float, true: bool) -> str:
    """A cell as dark as the share, which stands below the text; framed where the truth is."""
    small = f"<small>{share:.0%}</small>" if text and share else ""
    kind = " class=true" if true else ""
    return f'<td{kind} style="--share:{share:.2f}">{escape(text) or f"{share:.0%}"}{small}</td>'
