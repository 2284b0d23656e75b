"""Every loss of Sec. IV-C: a number worked by hand, agreement with `reference.py`, and its gradient."""

from __future__ import annotations

from collections.abc import Callable
from math import log

import numpy as np
import pytest
import torch
from torch import Tensor

import reference
from deepmtdr.grading_losses import grading_loss, ordinal_loss
from deepmtdr.losses import (
    AllReduce,
    LossWeights,
    classification_aware_loss,
    dice_loss,
    evidence_mask,
    image_loss,
    isr_loss,
    lesion_cross_entropy_loss,
    segmentation_aware_loss,
    total_variation_loss,
    unsupervised_segmentation_loss,
)


def images(*shape: int) -> Tensor:
    """Random values in [0, 1], float64, with a gradient."""
    return torch.rand(shape, dtype=torch.float64, requires_grad=True)


def same(ours: Tensor, theirs: float) -> bool:
    return ours.item() == pytest.approx(theirs, rel=1e-9, abs=1e-12)


# Eq. (4)


def test_eq4_by_hand() -> None:
    # One pixel, four types: differences 1, 0, 0.5, 0; (1 + 0 + 0.25 + 0) / 4.
    sr = torch.tensor([1.0, 0.0, 0.5, 0.0]).reshape(1, 4, 1, 1)
    assert segmentation_aware_loss(sr, torch.zeros(1, 4, 1, 1)).item() == 1.25 / 4


def test_eq4_equals_reference() -> None:
    sr, hr = images(2, 4, 3, 5), images(2, 4, 3, 5)
    assert same(
        segmentation_aware_loss(sr, hr), reference.segmentation_aware_loss(sr.detach().numpy(), hr.detach().numpy())
    )


def test_eq4_has_a_gradient_for_the_super_resolved_image_only() -> None:
    sr, hr = images(2, 4, 3, 5), images(2, 4, 3, 5)
    segmentation_aware_loss(sr, hr).backward()
    assert sr.grad is not None and torch.allclose(sr.grad, 2 * (sr - hr).detach() / sr.numel())
    assert hr.grad is None


# Eq. (5)


def test_eq5_by_hand() -> None:
    # Above 0.5: 1 0 / 1 0 against 1 1 / 0 0: two of four pixels differ.
    sr = torch.tensor([[[[0.9, 0.4], [0.6, 0.1]]]])
    hr = torch.tensor([[[[0.9, 0.9], [0.1, 0.1]]]])
    assert classification_aware_loss(sr, hr).item() == 0.5


def test_eq5_threshold_is_phi_vis_and_strict() -> None:
    evidence = torch.tensor([[[[0.2, 0.3, 0.30001, 1.0]]]])
    assert evidence_mask(evidence, phi_vis=0.3).flatten().tolist() == [0, 0, 1, 1]


def test_eq5_mask_is_exactly_zero_or_one() -> None:
    mask = evidence_mask(torch.rand(1, 1, 64, 64))
    assert set(mask.unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("phi_vis", [0.3, 0.5])
def test_eq5_equals_reference(phi_vis: float) -> None:
    sr, hr = images(2, 1, 6, 5), images(2, 1, 6, 5)
    theirs = reference.classification_aware_loss(sr.detach().numpy(), hr.detach().numpy(), phi_vis)
    assert same(classification_aware_loss(sr, hr, phi_vis), theirs)


def test_eq5_gradient_passes_the_threshold_by_hand() -> None:
    # V = phi_vis gives mask 0; target 1. dL/dmask = 2 (0 - 1); dmask/dV = sigmoid'(0) / tau = 0.25 / 0.1. Product: -5.
    sr = torch.full((1, 1, 1, 1), 0.5, requires_grad=True)
    classification_aware_loss(sr, torch.ones(1, 1, 1, 1), phi_vis=0.5, tau=0.1).backward()
    assert sr.grad is not None and sr.grad.item() == pytest.approx(-5)


def test_eq5_has_a_gradient_for_the_super_resolved_image_only() -> None:
    sr, hr = images(2, 1, 6, 5), images(2, 1, 6, 5)
    classification_aware_loss(sr, hr).backward()
    differs = (sr > 0.5) != (hr > 0.5)
    assert differs.any() and not differs.all()
    assert sr.grad is not None and torch.equal(sr.grad != 0, differs)
    assert hr.grad is None


# Eq. (6)


def test_eq6_by_hand() -> None:
    # |0.5 - 0.25|, |0.5 - 1|, |0.5 - 0.5|: 0.75 / 3.
    hr = torch.tensor([0.25, 1.0, 0.5]).reshape(1, 3, 1, 1)
    assert image_loss(torch.full((1, 3, 1, 1), 0.5), hr).item() == 0.25


def test_eq6_equals_reference() -> None:
    sr, hr = images(2, 3, 4, 5), images(2, 3, 4, 5)
    assert same(image_loss(sr, hr), reference.image_loss(sr.detach().numpy(), hr.detach().numpy()))


def test_eq6_gradient_is_the_sign_of_the_difference() -> None:
    sr, hr = images(2, 3, 4, 5), images(2, 3, 4, 5).detach()
    image_loss(sr, hr).backward()
    assert sr.grad is not None and torch.allclose(sr.grad, (sr - hr).sign().detach() / sr.numel())


# Eq. (7)


def test_eq7_by_hand() -> None:
    # Red 0 1 / 0 1, green and blue 0. Vertical: 0. Horizontal: 1 in two of the 3 * 2 pairs.
    image = torch.zeros(1, 3, 2, 2)
    image[0, 0, :, 1] = 1
    assert total_variation_loss(image).item() == pytest.approx(2 / 6)


def test_eq7_is_zero_for_constant_image() -> None:
    image = torch.full((2, 3, 5, 4), 0.7, requires_grad=True)
    loss = total_variation_loss(image)
    loss.backward()
    assert loss.item() == 0
    assert image.grad is not None and not image.grad.any()


def test_eq7_equals_reference() -> None:
    image = images(2, 3, 4, 6)
    assert same(total_variation_loss(image), reference.total_variation_loss(image.detach().numpy()))


def test_eq7_does_not_depend_on_the_size_of_the_image() -> None:
    tile = torch.tensor([[0.0, 1.0], [1.0, 0.0]]).expand(1, 3, 2, 2)
    assert total_variation_loss(tile.repeat(1, 1, 8, 8)).item() == pytest.approx(total_variation_loss(tile).item())


def test_eq7_gradient_step_makes_the_image_smoother() -> None:
    image = images(1, 3, 4, 4)
    before = total_variation_loss(image)
    before.backward()
    assert image.grad is not None
    assert total_variation_loss(image.detach() - 0.1 * image.grad) < before


def test_eq7_of_a_single_row_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"1, 8.*2x2"):
        total_variation_loss(torch.zeros(1, 3, 1, 8))


# Eq. (8)

ALL = torch.ones(1, 4, dtype=torch.bool)


def test_eq8_by_hand() -> None:
    # Each type: S~ = 0.5 0.5, S = 1 0. Overlap 0.5; 1 - 2 * 0.5 / (1 + 1) = 0.5.
    lesions = torch.full((1, 4, 1, 2), 0.5)
    masks = torch.tensor([1.0, 0.0]).expand(1, 4, 1, 2)
    assert dice_loss(lesions, masks, ALL).item() == pytest.approx(0.5, abs=1e-6)


def test_eq8_is_zero_for_perfect_maps_and_one_for_disjoint_ones() -> None:
    masks = torch.tensor([1.0, 0.0]).expand(1, 4, 1, 2)
    assert dice_loss(masks, masks, ALL).item() == pytest.approx(0, abs=1e-6)
    assert dice_loss(1 - masks, masks, ALL).item() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_eq8_equals_reference(share: float, rng: np.random.Generator) -> None:
    lesions, masks = images(3, 4, 4, 5), torch.as_tensor(rng.random((3, 4, 4, 5)) < 0.3).double()
    annotated = torch.as_tensor(rng.random((3, 4)) < share)
    ours = dice_loss(lesions, masks, annotated)
    theirs = reference.dice_loss(lesions.detach().numpy(), masks.numpy(), annotated.numpy())
    assert ours.item() == pytest.approx(theirs, abs=1e-6)  # ours adds 1e-6 to numerator and denominator


def test_eq8_does_not_use_types_that_were_not_annotated() -> None:
    lesions = images(2, 4, 3, 3)
    masks = torch.ones(2, 4, 3, 3, dtype=torch.float64)
    annotated = torch.tensor([[True, True, False, False], [True, False, False, False]])
    loss = dice_loss(lesions, masks, annotated)
    loss.backward()
    assert lesions.grad is not None
    assert torch.equal(lesions.grad.flatten(2).abs().sum(dim=2) > 0, annotated)
    masks[~annotated] = 0  # not annotated does not mean "no lesion": these values are not used
    assert dice_loss(lesions, masks, annotated).item() == loss.item()


def test_eq8_counts_annotated_photographs_without_that_lesion() -> None:
    # Both photographs annotated, S = 1 1 and 0 0, S~ = 1 everywhere: 1 - 2 * 2 / (4 + 2) = 1/3, not 0.
    masks = torch.tensor([1.0, 0.0]).reshape(2, 1, 1, 1).expand(2, 4, 1, 2)
    assert dice_loss(torch.ones(2, 4, 1, 2), masks, ALL.expand(2, 4)).item() == pytest.approx(1 / 3, abs=1e-6)


def test_eq8_without_any_annotation_is_zero_and_can_be_backpropagated() -> None:
    lesions = images(1, 4, 3, 3)
    loss = dice_loss(lesions, torch.zeros(1, 4, 3, 3), ~ALL)
    loss.backward()
    assert loss.item() == 0
    assert lesions.grad is not None and not lesions.grad.any()


def test_lesion_cross_entropy_by_hand() -> None:
    # Two pixels: true MA predicted 0.5, true background predicted 0.125: (log 2 + log 8) / 2.
    lesions = torch.tensor([[0.5, 0.5], [0.125, 0.125], [0.125, 0.125], [0.125, 0.125]]).reshape(1, 4, 1, 2)
    masks = torch.zeros(1, 4, 1, 2)
    masks[0, 0, 0, 0] = 1
    assert lesion_cross_entropy_loss(lesions, masks, ALL).item() == pytest.approx((log(2) + log(8)) / 2, rel=1e-5)


def test_lesion_cross_entropy_counts_only_photographs_with_all_types_annotated() -> None:
    lesions = (images(2, 4, 3, 3) / 5).detach().requires_grad_()
    annotated = torch.tensor([[True, True, True, True], [True, True, True, False]])
    lesion_cross_entropy_loss(lesions, torch.zeros(2, 4, 3, 3), annotated).backward()
    assert lesions.grad is not None
    assert lesions.grad[0].all() and not lesions.grad[1].any()


# Eq. (9)


def test_eq9_by_hand() -> None:
    # Mask 1 0 of evidence 0.9 0.2; (0.5 - 1)^2 = 0.25, (0.8 - 0)^2 = 0.64; mean 0.445.
    region, evidence = torch.tensor([[[[0.5, 0.8]]]]), torch.tensor([[[[0.9, 0.2]]]])
    assert unsupervised_segmentation_loss(region, evidence).item() == pytest.approx(0.445)


def test_eq9_equals_reference() -> None:
    region, evidence = images(2, 1, 4, 5), images(2, 1, 4, 5)
    theirs = reference.unsupervised_segmentation_loss(region.detach().numpy(), evidence.detach().numpy(), 0.4)
    assert same(unsupervised_segmentation_loss(region, evidence, 0.4), theirs)


def test_eq9_has_a_gradient_for_the_lesion_region_and_not_for_the_evidence() -> None:
    region, evidence = images(2, 1, 4, 5), images(2, 1, 4, 5)
    unsupervised_segmentation_loss(region, evidence).backward()
    assert region.grad is not None and region.grad.all()
    assert evidence.grad is None


# Eq. (10)

HALF = torch.tensor([[0.0, 0.0, 0.0, 0.0, log(4)]])
"""Probabilities 1/8, 1/8, 1/8, 1/8, 1/2: grade 4 is predicted."""


def test_eq10_by_hand() -> None:
    # l = 2, l~ = 4: (|4 - 2| + 1) / ((2+1) + (1+1) + (0+1) + (1+1) + (2+1)) = 3/11, times log 8.
    assert grading_loss(HALF, torch.tensor([2])).item() == pytest.approx(3 / 11 * log(8))


def test_eq10_of_a_correct_grade_by_hand() -> None:
    # l = l~ = 4: (0 + 1) / (5 + 4 + 3 + 2 + 1) = 1/15, times log 2.
    assert grading_loss(HALF, torch.tensor([4])).item() == pytest.approx(log(2) / 15)


def test_eq10_as_printed_by_hand() -> None:
    assert grading_loss(HALF, torch.tensor([2]), literal=True).item() == pytest.approx(2 / 11 * log(8))


def test_eq10_of_a_correct_grade_has_a_gradient_by_interpretation_r12_only() -> None:
    for literal, learns in ((True, False), (False, True)):
        logits = HALF.clone().requires_grad_()
        grading_loss(logits, torch.tensor([4]), literal=literal).backward()
        assert logits.grad is not None and bool(logits.grad.any()) is learns


@pytest.mark.parametrize("literal", [False, True])
def test_eq10_equals_reference(literal: bool) -> None:
    logits, grades = 3 * torch.randn(12, 5, dtype=torch.float64), torch.randint(5, (12,))
    assert same(
        grading_loss(logits, grades, literal=literal),
        reference.grading_loss(logits.numpy(), grades.tolist(), literal=literal),
    )


def test_eq10_grows_with_the_distance_of_the_predicted_grade() -> None:
    # The true grade 1 always has the probability 0.1; only the predicted grade differs.
    def loss(predicted: int) -> float:
        probs = torch.full((5,), 0.1)
        probs[predicted] = 0.6
        return grading_loss(probs.log()[None], torch.tensor([1])).item()

    assert loss(2) < loss(3) < loss(4)


def test_eq10_is_multiplied_by_the_class_weight_of_the_true_grade() -> None:
    weights = torch.tensor([1.0, 10.0, 1.44, 25.0, 8.0])
    for grade in range(5):
        plain = grading_loss(HALF, torch.tensor([grade]))
        assert torch.isclose(grading_loss(HALF, torch.tensor([grade]), weights), weights[grade] * plain)


def test_eq10_gradient_raises_the_true_grade_and_lowers_the_others() -> None:
    logits = torch.randn(1, 5, requires_grad=True)
    grading_loss(logits, torch.tensor([3])).backward()
    assert logits.grad is not None
    assert logits.grad[0, 3] < 0 and (logits.grad[0, [0, 1, 2, 4]] > 0).all()


@pytest.mark.parametrize("grade", [-1, 5])
def test_eq10_of_a_grade_out_of_range_is_an_error(grade: int) -> None:
    with pytest.raises(ValueError, match=rf"{grade}.*expected 0 to 4"):
        grading_loss(HALF, torch.tensor([grade]))


# Eq. (11)

LAMBDAS = LossWeights(lambda_img=1.0, lambda_tv=0.5, lambda_sa=2.0, lambda_ca=10.0)


def test_eq11_by_hand() -> None:
    # 1 * 0.1 + 0.5 * 0.2 + 2 * 0.3 + 10 * 0.4 = 4.8
    terms = torch.tensor([0.1, 0.2, 0.3, 0.4])
    assert isr_loss(*terms, weights=LAMBDAS).item() == pytest.approx(4.8)


def test_eq11_equals_reference() -> None:
    terms = torch.rand(4, dtype=torch.float64)
    assert same(isr_loss(*terms, weights=LAMBDAS), reference.isr_loss(terms.tolist(), (1.0, 0.5, 2.0, 10.0)))


def test_eq11_gradient_of_each_term_is_its_lambda() -> None:
    terms = torch.rand(4, requires_grad=True)
    isr_loss(*terms, weights=LAMBDAS).backward()
    assert terms.grad is not None and terms.grad.tolist() == [1.0, 0.5, 2.0, 10.0]


def test_authors_lambdas_are_the_defaults() -> None:
    weights = LossWeights()
    assert (weights.lambda_img, weights.lambda_tv, weights.lambda_sa, weights.lambda_ca) == (1, 1e-6, 1, 10)


# All losses


@pytest.mark.parametrize(
    "loss",
    [
        lambda x: segmentation_aware_loss(x, torch.zeros_like(x)),
        lambda x: image_loss(x[:, :3], torch.full_like(x[:, :3], 2.0)),
        lambda x: total_variation_loss(x[:, :3]),
        lambda x: dice_loss(x, torch.ones_like(x), torch.ones(2, 4, dtype=torch.bool)),
        lambda x: lesion_cross_entropy_loss(x / 5, (x > 0.9).detach().double(), torch.ones(2, 4, dtype=torch.bool)),
        lambda x: unsupervised_segmentation_loss(x[:, :1], x[:, 1:2]),
        lambda x: grading_loss(x.flatten(1)[:, :5], torch.tensor([1, 4])),
        lambda x: ordinal_loss(x.flatten(1)[:, :5], torch.tensor([1, 4])),
    ],
    ids=["eq4", "eq6", "eq7", "eq8", "cross-entropy", "eq9", "eq10", "ordinal"],
)
def test_gradient_equals_finite_differences(loss) -> None:
    assert torch.autograd.gradcheck(loss, images(2, 4, 2, 3))


def of_two_processes(loss: Callable[[slice, AllReduce], Tensor]) -> float:
    """The loss in the first of two processes, which share four photographs."""
    sent: list[Tensor] = []
    loss(slice(2, 4), lambda sum_: sent.append(sum_) or sum_)
    return loss(slice(0, 2), lambda sum_: sum_ + sent.pop(0)).item()


@pytest.mark.parametrize("equation", ["eq8", "cross-entropy", "eq9", "eq10", "ordinal"])
def test_two_processes_compute_the_loss_of_the_whole_batch(equation: str) -> None:
    # The first type is annotated in both processes, the second only in the first; the last photograph nowhere.
    x, masks = images(4, 4, 3, 3).detach() / 5, (images(4, 4, 3, 3) > 0.7).double()
    annotated, graded = torch.ones(4, 4, dtype=torch.bool), torch.tensor([True, False, True, True])
    annotated[2, 1], annotated[3] = False, False
    grade, logits, bare = torch.tensor([4, 0, 1, 3]), 20 * x[:, 0, 0:2].flatten(1)[:, :5], ~annotated.any(dim=1)
    losses = {
        "eq8": lambda part, sum_: dice_loss(x[part], masks[part], annotated[part], sum_),
        "cross-entropy": lambda part, sum_: lesion_cross_entropy_loss(x[part], masks[part], annotated[part], sum_),
        "eq9": lambda part, sum_: unsupervised_segmentation_loss(x[part, :1], 5 * x[part, 1:2], 0.5, bare[part], sum_),
        "eq10": lambda part, sum_: grading_loss(logits[part], grade[part], graded=graded[part], all_reduce=sum_),
        "ordinal": lambda part, sum_: ordinal_loss(logits[part], grade[part], graded=graded[part], all_reduce=sum_),
    }
    whole = losses[equation](slice(0, 4), lambda sum_: sum_).item()
    assert whole > 0 and of_two_processes(losses[equation]) == pytest.approx(whole)
