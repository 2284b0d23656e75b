"""The losses of the DR grade: Eq. (10), and a strictly proper loss for ordered grades (interpretations R12 and R26)."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from deepmtdr.losses import GRADING_FORMS, AllReduce, GradeLabels, masked_mean, no_reduce


def grading_loss(
    grade_logits: Float[Tensor, "b c"],
    grade: Int[Tensor, " b"],
    class_weights: Float[Tensor, " c"] | None = None,
    *,
    literal: bool = False,
    graded: Bool[Tensor, " b"] | None = None,
    all_reduce: AllReduce = no_reduce,
) -> Float[Tensor, ""]:
    """Eq. (10): cross-entropy, weighted by the distance of the predicted grade from the true one (interpretation R12).

    Args:
        grade_logits: logits of the C grades.
        grade: true grades, 0 to C-1.
        class_weights: weight of each true grade; None: 1 for all grades.
        literal: Eq. (10) as printed, whose weight |l~ - l| is 0 for every correctly graded photograph.
        graded: the photographs whose grade is known; None: all.
        all_reduce: sum over processes, see the module's docstring.

    Returns:
        Mean over the graded photographs of (|l~ - l| + 1) / sum_i (|i - l| + 1) * cross-entropy.

    Raises:
        ValueError: if a grade is out of range.
    """
    classes = grade_logits.shape[1]
    _check_grades(grade, classes)
    distance = (grade_logits.detach().argmax(dim=1) - grade).abs().to(grade_logits.dtype)
    each = torch.arange(classes, device=grade.device)
    weight = (distance if literal else distance + 1) / ((each - grade[:, None]).abs() + 1).sum(dim=1)
    losses = weight * F.cross_entropy(grade_logits, grade.long(), class_weights, reduction="none")
    return masked_mean(losses, torch.ones_like(grade, dtype=torch.bool) if graded is None else graded, all_reduce)


def ordinal_loss(
    grade_logits: Float[Tensor, "b c"],
    grade: Int[Tensor, " b"],
    class_weights: Float[Tensor, " c"] | None = None,
    *,
    graded: Bool[Tensor, " b"] | None = None,
    all_reduce: AllReduce = no_reduce,
) -> Float[Tensor, ""]:
    """Strictly proper loss for ordered grades: mean over k of the cross-entropy of "grade > k" (interpretation R26).

    P(grade > k) is the sum of the softmax probabilities of the grades k+1 to C-1. The expected loss is lowest where the
    predicted probabilities are the true ones, unlike that of Eq. (10). An error costs more if it is further away.

    Args:
        grade_logits: logits of the C grades.
        grade: true grades, 0 to C-1.
        class_weights: weight of each true grade; None: 1 for all grades.
        graded: the photographs whose grade is known; None: all.
        all_reduce: sum over processes, see the module's docstring.

    Returns:
        Mean over the graded photographs and the C-1 thresholds.

    Raises:
        ValueError: if a grade is out of range.
    """
    _check_grades(grade, grade_logits.shape[1])
    log_probs = grade_logits.log_softmax(dim=1)
    up_to = log_probs.logcumsumexp(dim=1)[:, :-1]  # log P(grade <= k), k = 0 to C-2
    above = log_probs.flip(1).logcumsumexp(dim=1).flip(1)[:, 1:]  # log P(grade > k)
    is_above = grade[:, None] > torch.arange(grade_logits.shape[1] - 1, device=grade.device)
    losses = -torch.where(is_above, above, up_to).mean(dim=1)
    if class_weights is not None:
        losses = losses * class_weights[grade.long()]
    return masked_mean(losses, torch.ones_like(grade, dtype=torch.bool) if graded is None else graded, all_reduce)


def grade_loss(grade_logits: Float[Tensor, "b c"], labels: GradeLabels) -> Float[Tensor, ""]:
    """Grading loss in the form that the labels name.

    Args:
        grade_logits: logits of the C grades.
        labels: grades, class weights, and one of `GRADING_FORMS`: "cumulative" is `ordinal_loss`, "eq10" and
            "eq10-literal" are `grading_loss`.

    Returns:
        Mean over the photographs whose grade is known; 0 (with a gradient of 0) if there is none.

    Raises:
        ValueError: if the form is unknown or a grade is out of range.
    """
    grade = torch.where(labels.known, labels.grade, 0)
    if labels.form == "cumulative":
        return ordinal_loss(
            grade_logits, grade, labels.class_weights, graded=labels.known, all_reduce=labels.all_reduce
        )
    if labels.form in ("eq10", "eq10-literal"):
        return grading_loss(
            grade_logits,
            grade,
            labels.class_weights,
            literal=labels.form == "eq10-literal",
            graded=labels.known,
            all_reduce=labels.all_reduce,
        )
    if labels.form == "cross-entropy":
        _check_grades(grade, grade_logits.shape[1])
        return labels.mean(F.cross_entropy(grade_logits, grade.long(), labels.class_weights, reduction="none"))
    raise ValueError(f"grading loss: found the form {labels.form!r}, expected one of {', '.join(GRADING_FORMS)}")


def _check_grades(grade: Int[Tensor, " b"], classes: int) -> None:
    if grade.numel() and not 0 <= int(grade.min()) <= int(grade.max()) < classes:
        raise ValueError(f"grading loss: found the grades {grade.tolist()}, expected 0 to {classes - 1}")
