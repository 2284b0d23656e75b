"""The evidence methods of Table V can replace GMSV: in inference, in Eq. (5), in every mode of training."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deepmtdr.baselines import guided_backpropagation, smooth_grad
from deepmtdr.baselines.bicubic import Bicubic
from deepmtdr.baselines.grad_cam import GradCAM
from deepmtdr.baselines.guided_backpropagation import GuidedBackpropagation
from deepmtdr.baselines.rgb_grader import RGBGrader
from deepmtdr.baselines.smooth_grad import SmoothGrad
from deepmtdr.baselines.without_maps import WithoutMaps
from deepmtdr.losses import LossWeights, classification_aware_loss
from deepmtdr.model.deepmtdr import DeepMTDR, ModelConfig, Parts, paper_parts
from deepmtdr.model.grading import GradingConfig
from deepmtdr.model.interfaces import EvidenceMethod, GradingOutput
from deepmtdr.model.isr import ISRConfig
from deepmtdr.model.segmentation import SegmentationConfig
from deepmtdr.training.activation_checkpointing import checkpoint_activations
from deepmtdr.training.backward import backward_by_subnet
from deepmtdr.training.batches import Batch
from deepmtdr.training.step_losses import joint_losses
from grader_checks import PlainGrader
from segmenter_checks import randomise_lesion_maps

MAPS = {
    "guided backpropagation": GuidedBackpropagation(),
    "Grad-CAM": GradCAM(),
    "SmoothGrad": SmoothGrad(samples=3),
}
WAYS = {**MAPS, "without maps": WithoutMaps()}
SMALL = ModelConfig(
    isr=ISRConfig(width=4, blocks=1),
    segmentation=SegmentationConfig(width=2),
    grading=GradingConfig(width=4, hidden=8, dropout=0.0, head_norm=False),
)
all_ways = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
all_maps = pytest.mark.parametrize("way", MAPS.values(), ids=MAPS)
modes = pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])


def model_of(way: EvidenceMethod | None) -> DeepMTDR:
    """A small network in evaluation mode whose last stage has positive weights for DR, so that there is evidence."""
    torch.manual_seed(0)
    model = DeepMTDR(SMALL, paper_parts(SMALL)._replace(evidence=way)).eval()
    randomise_lesion_maps(model)
    grading = cast(Any, model.grading)
    with torch.no_grad():
        grading.spp_fc.weight.abs_()
        grading.classifier.weight.abs_()[0].neg_()
        grading.classifier.weight *= 0.1 / len(grading.spp_fc.weight)  # a score where the sigmoid is not flat
    return model


def photographs(batch: int = 2, height: int = 64, width: int = 64) -> Tensor:
    torch.manual_seed(1)
    return torch.rand(batch, 3, height, width)


def eq5(model: DeepMTDR, frame: Tensor, target: Tensor) -> Tensor:
    return classification_aware_loss(model.evidence(model.segment_and_grade(frame), create_graph=True), target)


def cosine(a: Tensor, b: Tensor) -> float:
    return F.cosine_similarity(a.flatten().double(), b.flatten().double(), dim=0).item()


# Inference


@all_ways
def test_evidence_has_the_frames_size_is_between_0_and_1_and_not_empty(way: EvidenceMethod) -> None:
    prediction, evidence = model_of(way).predict(photographs(2, 16, 24), scale=4)
    assert evidence.shape == prediction.lesion_region.shape == (2, 1, 64, 96)
    assert evidence.min() >= 0 and evidence.max() <= 1
    assert (evidence.amax(dim=(1, 2, 3)) > 0.4).all()


@all_ways
def test_evidence_does_not_depend_on_the_rest_of_the_batch(way: EvidenceMethod) -> None:
    model, frames = model_of(way), photographs(3)
    _, together = model.predict(frames, scale=1)
    alone = torch.cat([model.predict(frame[None], scale=1)[1] for frame in frames])
    assert torch.allclose(together, alone, atol=2e-4)


@all_ways
@modes
def test_evidence_is_deterministic_and_the_same_with_a_graph(way: EvidenceMethod, training: bool) -> None:
    model, frames = model_of(way).train(training), photographs()
    _, first = model.predict(frames, scale=1)
    _, second = model.predict(frames, scale=1)
    attached = model.evidence(model.segment_and_grade(frames.requires_grad_()), create_graph=True)
    assert torch.equal(first, second)
    assert torch.allclose(first, attached, atol=1e-5)


@all_ways
def test_predict_leaves_no_graph(way: EvidenceMethod) -> None:
    model = model_of(way)
    prediction, evidence = model.predict(photographs(), scale=1)
    tensors = [*prediction[:4], *prediction.features, evidence]
    assert not any(tensor.requires_grad for tensor in tensors)
    assert all(p.grad is None for p in model.parameters())


def trace(model: nn.Module) -> dict[str, Any]:
    left: dict[str, Any] = {"relu": (F.relu, torch.relu, Tensor.relu), "grad": torch.is_grad_enabled()}
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        left[name] = id(tensor), tensor.detach().clone().tolist(), tensor.grad, tensor.requires_grad
    for name, module in model.named_modules():
        left[f"{name}:"] = module.training, len(module._forward_hooks), "forward" in vars(module)
    return left


@all_ways
@pytest.mark.parametrize("create_graph", [False, True])
def test_evidence_has_no_side_effects_on_the_network(way: EvidenceMethod, create_graph: bool) -> None:
    model = model_of(way).train()
    model.grading.layer2.requires_grad_(False)  # pyright: ignore[reportCallIssue]
    prediction = model.segment_and_grade(photographs().requires_grad_())
    before, dice = trace(model), torch.get_rng_state()
    evidence = model.evidence(prediction, create_graph=create_graph)
    assert trace(model) == before
    assert torch.equal(torch.get_rng_state(), dice)
    if create_graph:
        torch.autograd.grad(evidence.sum(), prediction.sr)
        assert trace(model) == before
    x = torch.tensor([-1.0, 2.0], requires_grad=True)
    (-x.relu()).sum().backward()
    assert x.grad is not None and x.grad.tolist() == [0, -1]  # a negative gradient passes: ReLU is not changed


# Eq. (5)


@all_ways
@modes
def test_eq5_trains_only_the_isr_subnet(way: EvidenceMethod, training: bool) -> None:
    model, hr = model_of(way).train(training), photographs()
    known = torch.zeros(2, dtype=torch.bool)
    batch = Batch(hr, hr, torch.zeros(2, 4, 64, 64), known[:, None].expand(2, 4), torch.tensor([2, 0]), known)
    off = ("lambda_img", "lambda_tv", "lambda_sa", "dice", "lesion_cross_entropy", "unsupervised", "grading")
    step = joint_losses(
        model, batch, 4, replace(LossWeights(phi_vis=0.9, task_aware_share=0.0), **dict.fromkeys(off, 0.0))
    )
    backward_by_subnet(step._replace(xi=step.xi.detach()), model, end_to_end=True)
    learned = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert step.terms["cls_aware"] > 0
    assert learned == {"isr"}
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@all_maps
def test_eq5_has_a_gradient_through_a_frozen_grading_subnet(way: EvidenceMethod) -> None:
    model = model_of(way)
    model.requires_grad_(False)
    frame = photographs().requires_grad_()
    loss = eq5(model, frame, torch.zeros(2, 1, 64, 64))
    loss.backward()
    assert loss > 0 and frame.grad is not None and frame.grad.flatten(1).any(dim=1).all()


@all_maps
def test_gradient_steps_of_eq5_make_the_evidence_of_two_images_alike(way: EvidenceMethod) -> None:
    """The hard masks, which the loss compares, differ less after a few steps."""
    model, frame = model_of(way), photographs(1)
    model.requires_grad_(False)
    _, target = model.predict(frame, scale=1)
    image = F.avg_pool2d(frame, 3, 1, 1).requires_grad_()
    optimiser = torch.optim.Adam([image], lr=0.01)
    losses = []
    for _ in range(13):
        loss = eq5(model, image, target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert min(losses[-3:]) < 0.8 * losses[0]


# Modes of training


@all_maps
def test_evidence_and_its_gradient_under_autocast_are_finite_and_close_to_single_precision(way: EvidenceMethod) -> None:
    """Measured: cosines of 0.997 and 0.91 at least."""
    model, frame, target = model_of(way), photographs().requires_grad_(), torch.zeros(2, 1, 64, 64)
    evidence = model.evidence(model.segment_and_grade(frame))
    (gradient,) = torch.autograd.grad(eq5(model, frame, target), frame)
    with torch.autocast("cpu", torch.bfloat16):
        rough = model.evidence(model.segment_and_grade(frame))
        (rough_gradient,) = torch.autograd.grad(eq5(model, frame, target), frame)
    assert rough.dtype == rough_gradient.dtype == torch.float32
    assert rough.isfinite().all() and rough_gradient.isfinite().all()
    assert cosine(evidence, rough) > 0.99 and cosine(gradient, rough_gradient) > 0.8


@all_ways
@modes
def test_activation_checkpointing_changes_neither_evidence_nor_gradients(way: EvidenceMethod, training: bool) -> None:
    kept = []
    for recompute in (False, True):
        model, frame = model_of(way).train(training), photographs().requires_grad_()
        with checkpoint_activations(model, recompute):
            evidence = model.evidence(model.segment_and_grade(frame), create_graph=True)
            (gradient,) = torch.autograd.grad(evidence.square().mean(), frame)
        assert not any("forward" in vars(module) for module in model.modules())
        kept.append((evidence.detach(), gradient, dict(model.named_buffers())))
    assert torch.allclose(kept[0][0], kept[1][0], atol=1e-5)
    assert kept[0][1].any() and torch.allclose(kept[0][1], kept[1][1], rtol=1e-3, atol=1e-7)
    assert all(torch.equal(buffer, kept[1][2][name]) for name, buffer in kept[0][2].items())


class Half(RGBGrader):
    """A compared method's grader with a native size, RGB input and in-place ReLUs."""

    size = 32
    channels = (4, 6)

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 6, 3, 2, 1)
        self.relu, self.fc = nn.ReLU(inplace=True), nn.Linear(6, 5)
        with torch.no_grad():
            self.fc.weight.abs_()[0].neg_()

    def grade(self, rgb: Tensor, lesions: Tensor) -> GradingOutput:
        fine = self.relu(self.conv1(rgb))
        coarse = self.relu(self.conv2(fine))
        return GradingOutput(self.fc(coarse.mean(dim=(2, 3))), (fine, coarse))


@all_ways
def test_evidence_of_a_compared_grader_has_the_frames_size(way: EvidenceMethod) -> None:
    torch.manual_seed(3)
    model = DeepMTDR(SMALL, Parts(Bicubic(), None, Half(), way, task_aware=False)).eval()
    _, evidence = model.predict(photographs(), scale=1)
    assert evidence.shape == (2, 1, 64, 64) and evidence.amax(dim=(1, 2, 3)).gt(0.1).all()


# Derivatives


class Smooth(PlainGrader):
    """A tiny grader whose input is the frame itself, with batch statistics and a square."""

    channels = (3, 4)

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)
        self.conv2, self.bn2 = nn.Conv2d(3, 4, 3, 2, 1), nn.BatchNorm2d(4)
        self.fc = nn.Linear(4, 5)

    def forward(self, network_input: Tensor, lesions: Tensor) -> GradingOutput:
        fine = F.relu(self.bn1(self.conv1(network_input)))
        coarse = self.bn2(self.conv2(fine)).relu()
        logits = self.fc(coarse.square().mean(dim=(2, 3)))
        return GradingOutput(logits - logits.mean(dim=1, keepdim=True), (fine, coarse))


EXACT: dict[str, EvidenceMethod] = {
    "guided backpropagation": GuidedBackpropagation(softness=0.0),
    "Grad-CAM": GradCAM(),
    "SmoothGrad": SmoothGrad(samples=2, softness=0.0),
    "without maps": WithoutMaps(),
}


@pytest.mark.parametrize("name", EXACT)
@modes
def test_gradient_of_the_evidence_equals_finite_differences(
    name: str, training: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In double precision, a random direction, with the exact derivative of the ReLUs' steps and a constant scale."""
    for module in (guided_backpropagation, smooth_grad):
        monkeypatch.setattr(
            module, "gradient_magnitude", lambda gradient: 100 * gradient.abs().sum(dim=1, keepdim=True)
        )
    torch.manual_seed(5)
    model = DeepMTDR(SMALL, Parts(Bicubic(), None, Smooth().double(), EXACT[name])).train(training)
    frame = torch.rand(2, 3, 16, 16, dtype=torch.float64).requires_grad_()
    direction, weight = torch.randn_like(frame), torch.rand(2, 1, 16, 16, dtype=torch.float64)

    def weighted(image: Tensor, *, create_graph: bool = False) -> Tensor:
        evidence = EXACT[name](model.grading, model.segment_and_grade(image), create_graph=create_graph)
        return (weight * evidence).sum()

    (gradient,) = torch.autograd.grad(weighted(frame, create_graph=True), frame)
    step = 1e-6
    ahead, behind = (weighted((frame.detach() + s * direction).requires_grad_()).item() for s in (step, -step))
    assert gradient.any()
    assert (gradient * direction).sum().item() == pytest.approx((ahead - behind) / (2 * step), rel=1e-5, abs=1e-6)
