"""report.html of a training run: one page made from the files that the run leaves in its folder."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from deepmtdr.errors import DataError
from deepmtdr.files import write_atomically
from deepmtdr.recipe import Recipe, recipe_differences, to_dict
from deepmtdr.rendering.html import PAGE_STYLE, Table, table_html
from deepmtdr.rendering.plots import PLOT_STYLE
from deepmtdr.rendering.step_curve import curve_svg, is_logarithmic
from deepmtdr.training.log import LOSSES_FILE, VALIDATION_FILE
from deepmtdr.training.log_reader import LoggedSeries, LoggedSeriesByStage, read_log, stage_order

REPORT_FILE, RUN_FILE, SHEETS_FOLDER = "report.html", "run.json", "sheets"

MAX_OPEN_ROWS = 24
"""More settings than these are folded away until asked for."""

TERMS = {
    "isr": "loss of the ISR subnet, Eq. (11)",
    "image": "image loss, Eq. (6)",
    "tv": "total variation loss, Eq. (7)",
    "seg_aware": "segmentation-aware loss, Eq. (4)",
    "cls_aware": "classification-aware loss, Eq. (5)",
    "dice": "supervised segmentation loss, Eq. (8)",
    "cross_entropy": "cross-entropy over the lesion types, beside Eq. (8)",
    "unsupervised": "unsupervised segmentation loss, Eq. (9)",
    "grading": "grading loss, Eq. (10)",
    "accuracy": "share of a batch graded right",
    "xi": "1 - mean IoU at the thresholds of Eq. (2)",
}
"""What the terms of `metrics.csv` mean; one that is missing here is shown by its name alone."""

SCORES = {
    "psnr_gain": "gain over bicubic in the field of view, dB",
    "aupr_mean": "AUPR, mean over the lesion types",
    "kappa_quadratic": "quadratic kappa of the grades",
    "auc_referable": "AUC for referable disease, grade 2 or worse",
}

_STYLE = """
.sheet { width: 100%; height: auto; border-radius: .4rem; }
.lead { font-size: 1.1rem; }
code { overflow-wrap: anywhere; }
h3 { margin: 1.5rem 0 .5rem; }
"""


def write_report(out: Path) -> Path:
    """Write `report.html` from the run's own files: metrics.csv, and validation.csv, run.json and sheets/ where they are.

    The page needs no other file but the sheets, which it shows by their relative path.

    Args:
        out: folder of the run.

    Returns:
        Path of the page, written all or nothing.

    Raises:
        DataError: if metrics.csv is missing, or one of the files is damaged, naming file and row.
        OSError: if the page cannot be written.
    """
    losses = read_log(out / LOSSES_FILE, "term")
    looks = read_log(out / VALIDATION_FILE, "score") if (out / VALIDATION_FILE).is_file() else {}
    run = _read_run(out / RUN_FILE)
    name = escape(str(_part(run, "recipe").get("name") or out.resolve().name))
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{name}: training</title>",
        '<meta name=viewport content="width=device-width">',
        f"<style>{PAGE_STYLE}{PLOT_STYLE}{_STYLE}</style><h1>{name}: training</h1>{_lead(run, losses)}",
        *_cost(run),
        *_looks(looks),
        *_sheets(out),
        *_losses(losses),
        *_trained(run),
        *_files(out),
        "</html>\n",
    ]
    path = out / REPORT_FILE
    write_atomically(path, "".join(parts).encode())
    return path


def _read_run(path: Path) -> Mapping[str, Any]:
    try:
        run = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as JSON ({error})") from error
    if not isinstance(run, dict):
        raise DataError(f"{path}: a {type(run).__name__}, expected an object with recipe, stages, ...")
    return run


def _part(run: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    return part if isinstance(part := run.get(key), dict) else {}


def _stages(run: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    stages = run.get("stages")
    return [stage for stage in stages if isinstance(stage, dict)] if isinstance(stages, list) else []


def _lead(run: Mapping[str, Any], losses: LoggedSeriesByStage) -> str:
    """What was done, in a sentence."""
    if not (stages := _stages(run)):
        return "" if losses else "<p class=lead>No step has been logged.</p>"
    counts = ", ".join(f"{_count(stage.get('steps'))} steps of {stage.get('stage', '?')}" for stage in stages)
    total = sum(_number(stage.get("seconds")) or 0.0 for stage in stages)
    parameters = sum(_number(n) or 0.0 for n in _part(run, "parameters").values())
    size = f"; a network of {parameters / 1e6:.1f} million parameters" if parameters else ""
    return f"<p class=lead>{escape(counts)}{size}; {escape(_time(total))} in all.</p>"


def _cost(run: Mapping[str, Any]) -> Iterator[str]:
    if stages := _stages(run):
        columns = ("stage", "steps", "photographs", "a second", "time", "peak memory, MiB", "weights kept", "ended")
        yield f"<h2>Cost</h2>{table_html(Table('', columns, [_cost_row(stage) for stage in stages]))}"


def _cost_row(stage: Mapping[str, Any]) -> tuple[str, ...]:
    seconds, photographs = (_number(stage.get(key)) for key in ("seconds", "photographs"))
    rate = f"{photographs / seconds:.2f}" if photographs is not None and seconds else ""
    best = stage.get("best_step")
    counts = (_count(stage.get("steps")), _count(photographs), rate, _time(seconds), _count(stage.get("peak_mib")))
    kept = "the last" if best is None else f"of step {_count(best)}"
    return str(stage.get("stage", "?")), *counts, kept, str(stage.get("ended", ""))


def _looks(looks: LoggedSeriesByStage) -> Iterator[str]:
    if not looks:
        return
    yield "<h2>Looks at the validation side</h2><p>The best value of each score is ringed.</p>"
    for stage, scores in looks.items():
        photographs = scores.get("photographs")
        seen = f", {photographs.values[-1]:,.0f} photographs" if photographs and photographs.values.size else ""
        yield f"<h3>{escape(stage)}{seen}</h3><div class=curves>"
        for score, trace in scores.items():
            if score != "photographs" and trace.values.size:
                best = int(trace.values.argmax())
                words = f"best {trace.values[best]:.4g} at step {trace.steps[best]:,.0f}, last {trace.values[-1]:.4g}"
                curve = curve_svg(trace.steps, trace.values, score, smooth=False, best=best)
                yield _figure(score, SCORES.get(score), words, curve)
        yield "</div>"


def _losses(losses: LoggedSeriesByStage) -> Iterator[str]:
    if not losses:
        return
    yield "<h2>Losses</h2><p>Running mean over a fortieth of the stage; every step faintly behind it.</p>"
    for stage, terms in losses.items():
        yield f"<h3>{escape(stage)}</h3><div class=curves>"
        still = []
        for term, trace in terms.items():
            if not trace.values.size or np.ptp(trace.values) == 0:
                still.append(f"{term} {trace.values[0]:.4g}" if trace.values.size else f"{term} undefined")
                continue
            yield _figure(term, TERMS.get(term), _about(trace), curve_svg(trace.steps, trace.values, term))
        yield "</div>"
        if still:
            yield f"<p>The same at every step: {escape(', '.join(still))}.</p>"


def _about(trace: LoggedSeries) -> str:
    """What the curve cannot show."""
    words = f"last {trace.values[-1]:.4g}"
    if is_logarithmic(trace.values):
        zeros = int((trace.values == 0).sum())
        words += ", logarithmic" + (f"; {zeros:,} steps of 0 count in the mean alone" if zeros else "")
    return words


def _figure(name: str, meaning: str | None, words: str, curve: str) -> str:
    lines = "".join(f"<small>{escape(line)}</small>" for line in (meaning, words) if line)
    return f"<figure><figcaption>{escape(name)}{lines}</figcaption>{curve}</figure>"


def _sheets(out: Path) -> Iterator[str]:
    """The last sheet of each stage, and links to the earlier ones."""
    found: dict[str, list[tuple[int, str]]] = {}
    for path in (out / SHEETS_FOLDER).glob("*.png") if (out / SHEETS_FOLDER).is_dir() else ():
        stage, _, step = path.stem.rpartition("_")
        if stage and step.isdecimal():
            found.setdefault(stage, []).append((int(step), f"{SHEETS_FOLDER}/{quote(path.name)}"))
    if found:
        yield "<h2>What it sees</h2>"
    for stage in sorted(found, key=stage_order):
        *earlier, (step, last) = sorted(found[stage])
        title = escape(f"{stage}, step {step:,}")
        yield f'<h3>{title}</h3><a href="{last}"><img class=sheet src="{last}" alt="{title}" loading=lazy></a>'
        if earlier:
            links = ", ".join(f'<a href="{path}">{step:,}</a>' for step, path in earlier)
            yield f"<p>Earlier looks, by step: {links}</p>"


def _trained(run: Mapping[str, Any]) -> Iterator[str]:
    """The recipe as far as it is not the default one, the network's size, and what made and fed it."""
    if recipe := _part(run, "recipe"):
        rows = [_difference(words) for words in recipe_differences(to_dict(Recipe()), recipe)]
        table = table_html(Table("", ("setting", "default", "here"), rows), "words")
        opened = " open" if len(rows) <= MAX_OPEN_ROWS else ""
        yield f"<h2>What differs from the default recipe</h2><details{opened}><summary>{len(rows)} settings</summary>"
        yield f"{table}</details>"
    if parameters := _part(run, "parameters"):
        counts = [(subnet, _count(n)) for subnet, n in parameters.items()]
        yield f"<h2>Parameters</h2>{table_html(Table('', ('subnet', 'parameters'), counts))}"
    facts = [(key, str(value)) for key, value in _part(run, "machine").items()]
    digests = {"split, SHA-256": run.get("data"), "weights, SHA-256": run.get("weights")}
    facts += [(what, str(digest)) for what, digest in digests.items() if digest]
    if facts:
        yield f"<h2>Machine and fingerprints</h2>{table_html(Table('', ('', ''), facts), 'words')}"


def _difference(words: str) -> tuple[str, str, str]:
    """The cells of what `recipe.recipe_differences` says."""
    key, _, values = words.partition(" was ")
    default, _, here = values.rpartition(", is ")
    return key, default, here


def _files(out: Path) -> Iterator[str]:
    """What lies beside the page."""
    files = sorted(
        path for path in out.iterdir() if path.is_file() and path.name[0] != "." and path.name != REPORT_FILE
    )
    links = (f'<tr><td><a href="{quote(f.name)}">{escape(f.name)}</a><td>{f.stat().st_size:,}' for f in files)
    yield f"<h2>Files</h2><table><tr><th>file<th>bytes{''.join(links)}</table>"


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _count(value: Any) -> str:
    number = _number(value)
    return "" if number is None else f"{number:,.0f}"


def _time(seconds: float | None) -> str:
    if seconds is None:
        return ""
    minutes, hours = round(seconds / 60), int(seconds // 3600)
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if seconds < 7200 else f"{hours} h {(seconds - 3600 * hours) // 60:.0f} min"
