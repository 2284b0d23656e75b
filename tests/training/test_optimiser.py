"""AdamW and learning-rate schedules."""

from __future__ import annotations

import itertools

import pytest
import torch

from deepmtdr.model.deepmtdr import DeepMTDR, ModelConfig
from deepmtdr.recipe import GradingStage, JointStage, RestorationStage
from deepmtdr.systems import PartNames, build_system
from deepmtdr.training.optimiser import (
    build_optimiser,
    has_trainable_parameters,
    learning_rate_factor,
    load_optimiser_state,
    one_cycle,
    optimiser_state,
    set_learning_rates,
)
from tiny_runs import small_recipe


def test_one_cycle_has_the_values_worked_by_hand() -> None:
    # Rises in a tenth of the steps; in the middle of the fall the cosine is 0.
    values = {0.0: 0.01, 0.05: 0.5, 0.1: 1.0, 0.55: 0.01 + 0.99 / 2, 1.0: 0.01}
    assert {progress: one_cycle(progress, 0.1) for progress in values} == pytest.approx(values)


def test_one_cycle_rises_then_falls_and_stays_above_0() -> None:
    rates = [one_cycle(n / 200, 0.25) for n in range(201)]
    top = rates.index(max(rates))
    assert top == 50 and max(rates) == 1 and min(rates) == pytest.approx(0.01)
    assert all(one <= other for one, other in itertools.pairwise(rates[: top + 1]))
    assert all(one > other for one, other in itertools.pairwise(rates[top:]))


def test_one_cycle_without_warm_up_begins_at_the_top() -> None:
    assert one_cycle(0.0, 0.0) == 1.0
    assert one_cycle(1.0, 1.0) == 1.0  # only warm-up


def test_layers_with_imagenet_weights_learn_at_their_share_of_the_rate() -> None:
    model = build_system("DeepMT-DR, EfficientNet-Lite0", PartNames(), ModelConfig())
    stage = JointStage(lr_isr=1e-3, lr_segmentation=2e-3, lr_grading=4e-3, imagenet_lr_share=0.25)
    optimiser = build_optimiser(model, stage)
    highest = {id(p): group["highest"] for group in optimiser.param_groups for p in group["params"]}
    assert {highest[id(p)] for p in model.segmentation.imagenet_parameters()} == {0.5e-3}
    assert {highest[id(p)] for p in model.grading.imagenet_parameters()} == {1e-3}
    assert highest[id(model.segmentation.to_map[0].weight)] == 2e-3
    assert highest[id(model.grading.classifier.weight)] == 4e-3
    assert {highest[id(p)] for p in model.isr.parameters()} == {1e-3}
    assert len(highest) == sum(len(group["params"]) for group in optimiser.param_groups)  # each in one group only


def test_step_schedule_falls_once_by_the_factor_of_each_subnet() -> None:
    settings = {"schedule": "step", "warm_up": 0.0, "decay_at": 0.75}
    stage = JointStage(**settings, decay_factors={"isr": 5.0, "segmentation": 2.0})
    factors = [learning_rate_factor(progress, "isr", stage) for progress in (0.0, 0.5, 0.74, 0.75, 1.0)]
    assert factors == [1, 1, 1, 0.2, 0.2]
    assert learning_rate_factor(0.9, "segmentation", stage) == 0.5 and learning_rate_factor(0.9, "grading", stage) == 1
    optimiser = build_optimiser(
        DeepMTDR(small_recipe().model), JointStage(lr_isr=1e-3, lr_segmentation=1e-3, lr_grading=1e-3)
    )
    set_learning_rates(optimiser, 0.8, stage)
    assert {group["subnet"]: group["lr"] for group in optimiser.param_groups} == {
        "isr": pytest.approx(2e-4),
        "segmentation": pytest.approx(5e-4),
        "grading": 1e-3,
        "gmsv": 1e-2,
    }


def test_step_schedule_rises_in_the_warm_up() -> None:
    stage = RestorationStage(schedule="step", warm_up=0.1, decay_at=0.8)
    assert [learning_rate_factor(p, "isr", stage) for p in (0.0, 0.05, 0.1, 0.5)] == pytest.approx([0.01, 0.5, 1, 1])


@pytest.mark.parametrize(
    ("stage", "trained"),
    [
        (RestorationStage(), {"isr", "segmentation"}),
        (RestorationStage(lr_isr=0.0), {"segmentation"}),
        (GradingStage(), {"grading", "gmsv"}),
        (JointStage(), {"isr", "segmentation", "grading", "gmsv"}),
        (JointStage(lr_segmentation=0.0), {"isr", "grading", "gmsv"}),
    ],
)
def test_each_stage_trains_its_subnets_and_freezes_the_others(stage: RestorationStage, trained: set[str]) -> None:
    model = DeepMTDR(small_recipe().model)
    optimiser = build_optimiser(model, stage)
    assert {group["subnet"] for group in optimiser.param_groups} == trained
    assert {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad} == trained
    assert has_trainable_parameters(model, stage)


def test_system_without_parameters_has_nothing_to_train() -> None:
    model = build_system("bicubic", PartNames(), ModelConfig())
    assert not any(has_trainable_parameters(model, s) for s in (RestorationStage(), GradingStage(), JointStage()))


def test_learning_rate_factor_of_a_method_multiplies_the_rate_of_the_recipe() -> None:
    stage = GradingStage(lr_grading=2e-3)
    with torch.device("meta"):
        models = [build_system(name, PartNames(), ModelConfig()) for name in ("SqueezeNet", "VGG-16")]
    rates = [build_optimiser(model, stage).param_groups[0]["highest"] for model in models]
    assert rates == [2e-3, pytest.approx(2e-4)]


def test_discriminator_is_clipped_by_itself() -> None:
    model = build_system("Mahapatra et al.", PartNames(), ModelConfig())
    generator, discriminator = build_optimiser(model, RestorationStage()).param_groups
    assert model.isr.discriminator is not None
    assert {id(p) for p in discriminator["params"]} == {id(p) for p in model.isr.discriminator.parameters()}
    assert len(generator["params"]) + len(discriminator["params"]) == len(list(model.isr.parameters()))


def test_moments_are_restored_in_the_memory_layout_of_the_parameters() -> None:
    model = DeepMTDR(small_recipe().model).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    optimiser = build_optimiser(model, RestorationStage())
    set_learning_rates(optimiser, 0.5, RestorationStage())
    for group in optimiser.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.rand_like(parameter)
    optimiser.step()
    saved = {key: tensor.contiguous() for key, tensor in optimiser_state(optimiser)}
    restored = build_optimiser(model, RestorationStage())
    load_optimiser_state(restored, saved)
    again = dict(optimiser_state(restored))
    assert saved.keys() == again.keys() and all(torch.equal(saved[key], again[key]) for key in saved)
    for parameter, moments in restored.state.items():
        assert moments["exp_avg"].stride() == parameter.stride()
