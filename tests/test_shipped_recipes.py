"""Shipped recipes: each line has a reason, and the paper's recipes have the paper's numbers."""

from __future__ import annotations

import dataclasses
import math
import re
import tomllib
from pathlib import Path

import pytest
import torch

from deepmtdr.datasets import ddr, eyepacs
from deepmtdr.losses import LossWeights
from deepmtdr.model.gmsv import select_features
from deepmtdr.model.grading import GradingConfig
from deepmtdr.model.isr import ISRConfig
from deepmtdr.model.segmentation import SegmentationConfig
from deepmtdr.recipe import STAGES, DataRecipe, Recipe, list_recipes, load_recipe, recipe_differences
from tiny_runs import leaves


def differing(recipe: Recipe) -> set[str]:
    """The dotted keys in which a recipe differs from the default."""
    return {difference.key for difference in recipe_differences(Recipe(), recipe)}


def test_recipe_names_are_the_shipped_files(root: Path) -> None:
    assert list_recipes() == sorted(path.stem for path in (root / "src/deepmtdr/recipes").glob("*.toml"))
    ours = {"small", "small-on", "smoke", "v1", "joint-study"}
    assert set(list_recipes()) == ours | {"paper-ddr", "paper-eyepacs", "paper-ddr-512", "authors-code", "compared"}


@pytest.mark.parametrize("name", list_recipes())
def test_every_shipped_recipe_loads_and_differs_from_the_default(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert {"data", "model", *STAGES} & {key.split(".")[0] for key in differing(recipe)}
    assert any(stage.steps for stage in recipe.stages)


@pytest.mark.parametrize("name", list_recipes())
def test_every_line_of_a_shipped_recipe_has_a_reason(name: str, root: Path) -> None:
    text = (root / "src/deepmtdr/recipes" / f"{name}.toml").read_text(encoding="utf-8")
    assert text.startswith("# ")
    different, table = differing(load_recipe(name)), ""
    for line in text.splitlines():
        if line.startswith("["):
            table = line.strip("[]") + "."
        elif line and not line.startswith("#"):
            keys = leaves(tomllib.loads(line), table)
            assert different.isdisjoint(keys) or re.search(r"  # \S", line), f"{name}: no reason for {line!r}"


@pytest.mark.parametrize("name", list_recipes())
def test_shipped_recipe_differs_from_the_default_only_in_the_keys_of_its_file(name: str, root: Path) -> None:
    keys = leaves(tomllib.loads((root / "src/deepmtdr/recipes" / f"{name}.toml").read_text(encoding="utf-8")))
    assert differing(load_recipe(name)) - {"name"} <= keys.keys()


def test_authors_code_has_the_constants_of_the_authors_code() -> None:
    recipe = load_recipe("authors-code")
    first, grading, joint = recipe.restoration, recipe.grading, recipe.joint
    assert recipe.model == dataclasses.replace(
        Recipe().model, isr=recipe.model.isr, grading=recipe.model.grading, gmsv=recipe.model.gmsv
    )
    assert recipe.model.isr == ISRConfig(width=32, blocks=5, skip="bicubic", local_difference=False)
    assert recipe.model.segmentation == SegmentationConfig(width=64, gamma=(0.4, 0.2, 0.2, 0.2, 1.0))
    assert recipe.model.grading == GradingConfig(width=64, hidden=512, dropout=0.5, head_norm=False)
    assert (first.batch, first.crop, first.lr_isr, first.lr_segmentation) == (2, 256, 5e-5, 2e-5)
    assert (first.loss.lambda_img, first.loss.lambda_tv, first.loss.lambda_sa, first.loss.dice) == (1, 1e-6, 0.4, 1)
    factors = first.decay_factors["isr"], first.decay_factors["segmentation"], grading.decay_factors["grading"]
    assert factors == (5, 2, 5)
    assert (grading.batch, grading.lr_grading) == (2, 5e-5)
    assert grading.loss.class_weights == (1, 10, 1.44, 25, 8)
    assert (joint.batch, joint.crop, joint.end_to_end) == (1, 0, True)
    assert (joint.lr_grading, joint.lr_isr, joint.lr_segmentation) == (5e-5, 1e-5, 4e-6)
    assert (joint.loss.lambda_img, joint.loss.lambda_tv, joint.loss.grading) == (1, 1e-6, 1)
    assert (joint.loss.lambda_sa, joint.loss.lambda_ca, joint.loss.unsupervised) == (1, 10, 0.3)
    assert {stage.weight_decay for stage in (first, grading, joint)} == {0}  # AdamW without it is Adam


def test_authors_code_selects_no_features() -> None:
    theta_seg = load_recipe("authors-code").model.gmsv.theta_seg
    features, region = torch.rand(2, 6, 4, 4), torch.rand(2, 1, 8, 8)
    assert select_features(features, region, torch.full((6,), 0.5), theta_seg).all()


@pytest.mark.parametrize("name", ["paper-ddr", "paper-ddr-512", "authors-code"])
def test_steps_on_ddr_are_epochs_of_its_official_training_split(name: str) -> None:
    recipe = load_recipe(name)
    annotated, graded = ddr.EXPECTED_SEGMENTATION["train"].photographs, sum(ddr.EXPECTED_GRADING["train"].grades or ())
    assert (annotated, graded) == (383, 6260)
    assert recipe.restoration.validate_every == math.ceil(annotated / 2) and recipe.restoration.steps == 180 * 192
    assert (recipe.grading.validate_every, recipe.grading.steps) == (graded / 2, 9 * 3130)
    assert (recipe.joint.validate_every, recipe.joint.steps) == (graded, 9 * 6260)
    assert recipe.joint.annotated == pytest.approx(annotated / graded, abs=0.005)
    assert recipe.data == DataRecipe(datasets=("ddr",), held_out=0.0)  # the official split


def test_steps_on_eyepacs_are_epochs_of_its_training_part() -> None:
    recipe, ddrs = load_recipe("paper-eyepacs"), load_recipe("paper-ddr")
    training = eyepacs.EXPECTED.photographs
    assert recipe.restoration == ddrs.restoration  # on the lesions of DDR
    assert (recipe.grading.validate_every, recipe.grading.steps) == (training / 2, 9 * 17_563)
    assert (recipe.joint.validate_every, recipe.joint.steps) == (training, 2 * 35_126)
    assert recipe.data.datasets == ("eyepacs", "ddr")


@pytest.mark.parametrize("name", ["paper-ddr", "paper-ddr-512", "paper-eyepacs", "authors-code"])
def test_learning_rate_falls_at_epoch_150_of_restoration_and_in_no_other_stage(name: str) -> None:
    recipe = load_recipe(name)
    assert {stage.schedule for stage in recipe.stages} == {"step"}
    first = recipe.restoration
    assert math.ceil(first.decay_at * first.steps) == 150 * first.validate_every
    assert recipe.grading.decay_at == recipe.joint.decay_at == 1
    assert {stage.stop_on for stage in recipe.stages} == {""}  # the last epoch is kept


@pytest.mark.parametrize(
    ("name", "scale"), [("paper-ddr", "4"), ("paper-eyepacs", "4"), ("paper-ddr-512", "2"), ("authors-code", "4")]
)
def test_paper_recipes_train_one_scale(name: str, scale: str) -> None:
    recipe = load_recipe(name)
    assert recipe.restoration.scales == recipe.joint.scales == {scale: 1}
    assert recipe.grading.scales == ({"1": 1} if name == "authors-code" else {scale: 1})
    assert recipe.data.frame // int(scale) == {"4": 256, "2": 512}[scale]


@pytest.mark.parametrize("name", ["paper-ddr", "paper-ddr-512", "paper-eyepacs"])
def test_paper_recipes_have_the_losses_of_the_paper(name: str) -> None:
    recipe = load_recipe(name)
    literal = LossWeights(task_aware_share=0.0)  # Eq. (11) with its lambdas
    dice_alone = dataclasses.replace(literal, lesion_cross_entropy=0.0)  # Eq. (8)
    assert recipe.joint.loss == dataclasses.replace(dice_alone, grading_form="eq10")
    assert recipe.grading.loss == LossWeights(grading_form="eq10")
    assert recipe.restoration.loss == dataclasses.replace(dice_alone, lambda_sa=0.4)
    assert recipe.grading.balance == 0 and recipe.precision == "fp32"
