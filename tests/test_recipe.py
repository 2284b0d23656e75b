"""Recipes: files, stages, overrides and errors."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from deepmtdr.errors import RecipeError
from deepmtdr.recipe import (
    STAGES,
    VALIDATION_SCORES,
    GradingStage,
    JointStage,
    Recipe,
    RestorationStage,
    TrainingStage,
    find_split_file,
    load_recipe,
    recipe_from_dict,
    to_dict,
)
from deepmtdr.recipe_keys import EARLIER_VALUES
from deepmtdr.terms import FRAME
from tiny_runs import leaves


def test_recipe_file_is_read_by_its_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("seed = 3\n[joint]\nsteps = 5\n")
    recipe = load_recipe(path)
    assert (recipe.name, recipe.seed, recipe.joint.steps) == ("mine", 3, 5)


def test_stage_keeps_its_own_defaults_beside_the_keys_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("[joint]\nsteps = 5\nloss = { dice = 2.0 }\n")
    joint = load_recipe(path).joint
    assert joint == dataclasses.replace(Recipe().joint, steps=5, loss=dataclasses.replace(joint.loss, dice=2.0))
    assert (joint.crop, joint.batch, joint.end_to_end) == (0, 1, False)
    first = RestorationStage()
    assert (first.crop, first.batch, first.end_to_end) == (256, 8, False)


# Stages


def test_stages_are_found_by_name_in_the_order_of_training() -> None:
    recipe = Recipe()
    assert tuple(stage.name for stage in recipe.stages) == STAGES == ("restoration", "grading", "joint")
    assert [recipe.stage(name) for name in STAGES] == [recipe.restoration, recipe.grading, recipe.joint]
    with pytest.raises(RecipeError, match="stage 'jiont', expected one of restoration, grading, joint"):
        recipe.stage("jiont")


def test_each_stage_has_the_learning_rates_of_the_subnets_that_it_trains() -> None:
    assert RestorationStage(lr_isr=1.0, lr_segmentation=2.0).learning_rates == {"isr": 1, "segmentation": 2}
    assert GradingStage(lr_grading=3.0).learning_rates == {"grading": 3}
    joint = JointStage(lr_isr=1.0, lr_segmentation=2.0, lr_grading=3.0)
    assert joint.learning_rates == {"isr": 1, "segmentation": 2, "grading": 3}


@pytest.mark.parametrize(
    ("scales", "expected"),
    [
        ({"1": 0.25, "2": 0.15, "4": 0.5, "8": 0.1}, 4),
        ({"2": 1.0}, 2),
        ({"1": 0.9, "8": 0.1}, 8),
        ({"2": 0.5, "4": 0.5}, 4),
        ({"1": 1.0}, 4),
        ({"1": 1.0, "2": 0.0}, 4),
    ],
)
def test_stage_is_validated_at_its_most_frequent_scale_above_1(scales: dict[str, float], expected: int) -> None:
    assert GradingStage(scales=scales).validation_scale == expected


# Recipes of earlier versions


def test_absent_key_of_an_old_card_gets_the_value_with_the_effect_of_its_version() -> None:
    card = to_dict(Recipe())
    for key in EARLIER_VALUES:
        *path, last = key.split(".")
        table = card
        for part in path:
            table = table[part]
        del table[last]
    found = leaves(to_dict(recipe_from_dict(card, "card")))
    expected = leaves(EARLIER_VALUES)
    assert {key: found[key] for key in expected} == expected
    assert all(leaves(to_dict(Recipe()))[key] != value for key, value in expected.items()), "not needed"


def test_key_that_an_old_card_has_keeps_its_value_and_an_absent_table_its_defaults() -> None:
    card = {"joint": {"loss": {"grading_form": "cross-entropy"}}}
    assert recipe_from_dict(card, "card").joint.loss.grading_form == "cross-entropy"
    assert recipe_from_dict({}, "nothing") == Recipe()


# Overrides and errors


@pytest.mark.parametrize(
    ("override", "key", "value"),
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
def test_set_overrides_one_value_with_its_type(override: str, key: str, value: object) -> None:
    found = leaves(to_dict(load_recipe("small", [override])))[key]
    assert found == value
    assert type(found) is type(value)


def test_set_changes_one_value_and_the_last_one_counts() -> None:
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
        ("precision=fp16", ["precision", "'fp16'", "one of auto, fp32, bf16"]),
        ("data.frame=100", ["data.frame", "100", "16"]),
        ("data.held_out=1", ["data.held_out", "1.0"]),
        ("joint.steps=-1", ["joint.steps = -1", "at least 0 steps"]),
        ("grading.batch=0", ["grading.steps = 3, batch = 0", "1 photograph"]),
        ("restoration.crop=100", ["restoration.crop", "100", "16"]),
        ("joint.scales={3 = 1}", ["joint.scales", "'3'", "1, 2, 4, 8"]),
        ("joint.scales={}", ["joint.scales", "{}"]),
        ("joint.scales={4 = 0}", ["joint.scales", "0"]),
        ("joint.scales={4 = -1}", ["joint.scales", "-1"]),
        ("joint.annotated=1.5", ["joint.annotated", "1.5", "0 to 1"]),
        ("data.validation=-0.1", ["data.held_out = 0.2, validation = -0.1", "leave photographs for training"]),
        ("data.validation=0.8", ["data.held_out = 0.2, validation = 0.8", "leave photographs for training"]),
        ("data.held_out=-0.1", ["data.held_out = -0.1, validation = 0.0", "shares from 0"]),
        ("joint.accumulate=0", ["joint.accumulate = 0", "at least 1"]),
        ("joint.schedule=linear", ["joint.schedule = 'linear'", "one of cosine, step"]),
        ("joint.decay_at=1.5", ["joint.decay_at = 1.5", "0 to 1"]),
        ("joint.decay_factors={vessels = 2}", ["joint.decay_factors", "'vessels'", "isr, segmentation, grading"]),
        ("joint.decay_factors={isr = 0}", ["joint.decay_factors", "0.0", "positive divisors"]),
        ("joint.loss.class_weights=[1, 1, 1, 1]", ["joint.loss.class_weights = (1.0, 1.0, 1.0, 1.0)", "5 weights"]),
        ("joint.loss.class_weights=[1, 1, 1, 1, -1]", ["joint.loss.class_weights", "-1.0", "of 0 or more, or none"]),
        ("joint.loss.grading_form=eq11", ["joint.loss.grading_form = 'eq11'", "cumulative, eq10, eq10-literal"]),
        ("joint.validate_every=-1", ["joint.validate_every = -1", "0 or more"]),
        ("joint.patience=3", ["joint.validate_every = 0, patience = 3", "patience only with stop_on"]),
        ("grading.hide_image=2", ["grading.hide_image = 2.0", "0 to 1"]),
        ("grading.small_frame_share=-1", ["grading.small_frame_share = -1.0", "0 to 1"]),
        ("joint.stop_on=loss", ["joint.stop_on = 'loss'", *VALIDATION_SCORES, "or empty"]),
    ],
)
def test_wrong_value_is_named_with_what_was_expected(override: str, words: list[str]) -> None:
    with pytest.raises(RecipeError) as error:
        load_recipe("smoke", [override])
    assert [word for word in words if word not in str(error.value)] == [], str(error.value)


def test_stage_can_stop_early_on_any_validation_score() -> None:
    for score in VALIDATION_SCORES:
        settings = [f"joint.stop_on={score}", "joint.patience=3", "joint.validate_every=10"]
        stage = load_recipe("smoke", settings).joint
        assert (stage.stop_on, stage.patience, stage.validate_every) == (score, 3, 10)


@pytest.mark.parametrize("kind", [RestorationStage, GradingStage, JointStage])
def test_unknown_key_is_an_error_that_lists_the_known_ones(tmp_path: Path, kind: type[TrainingStage]) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(f"[{kind.name}]\nsteps = 3\nlearning_rate = 1.0\n")
    with pytest.raises(RecipeError, match=rf"mine\.toml: {kind.name}: unknown key learning_rate; known are ") as error:
        load_recipe(path)
    known = str(error.value).split("known are ")[1].split(", ")
    assert known == [field.name for field in dataclasses.fields(kind)]


def test_missing_recipe_is_an_error_that_lists_the_shipped_ones(tmp_path: Path) -> None:
    for name in ("shiped", tmp_path / "none.toml", tmp_path):
        with pytest.raises(RecipeError, match=rf"{name}: not found.*authors-code, .*small, small-on, smoke"):
            load_recipe(name)


@pytest.mark.parametrize("content", [b"steps = \n", b"\x93NUMPY\xff\xfe"], ids=["no-toml", "no-text"])
def test_file_that_is_not_toml_is_an_error_that_names_it(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(content)
    with pytest.raises(RecipeError, match=r"mine\.toml: not valid TOML"):
        load_recipe(path)


def test_recipe_cannot_be_changed_in_place() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Recipe().seed = 3  # type: ignore[misc]
    assert Recipe().data.frame == FRAME


def test_split_is_a_shipped_name_or_a_file(tmp_path: Path, root: Path) -> None:
    own = tmp_path / "own.csv"
    own.touch()
    assert find_split_file(str(own)) == own
    assert find_split_file("v0") == root / "src/deepmtdr/recipes/v0.split.csv"
    with pytest.raises(RecipeError, match=r"v00.*no such file.*shipped"):
        find_split_file("v00")


def test_small_frames_need_a_frame_of_128_px() -> None:
    with pytest.raises(
        RecipeError, match=r"grading\.small_frame_share = 0\.5 in a frame of 112 px, expected .* at least 128"
    ):
        load_recipe("smoke", ["grading.small_frame_share=0.5", "data.frame=112"])
    assert load_recipe("smoke", ["grading.small_frame_share=0.5", "data.frame=128"]).grading.small_frame_share == 0.5


def test_joint_stage_on_crops_is_an_error() -> None:
    with pytest.raises(RecipeError, match=r"joint\.crop = 256, expected 0: a grade belongs to a whole frame"):
        load_recipe("smoke", ["joint.crop=256"])
