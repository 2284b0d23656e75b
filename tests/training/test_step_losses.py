"""One step of each stage, and which subnet each equation trains (interpretation R10)."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn

from deepmtdr.losses import LossWeights
from deepmtdr.model.deepmtdr import DeepMTDR, ModelConfig, Parts
from deepmtdr.model.grading import GradingConfig
from deepmtdr.model.isr import ISRConfig, ISRSubnet
from deepmtdr.model.segmentation import SegmentationConfig
from deepmtdr.recipe import JointStage
from deepmtdr.training.backward import StepLosses, backward_by_subnet
from deepmtdr.training.batches import Batch, GradingBatch
from deepmtdr.training.optimiser import build_optimiser
from deepmtdr.training.step_losses import grading_losses, joint_losses, restoration_losses
from segmenter_checks import randomise_lesion_maps

PHI_VIS = 0.9  # an untrained network has evidence nearly everywhere
LAMBDAS = ("lambda_img", "lambda_tv", "lambda_sa", "lambda_ca")
NOTHING = LossWeights(
    **dict.fromkeys((*LAMBDAS, "dice", "lesion_cross_entropy", "unsupervised", "grading", "task_aware_share"), 0.0),
    phi_vis=PHI_VIS,
)
EVERYTHING = LossWeights(phi_vis=PHI_VIS)


@pytest.fixture
def model() -> DeepMTDR:
    """A small network whose last stage has positive weights for DR, so that there is evidence."""
    config = ModelConfig(
        isr=ISRConfig(width=8, blocks=1),
        segmentation=SegmentationConfig(width=4),
        grading=GradingConfig(width=4, hidden=8, head_norm=False),
    )
    model = DeepMTDR(config).eval()
    randomise_lesion_maps(model)
    with torch.no_grad():
        model.grading.spp_fc.weight.abs_()
        model.grading.classifier.weight.abs_()[0].neg_()
    return model


@pytest.fixture
def batch() -> Batch:
    """Two photographs of 64 px: one annotated and graded, one neither."""
    known = torch.tensor([True, False])
    masks = (torch.rand(2, 4, 64, 64) > 0.9).float()
    hr = torch.rand(2, 3, 64, 64)
    return Batch(hr, hr, masks, known[:, None].expand(2, 4), torch.tensor([2, 0]), known)


def learners(step: StepLosses, model: DeepMTDR, *, end_to_end: bool = True) -> set[str]:
    """The parts whose parameters get a gradient that is not zero."""
    model.zero_grad()
    backward_by_subnet(step, model, end_to_end=end_to_end)
    parts = ("isr", "segmentation", "grading", "gmsv")
    return {
        part for part in parts if any(p.grad is not None and p.grad.any() for p in getattr(model, part).parameters())
    }


@pytest.mark.parametrize(
    ("weight", "expected"),
    [
        ("lambda_img", {"isr"}),
        ("lambda_tv", {"isr"}),
        ("lambda_sa", {"isr"}),
        ("lambda_ca", {"isr"}),
        ("dice", {"isr", "segmentation"}),
        ("lesion_cross_entropy", {"isr", "segmentation"}),
        ("unsupervised", {"isr", "segmentation"}),
        ("grading", {"isr", "grading"}),
    ],
    ids=["eq6", "eq7", "eq4", "eq5", "eq8", "beside-eq8", "eq9", "eq10"],
)
def test_each_loss_of_the_joint_step_trains_its_subnets(
    model: DeepMTDR, batch: Batch, weight: str, expected: set[str]
) -> None:
    step = joint_losses(model, batch, 4, replace(NOTHING, **{weight: 1.0}))
    step = step._replace(xi=step.xi.detach())
    assert learners(step, model) == expected
    assert learners(step, model, end_to_end=False) == (expected if expected == {"isr"} else expected - {"isr"})


def test_classification_aware_loss_trains_only_the_isr_subnet(model: DeepMTDR, batch: Batch) -> None:
    step = joint_losses(model, batch, 4, replace(NOTHING, lambda_ca=10.0))
    assert step.terms["cls_aware"] > 0
    backward_by_subnet(step, model, end_to_end=True)
    last = model.isr.to_rgb["4"].weight.grad
    assert last is not None and last.any()
    instruments = [*model.grading.parameters(), *model.segmentation.parameters()]
    assert not any(p.grad is not None and p.grad.any() for p in instruments)


def test_only_the_xi_loss_of_the_joint_step_trains_xi(model: DeepMTDR, batch: Batch) -> None:
    step = joint_losses(model, batch, 4, NOTHING)
    assert learners(step, model) == {"gmsv"}
    silent = joint_losses(model, batch, 4, EVERYTHING)
    assert "gmsv" not in learners(silent._replace(xi=silent.xi.detach()), model)


def test_joint_step_trains_all_parts(model: DeepMTDR, batch: Batch) -> None:
    step = joint_losses(model, batch, 4, EVERYTHING)
    assert learners(step, model) == {"isr", "segmentation", "grading", "gmsv"}
    assert all(term > 0 for term in step.terms.values()), step.terms


def test_fused_optimiser_step_in_channels_last_order_equals_the_plain_one(model: DeepMTDR, batch: Batch) -> None:
    """The fused step needs gradients in the memory layout of their parameters."""
    model = model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    fused = build_optimiser(model, JointStage())
    plain = torch.optim.AdamW([{**group, "fused": False, "lr": 1e-3} for group in fused.param_groups])
    weights = {name: copy.deepcopy(model.state_dict()) for name in ("begun", "plain")}
    for optimiser, name in ((plain, "plain"), (fused, "fused")):
        model.load_state_dict(weights["begun"])
        model.zero_grad()
        torch.manual_seed(0)  # dropout
        backward_by_subnet(joint_losses(model, batch, 4, EVERYTHING), model, end_to_end=True)
        for group in optimiser.param_groups:
            group["lr"] = 1e-3
        optimiser.step()
        weights[name] = copy.deepcopy(model.state_dict())
    assert any(not torch.equal(weights["begun"][key], tensor) for key, tensor in weights["plain"].items())
    for key, tensor in weights["fused"].items():
        torch.testing.assert_close(tensor, weights["plain"][key], msg=key)


def test_isr_loss_of_the_joint_step_is_eq11(model: DeepMTDR, batch: Batch) -> None:
    step = joint_losses(model, batch, 2, EVERYTHING)
    t = step.terms
    assert step.isr.item() == pytest.approx(t["image"] + 1e-6 * t["tv"] + t["seg_aware"] + 10 * t["cls_aware"])


def test_scale_1_does_not_train_the_isr_subnet(model: DeepMTDR, batch: Batch) -> None:
    assert learners(joint_losses(model, batch, 1, EVERYTHING), model) == {"segmentation", "grading", "gmsv"}


def test_restoration_gives_sr_and_hr_crops_the_local_means_of_their_frames(
    model: DeepMTDR, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, preprocess = [], model.preprocess

    def record(frame: torch.Tensor, local_mean: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        given.append((frame is batch.hr, local_mean))
        return preprocess(frame, local_mean)

    monkeypatch.setattr(model, "preprocess", record)
    crops = batch._replace(local_mean=torch.full_like(batch.hr, 0.3))
    restoration_losses(model, crops, 4, EVERYTHING)
    assert [is_hr for is_hr, _ in given] == [False, True]
    assert all(mean is crops.local_mean for _, mean in given)


def test_eq9_counts_only_photographs_without_annotation(model: DeepMTDR, batch: Batch) -> None:
    annotated = batch._replace(annotated=torch.ones(2, 4, dtype=torch.bool))
    assert joint_losses(model, annotated, 4, EVERYTHING).terms["unsupervised"] == 0
    one = joint_losses(model, batch, 4, EVERYTHING).terms["unsupervised"]
    alone = Batch(*(field[1:] for field in batch if field is not None))
    assert joint_losses(model, alone, 4, EVERYTHING).terms["unsupervised"] == pytest.approx(one, rel=1e-4)


def test_ungraded_photographs_do_not_count_in_the_grading_loss(model: DeepMTDR, batch: Batch) -> None:
    one = joint_losses(model, batch, 4, EVERYTHING, dropout=False).terms["grading"]
    changed = batch._replace(grade=torch.tensor([2, 4]))
    other = joint_losses(model, changed, 4, EVERYTHING, dropout=False).terms["grading"]
    assert one == other > 0
    none = joint_losses(model, batch._replace(graded=torch.zeros(2, dtype=torch.bool)), 4, EVERYTHING)
    assert none.terms["grading"] == 0
    assert "grading" not in learners(none, model)


def test_restoration_step_trains_the_isr_and_segmentation_subnets(model: DeepMTDR, batch: Batch) -> None:
    step = restoration_losses(model.train(), batch, 4, EVERYTHING)
    assert learners(step, model, end_to_end=False) == {"isr", "segmentation"}
    only_isr = restoration_losses(model, batch, 4, replace(NOTHING, lambda_img=1.0, lambda_sa=1.0))
    assert learners(only_isr, model, end_to_end=False) == {"isr"}


def test_grading_step_trains_only_the_grading_subnet_from_image_and_lesions(model: DeepMTDR, batch: Batch) -> None:
    def step(image: float, lesions: float) -> StepLosses:
        drawn = GradingBatch(image * (batch.hr - 0.5), lesions * batch.lesion_masks, torch.tensor([2, 0]))
        return grading_losses(model, drawn, EVERYTHING)

    assert learners(step(1.0, 0.8), model) == {"grading"}
    terms = [step(image, lesions).terms["grading"] for image, lesions in ((1.0, 0.8), (0.0, 0.8), (1.0, 0.4))]
    assert len(set(terms)) == 3


@pytest.mark.parametrize("compute", [restoration_losses, joint_losses])
def test_lr_comes_from_the_degraded_image_and_the_target_is_the_hr_image(
    model: DeepMTDR, batch: Batch, compute: Callable[..., StepLosses]
) -> None:
    # Interpretation R24. The untrained ISR subnet is bicubic: grey stays grey, and differs from HR by |hr - 0.5|.
    grey = batch._replace(degraded=torch.full_like(batch.hr, 0.5))
    image = compute(model, grey, 4, EVERYTHING).terms["image"]
    assert image == pytest.approx((batch.hr - 0.5).abs().mean().item(), abs=1e-5)


def test_frozen_segmentation_subnet_is_not_run_if_eq4_has_no_weight(
    model: DeepMTDR, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = replace(EVERYTHING, lambda_sa=0.0)
    whole = restoration_losses(model, batch, 4, weights)
    model.segmentation.requires_grad_(False)
    monkeypatch.setattr(model.segmentation, "forward", lambda *_: pytest.fail("was run"))
    alone = restoration_losses(model, batch, 4, weights)
    assert torch.equal(alone.isr, whole.isr) and alone.terms == {key: whole.terms[key] for key in ("image", "tv")}
    assert learners(alone, model) == {"isr"}
    monkeypatch.undo()
    assert "seg_aware" in restoration_losses(model, batch, 4, EVERYTHING).terms


class AdversarialSuperResolver(ISRSubnet):
    """The ISR subnet of the paper with a discriminator, a single convolution."""

    def __init__(self) -> None:
        super().__init__(ISRConfig(width=4, blocks=1))
        self.critic = nn.Conv2d(3, 1, 1)

    @property
    def discriminator(self) -> nn.Module:
        return self.critic

    def discriminator_loss(self, sr: torch.Tensor, hr: torch.Tensor) -> torch.Tensor:
        return (self.critic(sr) - self.critic(hr) + 1).square().mean()


@pytest.mark.parametrize(("scale", "expected"), [(4, {"critic", "to_rgb"}), (1, set())])
def test_discriminator_is_trained_with_the_super_resolver_but_not_at_scale_1(
    model: DeepMTDR, batch: Batch, scale: int, expected: set[str]
) -> None:
    parts = Parts(AdversarialSuperResolver(), model.segmentation, model.grading, task_aware=False)
    system = DeepMTDR(None, parts)
    backward_by_subnet(joint_losses(system, batch, scale, EVERYTHING), system, end_to_end=False)
    moved = {name.split(".")[0] for name, p in system.isr.named_parameters() if p.grad is not None and p.grad.any()}
    assert moved == expected  # the last convolution starts at 0, and stops the gradient of the layers before it
