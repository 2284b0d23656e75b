"""Ablations: each changes exactly its settings, in any order, once."""

from __future__ import annotations

import dataclasses
import itertools
import re

import pytest

from deepmtdr.errors import RecipeError
from deepmtdr.experiments.ablations import (
    ABLATIONS,
    keep_only_stage,
    start_from_stage,
    with_grading_loss,
    with_scale,
    with_supervision,
)
from deepmtdr.losses import LossWeights
from deepmtdr.recipe import STAGES, Recipe, list_recipes, load_recipe, recipe_differences, recipe_from_dict, to_dict

SETTINGS = ("class_weights", "phi_vis", "tau", "grading_form", "task_aware_share", "project_conflicts")
LOSSES = [field.name for field in dataclasses.fields(LossWeights) if field.name not in SETTINGS]


@pytest.fixture(scope="module")
def whole() -> Recipe:
    """A recipe in which every loss has a weight, every subnet is trained and every stage has steps."""
    return load_recipe("smoke", ["name=whole", "grading.hide_image=0.5"])


def changed(was: Recipe, now: Recipe) -> dict[str, object]:
    """Dotted key -> its new value, without the name."""
    found = {difference.key: difference.now for difference in recipe_differences(was, now)}
    found.pop("name", None)
    return found


def everywhere(*keys: str) -> dict[str, object]:
    return {f"{stage}.{key}": 0.0 for stage in STAGES for key in keys}


def frozen(subnet: str, *stages: str) -> dict[str, object]:
    return {f"{stage}.lr_{subnet}": 0.0 for stage in stages}


def losses(*names: str) -> tuple[str, ...]:
    return tuple(f"loss.{name}" for name in names)


EXPECTED: dict[str, dict[str, object]] = {
    "without-isr": {
        **frozen("isr", "restoration", "joint"),
        **everywhere(*losses("lambda_img", "lambda_tv", "lambda_sa", "lambda_ca")),
    },
    "with-isr-frozen": frozen("isr", "joint"),
    "without-segmentation": {
        "model.segments": False,
        "grading.hide_image": 0.0,
        **frozen("segmentation", "restoration", "joint"),
        **everywhere(*losses("lambda_sa", "dice", "lesion_cross_entropy", "unsupervised")),
    },
    "with-segmentation-frozen": {
        **frozen("segmentation", "joint"),
        **{f"joint.loss.{name}": 0.0 for name in ("dice", "lesion_cross_entropy", "unsupervised")},
    },
    "without-task-aware-losses": everywhere(*losses("lambda_sa", "lambda_ca")),
    "without-classification-aware-loss": everywhere(*losses("lambda_ca")),
    "without-segmentation-aware-loss": everywhere(*losses("lambda_sa")),
    "without-maps": {"parts.evidence": "without maps"},
    "with-guided-backpropagation": {"parts.evidence": "guided backpropagation"},
    "with-grad-cam": {"parts.evidence": "Grad-CAM"},
    "with-smoothgrad": {"parts.evidence": "SmoothGrad"},
    "with-scale-2": {f"{stage}.scales": {"2": 1.0} for stage in STAGES},
    "with-supervision-75": {"data.supervision": 0.75},
    "with-supervision-50": {"data.supervision": 0.5},
    "with-supervision-25": {"data.supervision": 0.25},
    "without-semi-supervision": everywhere(*losses("unsupervised")),
    "without-grading": {
        "grading.steps": 0,
        **frozen("grading", "grading", "joint"),
        **everywhere(*losses("grading", "lambda_ca", "unsupervised")),
    },
    "separate": {f"joint.loss.{name}": 0.0 for name in ("lambda_sa", "lambda_ca", "unsupervised")},
    "end-to-end": {"joint.end_to_end": True},
    "unlimited-task-aware-gradients": {"joint.loss.task_aware_share": 0.0},
    "evidence-unprepared": {
        "joint.evidence.turns": 1,
        "joint.evidence.smoothing": 0.0,
        "joint.evidence.percentile": 100.0,
        "joint.evidence.create_graph": True,
    },
    "without-dropout-in-joint": {"joint.dropout": False},
    "without-balance-in-joint": {"joint.balance": 0.0},
    "loss-eq10": {f"{stage}.loss.grading_form": "eq10" for stage in STAGES},
    "loss-cross-entropy": {f"{stage}.loss.grading_form": "cross-entropy" for stage in STAGES},
    "without-head-norm": {"model.grading.head_norm": False},
}


PAIRS = [
    pair
    for pair in itertools.combinations(ABLATIONS, 2)
    if not all(name.startswith("with-supervision") for name in pair)
    and not all(EXPECTED[name].keys() == {"parts.evidence"} for name in pair)
    and not all(name.startswith("loss-") for name in pair)
    and set(pair) != {"separate", "end-to-end"}
]
"""Two values of the same setting cannot be combined, such as two evidence methods."""


def test_ablations_are_in_the_order_of_the_paper() -> None:
    assert list(ABLATIONS) == list(EXPECTED)


def test_recipe_of_these_tests_uses_every_loss_subnet_and_stage(whole: Recipe) -> None:
    for stage in whole.stages:
        assert stage.steps and all(getattr(stage.loss, loss) for loss in LOSSES)
        assert all(stage.learning_rates.values())
    assert whole.model.segments and whole.data.supervision == 1


@pytest.mark.parametrize("name", ABLATIONS)
def test_ablation_changes_exactly_its_settings(name: str, whole: Recipe) -> None:
    assert changed(whole, ABLATIONS[name](whole)) == EXPECTED[name]


@pytest.mark.parametrize("name", ABLATIONS)
def test_docstring_names_the_place_in_the_paper_or_the_interpretation(name: str) -> None:
    function = getattr(ABLATIONS[name], "func", ABLATIONS[name])
    assert re.search(r"Fig\. 10 \([abc]\)|Table V|Sec\. V-[CD]|Finding 2|Interpretation R2\d", function.__doc__ or "")


@pytest.mark.parametrize("name", ABLATIONS)
def test_name_of_the_ablation_is_added_to_the_recipes(name: str, whole: Recipe) -> None:
    assert ABLATIONS[name](whole).name == f"whole_{name}"
    assert re.fullmatch(r"[a-z0-9_-]+", f"whole_{name}")


@pytest.mark.parametrize("name", ABLATIONS)
def test_ablation_applied_twice_changes_nothing_more(name: str, whole: Recipe) -> None:
    once = ABLATIONS[name](whole)
    assert ABLATIONS[name](once) == once


@pytest.mark.parametrize("name", ABLATIONS)
def test_given_recipe_is_unchanged(name: str, whole: Recipe) -> None:
    before = to_dict(whole)
    ABLATIONS[name](whole)
    assert to_dict(whole) == before


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_two_ablations_can_be_combined_in_either_order(one: str, other: str, whole: Recipe) -> None:
    first, second = (ABLATIONS[b](ABLATIONS[a](whole)) for a, b in ((one, other), (other, one)))
    assert dataclasses.replace(first, name="") == dataclasses.replace(second, name="")
    assert (first.name, second.name) == (f"whole_{one}_{other}", f"whole_{other}_{one}")
    found = changed(whole, first)
    assert found.items() >= (EXPECTED[one] | EXPECTED[other]).items()
    assert {key for key in found if not key.endswith(".steps")} == {
        key for key in EXPECTED[one] | EXPECTED[other] if not key.endswith(".steps")
    }


def test_without_both_task_aware_losses_equals_without_each(whole: Recipe) -> None:
    neither = ABLATIONS["without-task-aware-losses"](whole)
    one = ABLATIONS["without-segmentation-aware-loss"](ABLATIONS["without-classification-aware-loss"](whole))
    assert dataclasses.replace(one, name=neither.name) == neither


def test_name_that_begins_another_is_added_too(whole: Recipe) -> None:
    both = ABLATIONS["without-segmentation"](ABLATIONS["without-segmentation-aware-loss"](whole))
    assert both.name == "whole_without-segmentation-aware-loss_without-segmentation"


def test_stage_with_nothing_left_to_train_is_skipped(whole: Recipe) -> None:
    neither = ABLATIONS["without-segmentation"](ABLATIONS["without-isr"](whole))
    assert [stage.steps for stage in neither.stages] == [0, 3, 2]
    assert ABLATIONS["without-isr"](load_recipe("small-on")).restoration.steps == 0  # segmentation is frozen there


@pytest.mark.parametrize("name", ABLATIONS)
@pytest.mark.parametrize("recipe", list_recipes())
def test_ablated_recipe_survives_its_dict(recipe: str, name: str) -> None:
    ablated = ABLATIONS[name](load_recipe(recipe))
    assert recipe_from_dict(to_dict(ablated), "somewhere") == ablated


@pytest.mark.parametrize(("name", "steps"), [("restoration", [3, 3, 2]), ("grading", [0, 3, 2]), ("joint", [0, 0, 2])])
def test_start_from_stage_skips_those_before(name: str, steps: list[int], whole: Recipe) -> None:
    found = start_from_stage(whole, name)
    assert [stage.steps for stage in found.stages] == steps
    assert all(key.endswith(".steps") for key in changed(whole, found))
    assert found.name == f"whole_from-{name}" and start_from_stage(found, name) == found


@pytest.mark.parametrize("name", STAGES)
def test_keep_only_stage_skips_the_others(name: str, whole: Recipe) -> None:
    found = keep_only_stage(whole, name)
    assert {stage.name for stage in found.stages if stage.steps} == {name}
    assert found.stage(name) == whole.stage(name)
    assert found.name == f"whole_only-{name}" and keep_only_stage(found, name) == found


@pytest.mark.parametrize("choose", [start_from_stage, keep_only_stage])
def test_unknown_stage_is_an_error_that_lists_the_known_ones(choose, whole: Recipe) -> None:
    with pytest.raises(RecipeError, match="stage 'jiont', expected one of restoration, grading, joint"):
        choose(whole, "jiont")


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_supervision_out_of_range_is_an_error(share: float, whole: Recipe) -> None:
    with pytest.raises(RecipeError, match=rf"supervision of {share}, expected a share from 0 to 1"):
        with_supervision(whole, share)


@pytest.mark.parametrize("scale", [1, 3, 512])
def test_unknown_scale_is_an_error(scale: int, whole: Recipe) -> None:
    with pytest.raises(RecipeError, match=rf"found scale {scale}, expected one of 2, 4, 8"):
        with_scale(whole, scale)


def test_separate_tasks_are_not_trained_end_to_end() -> None:
    assert not ABLATIONS["separate"](load_recipe("authors-code")).joint.end_to_end


def test_unknown_grading_loss_is_an_error(whole: Recipe) -> None:
    with pytest.raises(RecipeError, match="found the grading loss 'eq11', expected one of cumulative, eq10"):
        with_grading_loss(whole, "eq11")


def test_scale_2_of_paper_ddr_is_paper_ddr_512() -> None:
    by_function, by_file = with_scale(load_recipe("paper-ddr"), 2), load_recipe("paper-ddr-512")
    assert dataclasses.replace(by_function, name=by_file.name) == by_file
