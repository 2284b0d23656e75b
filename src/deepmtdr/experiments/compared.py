"""Every compared system under one equal cap of time, on one split, by one protocol (Tables I, III and IV).

The published numbers come from days on a GPU. Here each system gets the same few minutes: the tables show that each one
learns and how far it comes in that time, not which is the best.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from deepmtdr import training
from deepmtdr.baselines import SYSTEMS, PartNames, build, own_names
from deepmtdr.errors import RecipeError
from deepmtdr.evaluation import Table, evaluate_folder
from deepmtdr.evaluation.results import write_json
from deepmtdr.optimiser import learns
from deepmtdr.recipe import STAGES, Recipe, Stage
from deepmtdr.training.course import STATE

SHARES = {"restoration": 0.5, "grading": 0.35, "joint": 0.15}
"""Of the minutes, where all stages have something to learn; a stage's share goes to the others where it has not."""
TABLES = {
    "Table I, grading": (
        "grading",
        ("accuracy", "precision_weighted", "f1_weighted", "kappa_quadratic", "auc_referable"),
    ),
    "Table III, lesions": ("lesions", ("ap_per_image", "auc_per_image", "aupr_pooled")),
    "Table IV, super-resolution": ("super-resolution", ("psnr_whole", "ssim_whole", "psnr_fov")),
}
"""The task and the scores of each table, the paper's first."""


def compared(
    recipe: Recipe, data: Path, out: Path, *, systems: Sequence[str] = (), minutes: float = 10.0
) -> list[Table]:
    """Train and score the systems one after the other; a run that was stopped goes on where it stood.

    Args:
        recipe: what they share: photographs, split, frame, batches.
        data: folder that holds a folder for each data set.
        out: folder for a folder per system, and `compared.json`; prepared photographs are shared.
        systems: names of `SYSTEMS`; empty takes all.
        minutes: of computing for each of them.

    Returns:
        The tables, a row for each system that has the task, each value with its interval.

    Raises:
        RecipeError: if there is no system of a name.
    """
    if unknown := [name for name in systems if name not in SYSTEMS]:
        raise RecipeError(f"{unknown[0]!r} is no system; there are {', '.join(SYSTEMS)}")
    found = {}
    for name in systems or SYSTEMS:
        folder = out / name.replace(" ", "-").replace(".", "").lower()
        found[name] = _scored(capped(recipe, name, minutes), data, folder, out / "prepared")
    write_json(out / "compared.json", {"minutes": minutes, "systems": found})
    return list(tables(found))


def capped(recipe: Recipe, system: str, minutes: float) -> Recipe:
    """The recipe of one system, its minutes divided among the stages in which something of it learns.

    What is compared is the system's own box: before a segmenter or grader stands bicubic interpolation, so that none
    of them spends its minutes on another's work.

    Args:
        recipe: what all systems share.
        system: a name of `SYSTEMS`.
        minutes: in all.
    """
    parts = PartNames(isr="" if own_names(system).isr == system else "bicubic")
    model = build(system, parts, recipe.model)
    used = [name for name in STAGES if learns(model, name, getattr(recipe, name))]
    if not model.task_aware:
        used = [name for name in used if name != "joint"]  # nothing but the same again
    total = sum(SHARES[name] for name in used) or 1.0
    limits: dict[str, Stage] = {
        name: replace(getattr(recipe, name), minutes=minutes * SHARES[name] / total)
        if name in used
        else replace(getattr(recipe, name), steps=0)
        for name in STAGES
    }
    return replace(recipe, name=system, system=system, parts=parts, **limits)


def _scored(recipe: Recipe, data: Path, folder: Path, cache: Path) -> dict[str, Any]:
    """Train what is not trained yet, score what is not scored yet."""
    if not (folder / "evaluation.json").exists():
        weights = folder / "weights.safetensors"
        if not weights.exists():
            training.run(recipe, data, folder, resume=(folder / STATE).exists(), cache=cache)
        evaluate_folder(
            data, weights=weights, split=folder / "split.csv", out=folder, bf16=True, thorough=False, pictures=False
        )
    done, cost = (json.loads((folder / name).read_text(encoding="utf-8")) for name in ("evaluation.json", "run.json"))
    return {"scores": done["scores"], "parameters": cost["parameters"], "stages": cost["stages"]}


def tables(found: Mapping[str, Mapping[str, Any]]) -> Iterator[Table]:
    """A table for each task and data set, a row for each system that has its scores.

    Args:
        found: by system what `compared.json` holds.
    """
    for title, (task, names) in TABLES.items():
        rows = {system: [s for s in one["scores"] if s["task"] == task] for system, one in found.items()}
        datasets = dict.fromkeys(s["dataset"] for scores in rows.values() for s in scores)
        for dataset in datasets:
            yield from _table(f"{title}, {dataset}", names, {k: _of(v, dataset) for k, v in rows.items()})


def _of(scores: Sequence[Mapping[str, Any]], dataset: str) -> dict[str, str]:
    """The scores of the task's main subject: the grade, SR, or the mean over the lesion types where there is one."""
    cells: dict[str, list[Mapping[str, Any]]] = {}
    for score in scores:
        if score["dataset"] == dataset and score["subject"] not in ("bicubic", "gain"):
            cells.setdefault(score["score"], []).append(score)
    return {
        name: _cell(next((s for s in found if s["subject"] == "mean"), None), found) for name, found in cells.items()
    }


def _cell(mean: Mapping[str, Any] | None, found: Sequence[Mapping[str, Any]]) -> str:
    one = mean or (found[0] if len(found) == 1 else None)
    if one is None:  # of the lesion types: their mean, without an interval
        values = [score["value"] for score in found]
        return "undefined" if None in values else f"{sum(values) / len(values):.3f}"
    if one["value"] is None:
        return "undefined"
    return f"{one['value']:.3f}" + ("" if one["low"] is None else f" [{one['low']:.3f}, {one['high']:.3f}]")


def _table(title: str, names: Sequence[str], rows: Mapping[str, Mapping[str, str]]) -> Iterator[Table]:
    cells = [(system, *(found.get(name, "") for name in names)) for system, found in rows.items() if found]
    if cells:
        yield Table(title, ("system", *names), cells)
