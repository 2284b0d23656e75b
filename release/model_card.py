"""The model card of shipped weights: texts from a TOML file, numbers from the run, the calibration and the evaluation.

The card is stored as JSON in the checkpoint, and as a Markdown page beside it. Grading scores are given for
each data set, and as the mean over the data sets. They are never computed over the photographs of several cameras
together.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

UNFINISHED = "TODO"
TEXTS = ("weights", "use", "photographs", "licence", "split", "recipe_name", "made", "limits")
"""Entries that every card has."""
OPTIONAL_TEXTS = ("not_for", "seeds", "failures")
TITLES = {
    "use": "Use",
    "not_for": "What it must not be used for",
    "photographs": "Photographs",
    "licence": "Licence",
    "split": "Split",
    "made": "Training",
    "seeds": "Seeds",
}
"""Entry -> title of its section in Markdown, in their order before the numbers."""
GRADE_TABLES = ("grading", "each grade", "operating points", "flips")
POOLED = "all"
SHOWN: Mapping[str, tuple[str, ...]] = {
    "super-resolution": ("psnr_whole", "psnr_fov", "psnr_fov_eroded", "ssim_fov"),
    "lesions": ("aupr_pooled", "auc_pooled", "dice_pooled", "ap_per_image", "froc_cpm"),
    "lesions not on HR": ("invented_share", "lost_share"),
    "grading": (
        "kappa_quadratic",
        "kappa_linear",
        "accuracy",
        "auc_any",
        "auc_referable",
        "auc_sight_threatening",
        "expected_calibration_error",
        "debiased_ece",
        "brier",
    ),
    "each grade": ("sensitivity", "specificity"),
    "by input": ("kappa_quadratic", "auc_referable", "aupr_mean", "same_grade_as_hr"),
    "evidence": ("evidence_auc", "pointing_game", "pointing_chance", "patch_precision_mean", "patch_chance"),
    "flips": ("same_grade_all_turns", "agrees_with_upright", "p_referable_difference"),
}
"""Table of the evaluation -> its scores on the page; the card in the file has all scores."""
SECTIONS = {
    "super-resolution": "Super-resolution",
    "lesions": "Lesions",
    "lesions not on HR": "Lesions invented and lost",
    "grading": "Grade",
    "each grade": "Each grade",
    "by input": "The same network on SR, bicubic and HR",
    "evidence": "Evidence",
    "flips": "Mirrored and turned photographs",
}

Card = dict[str, Any]


class UnfinishedCardError(ValueError):
    """A card has missing or unfinished texts."""


def read_texts(path: Path) -> Card:
    """Read the texts of a card.

    Args:
        path: TOML file with `TEXTS` and, if wanted, `OPTIONAL_TEXTS`.

    Raises:
        UnfinishedCardError: if an entry is missing, unknown or contains TODO.
    """
    texts = tomllib.loads(path.read_text(encoding="utf-8"))
    if missing := [key for key in TEXTS if key not in texts]:
        raise UnfinishedCardError(f"{path}: found no {', '.join(missing)}; expected all of {', '.join(TEXTS)}")
    if unknown := [key for key in texts if key not in (*TEXTS, *OPTIONAL_TEXTS)]:
        raise UnfinishedCardError(f"{path}: unknown {', '.join(unknown)}; known are {', '.join(OPTIONAL_TEXTS)}")
    if unfinished := [key for key, value in texts.items() if UNFINISHED in str(value)]:
        raise UnfinishedCardError(f"{path}: found {UNFINISHED} in {', '.join(unfinished)}; finish these texts first")
    return texts


def make_card(texts: Card, trained: Card, evaluated: Card, run: Card | None = None) -> Card:
    """Put the card together.

    Args:
        texts: from `read_texts`.
        trained: card of the trained checkpoint, with `data`, `stage` and, if it is calibrated, `calibration`.
        evaluated: content of `evaluation.json` of the test photographs.
        run: content of the `run.json` of the training: its cost. None: not known.
    """
    card = {
        **texts,
        "data": trained["data"],
        "stage": trained["stage"],
        "precision": evaluated["protocol"]["precision"],
        "scores": card_scores(evaluated["scores"]),
    }
    if "calibration" in trained:
        card["calibration"] = trained["calibration"]
    if run is not None:
        card["cost"] = {"machine": run["machine"], "stages": run["stages"], "parameters": run["parameters"]}
    return card


def card_scores(scores: Iterable[Card]) -> list[Card]:
    """Choose the scores of the card: the defined ones, without grades of several data sets together."""
    kept = ("task", "dataset", "subject", "score", "value", "low", "high", "photographs")
    return [
        {key: score[key] for key in kept}
        for score in scores
        if score["value"] is not None and not (score["dataset"] == POOLED and score["task"] in GRADE_TABLES)
    ]


def card_markdown(card: Card, digest: str) -> str:
    """Format the card in Markdown.

    Args:
        card: from `make_card`.
        digest: SHA-256 of card and tensors of the shipped file.
    """
    lines = [f"# Weights {card['weights']}", "", f"SHA-256 of card and tensors: `{digest}`", ""]
    for key, title in TITLES.items():
        if key in card:
            lines += [f"## {title}", "", *_body(card[key]), ""]
    lines += [*_cost(card.get("cost")), *_calibration(card.get("calibration")), "## Scores", ""]
    lines += [
        "On the test split, from x4 low-resolution input, computed in "
        f"{card['precision']}; 95 % intervals by bootstrap over patients. Scores of the grade are given for each data "
        "set and as their mean, because a score over several cameras rewards recognising the camera.",
        "",
    ]
    for task in SECTIONS:
        lines += _score_table(task, [score for score in card["scores"] if score["task"] == task])
    lines += [*_failures(card.get("failures", ())), "## Limits", "", *_body(card["limits"])]
    return "\n".join(lines) + "\n"


def _body(value: str | Sequence[str]) -> list[str]:
    return [value] if isinstance(value, str) else [f"- {item}" for item in value]


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    head = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    return [*head, *(f"| {' | '.join(row)} |" for row in rows), ""]


def _cost(cost: Card | None) -> Iterator[str]:
    """Table of the stages: steps, minutes, memory."""
    if cost is None:
        return
    machine = ", ".join(f"{key} {value}" for key, value in cost["machine"].items())
    yield from ("## Cost", "", f"Parameters: {sum(cost['parameters'].values()):,}. Machine: {machine}.", "")
    rows = [
        (stage["stage"], f"{stage['steps']:,}", f"{stage['seconds'] / 60:.0f}", f"{stage['peak_mib'] / 1024:.1f}")
        for stage in cost["stages"]
        if stage["steps"]
    ]
    yield from _table(("stage", "steps", "minutes", "memory, GiB"), rows)


def _calibration(found: Card | None) -> Iterator[str]:
    """The fitted numbers, the scores before and after, and the operating points."""
    if found is None:
        return
    yield from ("## Calibration and decision", "")
    photographs = f"{found['photographs']} photographs of {found['patients']} patients ({', '.join(found['datasets'])})"
    yield f"Fitted on {photographs}, which are not test photographs. {found['judged'].capitalize()}."
    yield ""
    yield f"- Temperature {found['temperature']:.4g}."
    if found.get("biases"):
        yield f"- Prior correction of the logits of the grades: {_numbers(found['biases'])}."
    if found.get("grade_thresholds"):
        yield (
            "- The grade is the number of these thresholds that the expected grade reaches: "
            f"{_numbers(found['grade_thresholds'])}."
        )
    yield ""
    rows = [(name, _interval(one["before"]), _interval(one["after"])) for name, one in found["scores"].items()]
    yield from _table(("score", "before", "after"), rows)
    yield from ("### Operating points", "")
    points = [
        (
            target,
            f"{point['wanted']:.0%}",
            f"{point['threshold']:.4f}",
            _interval(point["sensitivity"]),
            _interval(point["specificity"]),
        )
        for target, own in found["operating_points"].items()
        for point in own
    ]
    yield from _table(("grade", "target sensitivity", "threshold", "sensitivity", "specificity"), points)


def _numbers(values: Iterable[float]) -> str:
    return ", ".join(f"{value:.2f}" for value in values)


def _interval(bounds: Sequence[float | None]) -> str:
    value, low, high = bounds
    if value is None:
        return "undefined"
    return f"{value:.3f}" if low is None or high is None else f"{value:.3f} [{low:.3f}, {high:.3f}]"


def _score_table(task: str, scores: Sequence[Card]) -> Iterator[str]:
    """Table with a row for each score and a column for each data set."""
    shown = [score for score in scores if score["score"] in SHOWN[task]]
    if not shown:
        return
    datasets = list(dict.fromkeys(score["dataset"] for score in shown))
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for score in shown:
        cells = rows.setdefault((score["subject"], score["score"]), {})
        cells[score["dataset"]] = _interval((score["value"], score["low"], score["high"]))
    counts = [max(score["photographs"] for score in shown if score["dataset"] == name) for name in datasets]
    columns = ["of", "score", *(f"{name} ({count})" for name, count in zip(datasets, counts, strict=True))]
    yield from (f"### {SECTIONS[task]}", "")
    yield from _table(columns, [(*key, *(cells.get(name, "") for name in datasets)) for key, cells in rows.items()])


def _failures(failures: Iterable[Card]) -> Iterator[str]:
    """What goes wrong, why and how often."""
    entries = list(failures)
    if not entries:
        return
    yield from ("## Failures", "")
    for entry in entries:
        often = f" ({entry['how_often']})" if "how_often" in entry else ""
        drawing = f" Drawing: `{entry['drawing']}`." if "drawing" in entry else ""
        yield f"- **{entry['what']}**{often}. {entry['why']}.{drawing}"
    yield ""
