"""Write report.html of a training run from the other files in its folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from deepmtdr.errors import DataError, RecipeError
from deepmtdr.files import write_atomically
from deepmtdr.recipe import Recipe, recipe_differences, recipe_from_dict
from deepmtdr.rendering.html import Table, figure_html, folded_html, page_html, table_html
from deepmtdr.rendering.numbers import format_count
from deepmtdr.rendering.plots import PLOT_STYLE
from deepmtdr.rendering.step_curve import curve_svg, is_logarithmic
from deepmtdr.toml_config import parse_json
from deepmtdr.training.log import LOSSES_FILE, VALIDATION_FILE
from deepmtdr.training.log_reader import LoggedSeries, LoggedSeriesByStage, read_log, stage_order

MAX_NUMBER = 1e300
"""Numbers of run.json from this on are left out; JSON can hold some that no float can."""
REPORT_FILE, RUN_FILE, SHEETS_FOLDER = "report.html", "run.json", "sheets"

MAX_OPEN_ROWS = 24
"""A longer table of settings is folded."""

TERMS = {
    "isr": "loss of the ISR subnet, Eq. (11)",
    "image": "image loss, Eq. (6)",
    "tv": "total variation loss, Eq. (7)",
    "seg_aware": "segmentation-aware loss, Eq. (4)",
    "cls_aware": "classification-aware loss, Eq. (5)",
    "dice": "supervised segmentation loss, Eq. (8)",
    "cross_entropy": "cross-entropy over the lesion types, beside Eq. (8)",
    "unsupervised": "unsupervised segmentation loss, Eq. (9)",
    "grading": "grading loss",
    "accuracy": "share of a batch graded right",
    "xi": "1 - mean IoU at the thresholds of Eq. (2)",
    "share_sa": "gradient of Eq. (4) at the SR image, before it is limited, relative to that of Eq. (6)",
    "share_ca": "gradient of Eq. (5) at the SR image, before it is limited, relative to that of Eq. (6)",
    "cosine_sa": "cosine of the gradients of Eqs. (4) and (6) at the SR image",
    "cosine_ca": "cosine of the gradients of Eqs. (5) and (6) at the SR image",
}
"""Name of a loss in `metrics.csv` -> its meaning. A loss that is missing here is shown by its name."""

SCORES = {
    "psnr_gain": "gain over bicubic in the field of view, dB",
    "psnr_gain_eroded": "gain over normalised bicubic in the field of view without its rim, dB",
    "aupr_mean": "AUPR, mean over the lesion types",
    "kappa_quadratic": "quadratic kappa of the grades",
    "auc_referable": "AUC for referable disease",
    "live_units": "share of hidden units of the grading subnet that are above 0 on any photograph",
}
"""Name of a score in `validation.csv` -> its meaning."""

STYLE = """
.sheet { width: 100%; height: auto; border-radius: .4rem; }
code { overflow-wrap: anywhere; }
"""


def write_report(out: Path) -> Path:
    """Write `report.html` from metrics.csv and, if they exist, validation.csv, run.json and sheets/.

    The page needs no other files except the contact sheets, which it shows by their relative path.

    Args:
        out: folder of the run.

    Returns:
        Path of the page.

    Raises:
        DataError: if metrics.csv is missing, or one of the files is damaged; the message has file and row.
        OSError: if the page cannot be written.
    """
    losses = read_log(out / LOSSES_FILE, "term")
    scores = read_log(out / VALIDATION_FILE, "score") if (out / VALIDATION_FILE).is_file() else {}
    run = _read_run(out / RUN_FILE)
    name = str(_table(run, "recipe").get("name") or out.resolve().name)
    body = [
        _summary(run, losses),
        *_cost_part(run),
        *_validation_part(scores),
        *_sheets_part(out),
        *_losses_part(losses),
        *_recipe_part(run),
        *_facts_part(run),
        *_files_part(out),
    ]
    path = out / REPORT_FILE
    write_atomically(path, page_html(f"{name}: training", body, [PLOT_STYLE, STYLE]).encode())
    return path


def _read_run(path: Path) -> Mapping[str, Any]:
    try:
        run = parse_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as JSON ({error})") from error
    if not isinstance(run, dict):
        raise DataError(f"{path}: found a {type(run).__name__}, expected an object with recipe, stages, ...")
    return run


def _table(run: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """Return an object within run.json; empty if the object is missing."""
    table = run.get(key)
    return table if isinstance(table, dict) else {}


def _stages(run: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    stages = run.get("stages")
    return [stage for stage in stages if isinstance(stage, dict)] if isinstance(stages, list) else []


def _summary(run: Mapping[str, Any], losses: LoggedSeriesByStage) -> str:
    """Describe steps, size of the network and time in one sentence."""
    if not (stages := _stages(run)):
        return "" if losses else "<p class=lead>No step has been logged.</p>"
    counts = ", ".join(f"{_count(stage.get('steps'))} steps of {stage.get('stage', '?')}" for stage in stages)
    total = sum(_number(stage.get("seconds")) or 0.0 for stage in stages)
    parameters = sum(_number(n) or 0.0 for n in _table(run, "parameters").values())
    size = f"; a network of {parameters / 1e6:.1f} million parameters" if parameters else ""
    return f"<p class=lead>{escape(counts)}{size}; {escape(_format_time(total))} in all.</p>"


def _cost_part(run: Mapping[str, Any]) -> Iterator[str]:
    if stages := _stages(run):
        columns = ("stage", "steps", "photographs", "a second", "time", "peak memory, MiB", "weights kept", "ended")
        yield f"<h2>Cost</h2>{table_html(Table('', columns, [_cost_row(stage) for stage in stages]))}"


def _cost_row(stage: Mapping[str, Any]) -> tuple[str, ...]:
    seconds, photographs = (_number(stage.get(key)) for key in ("seconds", "photographs"))
    best = stage.get("best_step")
    return (
        str(stage.get("stage", "?")),
        _count(stage.get("steps")),
        _count(photographs),
        f"{photographs / seconds:.2f}" if photographs is not None and seconds else "",
        _format_time(seconds),
        _count(stage.get("peak_mib")),
        "the last" if best is None else f"of step {_count(best)}",
        str(stage.get("ended", "")),
    )


def _validation_part(stages: LoggedSeriesByStage) -> Iterator[str]:
    if not stages:
        return
    yield "<h2>Validation</h2><p>The best value of each score has a ring.</p>"
    for stage, scores in stages.items():
        photographs = scores.get("photographs")
        count = f", {photographs.values[-1]:,.0f} photographs" if photographs and photographs.values.size else ""
        yield f"<h3>{escape(stage)}{count}</h3><div class=curves>"
        for score, series in scores.items():
            if score != "photographs" and series.values.size:
                best = int(series.values.argmax())
                text = f"best {series.values[best]:.4g} at step {series.steps[best]:,.0f}, last {series.values[-1]:.4g}"
                curve = curve_svg(series.steps, series.values, score, smooth=False, best=best)
                yield _figure(score, SCORES.get(score), text, curve)
        yield "</div>"


def _losses_part(stages: LoggedSeriesByStage) -> Iterator[str]:
    if not stages:
        return
    yield (
        "<h2>Losses</h2><p>Dark line: running mean over a fortieth of the steps of the stage. "
        "Faint line: the value at every step.</p>"
    )
    for stage, terms in stages.items():
        yield f"<h3>{escape(stage)}</h3><div class=curves>"
        constant = []
        for term, series in terms.items():
            if not series.values.size or np.ptp(series.values) == 0:
                constant.append(f"{term} {series.values[0]:.4g}" if series.values.size else f"{term} undefined")
                continue
            yield _figure(term, TERMS.get(term), _describe(series), curve_svg(series.steps, series.values, term))
        yield "</div>"
        if constant:
            yield f"<p>Constant over all steps: {escape(', '.join(constant))}.</p>"


def _describe(series: LoggedSeries) -> str:
    """Describe the last value, and the values that a logarithmic axis leaves out."""
    text = f"last {series.values[-1]:.4g}"
    if is_logarithmic(series.values):
        zeros = int((series.values == 0).sum())
        text += ", logarithmic" + (f"; {zeros:,} steps of 0 count only in the mean" if zeros else "")
    return text


def _figure(name: str, meaning: str | None, text: str, curve: str) -> str:
    return figure_html(name, [escape(line) for line in (meaning, text) if line], curve)


def _sheets_part(out: Path) -> Iterator[str]:
    """Show the last contact sheet of each stage, and links to the earlier sheets."""
    found: dict[str, list[tuple[int, str]]] = {}
    for path in (out / SHEETS_FOLDER).glob("*.png") if (out / SHEETS_FOLDER).is_dir() else ():
        stage, _, step = path.stem.rpartition("_")
        if stage and step.isdecimal():
            found.setdefault(stage, []).append((int(step), f"{SHEETS_FOLDER}/{quote(path.name)}"))
    if found:
        yield "<h2>Contact sheets</h2>"
    for stage in sorted(found, key=stage_order):
        *earlier, (step, last) = sorted(found[stage])
        title = escape(f"{stage}, step {step:,}")
        yield f'<h3>{title}</h3><a href="{last}"><img class=sheet src="{last}" alt="{title}" loading=lazy></a>'
        if earlier:
            links = ", ".join(f'<a href="{path}">{step:,}</a>' for step, path in earlier)
            yield f"<p>Earlier validations, by step: {links}</p>"


def _recipe_part(run: Mapping[str, Any]) -> Iterator[str]:
    """List the settings that differ from the defaults."""
    if not (values := _table(run, "recipe")):
        return
    yield "<h2>What differs from the default recipe</h2>"
    try:
        recipe = recipe_from_dict(values, RUN_FILE)
    except RecipeError as error:
        yield f"<p>The recipe cannot be read: {escape(str(error))}</p>"
        return
    differences = recipe_differences(Recipe(), recipe)
    rows = [(difference.key, repr(difference.was), repr(difference.now)) for difference in differences]
    table = table_html(Table("", ("setting", "default", "here"), rows), "words")
    yield folded_html(f"{len(rows)} settings", table, opened=len(rows) <= MAX_OPEN_ROWS)


def _facts_part(run: Mapping[str, Any]) -> Iterator[str]:
    """List size of the network, machine, and fingerprints of split and weights."""
    if parameters := _table(run, "parameters"):
        counts = [(subnet, _count(n)) for subnet, n in parameters.items()]
        yield f"<h2>Parameters</h2>{table_html(Table('', ('subnet', 'parameters'), counts))}"
    facts = [(key, str(value)) for key, value in _table(run, "machine").items()]
    digests = {"split, SHA-256": run.get("data"), "weights, SHA-256": run.get("weights")}
    facts += [(name, str(digest)) for name, digest in digests.items() if digest]
    if facts:
        yield f"<h2>Machine and fingerprints</h2>{table_html(Table('', ('', ''), facts), 'words')}"


def _files_part(out: Path) -> Iterator[str]:
    """List links to the other files of the folder."""
    files = sorted(
        path for path in out.iterdir() if path.is_file() and path.name[0] != "." and path.name != REPORT_FILE
    )
    links = (f'<tr><td><a href="{quote(f.name)}">{escape(f.name)}</a><td>{f.stat().st_size:,}' for f in files)
    yield f"<h2>Files</h2><table><tr><th>file<th>bytes{''.join(links)}</table>"


def _number(value: Any) -> float | None:
    """Return a value of run.json as a number; None if it is not a finite number."""
    return float(value) if isinstance(value, int | float) and abs(value) < MAX_NUMBER else None


def _count(value: Any) -> str:
    return format_count(_number(value))


def _format_time(seconds: float | None) -> str:
    if seconds is None:
        return ""
    minutes, hours = round(seconds / 60), int(seconds // 3600)
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if seconds < 7200 else f"{hours} h {(seconds - 3600 * hours) // 60:.0f} min"
