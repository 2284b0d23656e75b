"""Train without one data set and score on it: does a system work on a camera that it has never seen?"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, TypedDict

from deepmtdr import training
from deepmtdr.datasets.catalogue import read_datasets
from deepmtdr.errors import RecipeError
from deepmtdr.evaluation import EvaluationConfig, ReportConfig, SampleSelection, evaluate_folder
from deepmtdr.evaluation.scores import ALL, MEAN_OVER_SETS
from deepmtdr.evaluation.super_resolution import GAIN_OVER_NORMALISED
from deepmtdr.experiments.comparison_tables import StoredScore
from deepmtdr.experiments.system_comparison import EVALUATION_FILE, check_same_recipe, evaluation_scale
from deepmtdr.experiments.training_runs import (
    NO_WEIGHTS,
    WEIGHTS_FILE,
    RunFailedError,
    describe_failure,
    train_unless_finished,
)
from deepmtdr.files import make_folder, slug, write_atomically
from deepmtdr.model.precision import resolve_precision
from deepmtdr.recipe import Recipe
from deepmtdr.rendering.html import Table, table_markdown
from deepmtdr.rendering.numbers import format_interval

COLUMNS: Mapping[str, Sequence[str]] = {
    "grading": ("kappa_quadratic", "auc_referable", "auc_any"),
    "lesions": ("aupr_pooled",),
    "super-resolution": ("psnr_fov", "psnr_fov_eroded"),
}
"""Table of the evaluation -> its scores in the tables here."""


class StoredEvaluation(TypedDict):
    """The keys of `evaluation.json` that are used here."""

    scores: Sequence[StoredScore]
    failures: Sequence[Mapping[str, str]]


class RunFailure(NamedTuple):
    """A run without scores, or with photographs that could not be scored."""

    left_out: str
    reason: str


class LeaveOneOut(NamedTuple):
    """Result of `run_leave_one_out`."""

    tables: list[Table]
    """One table for each task, with a row for each data set that was left out."""
    failed: list[RunFailure]


def run_leave_one_out(
    recipe: Recipe,
    data: Path,
    out: Path,
    *,
    left_out: Sequence[Sequence[str]],
    start: training.StartWeights = NO_WEIGHTS,
) -> LeaveOneOut:
    """Train a recipe without some of its data sets, and score each run on all photographs of these.

    A run that was stopped continues when this is called again. If one run fails, the others go on.

    Args:
        recipe: the recipe with all data sets.
        data: folder with a folder for each data set.
        out: folder for each run, under the names of the data sets that it leaves out, the shared prepared photographs
            and the tables in `leave-one-out.md`.
        left_out: for each run, the data sets that are left out together: two sets of one camera, for example.
        start: weights that the runs start from, such as ImageNet weights.

    Raises:
        RecipeError: if a data set is not one of the recipe, none is left, or a run in the folder was trained with
            another recipe.
        DataError: if a data set has errors.
        TrainingStopped: if a signal stopped the training.
    """
    recipes = {"+".join(names): leave_out(recipe, names) for names in left_out}
    for name, own in recipes.items():
        check_same_recipe(own, out / slug(name))
    read_datasets({name: data / name for name in recipe.data.datasets}, recipe.labels)  # an error here concerns all
    failed, done = [], {}
    for (name, own), sets in zip(recipes.items(), left_out, strict=True):
        try:
            with describe_failure():
                evaluation = _train_and_score(own, data, out / slug(name), out / "prepared", sets, start)
        except RunFailedError as error:
            failed.append(RunFailure(name, str(error)))
        else:
            done[name] = evaluation["scores"]
            if evaluation["failures"]:
                reason = f"photographs that were not scored: {len(evaluation['failures'])}"
                failed.append(RunFailure(name, reason))
        tables = [*leave_one_out_tables(done)]
        text = "\n\n".join([INTRODUCTION.format(recipe=recipe.name), *map(table_markdown, tables)]) + "\n"
        make_folder(out)
        write_atomically(out / "leave-one-out.md", text.encode())
    return LeaveOneOut([*leave_one_out_tables(done)], failed)


def leave_out(recipe: Recipe, names: Sequence[str]) -> Recipe:
    """Return the recipe without some of its data sets.

    Args:
        recipe: the recipe with all data sets.
        names: the data sets.

    Raises:
        RecipeError: if a data set is not one of the recipe, or none is left.
    """
    known = recipe.data.datasets
    if unknown := [name for name in names if name not in known]:
        raise RecipeError(f"found the data set {unknown[0]!r} to leave out, expected one of {', '.join(known)}")
    left = tuple(name for name in known if name not in names)
    if not left or not names:
        raise RecipeError(f"found {len(names)} data sets to leave out, expected 1 to {len(known) - 1}")
    return replace(recipe, name=f"{recipe.name}_without-{'-'.join(names)}", data=replace(recipe.data, datasets=left))


def _train_and_score(
    recipe: Recipe, data: Path, folder: Path, cache: Path, left_out: Sequence[str], start: training.StartWeights
) -> StoredEvaluation:
    """Train and score one run, each if it is not done yet."""
    train_unless_finished(recipe, data, folder, cache, start)
    if not (folder / EVALUATION_FILE).exists():
        evaluate_folder(
            SampleSelection(data=data, datasets=tuple(left_out)),
            folder / WEIGHTS_FILE,
            config=EvaluationConfig(
                scale=evaluation_scale(recipe),
                bf16=resolve_precision(recipe.precision) == "bf16",
                thorough=False,
                slow_metrics=False,
            ),
            report=ReportConfig(out=folder, pictures=False),
        )
    return json.loads((folder / EVALUATION_FILE).read_text(encoding="utf-8"))


def leave_one_out_tables(scores: Mapping[str, Sequence[StoredScore]]) -> Iterator[Table]:
    """Make a table for each task, with a row for each data set that was left out.

    Args:
        scores: left-out data sets -> scores of the run, from `evaluation.json`.
    """
    for task, names in COLUMNS.items():
        cells = {name: dict(_cells(own, task, names)) for name, own in scores.items()}
        columns = list(dict.fromkeys(column for own in cells.values() for _, column in own))
        rows = [
            (name if name == dataset else f"{name}: {dataset}", *(own.get((dataset, c), "") for c in columns))
            for name, own in cells.items()
            for dataset in dict.fromkeys(dataset for dataset, _ in own)
        ]
        if rows:
            yield Table(task, ("left out", *columns), rows)


def _cells(scores: Sequence[StoredScore], task: str, names: Sequence[str]) -> Iterator[tuple[tuple[str, str], str]]:
    """The scores of one task: (data set, column) and text."""
    for score in scores:
        found = score["task"] == task and score["score"] in names and score["dataset"] not in (ALL, MEAN_OVER_SETS)
        if (
            not found
            or score["value"] is None
            or (task == "super-resolution" and score["subject"] != GAIN_OVER_NORMALISED)
        ):
            continue
        low, high = (float("nan") if bound is None else bound for bound in (score["low"], score["high"]))
        column = score["score"] if task != "lesions" else f"{score['subject']}, {score['score']}"
        yield (score["dataset"], column), format_interval(score["value"], low, high, digits=3)


INTRODUCTION = """\
Each row is a run of {recipe} that was trained without the data set of its name, and scored on all photographs of it.
In brackets: 95 % interval, by bootstrap over patients. Super-resolution: gain over normalised bicubic interpolation,
dB."""
