"""The arms of an ablation study: their recipes, and which of them start from the same weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from deepmtdr.errors import RecipeError
from deepmtdr.experiments.ablations import ABLATIONS, start_from_stage
from deepmtdr.experiments.study_scores import JOINT
from deepmtdr.experiments.system_comparison import evaluation_scale
from deepmtdr.losses import LossWeights
from deepmtdr.recipe import JointStage, Recipe, TrainingStage
from deepmtdr.systems import DEEPMTDR, default_part_names
from deepmtdr.training.report import RUN_FILE

STAGE_1 = "stage-1"
"""The arm without the joint stage."""
ARMS = (STAGE_1, JOINT, *ABLATIONS)
"""The rows of the tables, in their order."""
USED_LOSSES = {
    "restoration": ("lambda_img", "lambda_tv", "lambda_sa", "dice", "lesion_cross_entropy"),
    "grading": ("grading", "grading_form", "class_weights"),
}
"""The settings of `LossWeights` that have an effect in the first stages; with `lambda_sa`, also `GRADIENT_LIMITS`."""
GRADIENT_LIMITS = ("task_aware_share", "project_conflicts")
S = TypeVar("S", bound=TrainingStage)


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One training run of the study."""

    name: str
    seed: int
    recipe: Recipe
    """The recipe of the run; without the first stages if these are shared."""
    from_stage_1: bool
    """Whether the run starts from the weights of the arm `STAGE_1` of its seed."""
    scale: int
    """Scale at which the run is scored."""

    def folder(self, out: Path) -> Path:
        """Return the folder of the run."""
        return out / f"seed-{self.seed}" / self.name


def check_names(recipe: Recipe, ablations: Sequence[str], seeds: Sequence[int]) -> None:
    """Check that the arms of a study differ.

    Args:
        recipe: the recipe of the study.
        ablations: names of ablations.
        seeds: seeds of the runs.

    Raises:
        RecipeError: if an ablation is unknown or changes nothing in this recipe, or there is no seed or no joint stage.
    """
    if unknown := [name for name in ablations if name not in ABLATIONS]:
        raise RecipeError(f"unknown ablation {unknown[0]!r}, expected one of {', '.join(ABLATIONS)}")
    if not seeds:
        raise RecipeError("found no seed, expected at least one")
    if not recipe.joint.steps:
        raise RecipeError(f"recipe {recipe.name}: joint.steps = 0, expected a joint stage, which is compared")
    for name in ablations:
        if not _has_effect(recipe, ABLATIONS[name](recipe)):
            raise RecipeError(f"the ablation {name} changes nothing in recipe {recipe.name}; leave it out")


def _has_effect(recipe: Recipe, ablated: Recipe) -> bool:
    """Whether an ablation changes a setting that this system uses."""
    if (recipe.parts.grading or default_part_names(recipe.system).grading) != DEEPMTDR:
        # Only the paper's grading subnet has these settings.
        ablated = replace(ablated, model=replace(ablated.model, grading=recipe.model.grading))
    return replace(ablated, name=recipe.name) != recipe


def plan_arm(recipe: Recipe, name: str, seed: int) -> Arm:
    """Choose the recipe of a run, and whether it starts from the weights of stage 1.

    Args:
        recipe: the recipe of the study.
        name: one of `ARMS`.
        seed: seed of the run.
    """
    seeded = replace(recipe, seed=seed)
    if name == STAGE_1:
        alone = replace(seeded, name=f"{recipe.name}_{name}", joint=replace(recipe.joint, steps=0))
        return Arm(name=name, seed=seed, recipe=alone, from_stage_1=False, scale=evaluation_scale(recipe))
    changed = seeded if name == JOINT else ABLATIONS[name](seeded)
    shared = _first_stages(changed) == _first_stages(seeded)
    return Arm(
        name=name,
        seed=seed,
        recipe=start_from_stage(changed, "joint") if shared else changed,
        from_stage_1=shared,
        scale=evaluation_scale(changed),
    )


def _first_stages(recipe: Recipe) -> Recipe:
    """Return the settings with an effect before the joint stage; the others have the same values in all recipes.

    An evidence method has no parameters, and is used only in the joint stage.
    """
    return replace(
        recipe,
        name="",
        parts=replace(recipe.parts, evidence=""),
        restoration=_with_used_losses(recipe.restoration),
        grading=_with_used_losses(recipe.grading),
        joint=JointStage(),
    )


def _with_used_losses(stage: S) -> S:
    names = USED_LOSSES[stage.name] + (GRADIENT_LIMITS if stage.loss.lambda_sa else ())
    return replace(stage, loss=replace(LossWeights(), **{name: getattr(stage.loss, name) for name in names}))


def find_earlier_arms(recipe: Recipe, out: Path, planned: set[tuple[str, int]]) -> Iterator[Arm]:
    """Find the finished runs of earlier calls that are not planned now."""
    for folder in sorted(out.glob("seed-*/*")):
        name, seed = folder.name, folder.parent.name.removeprefix("seed-")
        if name in ARMS and seed.isdecimal() and (name, int(seed)) not in planned and (folder / RUN_FILE).exists():
            yield plan_arm(recipe, name, int(seed))
