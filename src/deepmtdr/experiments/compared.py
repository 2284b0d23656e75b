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
from deepmtdr.evaluation.lesions import MEAN
from deepmtdr.evaluation.results import write_json
from deepmtdr.files import write_atomically
from deepmtdr.optimiser import learns
from deepmtdr.pages import table_markdown
from deepmtdr.recipe import STAGES, Recipe, Stage
from deepmtdr.terms import Lesion
from deepmtdr.training.course import STATE

SHARES = {"restoration": 0.5, "grading": 0.35, "joint": 0.15}
"""Of the minutes, where all stages have something to learn; a stage's share goes to the others where it has not."""
LESIONS = (*(lesion.name for lesion in Lesion), MEAN)
TABLES: dict[str, tuple[str, dict[str, tuple[str, str]]]] = {
    "Table I, grading": (
        "grading",
        {
            name: ("grade", name)
            for name in ("accuracy", "precision_weighted", "f1_weighted", "kappa_quadratic", "auc_referable")
        },
    ),
    **{
        f"Table III, {words}": ("lesions", {lesion: (lesion, name) for lesion in LESIONS})
        for name, words in {
            "auc_per_image": "AUC of lesions, image by image",
            "ap_per_image": "AP of lesions, image by image",
            "aupr_pooled": "AUPR of lesions, all pixels together",
        }.items()
    },
    "Table IV, super-resolution": (
        "super-resolution",
        {name: ("sr", name) for name in ("psnr_whole", "ssim_whole", "psnr_fov")},
    ),
}
"""By title the task and the columns, each with the subject and the score of its cells; the paper's scores first."""


def compared(
    recipe: Recipe, data: Path, out: Path, *, systems: Sequence[str] = (), minutes: float = 10.0
) -> list[Table]:
    """Train and score the systems one after the other; a run that was stopped goes on where it stood.

    Args:
        recipe: what they share: photographs, split, frame, batches.
        data: folder that holds a folder for each data set.
        out: folder for a folder per system, `compared.json`, and the tables in `compared.md`; prepared photographs are
            shared.
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
    write_atomically(out / "compared.md", page(minutes, found).encode())
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
    return {"scores": done["scores"], **{name: cost[name] for name in ("parameters", "stages", "machine")}}


def tables(found: Mapping[str, Mapping[str, Any]]) -> Iterator[Table]:
    """A table for each task and data set, a row for each system that has its scores.

    Args:
        found: by system what `compared.json` holds.
    """
    for title, (task, columns) in TABLES.items():
        rows = {
            system: [s for s in one["scores"] if s["task"] == task]
            for system, one in found.items()
            if task != "super-resolution" or own_names(system).isr == system  # not what another's box has done
        }
        for dataset in dict.fromkeys(s["dataset"] for scores in rows.values() for s in scores):
            cells = {name: _cells(scores, dataset) for name, scores in rows.items()}
            lines = [(system, *(of.get(key, "") for key in columns.values())) for system, of in cells.items() if of]
            yield Table(f"{title}, {dataset}", ("system", *columns), lines)


def _cells(scores: Sequence[Mapping[str, Any]], dataset: str) -> dict[tuple[str, str], str]:
    return {(s["subject"], s["score"]): _cell(s) for s in scores if s["dataset"] == dataset}


def _cell(score: Mapping[str, Any]) -> str:
    if score["value"] is None:
        return "undefined"
    return f"{score['value']:.3f}" + ("" if score["low"] is None else f" [{score['low']:.3f}, {score['high']:.3f}]")


def page(minutes: float, found: Mapping[str, Mapping[str, Any]]) -> str:
    """The tables in Markdown, after what each system had: its parameters, and its steps in each stage.

    Args:
        minutes: of computing for each system.
        found: by system what `compared.json` holds.
    """
    rows = [
        (system, f"{sum(one['parameters'].values()):,}", *(str(_steps(one, stage) or "") for stage in STAGES))
        for system, one in found.items()
    ]
    learned = Table(f"{minutes:g} minutes of training each: steps", ("system", "parameters", *STAGES), rows)
    return "\n\n".join(table_markdown(table) for table in [learned, *tables(found)]) + "\n"


def _steps(one: Mapping[str, Any], stage: str) -> int:
    return sum(cost["steps"] for cost in one["stages"] if cost["stage"] == stage)
