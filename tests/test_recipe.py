"""Recipes: presets are differences, overrides are typed, whatever is wrong is named."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import tomllib
from pathlib import Path

import pytest
import torch

from deepmtdr.datasets import ddr, eyepacs
from deepmtdr.errors import RecipeError
from deepmtdr.losses import LossWeights
from deepmtdr.model.gmsv import select_features
from deepmtdr.model.grading import GradingConfig
from deepmtdr.model.isr import ISRConfig
from deepmtdr.model.segmentation import SegmentationConfig
from deepmtdr.recipe import (
    STAGES,
    VALIDATION_SCORES,
    DataRecipe,
    Recipe,
    Stage,
    find_split_file,
    from_dict,
    list_recipes,
    load_recipe,
    recipe_differences,
    to_dict,
)
from deepmtdr.terms import FRAME


def leaves(values: dict, inside: str = "") -> dict[str, object]:
    """Every value by its dotted key; the scales are one value."""
    flat: dict[str, object] = {}
    for key, value in values.items():
        table = isinstance(value, dict) and key != "scales"
        flat |= leaves(value, f"{inside}{key}.") if table else {f"{inside}{key}": value}
    return flat


def differing(recipe: Recipe) -> set[str]:
    """The dotted keys in which a recipe is not the default."""
    ours, default = leaves(to_dict(recipe)), leaves(to_dict(Recipe()))
    return {key for key in ours.keys() | default.keys() if ours.get(key) != default.get(key)}


def test_recipe_names_are_the_shipped_files(root: Path) -> None:
    assert list_recipes() == sorted(path.stem for path in (root / "src/deepmtdr/recipes").glob("*.toml"))
    ours = {"small", "small-on", "smoke"}
    assert set(list_recipes()) == ours | {"paper-ddr", "paper-eyepacs", "paper-ddr-512", "authors-code", "compared"}


@pytest.mark.parametrize("name", list_recipes())
def test_every_shipped_recipe_loads_and_differs_from_the_default(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert {"data", "model", *STAGES} & {key.split(".")[0] for key in differing(recipe)}
    assert any(getattr(recipe, stage).steps for stage in STAGES)


@pytest.mark.parametrize("name", list_recipes())
def test_every_shipped_recipe_says_why_it_differs(name: str, root: Path) -> None:
    text = (root / "src/deepmtdr/recipes" / f"{name}.toml").read_text(encoding="utf-8")
    assert text.startswith("# ")
    different, table = differing(load_recipe(name)), ""
    for line in text.splitlines():
        if line.startswith("["):
            table = line.strip("[]") + "."
        elif line and not line.startswith("#"):
            said = leaves(tomllib.loads(line), table)
            assert different.isdisjoint(said) or re.search(r"  # \S", line), f"{name}: no reason for {line!r}"


@pytest.mark.parametrize("name", list_recipes())
def test_every_shipped_recipe_differs_in_what_its_file_says_and_nothing_else(name: str, root: Path) -> None:
    said = leaves(tomllib.loads((root / "src/deepmtdr/recipes" / f"{name}.toml").read_text(encoding="utf-8")))
    assert differing(load_recipe(name)) - {"name"} <= said.keys()


def test_the_authors_constants_by_number() -> None:
    recipe = load_recipe("authors-code")
    first, grading, joint = recipe.restoration, recipe.grading, recipe.joint
    assert recipe.model == dataclasses.replace(Recipe().model, gmsv=recipe.model.gmsv)
    assert recipe.model.isr == ISRConfig(width=32, blocks=5)
    assert recipe.model.segmentation == SegmentationConfig(width=64, gamma=(0.4, 0.2, 0.2, 0.2, 1.0))
    assert recipe.model.grading == GradingConfig(width=64, hidden=512, dropout=0.5)
    assert (first.batch, first.crop, first.lr_isr, first.lr_segmentation) == (2, 256, 5e-5, 2e-5)
    assert (first.loss.lambda_img, first.loss.lambda_tv, first.loss.lambda_sa, first.loss.dice) == (1, 1e-6, 0.4, 1)
    assert (first.falls_by["isr"], first.falls_by["segmentation"], grading.falls_by["grading"]) == (5, 2, 5)
    assert (grading.batch, grading.crop, grading.lr_grading) == (2, 0, 5e-5)
    assert grading.loss.class_weights == (1, 10, 1.44, 25, 8)
    assert (joint.batch, joint.crop, joint.end_to_end) == (1, 0, True)
    assert (joint.lr_grading, joint.lr_isr, joint.lr_segmentation) == (5e-5, 1e-5, 4e-6)
    assert (joint.loss.lambda_img, joint.loss.lambda_tv, joint.loss.grading) == (1, 1e-6, 1)
    assert (joint.loss.lambda_sa, joint.loss.lambda_ca, joint.loss.unsupervised) == (1, 10, 0.3)
    assert {stage.weight_decay for stage in (first, grading, joint)} == {0}  # AdamW without it is Adam


def test_the_authors_code_selects_no_features() -> None:
    theta_seg = load_recipe("authors-code").model.gmsv.theta_seg
    features, region = torch.rand(2, 6, 4, 4), torch.rand(2, 1, 8, 8)
    assert select_features(features, region, torch.full((6,), 0.5), theta_seg).all()


@pytest.mark.parametrize("name", ["paper-ddr", "paper-ddr-512", "authors-code"])
def test_the_steps_on_ddr_are_epochs_of_its_official_training_side(name: str) -> None:
    recipe = load_recipe(name)
    annotated, graded = ddr.EXPECTED_SEGMENTATION["train"].photographs, sum(ddr.EXPECTED_GRADING["train"].grades or ())
    assert (annotated, graded) == (383, 6260)
    assert recipe.restoration.epoch == math.ceil(annotated / 2) and recipe.restoration.steps == 180 * 192
    assert (recipe.grading.epoch, recipe.grading.steps) == (graded / 2, 9 * 3130)
    assert (recipe.joint.epoch, recipe.joint.steps) == (graded, 9 * 6260)
    assert recipe.joint.annotated == pytest.approx(annotated / graded, abs=0.005)
    assert recipe.data == DataRecipe(datasets=("ddr",), held_out=0.0)  # official sides


def test_the_steps_on_eyepacs_are_epochs_of_its_training_part() -> None:
    recipe, ddrs = load_recipe("paper-eyepacs"), load_recipe("paper-ddr")
    training = eyepacs.EXPECTED.photographs
    assert recipe.restoration == ddrs.restoration  # on the lesions of DDR
    assert (recipe.grading.epoch, recipe.grading.steps) == (training / 2, 9 * 17_563)
    assert (recipe.joint.epoch, recipe.joint.steps) == (training, 2 * 35_126)
    assert recipe.data.datasets == ("eyepacs", "ddr")


@pytest.mark.parametrize("name", ["paper-ddr", "paper-ddr-512", "paper-eyepacs", "authors-code"])
def test_the_rate_falls_at_epoch_150_and_in_no_other_stage(name: str) -> None:
    recipe = load_recipe(name)
    assert {getattr(recipe, stage).schedule for stage in STAGES} == {"step"}
    first = recipe.restoration
    assert math.ceil(first.falls_at * first.steps) == 150 * first.epoch
    assert recipe.grading.falls_at == recipe.joint.falls_at == 1
    assert {getattr(recipe, stage).stop_on for stage in STAGES} == {""}  # the last epoch is kept


@pytest.mark.parametrize(
    ("name", "scale"), [("paper-ddr", "4"), ("paper-eyepacs", "4"), ("paper-ddr-512", "2"), ("authors-code", "4")]
)
def test_the_papers_input_comes_by_one_scale(name: str, scale: str) -> None:
    recipe = load_recipe(name)
    assert recipe.restoration.scales == recipe.joint.scales == {scale: 1}
    assert recipe.grading.scales == ({"1": 1} if name == "authors-code" else {scale: 1})
    assert recipe.data.frame // int(scale) == {"4": 256, "2": 512}[scale]


@pytest.mark.parametrize("name", ["paper-ddr", "paper-ddr-512", "paper-eyepacs"])
def test_the_papers_recipes_have_the_papers_losses(name: str) -> None:
    recipe = load_recipe(name)
    dice_alone = LossWeights(lesion_cross_entropy=0.0)  # Eq. (8)
    assert recipe.joint.loss == dice_alone and recipe.grading.loss == LossWeights()
    assert recipe.restoration.loss == dataclasses.replace(dice_alone, lambda_sa=0.4)
    assert recipe.grading.balance == 0 and recipe.precision == "fp32"


def test_a_recipe_file_is_read_by_its_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("seed = 3\n[joint]\nsteps = 5\n")
    recipe = load_recipe(path)
    assert (recipe.name, recipe.seed, recipe.joint.steps) == ("mine", 3, 5)


def test_a_stage_keeps_its_own_defaults_beside_what_differs(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("[joint]\nsteps = 5\nloss = { dice = 2.0 }\n")
    joint = load_recipe(path).joint
    assert joint == dataclasses.replace(Recipe().joint, steps=5, loss=dataclasses.replace(joint.loss, dice=2.0))
    assert (joint.crop, joint.batch, joint.end_to_end) == (0, 1, True) != (Stage().crop, Stage().batch, False)
    assert load_recipe("smoke", ["grading.steps=7"]).grading.crop == 0


@pytest.mark.parametrize(
    ("override", "stage", "value"),
    [
        ("seed=4", "seed", 4),
        ("joint.lr_isr=1", "joint.lr_isr", 1.0),
        ("joint.lr_isr = 2e-5", "joint.lr_isr", 2e-5),
        ("joint.loss.lambda_tv=0", "joint.loss.lambda_tv", 0.0),
        ("joint.end_to_end=false", "joint.end_to_end", False),
        ('data.datasets=["idrid", "aptos"]', "data.datasets", ["idrid", "aptos"]),
        ("data.datasets=['aptos']", "data.datasets", ["aptos"]),
        ("model.segmentation.gamma=[1, 0, 0, 0, 0]", "model.segmentation.gamma", [1.0, 0.0, 0.0, 0.0, 0.0]),
        ("restoration.scales={4 = 1}", "restoration.scales", {"4": 1.0}),
        ("precision=fp32", "precision", "fp32"),
        ('precision="fp32"', "precision", "fp32"),
        ("data.split=", "data.split", ""),
    ],
)
def test_set_overrides_one_value_with_its_type(override: str, stage: str, value: object) -> None:
    found = leaves(to_dict(load_recipe("small", [override])))[stage]
    assert found == value
    assert type(found) is type(value)


def test_set_changes_nothing_else_and_the_last_one_counts() -> None:
    before, after = (leaves(to_dict(load_recipe("smoke", sets))) for sets in ([], ["joint.clip=3", "joint.clip=2"]))
    assert after.pop("joint.clip") == 2.0
    assert before.pop("joint.clip") != 2.0
    assert before == after


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("joint.stpes=3", ["stpes", "joint", "steps", "lr_isr", "end_to_end"]),
        ("jiont.steps=3", ["jiont", "joint", "restoration", "data"]),
        ("joint.loss.lamda_tv=3", ["lamda_tv", "lambda_tv", "joint: loss"]),
        ("joint.steps=many", ["joint: steps", "'many'", "int"]),
        ("joint.steps=1.5", ["joint: steps", "1.5", "int"]),
        ("joint.steps=true", ["joint: steps", "True", "int"]),
        ("joint.lr_isr=true", ["joint: lr_isr", "True", "float"]),
        ("joint.end_to_end=1", ["joint: end_to_end", "1", "bool"]),
        ("joint.loss=3", ["joint: loss", "3", "LossWeights"]),
        ("joint.scales.4=often", ["joint: scales", "'often'", "float"]),
        ("data.datasets=idrid", ["data: datasets", "'idrid'", "tuple"]),
        ("data.datasets=[1]", ["data: datasets", "1", "str"]),
        ("model.segmentation.gamma=[1, 2]", ["gamma", "[1, 2]", "5 values"]),
        ("name.x=3", ["--set name.x=3", "'smoke'", "no keys"]),
        ("joint.steps.x=3", ["--set joint.steps.x=3", "no keys"]),
        ("joint.steps", ["--set joint.steps", "key=value"]),
        ("precision=fp16", ["precision", "'fp16'", "bf16 or fp32"]),
        ("data.frame=100", ["data.frame", "100", "16"]),
        ("data.held_out=1", ["data.held_out", "1.0"]),
        ("joint.steps=-1", ["joint", "-1 steps"]),
        ("grading.batch=0", ["grading", "0 photographs"]),
        ("restoration.crop=100", ["restoration.crop", "100", "16"]),
        ("joint.scales={3 = 1}", ["joint.scales", "'3'", "1, 2, 4, 8"]),
        ("joint.scales={}", ["joint.scales", "{}"]),
        ("joint.scales={4 = 0}", ["joint.scales", "0"]),
        ("joint.scales={4 = -1}", ["joint.scales", "-1"]),
        ("joint.annotated=1.5", ["joint.annotated", "1.5", "0 to 1"]),
        ("data.validation=-0.1", ["data.held_out = 0.2, data.validation = -0.1", "leave something to learn from"]),
        ("data.validation=0.8", ["data.held_out = 0.2, data.validation = 0.8", "leave something to learn from"]),
        ("data.held_out=-0.1", ["data.held_out = -0.1, data.validation = 0.0", "shares from 0"]),
        ("joint.accumulate=0", ["joint.accumulate = 0", "at least 1"]),
        ("joint.schedule=linear", ["joint.schedule = 'linear'", "one of cosine, step"]),
        ("joint.falls_at=1.5", ["joint.falls_at = 1.5", "0 to 1"]),
        ("joint.falls_by={vessels = 2}", ["joint.falls_by", "'vessels'", "isr, segmentation, grading"]),
        ("joint.falls_by={isr = 0}", ["joint.falls_by", "0.0", "positive divisors"]),
        ("joint.loss.class_weights=[1, 1, 1, 1]", ["joint.loss.class_weights = (1.0, 1.0, 1.0, 1.0)", "5 weights"]),
        ("joint.loss.class_weights=[1, 1, 1, 1, -1]", ["joint.loss.class_weights", "-1.0", "from 0, or none"]),
        ("joint.epoch=-1", ["joint: epoch -1", "from 0 on"]),
        ("joint.patience=3", ["joint: epoch 0, patience 3", "patience with a stop_on"]),
        ("joint.stop_on=loss", ["joint.stop_on = 'loss'", *VALIDATION_SCORES, "or nothing"]),
    ],
)
def test_what_is_wrong_is_named_with_what_was_expected(override: str, words: list[str]) -> None:
    with pytest.raises(RecipeError) as error:
        load_recipe("smoke", [override])
    assert [word for word in words if word not in str(error.value)] == [], str(error.value)


def test_a_stage_may_stop_early_on_any_score_of_a_look() -> None:
    for score in VALIDATION_SCORES:
        stage = load_recipe("smoke", [f"joint.stop_on={score}", "joint.patience=3", "joint.epoch=10"]).joint
        assert (stage.stop_on, stage.patience, stage.epoch) == (score, 3, 10)


def test_an_unknown_key_is_answered_with_all_known_ones(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("[grading]\nsteps = 3\nlearning_rate = 1.0\n")
    with pytest.raises(RecipeError, match=r"mine\.toml: grading: unknown key learning_rate; known are ") as error:
        load_recipe(path)
    known = str(error.value).split("known are ")[1].split(", ")
    assert known == [field.name for field in dataclasses.fields(Stage)]


def test_a_recipe_that_is_not_there_is_answered_with_the_shipped_ones(tmp_path: Path) -> None:
    for name in ("shiped", tmp_path / "none.toml", tmp_path):
        with pytest.raises(RecipeError, match=rf"{name}: not found.*authors-code, .*small, small-on, smoke"):
            load_recipe(name)


@pytest.mark.parametrize("content", [b"steps = \n", b"\x93NUMPY\xff\xfe"], ids=["no-toml", "no-text"])
def test_a_file_that_is_no_toml_is_refused_by_name(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(content)
    with pytest.raises(RecipeError, match=r"mine\.toml: no valid TOML"):
        load_recipe(path)


@pytest.mark.parametrize("name", list_recipes())
def test_to_dict_and_from_dict_are_inverse_through_json(name: str) -> None:
    recipe = load_recipe(name, ["seed=7", "joint.loss.tau=0.25"])
    again = from_dict(Recipe, json.loads(json.dumps(to_dict(recipe))), "somewhere")
    assert again == recipe
    assert to_dict(again) == to_dict(recipe)


def test_from_dict_starts_from_a_base() -> None:
    base = Stage(steps=3, crop=64)
    assert from_dict(Stage, {"steps": 4}, "somewhere", base) == dataclasses.replace(base, steps=4)
    assert from_dict(Stage, {}, "somewhere") == Stage()
    assert base.steps == 3


def test_differences_name_key_and_values() -> None:
    was, now = (to_dict(load_recipe("smoke", sets)) for sets in (["joint.steps=3"], ["joint.steps=5", "seed=1"]))
    assert list(recipe_differences(was, now)) == ["joint.steps was 3, is 5", "seed was 0, is 1"]
    assert list(recipe_differences({"data": {}}, {"data": {"split": "v0"}})) == ["data.split was None, is 'v0'"]
    assert list(recipe_differences(was, was)) == []


def test_a_recipe_cannot_be_changed_in_place() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Recipe().seed = 3  # type: ignore[misc]
    assert Recipe().data.frame == FRAME


def test_a_split_is_a_shipped_name_or_a_file(tmp_path: Path, root: Path) -> None:
    own = tmp_path / "own.csv"
    own.touch()
    assert find_split_file(str(own)) == own
    assert find_split_file("v0") == root / "src/deepmtdr/recipes/v0.split.csv"
    with pytest.raises(RecipeError, match=r"v00.*no such file.*shipped"):
        find_split_file("v00")


def test_small_frames_need_a_frame_to_be_reduced_from() -> None:
    with pytest.raises(RecipeError, match=r"grading\.small = 0\.5 in a frame of 112 px, expected at least 128"):
        load_recipe("smoke", ["grading.small=0.5", "data.frame=112"])
    assert load_recipe("smoke", ["grading.small=0.5", "data.frame=128"]).grading.small == 0.5
