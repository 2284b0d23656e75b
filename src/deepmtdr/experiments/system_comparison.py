"""Train and score every compared system with the same computing time, split and protocol (Tables I, III and IV).

The published numbers come from days on a GPU. Here each system gets the same few minutes: the tables show the scores
that each system reaches in that time. They do not show which system is best.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch

from deepmtdr import training
from deepmtdr.baselines.vgg16 import VGG16
from deepmtdr.datasets.catalogue import read_datasets
from deepmtdr.errors import DataError, RecipeError
from deepmtdr.evaluation import EvaluationConfig, ReportConfig, SampleSelection, evaluate_folder
from deepmtdr.experiments.comparison_tables import (
    IMAGENET,
    SystemResult,
    comparison_markdown,
    comparison_tables,
    is_in_tables,
    machine_name,
    system_of,
)
from deepmtdr.experiments.training_runs import WEIGHTS_FILE, RunFailedError, describe_failure, train_unless_finished
from deepmtdr.files import slug, write_atomically, write_json
from deepmtdr.labels import LabelSet
from deepmtdr.model.precision import resolve_precision
from deepmtdr.recipe import Recipe, TrainingStage, recipe_differences, recipe_from_dict
from deepmtdr.rendering.html import Table
from deepmtdr.systems import MULTI_TASK_SYSTEMS, SYSTEMS, PartNames, build_system, default_part_names
from deepmtdr.terms import SCALES
from deepmtdr.training.optimiser import has_trainable_parameters
from deepmtdr.training.report import RUN_FILE

STAGE_TIME_SHARES = {"restoration": 0.5, "grading": 0.35, "joint": 0.15}
"""Share of the minutes for each stage. If a system skips a stage, its time is divided among the other stages."""

EVALUATION_FILE = "evaluation.json"


class SystemFailure(NamedTuple):
    """A system without scores, or with photographs that could not be scored."""

    system: str
    reason: str


class SystemComparison(NamedTuple):
    """Result of `compare_systems`."""

    tables: list[Table]
    """Tables with a row for each system that does the task, and values with their intervals."""
    failed: list[SystemFailure]


NO_FILES: Mapping[str, Path] = {}


def compare_systems(
    recipe: Recipe,
    data: Path,
    out: Path,
    *,
    systems: Sequence[str] = (),
    imagenet: Mapping[str, Path] = NO_FILES,
    minutes: float = 10.0,
) -> SystemComparison:
    """Train and score systems one after the other; a stopped comparison continues where it was.

    The tables are written after each system, from all systems in the folder that are finished. If one system fails, the
    others continue.

    Args:
        recipe: the settings that all systems share: photographs, split, frame, stages (see `limit_minutes`).
        data: folder with a folder for each data set.
        out: folder for a folder per system, the shared prepared photographs, `compared.json`, and the tables in
            `compared.md`.
        systems: names of `SYSTEMS`, trained from random weights; empty: all systems, or none if `imagenet` has any.
        imagenet: systems that are trained from ImageNet weights too, and the files (safetensors) with these weights.
        minutes: computing time of each system.

    Returns:
        The tables, and the systems that failed.

    Raises:
        RecipeError: if a system is unknown, the recipe sets a system or parts, or a system in the folder was trained
            with another recipe.
        DataError: if a data set has errors, or the folder has systems with other photographs, another device or number
            of threads.
        TrainingStopped: if a signal stopped the training.
    """
    _check_names(recipe, (*systems, *imagenet))
    random = systems or (() if imagenet else SYSTEMS)
    chosen = {**dict.fromkeys(random), **{f"{name}{IMAGENET}": file for name, file in imagenet.items()}}
    recipes = {
        entry: limit_minutes(recipe, entry, minutes)
        for entry in ENTRIES
        if entry in chosen or (_folder(out, entry) / RUN_FILE).exists()
    }
    for name, own in recipes.items():
        check_same_recipe(own, _folder(out, name))
    read_datasets({name: data / name for name in recipe.data.datasets}, recipe.labels)  # an error here concerns all
    failed: list[SystemFailure] = []
    results: dict[str, SystemResult] = {}
    for entry in sorted(chosen, key=ENTRIES.index):
        own, folder, start = recipes[entry], _folder(out, entry), _start_weights(system_of(entry), chosen[entry])
        if failure := _run_system(own, data, folder, out / "prepared", evaluation_scale(recipe), start):
            failed.append(failure)
        found = {other: _read_result(_folder(out, other), recipe.labels) for other in ENTRIES}
        results = {other: result for other, result in found.items() if result is not None}
        _check_same_conditions(out, results)
        write_json(out / "compared.json", {"minutes": minutes, "systems": results})
        write_atomically(out / "compared.md", comparison_markdown(minutes, results, recipe.labels).encode())
    failed += [
        SystemFailure(name, f"photographs that were not scored: {result['failed']}")
        for name, result in results.items()
        if result["failed"]
    ]
    return SystemComparison(list(comparison_tables(results, recipe.labels)), failed)


def _check_names(recipe: Recipe, systems: Sequence[str]) -> None:
    if unknown := [name for name in systems if name not in SYSTEMS]:
        raise RecipeError(f"unknown system {unknown[0]!r}, expected one of {', '.join(map(repr, SYSTEMS))}")
    if (recipe.system, recipe.parts) != (Recipe.system, PartNames()):
        found = f"system = {recipe.system!r}, parts = {vars(recipe.parts)}"
        raise RecipeError(
            f"recipe {recipe.name}: {found}; expected neither of them: the comparison sets both for each system"
        )


ENTRIES = tuple(entry for system in SYSTEMS for entry in (system, f"{system}{IMAGENET}"))
"""The rows of the tables, in their order."""


def _start_weights(system: str, imagenet: Path | None) -> training.StartWeights:
    """Give the ImageNet weights to the parts that a system trains and that have published weights."""
    names = default_part_names(system)
    is_multi_task = system in MULTI_TASK_SYSTEMS
    return training.StartWeights(
        segmentation=imagenet if is_multi_task or names.segmentation == system else None,
        grading=imagenet if is_multi_task or names.grading == system else None,
    )


def _folder(out: Path, entry: str) -> Path:
    return out / slug(entry)


def limit_minutes(recipe: Recipe, entry: str, minutes: float) -> Recipe:
    """Make the recipe of one system, with its minutes divided among the stages that train a part of the system.

    Only the system's own part is compared: bicubic interpolation is in front of a segmenter or grader, so that no
    minutes are spent on another system. `imagenet_lr_share` applies only to a system that starts from ImageNet weights.

    Args:
        recipe: the settings that all systems share.
        entry: one of `ENTRIES`.
        minutes: computing time of all stages together.
    """
    system = system_of(entry)
    parts = PartNames(isr="" if default_part_names(system).isr == system else "bicubic")
    with torch.device("meta"):  # nothing is computed
        model = build_system(system, parts, recipe.model, recipe.labels)
    used = [stage for stage in recipe.stages if stage.steps and has_trainable_parameters(model, stage)]
    if not model.task_aware:
        used = [stage for stage in used if stage.name != "joint"]  # the joint stage would only repeat the first stages
    total = sum(STAGE_TIME_SHARES[stage.name] for stage in used) or 1.0
    if entry == system:
        used = [replace(stage, imagenet_lr_share=1.0) for stage in used]
    stages: dict[str, TrainingStage] = {stage.name: replace(stage, steps=0) for stage in recipe.stages}
    stages |= {stage.name: replace(stage, minutes=minutes * STAGE_TIME_SHARES[stage.name] / total) for stage in used}
    limited = replace(recipe, name=entry, system=system, parts=parts, **stages)
    if system not in MULTI_TASK_SYSTEMS or recipe.model.grading.head_norm:
        return limited
    # 10,752 inputs of a hidden unit: at 1e-3 the grading subnet of Wang et al. gave every photograph the same grade.
    rate = recipe.grading.lr_grading * VGG16.learning_rate_factor
    return replace(limited, grading=replace(limited.grading, lr_grading=rate))


def check_same_recipe(recipe: Recipe, folder: Path) -> None:
    """Check that a run which is already finished in this folder was trained with the same recipe.

    Raises:
        RecipeError: if it was trained with another recipe.
    """
    if not (folder / RUN_FILE).exists():
        return
    was = recipe_from_dict(json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))["recipe"], str(folder))
    if differences := recipe_differences(was, recipe):
        found = "; ".join(map(str, differences))
        raise RecipeError(f"{folder}: trained with another recipe ({found}); choose another folder")


def _run_system(
    recipe: Recipe, data: Path, folder: Path, cache: Path, scale: int, start: training.StartWeights
) -> SystemFailure | None:
    """Train and score one system. Returns the error, if there is one."""
    try:
        with describe_failure():
            _train_and_score(recipe, data, folder, cache, scale, start)
    except RunFailedError as error:
        return SystemFailure(recipe.system, str(error))
    return None


def _train_and_score(
    recipe: Recipe, data: Path, folder: Path, cache: Path, scale: int, start: training.StartWeights
) -> None:
    """Train a system if it is not trained yet, and score it if it is not scored yet."""
    train_unless_finished(recipe, data, folder, cache, start)
    if not (folder / EVALUATION_FILE).exists():
        evaluate_folder(
            SampleSelection(data=data, split_file=folder / "split.csv"),
            folder / WEIGHTS_FILE,
            config=EvaluationConfig(scale=scale, bf16=resolve_precision(recipe.precision) == "bf16", thorough=False),
            report=ReportConfig(out=folder, pictures=False),
        )


def evaluation_scale(recipe: Recipe) -> int:
    """Return the scale at which all systems are scored: the paper's x4 if they are trained for x4, else the largest.

    Args:
        recipe: the settings that all systems share.
    """
    trained = {int(scale) for stage in recipe.stages if stage.steps for scale, share in stage.scales.items() if share}
    return 4 if 4 in trained else max(trained & set(SCALES), default=4)


def _read_result(folder: Path, labels: LabelSet) -> SystemResult | None:
    """Read the result of a finished system; None if the system is not finished."""
    if not (folder / EVALUATION_FILE).exists():
        return None
    run, evaluation = (json.loads((folder / name).read_text(encoding="utf-8")) for name in (RUN_FILE, EVALUATION_FILE))
    scores = [score for score in evaluation["scores"] if is_in_tables(score, labels)]
    return {
        "scores": scores,
        "failed": len(evaluation["failures"]),
        "parameters": run["parameters"],
        "stages": run["stages"],
        "machine": run["machine"],
        "data": run["data"],
    }


def _check_same_conditions(out: Path, results: Mapping[str, SystemResult]) -> None:
    conditions: dict[str, Callable[[SystemResult], str]] = {
        "other photographs, labels or splits": lambda result: result["data"],
        "other devices or numbers of threads": machine_name,
    }
    for difference, condition in conditions.items():
        systems = {condition(result): name for name, result in results.items()}
        if len(systems) > 1:
            names = " and ".join(list(systems.values())[:2])
            raise DataError(f"{out}: {names} were trained with {difference}; choose another folder")
