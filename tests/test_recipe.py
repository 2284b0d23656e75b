"""Recipes: shipped files, overrides, errors, old keys, and the way through JSON."""

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
from deepmtdr.errors import LabelSetError, RecipeError
from deepmtdr.labels import DIABETIC_RETINOPATHY, load_label_set
from deepmtdr.losses import LossWeights
from deepmtdr.model.gmsv import select_features
from deepmtdr.model.grading import GradingConfig
from deepmtdr.model.isr import ISRConfig
from deepmtdr.model.segmentation import SegmentationConfig
from deepmtdr.recipe import (
    STAGES,
    VALIDATION_SCORES,
    DataRecipe,
    GradingStage,
    JointStage,
    Recipe,
    RestorationStage,
    TrainingStage,
    find_split_file,
    list_recipes,
    load_recipe,
    recipe_differences,
    recipe_from_dict,
    to_dict,
)
from deepmtdr.recipe_keys import RENAMED_DATA_KEYS, RENAMED_STAGE_KEYS
from deepmtdr.terms import FRAME
from deepmtdr.toml_config import from_dict


def leaves(values: dict, inside: str = "") -> dict[str, object]:
    """Every value by its dotted key; `scales` is one value."""
    flat: dict[str, object] = {}
    for key, value in values.items():
        table = isinstance(value, dict) and key != "scales"
        flat |= leaves(value, f"{inside}{key}.") if table else {f"{inside}{key}": value}
    return flat


def differing(recipe: Recipe) -> set[str]:
    """The dotted keys in which a recipe differs from the default."""
    return {difference.key for difference in recipe_differences(Recipe(), recipe)}


def test_recipe_names_are_the_shipped_files(root: Path) -> None:
    assert list_recipes() == sorted(path.stem for path in (root / "src/deepmtdr/recipes").glob("*.toml"))
    ours = {"small", "small-on", "smoke"}
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
    assert recipe.model == dataclasses.replace(Recipe().model, gmsv=recipe.model.gmsv)
    assert recipe.model.isr == ISRConfig(width=32, blocks=5)
    assert recipe.model.segmentation == SegmentationConfig(width=64, gamma=(0.4, 0.2, 0.2, 0.2, 1.0))
    assert recipe.model.grading == GradingConfig(width=64, hidden=512, dropout=0.5)
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
    dice_alone = LossWeights(lesion_cross_entropy=0.0)  # Eq. (8)
    assert recipe.joint.loss == dice_alone and recipe.grading.loss == LossWeights()
    assert recipe.restoration.loss == dataclasses.replace(dice_alone, lambda_sa=0.4)
    assert recipe.grading.balance == 0 and recipe.precision == "fp32"


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
    assert (joint.crop, joint.batch, joint.end_to_end) == (0, 1, True)
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
        ("precision=fp16", ["precision", "'fp16'", "bf16 or fp32"]),
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
        ("joint.loss.class_weights=[1, 1, 1, 1, -1]", ["joint.loss.class_weights", "-1.0", "from 0, or none"]),
        ("joint.validate_every=-1", ["joint.validate_every = -1", "from 0"]),
        ("joint.patience=3", ["joint.validate_every = 0, patience = 3", "patience only with a stop_on"]),
        ("grading.hide_image=2", ["grading.hide_image = 2.0", "0 to 1"]),
        ("grading.small_frame_share=-1", ["grading.small_frame_share = -1.0", "0 to 1"]),
        ("joint.stop_on=loss", ["joint.stop_on = 'loss'", *VALIDATION_SCORES, "or nothing"]),
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


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("grading.crop=64", "grading.crop: not a key of this stage: the grading stage takes whole frames. Remove it; "
         "it is a key of: restoration, joint"),
        ("grading.lr_isr=0", "the ISR subnet is frozen in the grading stage"),
        ("restoration.lr_grading=0", "the restoration stage has no grading subnet. Remove it; it is a key of: grading, "
         "joint"),
        ("joint.hide_image=0.5", "only the grading stage takes cached lesion maps"),
        ("joint.small=0.5", "joint.small: renamed; expected joint.small_frame_share"),
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
    with pytest.raises(RecipeError, match=rf"recipe smoke: {re.escape(old)}: renamed; expected {re.escape(new)}$"):
        load_recipe("smoke", [f"{old}=1"])


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
    assert len(card["restoration"]) == len(card["grading"]) == len(card["joint"]) == 28
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
    with pytest.raises(RecipeError, match=r"grading\.loss\.class_weights = .*expected 2 weights from 0, or none"):
        load_recipe(tmp_path / "mine.toml", ["grading.loss.class_weights=[1, 2, 3, 4, 5]"])


def test_wrong_label_set_is_an_error_that_names_its_file(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('labels = "gone.toml"\n')
    with pytest.raises(LabelSetError, match=r"gone\.toml: cannot be read"):
        load_recipe(tmp_path / "mine.toml")
    (tmp_path / "mine.toml").write_text("[labels]\nname = 'x'\n")
    with pytest.raises(LabelSetError, match=r"mine\.toml: labels: missing key disease"):
        load_recipe(tmp_path / "mine.toml")


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
