"""Recipes through JSON, old and misplaced keys, and label sets."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest

from deepmtdr.errors import LabelSetError, RecipeError
from deepmtdr.labels import DIABETIC_RETINOPATHY, load_label_set
from deepmtdr.recipe import (
    STAGES,
    Recipe,
    RestorationStage,
    list_recipes,
    load_recipe,
    recipe_differences,
    recipe_from_dict,
    to_dict,
)
from deepmtdr.recipe_keys import RENAMED_DATA_KEYS, RENAMED_STAGE_KEYS
from deepmtdr.toml_config import from_dict
from tiny_runs import leaves

# Renamed and misplaced keys


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("grading.crop=64", "grading.crop: not a key of this stage: the grading stage takes whole frames. Remove it; "
         "it is a key of: restoration, joint"),
        ("grading.lr_isr=0", "the ISR subnet is frozen in the grading stage"),
        ("restoration.lr_grading=0", "the restoration stage has no grading subnet. Remove it; it is a key of: grading, "
         "joint"),
        ("joint.hide_image=0.5", "only the grading stage uses cached lesion maps"),
        ("joint.small=0.5", "joint.small: this key was renamed; expected joint.small_frame_share"),
    ],
)  # fmt: skip
def test_key_of_another_stage_is_an_error_with_the_reason(override: str, message: str) -> None:
    with pytest.raises(RecipeError) as error:
        load_recipe("smoke", [override])
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        *((f"data.{old}", f"data.{new}") for old, new in RENAMED_DATA_KEYS.items()),
        *((f"grading.{old}", f"grading.{new}") for old, new in RENAMED_STAGE_KEYS.items()),
    ],
)
def test_renamed_key_is_an_error_that_names_the_new_one(old: str, new: str) -> None:
    assert leaves(to_dict(Recipe())).keys() & {old, new} == {new} or new.endswith("decay_factors")
    with pytest.raises(
        RecipeError, match=rf"recipe smoke: {re.escape(old)}: this key was renamed; expected {re.escape(new)}$"
    ):
        load_recipe("smoke", [f"{old}=1"])


# Through JSON


@pytest.mark.parametrize("name", list_recipes())
def test_recipe_survives_json(name: str) -> None:
    recipe = load_recipe(name, ["seed=7", "joint.loss.tau=0.25"])
    again = recipe_from_dict(json.loads(json.dumps(to_dict(recipe))), "somewhere")
    assert again == recipe
    assert to_dict(again) == to_dict(recipe)


def old_card(recipe: Recipe) -> dict:
    """A recipe as in the first checkpoints: the old names, and every key in each stage."""
    card = to_dict(recipe)
    stages = {name: card[name] for name in STAGES}
    old_names = {new: old for old, new in RENAMED_STAGE_KEYS.items()}
    for name in STAGES:
        every = stages["joint"] | stages["grading"] | {"hide_image": 0.75, "crop": 0} | stages[name]
        card[name] = {old_names.get(key, key): value for key, value in every.items()}
    card["data"]["looked_at"] = card["data"].pop("validation_photographs")
    return card


@pytest.mark.parametrize("name", list_recipes())
def test_recipe_of_an_old_checkpoint_is_read(name: str) -> None:
    recipe = load_recipe(name, ["data.validation_photographs=5", "grading.max_per_grade=7"])
    card = old_card(recipe)
    assert len(card["restoration"]) == len(card["grading"]) == len(card["joint"])
    assert recipe_from_dict(card, "an old card") == recipe


def test_absent_key_in_a_card_has_its_default() -> None:
    card = to_dict(load_recipe("smoke"))
    del card["joint"]["accumulate"], card["data"]["folds"], card["grading"]["loss"]["tau"]
    assert recipe_from_dict(card, "an old card") == load_recipe("smoke")


def test_unknown_key_in_a_card_is_an_error() -> None:
    with pytest.raises(RecipeError, match="a card: joint: unknown key diffusion"):
        recipe_from_dict({"joint": {"diffusion": 3}}, "a card")


def test_from_dict_starts_from_a_base() -> None:
    base = RestorationStage(steps=3, crop=64)
    assert from_dict(RestorationStage, {"steps": 4}, "somewhere", base) == dataclasses.replace(base, steps=4)
    assert from_dict(RestorationStage, {}, "somewhere") == RestorationStage()
    assert base.steps == 3


def test_differences_have_key_and_values() -> None:
    was, now = (load_recipe("smoke", sets) for sets in (["joint.steps=3"], ["joint.steps=5", "seed=1"]))
    differences = recipe_differences(was, now)
    assert differences == [("joint.steps", 3, 5), ("seed", 0, 1)]
    assert list(map(str, differences)) == ["joint.steps was 3, is 5", "seed was 0, is 1"]
    split = load_recipe("smoke", ["data.split=a was b, is c"])
    assert [tuple(one) for one in recipe_differences(load_recipe("smoke"), split)] == [
        ("data.split", "", "a was b, is c")
    ]
    assert recipe_differences(was, was) == []


# Label sets


TWO_GRADES = """
disease = "cataract"
lesions = [{ code = "OP", name = "opacities" }]
grades = [{ name = "none" }, { name = "cataract" }]
thresholds = { any = 1, referable = 1 }
"""


def test_labels_come_from_a_file_relative_to_the_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cataract.toml").write_text(TWO_GRADES)
    (tmp_path / "mine.toml").write_text('labels = "cataract.toml"\n')
    labels = load_label_set(tmp_path / "cataract.toml")
    assert load_recipe(tmp_path / "mine.toml").labels == labels
    monkeypatch.chdir(tmp_path)
    assert load_recipe("smoke", ["labels=cataract.toml"]).labels == labels


def test_labels_come_from_a_table(tmp_path: Path) -> None:
    table = TWO_GRADES.replace("disease", 'name = "cataract"\ndisease')
    (tmp_path / "mine.toml").write_text(f"[labels]{table}")
    recipe = load_recipe(tmp_path / "mine.toml")
    assert (recipe.labels.codes, recipe.labels.grade_names) == (("OP",), ("none", "cataract"))
    assert recipe_from_dict(json.loads(json.dumps(to_dict(recipe))), "card") == recipe


def test_default_labels_are_diabetic_retinopathy_and_not_in_the_card() -> None:
    assert Recipe().labels is DIABETIC_RETINOPATHY
    assert "labels" not in to_dict(Recipe())
    assert recipe_from_dict(to_dict(Recipe()), "card").labels is DIABETIC_RETINOPATHY


def test_class_weights_are_one_for_each_grade_of_the_label_set(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(f"[grading.loss]\nclass_weights = [1, 2]\n[labels]\nname = 'x'{TWO_GRADES}")
    assert load_recipe(tmp_path / "mine.toml").grading.loss.class_weights == (1, 2)
    with pytest.raises(RecipeError, match=r"grading\.loss\.class_weights = .*expected 2 weights of 0 or more, or none"):
        load_recipe(tmp_path / "mine.toml", ["grading.loss.class_weights=[1, 2, 3, 4, 5]"])


def test_wrong_label_set_is_an_error_that_names_its_file(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('labels = "gone.toml"\n')
    with pytest.raises(LabelSetError, match=r"gone\.toml: cannot be read"):
        load_recipe(tmp_path / "mine.toml")
    (tmp_path / "mine.toml").write_text("[labels]\nname = 'x'\n")
    with pytest.raises(LabelSetError, match=r"mine\.toml: labels: missing key disease"):
        load_recipe(tmp_path / "mine.toml")
