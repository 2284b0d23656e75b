"""The page `report.html` of an evaluation, which needs no other file."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from html import escape
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from deepmtdr.evaluation.figures import (
    confusion_figure,
    froc_figure,
    gain_figure,
    precision_recall_figure,
    reliability_figure,
    removal_figure,
    roc_figure,
)
from deepmtdr.evaluation.glossary import describe_split, protocol_rows, score_meanings, score_source
from deepmtdr.evaluation.grading import auc_name
from deepmtdr.evaluation.lesions import MEAN
from deepmtdr.evaluation.photograph_result import PhotographResult
from deepmtdr.evaluation.prediction_table import probability_columns, reports_write_errors
from deepmtdr.evaluation.results import Evaluation, format_score
from deepmtdr.evaluation.scores import ALL, MEAN_OVER_SETS, NO_INTERVAL, NO_INTERVAL_REASON, Score, group_by_dataset
from deepmtdr.evaluation.super_resolution import GAIN
from deepmtdr.evaluation.worst_cases import worst_cases
from deepmtdr.files import write_atomically
from deepmtdr.labels import LabelSet
from deepmtdr.rendering.html import HEAT_STYLE, Table, folded_html, heat_cell, page_html, table_html
from deepmtdr.rendering.numbers import format_count
from deepmtdr.rendering.plots import PLOT_STYLE, SERIES_STYLE

PAGE = "report.html"
MAX_OPEN_FAILURES = 12
"""A longer list of failures is folded."""
SUMMARY_SCORES = {
    ("grade", "kappa_quadratic"): "quadratic kappa",
    ("grade", auc_name("referable")): "AUC, referable",
    (MEAN, "aupr_pooled"): "AUPR, mean of the lesion types",
    (GAIN, "psnr_fov"): "PSNR gain, dB",
}
"""Subject and score -> column of the summary."""
_STYLE = """
.warning { border-left: 4px solid var(--mark); padding: .2rem .8rem; }
.tables { display: flex; flex-wrap: wrap; gap: 0 3rem; }
.tables section { max-width: 100%; }
.wide { overflow-x: auto; margin-bottom: 1.5rem; }
.wide table { margin-bottom: .5rem; }
.note { opacity: .75; margin: 0 0 2rem; font-size: .9rem; }
h2 { margin-top: 3rem; border-top: 1px solid #8884; padding-top: 1rem; }
.curves { margin: 1rem 0 2rem; grid-template-columns: repeat(auto-fill, minmax(min(19rem, 100%), 1fr)); }
.words td { overflow-wrap: anywhere; }
.heat img { display: block; width: 5rem; height: auto; border-radius: .3rem; }
.cases .photograph { text-align: left; padding-right: 1rem; }
.cases td { min-width: 3rem; }
@media (max-width: 40rem) { .wide td, .wide th { padding: .2rem .4rem; } }
"""


def write_page(done: Evaluation, folder: Path) -> Path:
    """Write `report.html`: a summary, plots and tables for each data set, the worst cases, the failures.

    Args:
        done: the evaluation; parts without results are left out.
        folder: created if it does not exist.

    Returns:
        Path of the page.

    Raises:
        DataError: if the page cannot be written.
    """
    parts = [
        *_lead(done),
        *_summary(done),
        *_datasets(done),
        *_worst(done),
        *_failures(done),
        f"<h2>Protocol</h2>{table_html(Table('', ('', ''), protocol_rows(done.protocol)), 'words')}",
        *_meanings(done.scores, done.labels),
    ]
    page = page_html(f"{_name(done.protocol)}: evaluation", parts, (PLOT_STYLE, SERIES_STYLE, HEAT_STYLE, _STYLE))
    with reports_write_errors(path := folder / PAGE):
        write_atomically(path, page.encode())
    return path


def _name(protocol: Mapping[str, Any]) -> str:
    """Return the name of the weights, or of the file with another system's predictions."""
    table = protocol.get("predictions")
    return str(protocol.get("weights") or (table.get("file") if isinstance(table, dict) else None) or "predictions")


def _lead(done: Evaluation) -> Iterator[str]:
    """Describe the evaluation in one sentence, with a warning if these may be training photographs."""
    datasets = sorted({m.dataset for m in done.results})
    names = f" of {', '.join(datasets)}" if any(datasets) else ""
    failed = f", {format_count(len(done.failures))} of them without prediction" if done.failures else ""
    photographs = f"{format_count(len(done.results))} photographs{names}{failed}"
    bootstrap = done.protocol.get("bootstrap", {})
    intervals = f"{bootstrap.get('level', 0.95):.0%} intervals by bootstrap over patients" if done.scores else ""
    parts = filter(None, (photographs, describe_split(done.protocol), intervals))
    yield f"<p class=lead>{escape('; '.join(parts))}.</p>"
    if "weights" in done.protocol and not (done.protocol.get("split") or {}).get("of_the_weights"):
        yield (
            "<p class=warning>The weights may have been trained on some of these photographs. The scores on other "
            "photographs may then be worse.</p>"
        )


def _summary(done: Evaluation) -> Iterator[str]:
    """Table of the most important scores, one row for each data set."""
    found = {(s.dataset, s.subject, s.score): s for s in done.scores}
    names = [key for key in SUMMARY_SCORES if any((s.subject, s.score) == key for s in done.scores)]
    if not names:
        return
    rows = []
    for dataset, group in _groups(done):
        cells = [format_score(found[dataset, *key]) if (dataset, *key) in found else "" for key in names]
        if any(cells):
            rows.append((_title(dataset), format_count(len(group)), *cells))
    columns = ("data set", "photographs", *(SUMMARY_SCORES[key] for key in names))
    yield f"<h2>Summary</h2>{_wide(Table('', columns, rows))}"


def _groups(done: Evaluation) -> Iterator[tuple[str, Sequence[PhotographResult]]]:
    """Yield the data sets, and, if there are several, the names of their means and of all photographs together."""
    for dataset, group in group_by_dataset(done.results):
        if dataset == ALL:
            yield MEAN_OVER_SETS, group
        yield dataset, group


def _datasets(done: Evaluation) -> Iterator[str]:
    """Write figures, tables and notes of each data set."""
    for dataset, group in _groups(done):
        own = [score for score in done.scores if score.dataset == dataset]
        figures = "".join(_figures(done, dataset, group, own))
        if own or figures:
            tables = "".join(map(_score_table, replace(done, scores=own, confusion={}).tables()))
            yield f"<h2>{escape(_title(dataset))}</h2><div class=curves>{figures}</div>"
            yield f"<div class=tables>{tables}</div>{_notes(own)}"


def _figures(
    done: Evaluation, dataset: str, group: Sequence[PhotographResult], scores: Sequence[Score]
) -> Iterator[str]:
    if dataset == MEAN_OVER_SETS:
        return
    labels = done.labels
    curves = {code: done.curves[dataset, code] for code in labels.codes if (dataset, code) in done.curves}
    froc = {code: done.froc[dataset, code] for code in labels.codes if (dataset, code) in done.froc}
    if dataset in done.confusion:
        yield confusion_figure(done.confusion[dataset], labels)
    if dataset != ALL:  # over several cameras these would reward recognising the camera
        yield roc_figure(group, scores, labels)
        yield reliability_figure(group, scores)
    yield precision_recall_figure(curves, scores, labels)
    yield froc_figure(froc, scores, labels)
    yield removal_figure(group, scores)
    yield gain_figure(group, scores)


def _title(dataset: str) -> str:
    names = {ALL: "all data sets together", MEAN_OVER_SETS: "mean over the data sets"}
    return names.get(dataset, dataset) or "photographs"


def _score_table(table: Table) -> str:
    return f"<section><h3>{escape(table.title)}</h3>{_wide(table)}</section>"


def _wide(table: Table) -> str:
    """A table that scrolls on a narrow screen. A value and its interval stay on one line."""
    rows = [
        [cell if cell.startswith("undefined") else cell.replace(" ", "\N{NO-BREAK SPACE}") for cell in row]
        for row in table.rows
    ]
    return f"<div class=wide>{table_html(table._replace(rows=rows))}</div>"


def _notes(scores: Iterable[Score]) -> str:
    """List the values that have no interval or are infinite, and the reasons."""
    noted = [score for score in scores if not np.isnan(score.value) and score.note]
    lines = []
    for note, group in groupby(sorted(noted, key=lambda score: score.note), key=lambda score: score.note):
        names = ", ".join(dict.fromkeys(f"{score.score} of {score.subject}" for score in group))
        no_interval = f"No interval for {names}: {NO_INTERVAL_REASON}."
        lines.append(no_interval if note == NO_INTERVAL else f"{note}: {names}.")
    return "".join(f"<p class=note>{escape(line)}</p>" for line in lines)


def _worst(done: Evaluation) -> Iterator[str]:
    """Table of the photographs with the worst predicted grades, with the probability of each grade."""
    cases = worst_cases(done.results)
    if not cases:
        if done.confusion:
            yield "<h2>Worst cases</h2><p class=none>None: every photograph has the right grade.</p>"
        return
    pictures = any((case.dataset, case.name) in done.thumbnails for case in cases)
    head = "".join(f"<th>{column}</th>" for column in probability_columns(done.labels))
    first = "<th></th>" if pictures else ""
    rows = "".join(f"<tr>{_picture(done, case) if pictures else ''}{_case(case)}</tr>" for case in cases)
    yield (
        "<h2>Worst cases</h2><p>Photographs with a wrong grade: the largest error first, then the lowest probability "
        f"of the true grade. The true grade has a frame.</p><div class=wide><table class='heat cases'><tr>{first}"
        f"<th class=photograph>photograph</th><th>true</th><th>predicted</th>{head}</tr>{rows}</table></div>"
    )


def _case(case: PhotographResult) -> str:
    name = f"<td class=photograph>{escape(case.dataset)}<br>{escape(case.name)}</td>"
    grades = f"<td>{case.grade}</td><td>{case.predicted_grade}</td>"
    if case.grade_only:
        return f"{name}{grades}<td colspan={len(case.probs)}>no probabilities</td>"
    cells = (heat_cell("", probability, grade == case.grade) for grade, probability in enumerate(case.probs))
    return name + grades + "".join(cells)


def _picture(done: Evaluation, case: PhotographResult) -> str:
    if (picture := done.thumbnails.get((case.dataset, case.name))) is None:
        return "<td></td>"
    data = base64.b64encode(picture).decode()
    return f'<td><img src="data:image/jpeg;base64,{data}" alt="{escape(case.name)}"></td>'


def _failures(done: Evaluation) -> Iterator[str]:
    if failures := done.failures:
        rows = [(m.dataset, m.name, m.failure) for m in failures]
        table = table_html(Table("", ("data set", "photograph", "reason"), rows), "words")
        summary = f"{format_count(len(rows))} photographs"
        yield f"<h2>Failures</h2>{folded_html(summary, table, opened=len(rows) <= MAX_OPEN_FAILURES)}"


def _meanings(scores: Sequence[Score], labels: LabelSet) -> Iterator[str]:
    used = {score.score for score in scores}
    meanings = score_meanings(labels)
    if rows := [(name, meaning, score_source(name)) for name, meaning in meanings.items() if name in used]:
        table = table_html(Table("", ("score", "meaning", "source"), rows), "words")
        yield (
            "<h2>Meaning of the scores</h2><p>A star marks the scores of the paper's tables; the others are common in "
            f"the field.</p>{folded_html(f'{len(rows)} scores', table)}"
        )
