"""report.html of an evaluation: one page that needs no other file, made of the evaluation alone."""

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
    FIGURE_STYLE,
    confusion_figure,
    froc_figure,
    gain_figure,
    heat_cell,
    precision_recall_figure,
    reliability_figure,
    removal_figure,
    roc_figure,
)
from deepmtdr.evaluation.glossary import SCORE_MEANINGS, describe_split, protocol_rows, score_source
from deepmtdr.evaluation.measure import PhotographResult
from deepmtdr.evaluation.results import Evaluation, format_score
from deepmtdr.evaluation.scores import ALL, NO_INTERVAL, Score, group_by_dataset
from deepmtdr.evaluation.worst_cases import predicted_grade, worst_cases
from deepmtdr.files import write_atomically
from deepmtdr.rendering.html import PAGE_STYLE, Table, table_html
from deepmtdr.rendering.plots import PLOT_STYLE
from deepmtdr.terms import Grade, Lesion

PAGE = "report.html"
MAX_OPEN_FAILURES = 12
"""More failures than these are folded away until asked for."""
SUMMARY_SCORES = {
    ("grade", "kappa_quadratic"): "quadratic kappa",
    ("grade", "auc_referable"): "AUC, referable",
    ("mean", "aupr_pooled"): "AUPR, mean of the lesion types",
    ("gain", "psnr_fov"): "PSNR gain, dB",
}
_STYLE = """
.lead { font-size: 1.1rem; }
.warning { border-left: 4px solid var(--mark); padding: .2rem .8rem; }
.tables { display: flex; flex-wrap: wrap; gap: 0 3rem; }
.tables section { max-width: 100%; }
.wide { overflow-x: auto; margin-bottom: 1.5rem; }
.wide table { margin-bottom: .5rem; }
.note { opacity: .75; margin: 0 0 2rem; font-size: .9rem; }
h2 { margin-top: 3rem; border-top: 1px solid #8884; padding-top: 1rem; }
h3 { margin: 1.5rem 0 .5rem; }
.curves { margin: 1rem 0 2rem; grid-template-columns: repeat(auto-fill, minmax(min(19rem, 100%), 1fr)); }
.words td { overflow-wrap: anywhere; }
.heat img { display: block; width: 5rem; height: auto; border-radius: .3rem; }
.cases .photograph { text-align: left; padding-right: 1rem; }
.cases td { min-width: 3rem; }
@media (max-width: 40rem) { .wide td, .wide th { padding: .2rem .4rem; } }
"""


def write_page(done: Evaluation, folder: Path) -> Path:
    """Write `report.html`: what was done, plots and tables by data set, the worst cases, the failures.

    Args:
        done: the evaluation; what it has not got is left out of the page.
        folder: made if it is not there.

    Returns:
        Path of the page, written all or nothing.

    Raises:
        OSError: if the page cannot be written.
    """
    name = escape(_name(done.protocol))
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{name}: evaluation</title>",
        '<meta name=viewport content="width=device-width">',
        f"<style>{PAGE_STYLE}{PLOT_STYLE}{FIGURE_STYLE}{_STYLE}</style><h1>{name}: evaluation</h1>",
        *_lead(done),
        *_in_short(done),
        *_datasets(done),
        *_worst(done),
        *_failures(done),
        f"<h2>Protocol</h2>{table_html(Table('', ('', ''), protocol_rows(done.protocol)), 'words')}",
        *_meanings(done.scores),
        "</html>\n",
    ]
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / PAGE, "".join(parts).encode())
    return folder / PAGE


def _name(protocol: Mapping[str, Any]) -> str:
    """What was evaluated: the weights, or another system's table of predictions."""
    table = protocol.get("predictions")
    return str(protocol.get("weights") or (table.get("file") if isinstance(table, dict) else None) or "predictions")


def _lead(done: Evaluation) -> Iterator[str]:
    """What was done in a sentence, and whether the photographs were kept from the training."""
    datasets = sorted({m.dataset for m in done.results})
    names = f" of {', '.join(datasets)}" if any(datasets) else ""
    failed = f", of which {len(done.failures):,} could not be read" if done.failures else ""
    said = f"{len(done.results):,} photographs{names}{failed}"
    bootstrap = done.protocol.get("bootstrap", {})
    intervals = f"{bootstrap.get('level', 0.95):.0%} intervals by bootstrap over patients" if done.scores else ""
    parts = filter(None, (said, describe_split(done.protocol), intervals))
    yield f"<p class=lead>{escape('; '.join(parts))}.</p>"
    if "weights" in done.protocol and not (done.protocol.get("split") or {}).get("of_the_weights"):
        yield (
            "<p class=warning>It is not known that these photographs were kept from the training of the weights: the "
            "scores may be better than they would be on others.</p>"
        )


def _in_short(done: Evaluation) -> Iterator[str]:
    """A row for each data set, as far as the scores that matter are there."""
    found = {(s.dataset, s.subject, s.score): s for s in done.scores}
    names = [key for key in SUMMARY_SCORES if any((s.subject, s.score) == key for s in done.scores)]
    if not names:
        return
    rows = []
    for dataset, group in group_by_dataset(done.results):
        cells = [format_score(found[dataset, *key]) if (dataset, *key) in found else "" for key in names]
        if any(cells):
            rows.append((_title(dataset), f"{len(group):,}", *cells))
    columns = ("data set", "photographs", *(SUMMARY_SCORES[key] for key in names))
    yield f"<h2>In short</h2>{_wide(Table('', columns, rows))}"


def _datasets(done: Evaluation) -> Iterator[str]:
    for dataset, group in group_by_dataset(done.results):
        own = [score for score in done.scores if score.dataset == dataset]
        curves = {lesion: done.curves[dataset, lesion] for lesion in Lesion if (dataset, lesion) in done.curves}
        figures = [
            confusion_figure(done.confusion[dataset]) if dataset in done.confusion else "",
            roc_figure(group, own),
            reliability_figure(group, own),
            precision_recall_figure(curves, own),
            froc_figure(
                {lesion: done.froc[dataset, lesion] for lesion in Lesion if (dataset, lesion) in done.froc}, own
            ),
            removal_figure(group, own),
            gain_figure(group, own),
        ]
        if own or any(figures):
            yield f"<h2>{escape(_title(dataset))}</h2><div class=curves>{''.join(figures)}</div>"
            tables = "".join(map(_score_table, replace(done, scores=own, confusion={}).tables()))
            yield f"<div class=tables>{tables}</div>"
            yield _notes(own)


def _title(dataset: str) -> str:
    return "all data sets together" if dataset == ALL else dataset or "photographs"


def _score_table(table: Table) -> str:
    return f"<section><h3>{escape(table.title)}</h3>{_wide(table)}</section>"


def _wide(table: Table) -> str:
    """Values stay with their intervals; a table that is too wide for a phone is scrolled by itself."""
    rows = [
        [cell if cell.startswith("undefined") else cell.replace(" ", "\N{NO-BREAK SPACE}") for cell in row]
        for row in table.rows
    ]
    return f"<div class=wide>{table_html(table._replace(rows=rows))}</div>"


def _notes(scores: Iterable[Score]) -> str:
    """Which values have no interval, and why."""
    lacking = [score for score in scores if not np.isnan(score.value) and score.note]
    lines = []
    for note, group in groupby(sorted(lacking, key=lambda score: score.note), key=lambda score: score.note):
        names = ", ".join(dict.fromkeys(f"{score.score} of {score.subject}" for score in group))
        lines.append(f"{note}: {names}." if note != NO_INTERVAL else f"No interval for {names}: {note[13:]}.")
    return "".join(f"<p class=note>{escape(line)}</p>" for line in lines)


def _worst(done: Evaluation) -> Iterator[str]:
    """The photographs whose grade is furthest off, with the probabilities as heat."""
    cases = worst_cases(done.results)
    if not cases:
        if done.confusion:
            yield "<h2>Worst cases</h2><p class=none>None: every photograph is graded right.</p>"
        return
    pictures = any((case.dataset, case.name) in done.thumbnails for case in cases)
    head = "".join(f"<th>p{grade:d}</th>" for grade in Grade)
    first = "<th></th>" if pictures else ""
    rows = "".join(f"<tr>{_picture(done, case) if pictures else ''}{_case(case)}</tr>" for case in cases)
    yield (
        "<h2>Worst cases</h2><p>Graded furthest off, and of those the lowest probability of the true grade first. The "
        f"true grade is framed.</p><div class=wide><table class='heat cases'><tr>{first}<th class=photograph>"
        f"photograph</th><th>true</th><th>predicted</th>{head}</tr>{rows}</table></div>"
    )


def _case(case: PhotographResult) -> str:
    name = f"<td class=photograph>{escape(case.dataset)}<br>{escape(case.name)}</td>"
    grades = f"<td>{case.grade}</td><td>{predicted_grade(case):d}</td>"
    if case.grade_only:
        return f"{name}{grades}<td colspan=5>a grade alone</td>"
    return name + grades + "".join(heat_cell("", case.probs[grade], grade == case.grade) for grade in Grade)


def _picture(done: Evaluation, case: PhotographResult) -> str:
    if (picture := done.thumbnails.get((case.dataset, case.name))) is None:
        return "<td></td>"
    data = base64.b64encode(picture).decode()
    return f'<td><img src="data:image/jpeg;base64,{data}" alt="{escape(case.name)}"></td>'


def _failures(done: Evaluation) -> Iterator[str]:
    if failures := done.failures:
        rows = [(m.dataset, m.name, m.failure) for m in failures]
        table = table_html(Table("", ("data set", "photograph", "reason"), rows), "words")
        opened = " open" if len(rows) <= MAX_OPEN_FAILURES else ""
        yield f"<h2>Failures</h2><details{opened}><summary>{len(rows):,} photographs</summary>{table}</details>"


def _meanings(scores: Sequence[Score]) -> Iterator[str]:
    used = {score.score for score in scores}
    if rows := [(name, meaning, score_source(name)) for name, meaning in SCORE_MEANINGS.items() if name in used]:
        table = table_html(Table("", ("score", "meaning", "whose"), rows), "words")
        yield (
            "<h2>What the scores mean</h2><p>A star marks the scores that stand in the paper's tables; the others are "
            f"the field's.</p><details><summary>{len(rows)} scores</summary>{table}</details>"
        )
