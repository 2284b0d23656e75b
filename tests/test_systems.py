"""Every system: one step of each stage, one photograph measured, one checkpoint saved and loaded."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch

from deepmtdr import checkpoint
from deepmtdr.errors import RecipeError
from deepmtdr.evaluation import measure
from deepmtdr.evaluation.measure_inputs import measure_all_inputs
from deepmtdr.labels import GradeLabel, LabelSet, LesionType
from deepmtdr.losses import LossWeights, dice_loss
from deepmtdr.model.deepmtdr import ModelConfig
from deepmtdr.model.efficientnet_grading import EfficientNetLite0Grader
from deepmtdr.model.grading import GradingConfig
from deepmtdr.model.isr import ISRConfig, bicubic
from deepmtdr.model.segmentation import SegmentationConfig
from deepmtdr.recipe import GradingStage, JointStage, Recipe, RestorationStage, load_recipe
from deepmtdr.synthetic.drawings import write_drawings
from deepmtdr.systems import (
    DEEPMTDR,
    EVIDENCE_METHODS,
    GRADERS,
    MULTI_TASK_SYSTEMS,
    SEGMENTERS,
    SUPER_RESOLVERS,
    SYSTEMS,
    PartNames,
    build_system,
)
from deepmtdr.terms import Lesion
from deepmtdr.training.backward import backward_by_subnet
from deepmtdr.training.batches import Batch, GradingBatch
from deepmtdr.training.optimiser import build_optimiser, has_trainable_parameters
from deepmtdr.training.step_losses import grading_losses, joint_losses, restoration_losses

SMALL = ModelConfig(
    isr=ISRConfig(width=4, blocks=1),
    segmentation=SegmentationConfig(width=4),
    grading=GradingConfig(width=4, hidden=8),
)
LOSSES = {"restoration": restoration_losses, "grading": grading_losses, "joint": joint_losses}
STAGES = {
    "restoration": RestorationStage(steps=1, batch=2),
    "grading": GradingStage(steps=1, batch=2),
    "joint": JointStage(steps=1, batch=2),
}
SIDE = 64


def batch(stage: str) -> tuple[Batch, int] | tuple[GradingBatch]:
    """Two fully annotated photographs at x4."""
    torch.manual_seed(1)
    hr, masks = torch.rand(2, 3, SIDE, SIDE), (torch.rand(2, 4, SIDE, SIDE) > 0.9).float()
    if stage == "grading":
        return (GradingBatch(6 * hr - 3, masks, torch.tensor([0, 3])),)
    known = torch.tensor([True, True])
    return Batch(hr, hr, masks, known[:, None].expand(2, 4), torch.tensor([0, 3]), known), 4


def learned(stage: str, name: str, parts: PartNames) -> set[str]:
    """The subnets that one step of a stage changes."""
    torch.manual_seed(0)
    model = build_system(name, parts, SMALL).train()
    if not has_trainable_parameters(model, STAGES[stage]):
        return set()
    optimiser = build_optimiser(model, STAGES[stage])
    for group in optimiser.param_groups:
        group["lr"] = 1e-3
    backward_by_subnet(LOSSES[stage](model, *batch(stage), LossWeights()), model, end_to_end=stage == "joint")
    before = {key: tensor.clone() for key, tensor in model.named_parameters()}
    optimiser.step()
    moved = {key.split(".")[0] for key, tensor in model.named_parameters() if not torch.equal(tensor, before[key])}
    assert all(torch.isfinite(tensor).all() for tensor in model.parameters())
    return moved


def some(names: Iterable[str], quick: Collection[str]) -> list[Any]:
    """All names; those that are not in `quick` are marked slow."""
    return [pytest.param(name, marks=() if name in quick else pytest.mark.slow) for name in names]


@pytest.mark.parametrize("name", some([n for n in SUPER_RESOLVERS if n != "bicubic"], ["SRCNN"]))
def test_super_resolver_is_trained_in_the_first_stage_only(name: str) -> None:
    assert learned("restoration", name, PartNames()) == {"isr"}
    assert learned("grading", name, PartNames()) == set()


@pytest.mark.parametrize("name", some(SEGMENTERS, ["Lin et al."]))
def test_segmenter_is_trained_in_the_first_stage(name: str) -> None:
    assert learned("restoration", name, PartNames(isr="bicubic")) == {"segmentation"}


@pytest.mark.parametrize("name", some(GRADERS, ["ResNet-18", "SqueezeNet"]))
def test_grader_is_trained_in_the_grading_stage(name: str) -> None:
    assert learned("grading", name, PartNames(isr="bicubic", segmentation="none")) == {"grading"}


def test_bicubic_has_nothing_to_train() -> None:
    assert all(learned(stage, "bicubic", PartNames()) == set() for stage in STAGES)


def test_any_super_resolver_and_any_other_network_are_trained_apart_or_together() -> None:
    """Finding 2: independent and joint training of ISR and grading, of ISR and segmentation."""
    graded = PartNames(isr=DEEPMTDR)
    assert learned("restoration", "ResNet-18", graded) == {"isr"}
    assert learned("grading", "ResNet-18", graded) == {"grading"}
    assert learned("joint", "ResNet-18", graded) == {"isr", "grading"}
    assert learned("joint", "U-Net", PartNames(isr="SRCNN")) == {"isr", "segmentation"}
    assert learned("joint", DEEPMTDR, PartNames(isr="SRCNN")) == {"isr", "segmentation", "grading"}


def test_grading_loss_reaches_the_super_resolver_in_the_joint_stage() -> None:
    model = build_system("ResNet-18", PartNames(isr="SRCNN"), SMALL).train()
    step = joint_losses(model, *batch("joint"), LossWeights())  # pyright: ignore[reportArgumentType]
    gradient = torch.autograd.grad(step.grading, list(model.isr.parameters()), allow_unused=True)
    assert any(g is not None and bool(g.any()) for g in gradient)


def test_our_segmentation_subnet_keeps_its_loss_weights_with_another_super_resolver() -> None:
    model = build_system(DEEPMTDR, PartNames(isr="SRCNN"), SMALL).eval()
    known, _ = batch("joint")
    assert isinstance(known, Batch)
    step = joint_losses(model, known, 4, LossWeights(dice=3.0, lesion_cross_entropy=0.0))
    lesions = model(bicubic(known.degraded, 0.25).clamp(0, 1), 4).lesions
    assert step.segmentation.item() == pytest.approx(3 * dice_loss(lesions, known.lesion_masks, known.annotated).item())


def test_deepmt_dr_by_name_is_deepmt_dr() -> None:
    torch.manual_seed(0)
    ours = build_system(DEEPMTDR, PartNames(), SMALL)
    assert ours.task_aware and ours.evidence_method is None and ours.has_segmentation and ours.has_grading
    named = build_system(
        DEEPMTDR, PartNames(isr=DEEPMTDR, segmentation=DEEPMTDR, grading=DEEPMTDR, evidence="GMSV"), SMALL
    )
    assert [*named.state_dict()] == [*ours.state_dict()]


def test_efficientnet_form_trains_all_its_subnets_with_the_task_aware_losses() -> None:
    name = "DeepMT-DR, EfficientNet-Lite0"
    model = build_system(name, PartNames(), SMALL)
    assert model.task_aware and isinstance(model.grading, EfficientNetLite0Grader)
    assert load_recipe("smoke", [f"system={name}"]).system == name
    assert learned("grading", name, PartNames()) == {"grading"}
    assert learned("joint", name, PartNames()) == {"isr", "segmentation", "grading"}  # no lesion region: no loss of xi


def test_settings_of_the_efficientnet_form_come_from_the_recipe() -> None:
    recipe = load_recipe("smoke", ["model.efficientnet_grading.reduce=4", "model.efficientnet_grading.hidden=7"])
    grading = build_system("DeepMT-DR, EfficientNet-Lite0", PartNames(), recipe.model).grading
    assert isinstance(grading, EfficientNetLite0Grader)
    assert grading.config.reduce == 4 and grading.classifier.in_features == 7
    with pytest.raises(RecipeError, match=r"model\.efficientnet_grading\.reduce = 3, expected 1, 2 or 4"):
        load_recipe("smoke", ["model.efficientnet_grading.reduce=3"])


def test_parts_of_the_paper_can_be_exchanged_and_keep_the_task_aware_losses() -> None:
    """For example the conference version with the multi-scale segmentation subnet."""
    assert build_system("Wang et al.", PartNames(segmentation=DEEPMTDR), SMALL).task_aware
    assert not build_system("Wang et al.", PartNames(segmentation="U-Net"), SMALL).task_aware


TWO_LESIONS = LabelSet(
    name="two-lesions",
    disease="a test disease",
    lesions=(LesionType(code="AA", name="first lesions"), LesionType(code="BB", name="second lesions")),
    grades=(GradeLabel(name="none"), GradeLabel(name="some"), GradeLabel(name="much")),
)


@pytest.mark.parametrize("name", some(SYSTEMS, [*MULTI_TASK_SYSTEMS, "U-Net", "Adly et al.", "Lin et al."]))
def test_a_system_takes_another_label_set(name: str) -> None:
    """Two lesion types and three grades, in the outputs and in one step of the losses."""
    torch.manual_seed(0)
    model = build_system(name, PartNames(isr="bicubic") if name in GRADERS else PartNames(), SMALL, TWO_LESIONS)
    hr, known = torch.rand(2, 3, SIDE, SIDE), torch.tensor([True, True])
    prediction, evidence = model.eval().predict(hr, scale=1)
    assert prediction.lesions.shape == (2, 2, SIDE, SIDE) and evidence.shape == (2, 1, SIDE, SIDE)
    assert prediction.grade_logits.shape == (2, 3)
    labels = (hr[:, :2] > 0.9).float(), known[:, None].expand(2, 2), torch.tensor([0, 2]), known
    step = joint_losses(model, Batch(hr, hr, *labels), 4, LossWeights(class_weights=(1.0, 2.0, 3.0)))
    assert all(value >= 0 for value in step.terms.values())


@pytest.mark.parametrize("name", some(SYSTEMS, [*MULTI_TASK_SYSTEMS, "bicubic", "SRCNN", "CE-Net", "ResNet-18"]))
def test_a_system_predicts_what_its_parts_can(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    (sample,) = write_drawings(tmp_path_factory.mktemp("d"), [2], size=140)
    torch.manual_seed(0)
    model = build_system(name, PartNames(), SMALL).eval()
    measured, curves = measure(model, sample, frame=128)
    assert measured.failure == ""
    assert bool(measured.probs) == (name in (*MULTI_TASK_SYSTEMS, *GRADERS))
    assert set(curves) == (set(Lesion) if model.has_segmentation else set())
    assert measured.image["psnr_whole_sr"] > 10


@pytest.mark.parametrize("evidence", some(EVIDENCE_METHODS, ["GMSV", "without maps", "Grad-CAM"]))
def test_every_evidence_method_works_with_a_compared_grader(evidence: str, tmp_path: Path) -> None:
    (sample,) = write_drawings(tmp_path, [2], size=140)
    torch.manual_seed(0)
    model = build_system("ResNet-18", PartNames(isr="bicubic", evidence=evidence), SMALL).eval()
    measured, _ = measure_all_inputs(model, sample, frame=128)
    assert measured.evidence is not None
    assert 0 <= measured.evidence.background <= 1


@pytest.mark.parametrize("name", ["SRCNN", "U-Net", "ResNet-18", *MULTI_TASK_SYSTEMS])
def test_a_system_from_a_checkpoint_predicts_the_same(name: str, tmp_path: Path) -> None:
    recipe = Recipe(system=name, parts=PartNames(isr="bicubic") if name == "ResNet-18" else PartNames(), model=SMALL)
    torch.manual_seed(0)
    model = build_system(name, recipe.parts, SMALL).eval()
    checkpoint.save(tmp_path / "w.safetensors", model, recipe)
    again = checkpoint.load(tmp_path / "w.safetensors")
    assert again.recipe.system == name
    lr = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(again.model(lr).grade_logits, model(lr).grade_logits)
        assert torch.equal(again.model(lr).lesions, model(lr).lesions)


def test_unknown_system_or_part_is_an_error_with_its_name() -> None:
    with pytest.raises(RecipeError, match="system = 'ResNet-19', expected one of 'DeepMT-DR', 'DeepMT-DR, Eff"):
        load_recipe("smoke", ["system=ResNet-19"])
    with pytest.raises(RecipeError, match=r"parts\.isr = 'U-Net', expected one of DeepMT-DR, bicubic"):
        load_recipe("smoke", ["parts.isr=U-Net"])


def test_names_need_neither_pytorch_nor_a_compared_method() -> None:
    code = """
import sys
from deepmtdr.systems import PartNames, default_part_names, find_unknown_names
assert not list(find_unknown_names("M-Net", PartNames(isr="MDRN")))
assert default_part_names("M-Net").isr == "MDRN"
print([name for name in sys.modules if name.startswith(("torch", "deepmtdr.baselines", "deepmtdr.model"))])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
