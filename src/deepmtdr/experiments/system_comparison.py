"""Every compared system under one equal cap of time, on one split, by one protocol (Tables I, III and IV).

The published numbers come from days on a GPU. Here each system gets the same few minutes: the tables show how far each
one comes in that time, not which is the best.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from deepmtdr import training
from deepmtdr.baselines.vgg16 import VGG16
from deepmtdr.datasets.catalogue import read_datasets
from deepmtdr.errors import DataError, DeepMTDRError, RecipeError, TrainingStopped
from deepmtdr.evaluation import EvaluationConfig, ReportConfig, SampleSelection, evaluate_folder
from deepmtdr.evaluation.lesions import MEAN
from deepmtdr.evaluation.scores import ALL
from deepmtdr.files import write_atomically, write_json
from deepmtdr.recipe import STAGES, Recipe, Stage, recipe_differences, to_dict
from deepmtdr.rendering.html import Table, table_markdown
from deepmtdr.systems import MULTI_TASK_SYSTEMS, SYSTEMS, PartNames, build_system, default_part_names
from deepmtdr.terms import SCALES, Lesion
from deepmtdr.training.optimiser import has_trainable_parameters
from deepmtdr.training.state import RESUME_FILE

STAGE_TIME_SHARES = {"restoration": 0.5, "grading": 0.35, "joint": 0.15}
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
TABLE_SCORES = {(task, *cell) for task, columns in TABLES.values() for cell in columns.values()}
"""Task, subject and score of all cells."""


class SystemFailure(NamedTuple):
    """A system that has no scores, or none of some photographs."""

    system: str
    reason: str


class SystemComparison(NamedTuple):
    """What came out."""

    tables: list[Table]
    """A row for each system that has the task, each value with its interval."""
    failed: list[SystemFailure]


def compare_systems(
    recipe: Recipe, data: Path, out: Path, *, systems: Sequence[str] = (), minutes: float = 10.0
) -> SystemComparison:
    """Train and score the systems one after the other; a run that was stopped goes on where it stood.

    The tables are written anew after each system, from every one that is finished in the folder. A system that fails
    takes nothing from the others.

    Args:
        recipe: what they share: photographs, split, frame, stages (see `cap_training_time`).
        data: folder that holds a folder for each data set.
        out: folder for a folder per system, `compared.json`, and the tables in `compared.md`; prepared photographs are
            shared.
        systems: names of `SYSTEMS`; empty takes all.
        minutes: of computing for each of them.

    Returns:
        The tables, and which systems failed.

    Raises:
        RecipeError: if there is no system of a name, the recipe names a system or parts, or a system in the folder
            was trained by another recipe.
        DataError: if a data set is not as its reader expects, or the folder holds systems of other photographs, or
            of another device or number of threads.
        TrainingStopped: if a run was asked to stop.
    """
    if unknown := [name for name in systems if name not in SYSTEMS]:
        raise RecipeError(f"{unknown[0]!r} is no system; there are {', '.join(SYSTEMS)}")
    if (recipe.system, recipe.parts) != (Recipe.system, PartNames()):
        found = f"system {recipe.system} and parts {vars(recipe.parts)}"
        raise RecipeError(
            f"recipe {recipe.name}: {found}; expected none: each system is compared with its own box alone"
        )
    recipes, failed, found = {name: cap_training_time(recipe, name, minutes) for name in SYSTEMS}, [], {}
    for name, one in recipes.items():
        _expect_its_own(one, _folder(out, name))
    read_datasets({name: data / name for name in recipe.data.datasets})  # what all of them need
    for name in systems or SYSTEMS:
        try:
            _train_and_score(recipes[name], data, _folder(out, name), out / "prepared", evaluation_scale(recipe))
        except TrainingStopped:
            raise
        except DeepMTDRError as error:
            failed.append(SystemFailure(name, str(error)))
        except (RuntimeError, ValueError) as error:  # out of memory; a batch too small for a network's statistics
            failed.append(SystemFailure(name, f"{type(error).__name__}: {error}"))
        found = {name: result for name in SYSTEMS if (result := _result(_folder(out, name)))}
        _expect_the_same_terms(out, found)
        write_json(out / "compared.json", {"minutes": minutes, "systems": found})
        write_atomically(out / "compared.md", comparison_markdown(minutes, found).encode())
    failed += [
        SystemFailure(name, f"photographs that were not scored: {one['failed']}")
        for name, one in found.items()
        if one["failed"]
    ]
    return SystemComparison(list(comparison_tables(found)), failed)


def _folder(out: Path, system: str) -> Path:
    return out / system.replace(" ", "-").replace(".", "").lower()


def cap_training_time(recipe: Recipe, system: str, minutes: float) -> Recipe:
    """The recipe of one system, its minutes divided among the stages in which something of it learns.

    What is compared is the system's own box: before a segmenter or grader stands bicubic interpolation, so that none
    of them spends its minutes on another's work. The paper's wide dense layer learns at
    VGG-16's share of the rate.

    Args:
        recipe: what all systems share.
        system: a name of `SYSTEMS`.
        minutes: in all.
    """
    parts = PartNames(isr="" if default_part_names(system).isr == system else "bicubic")
    with torch.device("meta"):  # nothing is computed
        model = build_system(system, parts, recipe.model)
    used = [
        name
        for name in STAGES
        if getattr(recipe, name).steps and has_trainable_parameters(model, name, getattr(recipe, name))
    ]
    if not model.task_aware:
        used = [name for name in used if name != "joint"]  # nothing but the same again
    total = sum(STAGE_TIME_SHARES[name] for name in used) or 1.0
    limits: dict[str, Stage] = {name: replace(getattr(recipe, name), steps=0) for name in STAGES}
    for name in used:
        stage: Stage = getattr(recipe, name)
        limits[name] = replace(stage, minutes=minutes * STAGE_TIME_SHARES[name] / total)
    if system in MULTI_TASK_SYSTEMS:
        # 10,752 inputs of a hidden unit: at 1e-3 the grading subnet of Wang et al. gave every photograph one grade.
        grading = limits["grading"]
        limits["grading"] = replace(grading, lr_grading=grading.lr_grading * VGG16.learning_rate_factor)
    return replace(recipe, name=system, system=system, parts=parts, **limits)


def _expect_its_own(recipe: Recipe, folder: Path) -> None:
    """What is finished in the folder must be what would be trained now."""
    if (folder / "run.json").exists():
        was, now = _read(folder / "run.json")["recipe"], json.loads(json.dumps(to_dict(recipe)))
        if differing := list(recipe_differences(was, now)):
            raise RecipeError(f"{folder}: trained by another recipe ({'; '.join(differing)}); expected another folder")


def _train_and_score(recipe: Recipe, data: Path, folder: Path, cache: Path, scale: int) -> None:
    """Train what is not trained yet, score what is not scored yet."""
    if not (folder / "run.json").exists():
        training.run(recipe, data, folder, resume=(folder / RESUME_FILE).exists(), cache=cache)
    if not (folder / "evaluation.json").exists():
        evaluate_folder(
            SampleSelection(data=data, split_file=folder / "split.csv"),
            folder / "weights.safetensors",
            config=EvaluationConfig(scale=scale, bf16=recipe.precision == "bf16", thorough=False),
            report=ReportConfig(out=folder, pictures=False),
        )


def evaluation_scale(recipe: Recipe) -> int:
    """The scale at which all systems are scored: the paper's x4, or the largest that they learn if that is not one.

    Args:
        recipe: what all systems share.
    """
    stages: list[Stage] = [getattr(recipe, name) for name in STAGES]
    learned = {int(scale) for stage in stages if stage.steps for scale, share in stage.scales.items() if share}
    return 4 if 4 in learned else max(learned & set(SCALES), default=4)


def _result(folder: Path) -> dict[str, Any] | None:
    if not (folder / "evaluation.json").exists():
        return None
    cost, done = _read(folder / "run.json"), _read(folder / "evaluation.json")
    shown = [score for score in done["scores"] if (score["task"], score["subject"], score["score"]) in TABLE_SCORES]
    return {"scores": shown, "failed": len(done["failures"]), **{name: cost[name] for name in COST_KEYS}}


COST_KEYS = ("parameters", "stages", "machine", "data")
"""What `compared.json` takes from `run.json`."""


def _expect_the_same_terms(out: Path, found: Mapping[str, Mapping[str, Any]]) -> None:
    terms: dict[str, Callable[[Mapping[str, Any]], str]] = {
        "learned from other photographs, labels or sides": lambda one: one["data"],
        "were trained on other devices or by other numbers of threads": _machine,
    }
    for differing, of in terms.items():
        sides = {of(one): name for name, one in found.items()}
        if len(sides) > 1:
            raise DataError(f"{out}: {' and '.join(list(sides.values())[:2])} {differing}; expected another folder")


def _machine(one: Mapping[str, Any]) -> str:
    return f"{one['machine']['device']}, threads: {one['machine']['threads']}"


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def comparison_tables(found: Mapping[str, Mapping[str, Any]]) -> Iterator[Table]:
    """A table for each task and data set, a row for each system that has its scores.

    Args:
        found: by system what `compared.json` holds.
    """
    for title, (task, columns) in TABLES.items():
        rows = {
            system: [s for s in one["scores"] if s["task"] == task]
            for system, one in found.items()
            if task != "super-resolution" or default_part_names(system).isr == system  # not what another's box has done
        }
        datasets = dict.fromkeys(s["dataset"] for scores in rows.values() for s in scores)
        for dataset in [name for name in datasets if name != ALL or len(datasets) > 2]:  # all of one set is that set
            cells = {name: _cells(scores, dataset) for name, scores in rows.items()}
            lines = [(system, *(of.get(key, "") for key in columns.values())) for system, of in cells.items() if of]
            yield Table(f"{title}, {dataset}", ("system", *columns), lines)


def _cells(scores: Sequence[Mapping[str, Any]], dataset: str) -> dict[tuple[str, str], str]:
    return {(s["subject"], s["score"]): _cell(s) for s in scores if s["dataset"] == dataset}


def _cell(score: Mapping[str, Any]) -> str:
    if score["value"] is None:
        return "undefined"
    return f"{score['value']:.3f}" + ("" if score["low"] is None else f" [{score['low']:.3f}, {score['high']:.3f}]")


def comparison_markdown(minutes: float, found: Mapping[str, Mapping[str, Any]]) -> str:
    """The tables in Markdown, after what each system had: its parameters, the photographs read, its steps by stage.

    Args:
        minutes: of computing for each system.
        found: by system what `compared.json` holds.
    """
    rows = [
        (system, f"{sum(one['parameters'].values()):,}", *(_count(one, "read", "grading"), *_steps(one)))
        for system, one in found.items()
    ]
    columns = ("system", "parameters", "read for grading", *(f"steps of {stage}" for stage in STAGES))
    machines = "; ".join(dict.fromkeys(map(_machine, found.values())))
    learned = Table(f"What {minutes:g} minutes of training gave each ({machines})", columns, rows)
    unscored = [
        f"Photographs of {name} that could not be scored: {n}." for name, one in found.items() if (n := one["failed"])
    ]
    return "\n\n".join([INTRODUCTION, *map(table_markdown, [learned, *comparison_tables(found)]), *unscored]) + "\n"


INTRODUCTION = """Each system had the same minutes of computing, readings for the grading stage among them; its own box alone
was trained, behind bicubic interpolation (the paper has MDRN before some), from nothing, without ImageNet weights.
Frames are of 256 px unless the recipe was changed, from 64 px by x4: networks of a larger native size see them
enlarged, and MMCNN has none of its further cells. DeepMT-DR and Wang et al. see local contrast (reading R21), the
others RGB; in the grading stage these two, the VGG-16s, VNXK and SqueezeNet + SPP learn at a tenth of the others'
rate, for the width of their dense layers. Readings take half of that stage's minutes at most, and photographs that
were not read by then are not learned from. A value stands before its 95 % interval, patients drawn with replacement;
all photographs are of held-out patients. The numbers of the paper come from days on a GPU: these show how far each
system comes in the minutes, not which is the best."""


def _steps(one: Mapping[str, Any]) -> list[str]:
    return [_count(one, "steps", stage) for stage in STAGES]


def _count(one: Mapping[str, Any], what: str, stage: str) -> str:
    return str(sum(cost[what] for cost in one["stages"] if cost["stage"] == stage) or "")
