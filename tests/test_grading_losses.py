"""The forms of the grading loss (interpretation R26): the strictly proper ordinal loss, Eq. (10), cross-entropy."""

from __future__ import annotations

from math import log

import pytest
import torch
from torch import Tensor

import reference
from deepmtdr.grading_losses import grade_loss, grading_loss, ordinal_loss
from deepmtdr.losses import GRADING_FORMS, GradeLabels

HALF = torch.tensor([[0.0, 0.0, 0.0, 0.0, log(4)]], dtype=torch.float64)
"""Probabilities 1/8, 1/8, 1/8, 1/8, 1/2: grade 4 is predicted."""

TRUE_PROBS = torch.tensor([0.73, 0.06, 0.15, 0.03, 0.03], dtype=torch.float64)


def expected_loss(logits: Tensor, form: str) -> Tensor:
    """Mean loss of a photograph whose grade is drawn from `TRUE_PROBS`."""
    known = torch.tensor([True])
    each = [grade_loss(logits, GradeLabels(torch.tensor([grade]), known, form=form)) for grade in range(5)]
    return (TRUE_PROBS * torch.stack(each)).sum()


def minimiser(form: str) -> Tensor:
    """Probabilities with the lowest expected loss, found from equal ones by gradient descent."""
    logits = torch.zeros(1, 5, dtype=torch.float64, requires_grad=True)
    descent = torch.optim.LBFGS([logits], max_iter=500, tolerance_grad=1e-10, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        descent.zero_grad()
        value = expected_loss(logits, form)
        value.backward()
        return value

    descent.step(loss)  # pyright: ignore[reportArgumentType]
    return logits.detach().softmax(dim=1)[0]


def test_ordinal_loss_by_hand() -> None:
    # l = 2. P(> 0) = 7/8, P(> 1) = 6/8, P(<= 2) = 3/8, P(<= 3) = 4/8.
    expected = -(log(7 / 8) + log(6 / 8) + log(3 / 8) + log(4 / 8)) / 4
    assert ordinal_loss(HALF, torch.tensor([2])).item() == pytest.approx(expected)


def test_ordinal_loss_equals_reference() -> None:
    logits, grades = 3 * torch.randn(12, 5, dtype=torch.float64), torch.randint(5, (12,))
    theirs = reference.ordinal_loss(logits.numpy(), grades.tolist())
    assert ordinal_loss(logits, grades).item() == pytest.approx(theirs, rel=1e-9)


@pytest.mark.parametrize("form", ["cumulative", "cross-entropy"])
def test_proper_forms_are_lowest_at_the_true_probabilities(form: str) -> None:
    assert minimiser(form).tolist() == pytest.approx(TRUE_PROBS.tolist(), abs=1e-3)


def test_eq10_is_lowest_far_from_the_true_probabilities() -> None:
    # Interpretation R26. Where grade 0 is predicted, Eq. (10) is a cross-entropy with the weights 1/15, 2/12, 3/11,
    # 4/12, 5/15 of the true grade: its minimum there is the true probabilities times these weights.
    found = (TRUE_PROBS * torch.tensor([1 / 15, 2 / 12, 3 / 11, 4 / 12, 5 / 15])).double()
    found = (found / found.sum())[None]
    assert found[0].tolist() == pytest.approx([0.41, 0.08, 0.34, 0.08, 0.08], abs=0.005)
    assert expected_loss(found.log(), "eq10") < expected_loss(TRUE_PROBS.log()[None], "eq10") - 0.01
    assert expected_loss(found.log(), "cumulative") > expected_loss(TRUE_PROBS.log()[None], "cumulative") + 0.01


def test_ordinal_loss_grows_with_the_distance_of_the_probability() -> None:
    # The true grade 0 always has the probability 0.1; the rest is at one other grade.
    def loss(other: int) -> float:
        probs = torch.full((5,), 1e-3)
        probs[0], probs[other] = 0.1, 0.897
        return ordinal_loss(probs.log()[None], torch.tensor([0])).item()

    assert loss(1) < loss(2) < loss(3) < loss(4)


def test_ordinal_loss_and_its_gradient_are_finite_for_extreme_logits() -> None:
    logits = torch.tensor([[200.0, 0.0, -200.0, 0.0, 100.0], [-300.0, 300.0, 0.0, 0.0, 0.0]], requires_grad=True)
    loss = ordinal_loss(logits, torch.tensor([2, 4]))
    loss.backward()
    assert loss.isfinite() and loss > 50
    assert logits.grad is not None and logits.grad.isfinite().all() and logits.grad.any()


def test_ordinal_loss_is_multiplied_by_the_class_weight_of_the_true_grade() -> None:
    weights = torch.tensor([1.0, 10.0, 1.44, 25.0, 8.0])
    for grade in range(5):
        plain = ordinal_loss(HALF, torch.tensor([grade]))
        assert torch.isclose(ordinal_loss(HALF, torch.tensor([grade]), weights), weights[grade] * plain)


def test_each_form_of_the_grading_loss_is_its_function_over_the_known_grades() -> None:
    logits, grade, known = torch.randn(3, 5), torch.tensor([2, 0, -1]), torch.tensor([True, True, False])
    weights = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])
    first, own = logits[:2], (grade[:2], weights)
    expected = {
        "cumulative": ordinal_loss(first, *own),
        "eq10": grading_loss(first, *own),
        "eq10-literal": grading_loss(first, *own, literal=True),
        "cross-entropy": torch.nn.functional.cross_entropy(first, own[0], weights, reduction="none").mean(),
    }
    assert tuple(expected) == GRADING_FORMS and len({round(value.item(), 5) for value in expected.values()}) == 4
    for form, value in expected.items():
        assert torch.isclose(grade_loss(logits, GradeLabels(grade, known, weights, form=form)), value), form
        none = grade_loss(logits.requires_grad_(), GradeLabels(grade, torch.zeros_like(known), form=form))
        assert none.item() == 0 and none.requires_grad


def test_unknown_form_of_the_grading_loss_is_an_error() -> None:
    labels = GradeLabels(torch.tensor([2]), torch.tensor([True]), form="eq 10")
    with pytest.raises(
        ValueError, match=r"form 'eq 10', expected one of cumulative, eq10, eq10-literal, cross-entropy"
    ):
        grade_loss(HALF, labels)
