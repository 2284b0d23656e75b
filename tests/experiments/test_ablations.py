"""Ablations: each changes what it should and nothing else, in any order, once."""

from __future__ import annotations

import dataclasses
import itertools
import re

import pytest

from deepmtdr.errors import RecipeError
from deepmtdr.experiments.ablations import ABLATIONS, keep_only_stage, start_from_stage, with_scale, with_supervision
from deepmtdr.losses import LossWeights
from deepmtdr.recipe import STAGES, Recipe, from_dict, list_recipes, load_recipe, recipe_differences, to_dict

LOSSES = [
    field.name for field in dataclasses.fields(LossWeights) if field.name not in ("class_weights", "phi_vis", "tau")
]


@pytest.fixture(scope="module")
def whole() -> Recipe:
    """A recipe in which every loss has a weight, every subnet learns and every stage runs."""
    rates = [f"{stage}.hide_image=0.5" for stage in STAGES]
    return load_recipe("smoke", ["name=whole", *rates])


def changed(was: Recipe, now: Recipe) -> dict[str, str]:
    """Dotted key -> its new value as text, without the name."""
    found = {}
    for line in recipe_differences(to_dict(was), to_dict(now)):
        key, _, values = line.partition(" was ")
        found[key] = values.rpartition(", is ")[2]
    found.pop("name", None)
    return found


def everywhere(*keys: str) -> dict[str, str]:
    return {f"{stage}.{key}": "0.0" for stage in STAGES for key in keys}


def losses(*names: str) -> tuple[str, ...]:
    return tuple(f"loss.{name}" for name in names)


EXPECTED = {
    "without-isr": everywhere("lr_isr", *losses("lambda_img", "lambda_tv", "lambda_sa", "lambda_ca")),
    "with-isr-frozen": {"joint.lr_isr": "0.0"},
    "without-segmentation": {
        "model.segments": "False",
        **everywhere("lr_segmentation", "hide_image"),
        **everywhere(*losses("lambda_sa", "dice", "lesion_cross_entropy", "unsupervised")),
    },
    "with-segmentation-frozen": dict.fromkeys(
        (
            "joint.lr_segmentation",
            *(f"joint.loss.{name}" for name in ("dice", "lesion_cross_entropy", "unsupervised")),
        ),
        "0.0",
    ),
    "without-task-aware-losses": everywhere(*losses("lambda_sa", "lambda_ca")),
    "without-classification-aware-loss": everywhere(*losses("lambda_ca")),
    "without-segmentation-aware-loss": everywhere(*losses("lambda_sa")),
    "without-maps": {"parts.evidence": "'without maps'"},
    "with-guided-backpropagation": {"parts.evidence": "'guided backpropagation'"},
    "with-grad-cam": {"parts.evidence": "'Grad-CAM'"},
    "with-smoothgrad": {"parts.evidence": "'SmoothGrad'"},
    "with-scale-2": {f"{stage}.scales.{scale}": "None" for stage in STAGES for scale in "148"}
    | {f"{stage}.scales.2": "1.0" for stage in STAGES},
    "with-supervision-75": {"data.supervision": "0.75"},
    "with-supervision-50": {"data.supervision": "0.5"},
    "with-supervision-25": {"data.supervision": "0.25"},
    "without-semi-supervision": everywhere(*losses("unsupervised")),
    "without-grading": everywhere("lr_grading", *losses("grading", "lambda_ca", "unsupervised"))
    | {"grading.steps": "0"},
}


PAIRS = [
    pair
    for pair in itertools.combinations(ABLATIONS, 2)
    if not all(name.startswith("with-supervision") for name in pair)
    and not all(EXPECTED[name].keys() == {"parts.evidence"} for name in pair)
]
"""Two shares of supervision are not both true, nor two ways to show evidence."""


def test_every_ablation_is_expected_here_in_the_papers_order() -> None:
    assert list(ABLATIONS) == list(EXPECTED)


def test_the_recipe_to_be_ablated_has_everything(whole: Recipe) -> None:
    for name in STAGES:
        stage = getattr(whole, name)
        assert stage.steps and all(getattr(stage.loss, loss) for loss in LOSSES)
        assert stage.lr_isr and stage.lr_segmentation and stage.lr_grading
    assert whole.model.segments and whole.data.supervision == 1


@pytest.mark.parametrize("name", ABLATIONS)
def test_an_ablation_changes_exactly_what_it_says(name: str, whole: Recipe) -> None:
    assert changed(whole, ABLATIONS[name](whole)) == EXPECTED[name]


@pytest.mark.parametrize("name", ABLATIONS)
def test_an_ablation_names_its_place_in_the_paper(name: str) -> None:
    function = getattr(ABLATIONS[name], "func", ABLATIONS[name])
    assert re.search(r"Fig\. 10 \([abc]\)|Table V|Sec\. V-D|Finding 2", function.__doc__ or "")


@pytest.mark.parametrize("name", ABLATIONS)
def test_the_name_of_the_recipe_says_so_and_makes_a_file_name(name: str, whole: Recipe) -> None:
    assert ABLATIONS[name](whole).name == f"whole_{name}"
    assert re.fullmatch(r"[a-z0-9_-]+", f"whole_{name}")


@pytest.mark.parametrize("name", ABLATIONS)
def test_twice_is_once(name: str, whole: Recipe) -> None:
    once = ABLATIONS[name](whole)
    assert ABLATIONS[name](once) == once


@pytest.mark.parametrize("name", ABLATIONS)
def test_the_recipe_given_stays_as_it_was(name: str, whole: Recipe) -> None:
    before = to_dict(whole)
    ABLATIONS[name](whole)
    assert to_dict(whole) == before


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_two_ablations_compose_in_either_order(one: str, other: str, whole: Recipe) -> None:
    first, second = (ABLATIONS[b](ABLATIONS[a](whole)) for a, b in ((one, other), (other, one)))
    assert dataclasses.replace(first, name="") == dataclasses.replace(second, name="")
    assert (first.name, second.name) == (f"whole_{one}_{other}", f"whole_{other}_{one}")
    found = changed(whole, first)
    assert found.items() >= (EXPECTED[one] | EXPECTED[other]).items()
    assert {key for key in found if not key.endswith(".steps")} == {
        key for key in EXPECTED[one] | EXPECTED[other] if not key.endswith(".steps")
    }


def test_both_task_aware_losses_are_the_two_alone(whole: Recipe) -> None:
    neither = ABLATIONS["without-task-aware-losses"](whole)
    one = ABLATIONS["without-segmentation-aware-loss"](ABLATIONS["without-classification-aware-loss"](whole))
    assert dataclasses.replace(one, name=neither.name) == neither


def test_a_name_that_begins_another_is_not_taken_for_it(whole: Recipe) -> None:
    both = ABLATIONS["without-segmentation"](ABLATIONS["without-segmentation-aware-loss"](whole))
    assert both.name == "whole_without-segmentation-aware-loss_without-segmentation"


def test_a_stage_in_which_nothing_is_left_to_learn_is_left_out(whole: Recipe) -> None:
    neither = ABLATIONS["without-segmentation"](ABLATIONS["without-isr"](whole))
    assert [getattr(neither, stage).steps for stage in STAGES] == [0, 3, 2]
    assert ABLATIONS["without-isr"](load_recipe("small-on")).restoration.steps == 0  # segmentation stands there


@pytest.mark.parametrize("name", ABLATIONS)
@pytest.mark.parametrize("recipe", list_recipes())
def test_an_ablated_recipe_is_a_recipe(recipe: str, name: str) -> None:
    ablated = ABLATIONS[name](load_recipe(recipe))
    assert from_dict(Recipe, to_dict(ablated), "somewhere") == ablated


@pytest.mark.parametrize(("name", "steps"), [("restoration", [3, 3, 2]), ("grading", [0, 3, 2]), ("joint", [0, 0, 2])])
def test_a_run_from_a_stage_leaves_out_those_before(name: str, steps: list[int], whole: Recipe) -> None:
    found = start_from_stage(whole, name)
    assert [getattr(found, stage).steps for stage in STAGES] == steps
    assert all(key.endswith(".steps") for key in changed(whole, found))
    assert found.name == f"whole_from-{name}" and start_from_stage(found, name) == found


@pytest.mark.parametrize("name", STAGES)
def test_only_one_stage_leaves_out_the_others(name: str, whole: Recipe) -> None:
    found = keep_only_stage(whole, name)
    assert {stage for stage in STAGES if getattr(found, stage).steps} == {name}
    assert getattr(found, name) == getattr(whole, name)
    assert found.name == f"whole_only-{name}" and keep_only_stage(found, name) == found


@pytest.mark.parametrize("choose", [start_from_stage, keep_only_stage])
def test_an_unknown_stage_is_answered_with_the_known_ones(choose, whole: Recipe) -> None:
    with pytest.raises(RecipeError, match=r"'jiont'; known are restoration, grading, joint"):
        choose(whole, "jiont")


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_supervision_is_a_share(share: float, whole: Recipe) -> None:
    with pytest.raises(RecipeError, match=rf"supervision of {share}, expected a share from 0 to 1"):
        with_supervision(whole, share)


@pytest.mark.parametrize("scale", [1, 3, 512])
def test_a_scale_is_one_of_the_networks(scale: int, whole: Recipe) -> None:
    with pytest.raises(RecipeError, match=rf"a scale of {scale}, expected one of 2, 4, 8"):
        with_scale(whole, scale)


def test_table_vi_is_the_recipe_of_its_name() -> None:
    by_function, by_file = with_scale(load_recipe("paper-ddr"), 2), load_recipe("paper-ddr-512")
    assert dataclasses.replace(by_function, name=by_file.name) == by_file
