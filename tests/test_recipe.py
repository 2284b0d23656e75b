"""Recipes: presets are differences, overrides are typed, whatever is wrong is named."""

from __future__ import annotations

import dataclasses
import json
import tomllib
from pathlib import Path

import pytest

from deepmtdr.errors import RecipeError
from deepmtdr.recipe import (
    STAGES,
    Recipe,
    Stage,
    differences,
    from_dict,
    load_recipe,
    recipe_names,
    split_file,
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
    assert recipe_names() == sorted(path.stem for path in (root / "src/deepmtdr/recipes").glob("*.toml"))
    assert {"shipped", "shipped-on", "smoke"} <= set(recipe_names())


@pytest.mark.parametrize("name", recipe_names())
def test_every_shipped_recipe_loads_and_differs_from_the_default(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert {"data", "model", *STAGES} & {key.split(".")[0] for key in differing(recipe)}
    assert any(getattr(recipe, stage).steps for stage in STAGES)


@pytest.mark.parametrize("name", recipe_names())
def test_every_shipped_recipe_says_why_it_differs(name: str, root: Path) -> None:
    text = (root / "src/deepmtdr/recipes" / f"{name}.toml").read_text(encoding="utf-8")
    assert text.startswith("# ")
    assert text.count("#") >= 2, "expected a comment for what is not obvious"


@pytest.mark.parametrize("name", recipe_names())
def test_every_shipped_recipe_differs_in_what_its_file_says_and_nothing_else(name: str, root: Path) -> None:
    said = leaves(tomllib.loads((root / "src/deepmtdr/recipes" / f"{name}.toml").read_text(encoding="utf-8")))
    assert differing(load_recipe(name)) - {"name"} <= said.keys()


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
    found = leaves(to_dict(load_recipe("shipped", [override])))[stage]
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
    ],
)
def test_what_is_wrong_is_named_with_what_was_expected(override: str, words: list[str]) -> None:
    with pytest.raises(RecipeError) as error:
        load_recipe("smoke", [override])
    assert [word for word in words if word not in str(error.value)] == [], str(error.value)


def test_an_unknown_key_is_answered_with_all_known_ones(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("[grading]\nsteps = 3\nlearning_rate = 1.0\n")
    with pytest.raises(RecipeError, match=r"mine\.toml: grading: unknown key learning_rate; known are ") as error:
        load_recipe(path)
    known = str(error.value).split("known are ")[1].split(", ")
    assert known == [field.name for field in dataclasses.fields(Stage)]


def test_a_recipe_that_is_not_there_is_answered_with_the_shipped_ones(tmp_path: Path) -> None:
    for name in ("shiped", tmp_path / "none.toml", tmp_path):
        with pytest.raises(RecipeError, match=rf"{name}: not found.*shipped, shipped-on, smoke"):
            load_recipe(name)


@pytest.mark.parametrize("content", [b"steps = \n", b"\x93NUMPY\xff\xfe"], ids=["no-toml", "no-text"])
def test_a_file_that_is_no_toml_is_refused_by_name(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(content)
    with pytest.raises(RecipeError, match=r"mine\.toml: no valid TOML"):
        load_recipe(path)


@pytest.mark.parametrize("name", recipe_names())
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
    assert list(differences(was, now)) == ["joint.steps was 3, is 5", "seed was 0, is 1"]
    assert list(differences({"data": {}}, {"data": {"split": "v0"}})) == ["data.split was None, is 'v0'"]
    assert list(differences(was, was)) == []


def test_a_recipe_cannot_be_changed_in_place() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Recipe().seed = 3  # type: ignore[misc]
    assert Recipe().data.frame == FRAME


def test_a_split_is_a_shipped_name_or_a_file(tmp_path: Path, root: Path) -> None:
    own = tmp_path / "own.csv"
    own.touch()
    assert split_file(str(own)) == own
    assert split_file("v0") == root / "src/deepmtdr/recipes/v0.split.csv"
    with pytest.raises(RecipeError, match=r"v00.*no such file.*shipped"):
        split_file("v00")


def test_small_frames_need_a_frame_to_be_reduced_from() -> None:
    with pytest.raises(RecipeError, match=r"grading\.small = 0\.5 in a frame of 112 px, expected at least 128"):
        load_recipe("smoke", ["grading.small=0.5", "data.frame=112"])
    assert load_recipe("smoke", ["grading.small=0.5", "data.frame=128"]).grading.small == 0.5
