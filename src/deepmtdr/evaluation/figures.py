"""The figures of an evaluation's report: ROC, precision-recall, FROC, reliability, PSNR gain, confusion matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

from deepmtdr.evaluation.binary import BINARY_TASK
from deepmtdr.evaluation.curves import NO_POINTS, CurvePoints, roc_curve, thin_curve
from deepmtdr.evaluation.evidence_scores import P_DISEASE, removal_curves
from deepmtdr.evaluation.grading import at_least, auc_name, grade_arrays, is_graded, threshold_title
from deepmtdr.evaluation.photograph_result import PhotographResult
from deepmtdr.evaluation.results import format_score
from deepmtdr.evaluation.scores import Score, ScoreTable
from deepmtdr.evaluation.super_resolution import GAIN
from deepmtdr.labels import LabelSet
from deepmtdr.metrics import FALSE_POSITIVES_PER_IMAGE, FrocCounts
from deepmtdr.metrics.calibration import CALIBRATION_BINS, reliability_bins
from deepmtdr.rendering.html import figure_html, heat_cell
from deepmtdr.rendering.plots import (
    DIAGONAL,
    SQUARE_HEIGHT,
    TOP,
    UNIT_AXIS,
    Axis,
    Panel,
    Series,
    line_plot,
    linear_axis,
)

FROC_ENDS = (FALSE_POSITIVES_PER_IMAGE[0], FALSE_POSITIVES_PER_IMAGE[-1])
FROC_AXIS = Axis(
    lambda alarms: np.log2(alarms / FROC_ENDS[0]) / np.log2(FROC_ENDS[1] / FROC_ENDS[0]), FALSE_POSITIVES_PER_IMAGE
)
"""False alarms per image on a logarithmic axis; each tick is twice the one before."""

CALIBRATION_ERRORS = {
    "expected_calibration_error": "expected calibration error",
    "debiased_ece": "debiased",
}
"""Score -> its name in the caption of the reliability plot."""

REMOVAL_NAMES = {
    "deletion": "blurred, highest evidence first",
    "insertion": "restored, highest evidence first",
    "random": "blurred in random order",
}


def roc_figure(group: Sequence[PhotographResult], scores: Sequence[Score], labels: LabelSet) -> str:
    """Plot the ROC curve of each threshold of the label set; empty without probabilities.

    If no photograph has probabilities of the grades, plot the curve of `positive`.
    """
    areas = {score.score: format_score(score) for score in scores if score.task == ScoreTable.GRADING}
    series = []
    if graded := _with_probabilities(group):
        _, probs, truth = grade_arrays(graded)
        for threshold, least in labels.thresholds.items():
            points = thin_curve(roc_curve(*at_least(probs, truth, least)))
            area = areas.get(auc_name(threshold), "")
            series.append(Series(threshold_words(labels, threshold), f"AUC {area}", *points))
    elif predicted := [m for m in group if BINARY_TASK.is_scored(m)]:
        points = thin_curve(roc_curve(*BINARY_TASK.auc_inputs(*BINARY_TASK.arrays(predicted))))
        series.append(Series("positive", f"AUC {areas.get('auc', '')}", *points))
    return line_plot("ROC", series, ("1 - specificity", "sensitivity"), diagonal=True)


def threshold_words(labels: LabelSet, threshold: str) -> str:
    """Describe a threshold in words, such as "referable, grade 2 or worse"."""
    name = f"any {labels.short_disease or labels.disease}" if threshold == "any" else threshold_title(threshold)
    return f"{name}, grade {labels.thresholds[threshold]} or worse"


def _with_probabilities(group: Sequence[PhotographResult]) -> list[PhotographResult]:
    return [m for m in group if is_graded(m) and not m.grade_only]


def precision_recall_figure(curves: Mapping[str, CurvePoints], scores: Sequence[Score], labels: LabelSet) -> str:
    """Plot precision over recall of the pixels of each lesion type, with the prevalence; empty without annotation."""
    found = {(score.subject, score.score): score for score in scores if score.task == ScoreTable.LESIONS}
    series = []
    for code, points in curves.items():
        area, prevalence = (found.get((code, name)) for name in ("aupr_pooled", "prevalence"))
        if area is not None and prevalence is not None:
            label = f"AUPR {format_score(area)}, prevalence {prevalence.value:.2g}"
            series.append(Series(labels.lesion(code).name, label, *points, level=prevalence.value))
    return line_plot("Lesions, pixel by pixel", series, ("recall", "precision"))


def froc_figure(curves: Mapping[str, FrocCounts], scores: Sequence[Score], labels: LabelSet) -> str:
    """Plot the fraction of the lesions found, over false alarms per image; empty if no lesions were counted."""
    found = {score.subject: score for score in scores if (score.task, score.score) == (ScoreTable.LESIONS, "froc_cpm")}
    alarms = np.geomspace(*FROC_ENDS, 49)
    series = []
    for code, counts in curves.items():
        label = f"CPM {format_score(found[code])}; {counts.lesions} lesions" if code in found else ""
        points = CurvePoints(alarms, np.array([counts.sensitivity_at(float(rate)) for rate in alarms]))
        series.append(Series(labels.lesion(code).name, label, *(points if counts.lesions else NO_POINTS)))
    axis_labels = "false alarms per image", "fraction of the lesions found"
    return line_plot("FROC, lesion by lesion", series, axis_labels, x_axis=FROC_AXIS)


def removal_figure(group: Sequence[PhotographResult], scores: Sequence[Score]) -> str:
    """Plot P(grade >= 1) while pixels with the highest evidence are blurred or restored; empty if this was not done."""
    areas = {score.score: format_score(score) for score in scores if score.subject == P_DISEASE}
    series = [
        Series(REMOVAL_NAMES[name], f"area {areas.get(f'area_{name}', '')}", *points)
        for name, points in removal_curves(group).items()
    ]
    return line_plot("Evidence removed", series, ("fraction of the pixels", P_DISEASE))


def reliability_figure(group: Sequence[PhotographResult], scores: Sequence[Score]) -> str:
    """Plot how often the predicted grade is right, over its probability; empty without probabilities."""
    graded = _with_probabilities(group)
    if not graded:
        return ""
    _, probs, truth = grade_arrays(graded)
    bins = reliability_bins(probs, truth)
    panel, most = Panel(UNIT_AXIS, UNIT_AXIS, SQUARE_HEIGHT), max(one.photographs for one in bins)
    parts = [panel.axes("highest probability", "fraction in which its grade is right")]
    parts.append(panel.line("even", DIAGONAL, DIAGONAL))
    for one in bins:
        left, right = one.number / CALIBRATION_BINS, (one.number + 1) / CALIBRATION_BINS
        parts.append(panel.bar(left, right, 0.2 * one.photographs / most, str(one.photographs)))
    x, y = np.array([one.confidence for one in bins]), np.array([one.accuracy for one in bins])
    parts.append(panel.line("smooth", x, y))
    parts += panel.dots(x, y, radius=3.5)
    found = {score.score: escape(format_score(score)) for score in scores if score.score in CALIBRATION_ERRORS}
    captions = [f"{title} {found[name]}" for name, title in CALIBRATION_ERRORS.items() if name in found]
    captions.append(f"bars: photographs in each of {CALIBRATION_BINS} bins")
    alt_text = f"Reliability: {len(graded)} photographs; " + ", ".join(
        f"{one.accuracy:.2f} right at {one.confidence:.2f} ({one.photographs})" for one in bins
    )
    return figure_html("Reliability of the grade", captions, panel.svg(alt_text, parts))


def gain_figure(group: Sequence[PhotographResult], scores: Sequence[Score]) -> str:
    """Plot a histogram of the PSNR gain over bicubic interpolation; empty without an HR frame."""
    gains = [gain for m in group if (gain := m.psnr_gain) is not None]
    finite = np.array([gain for gain in gains if np.isfinite(gain)])
    if not finite.size:
        return ""
    counts, edges = np.histogram(finite, bins=int(np.clip(np.sqrt(finite.size) * 1.5, 5, 24)))
    panel = Panel(linear_axis(edges), linear_axis(np.array([0, 1.1 * counts.max()]), whole=True), SQUARE_HEIGHT)
    parts = [panel.axes("gain over bicubic, dB", "photographs")]
    for count, left, right in zip(counts.tolist(), edges.tolist(), edges[1:].tolist(), strict=False):
        parts.append(panel.bar(left, right, count, str(count) if count else ""))
    if edges[0] < 0 < edges[-1]:
        x, y = panel.x_pixels(np.array(0)), panel.y_pixels(np.array(0))
        parts.append(f'<path class="axis" d="M{x:.1f} {TOP}V{y:.1f}"/>')
    means = [s for s in scores if (s.subject, s.score) == (GAIN, "psnr_fov")]
    captions = [f"in the field of view: mean {escape(format_score(mean))} dB" for mean in means]
    captions.append(f"higher than bicubic on {int((finite > 0).sum())} of {len(gains)} photographs")
    alt_text = f"PSNR gain: {finite.min():.2f} to {finite.max():.2f} dB, {finite.size} photographs"
    return figure_html("PSNR gain by photograph", captions, panel.svg(alt_text, parts))


def confusion_figure(counts: Sequence[Sequence[int]], labels: LabelSet) -> str:
    """Table of the photographs by true and predicted grade; a cell is darker for a higher share of its row."""
    head = "".join(f"<th>{grade}</th>" for grade in range(len(counts)))
    rows = ""
    for grade, row in enumerate(counts):
        cells = (heat_cell(str(n), n / max(sum(row), 1), grade == column) for column, n in enumerate(row))
        name = escape(labels.grade_names[grade])
        rows += f"<tr><th>{grade} {name}</th>{''.join(cells)}<th>{sum(row)}</th></tr>"
    right = sum(row[grade] for grade, row in enumerate(counts))
    captions = [f"{right} of {sum(map(sum, counts))} graded right; small: share of the row"]
    table = f"<table class=heat><tr><th>true \\ predicted</th>{head}<th>all</th></tr>{rows}</table>"
    return figure_html("Grades", captions, table)
