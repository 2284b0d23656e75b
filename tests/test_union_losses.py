"""Union labels and ignored pixels in the segmentation losses (interpretation R32)."""

from __future__ import annotations

from collections.abc import Callable
from math import log

import numpy as np
import pytest
import torch
from torch import Tensor

import reference
from deepmtdr.losses import (
    LesionLabels,
    dice_loss,
    lesion_cross_entropy_loss,
    pixel_mean,
    unsupervised_segmentation_loss,
)

NOTHING = torch.zeros(1, 4, dtype=torch.bool)
ALL = ~NOTHING
EXUDATES = torch.tensor([[[False, False, True, True]]])
"""The union label "EX+SE" of one photograph."""


def pixels(*values: list[float]) -> Tensor:
    """One photograph of one row, from the values of each pixel's channels."""
    return torch.tensor(values).T.reshape(1, -1, 1, len(values))


def one_union(lesions: Tensor, inside: list[float]) -> LesionLabels:
    """Labels of a photograph on which only exudates are annotated."""
    masks = torch.tensor(inside).reshape(1, 1, 1, -1)
    return LesionLabels(torch.zeros_like(lesions), NOTHING, union_masks=masks, unions=EXUDATES)


# By hand. MA, HE, EX, SE of two pixels: P(EX or SE) is 0.75 and 0.25.

LESIONS = pixels([0.125, 0.0, 0.5, 0.25], [0.0, 0.5, 0.125, 0.125])


def test_dice_compares_the_sum_of_the_types_with_the_union_mask() -> None:
    # S = 1 0; overlap 0.75; 1 - 2 * 0.75 / (0.75 + 0.25 + 1) = 0.25.
    assert dice_loss(LESIONS, *one_union(LESIONS, [1.0, 0.0])).item() == pytest.approx(0.25, abs=1e-6)


def test_cross_entropy_is_that_of_the_sum_and_of_everything_else() -> None:
    # Inside -log 0.75; outside -log (1 - 0.25), whatever else is there.
    loss = lesion_cross_entropy_loss(LESIONS, *one_union(LESIONS, [1.0, 0.0]))
    assert loss.item() == pytest.approx(-log(0.75), rel=1e-5)
    swapped = lesion_cross_entropy_loss(LESIONS, *one_union(LESIONS, [0.0, 1.0]))
    assert swapped.item() == pytest.approx(-log(0.25), rel=1e-5)


def test_union_label_without_lesions_penalises_its_types_only() -> None:
    lesions = LESIONS.clone().requires_grad_()
    labels = one_union(lesions, [0.0, 0.0])
    (dice_loss(lesions, *labels) + lesion_cross_entropy_loss(lesions, *labels)).backward()
    assert lesions.grad is not None
    assert not lesions.grad[:, :2].any(), "microaneurysms and haemorrhages are unknown"
    assert (lesions.grad[:, 2:] > 0).all()


def test_types_of_a_union_share_one_gradient_inside_it() -> None:
    lesions = LESIONS.clone().requires_grad_()
    lesion_cross_entropy_loss(lesions, *one_union(lesions, [1.0, 1.0])).backward()
    assert lesions.grad is not None
    # Two pixels: d(-log P / 2) / dp = -1 / (2 P).
    expected = torch.tensor([[-0.5 / 0.75, -0.5 / 0.25]])
    assert torch.allclose(lesions.grad[0, 2], expected) and torch.allclose(lesions.grad[0, 3], expected)


def test_annotated_type_beside_a_union_label_is_a_class_of_its_own() -> None:
    # MA annotated at the first pixel, exudates at the second: -log 0.125 and -log 0.25.
    masks = torch.zeros(1, 4, 1, 2)
    masks[0, 0, 0, 0] = 1
    annotated = torch.tensor([[True, False, False, False]])
    union = torch.tensor([[[[0.0, 1.0]]]])
    loss = lesion_cross_entropy_loss(LESIONS, masks, annotated, union_masks=union, unions=EXUDATES)
    assert loss.item() == pytest.approx((log(8) + log(4)) / 2, rel=1e-5)


def test_dice_is_the_mean_over_types_and_union_labels() -> None:
    # First photograph: all types annotated and right, 0 each; second: the union of the test above, 0.25.
    right = torch.tensor([1.0, 0.0]).expand(1, 4, 1, 2)
    lesions = torch.cat([right, LESIONS])
    labels = LesionLabels(
        torch.cat([right, torch.zeros_like(right)]),
        torch.cat([ALL, NOTHING]),
        union_masks=torch.tensor([0.0, 1.0]).reshape(2, 1, 1, 1) * torch.tensor([1.0, 0.0]),
        unions=torch.cat([EXUDATES & False, EXUDATES]),
    )
    assert dice_loss(lesions, *labels).item() == pytest.approx(0.25 / 5, abs=1e-6)


def test_ignored_pixels_do_not_count_in_any_segmentation_loss() -> None:
    ignored = torch.tensor([[[[False, True]]]])
    first = LESIONS[..., :1]
    labels = one_union(LESIONS, [1.0, 0.0])._replace(ignored=ignored)
    alone = one_union(first, [1.0])
    for loss in (dice_loss, lesion_cross_entropy_loss):
        assert loss(LESIONS, *labels).item() == pytest.approx(loss(first, *alone).item(), rel=1e-5)
    region, evidence = torch.tensor([[[[0.5, 0.8]]]]), torch.tensor([[[[0.9, 0.2]]]])
    assert unsupervised_segmentation_loss(region, evidence, ignored=ignored).item() == pytest.approx(0.25)


@pytest.mark.parametrize("loss", [dice_loss, lesion_cross_entropy_loss])
def test_ignored_pixels_have_no_gradient(loss: Callable[..., Tensor]) -> None:
    lesions = (torch.rand(1, 4, 3, 3) / 5).requires_grad_()
    ignored = torch.rand(1, 1, 3, 3) > 0.5
    loss(lesions, (torch.rand(1, 4, 3, 3) > 0.5).float(), ALL, ignored=ignored).backward()
    assert lesions.grad is not None
    assert torch.equal((lesions.grad != 0).any(dim=1, keepdim=True), ~ignored)


def test_photograph_that_is_ignored_as_a_whole_does_not_count() -> None:
    lesions = (torch.rand(2, 4, 3, 3) / 5).requires_grad_()
    masks, both = torch.zeros(2, 4, 3, 3), ALL.expand(2, 4)
    ignored = torch.tensor([True, False]).reshape(2, 1, 1, 1).expand(2, 1, 3, 3)
    loss = lesion_cross_entropy_loss(lesions, masks, both, ignored=ignored)
    assert loss.item() == pytest.approx(lesion_cross_entropy_loss(lesions[1:], masks[1:], ALL).item())
    assert pixel_mean(torch.ones(2, 1, 3, 3), ignored).tolist() == [0, 1]


# Against the reference


def random_labels(rng: np.random.Generator) -> tuple[Tensor, LesionLabels]:
    """Four photographs: all types; a union label; a type beside a union label; nothing. Masks do not overlap."""
    lesions = torch.as_tensor(rng.dirichlet(np.ones(5), (4, 3, 5))).permute(0, 3, 1, 2)[:, :4].contiguous()
    kind = torch.as_tensor(rng.integers(0, 6, (4, 3, 5)))
    masks = torch.stack([kind == n for n in range(4)], dim=1).double()
    annotated = torch.zeros(4, 4, dtype=torch.bool)
    annotated[0], annotated[2, 0] = True, True
    unions = torch.zeros(4, 2, 4, dtype=torch.bool)
    unions[1, 0, 2:], unions[1, 1, :2], unions[2, 0, 2:] = True, True, True
    union_masks = torch.stack([kind == 4, kind == 5], dim=1).double()
    ignored = torch.as_tensor(rng.random((4, 1, 3, 5)) < 0.3)
    return lesions, LesionLabels(masks, annotated, ignored=ignored, union_masks=union_masks, unions=unions)


def arrays(lesions: Tensor, labels: LesionLabels) -> list[np.ndarray]:
    masks, annotated, _, *rest = labels
    return [each.numpy() for each in (lesions, masks, annotated, *rest) if isinstance(each, Tensor)]


def test_losses_equal_the_reference(rng: np.random.Generator) -> None:
    lesions, labels = random_labels(rng)
    theirs = reference.dice_loss(*arrays(lesions, labels))
    assert dice_loss(lesions, *labels).item() == pytest.approx(theirs, abs=1e-6)
    theirs = reference.lesion_cross_entropy_loss(*arrays(lesions, labels))
    assert lesion_cross_entropy_loss(lesions, *labels).item() == pytest.approx(theirs, rel=1e-6)


def test_eq9_equals_the_reference_without_ignored_pixels(rng: np.random.Generator) -> None:
    region, evidence = (torch.as_tensor(rng.random((2, 1, 4, 5))) for _ in range(2))
    ignored = torch.as_tensor(rng.random((2, 1, 4, 5)) < 0.4)
    theirs = reference.unsupervised_segmentation_loss(region.numpy(), evidence.numpy(), 0.4, ignored.numpy())
    ours = unsupervised_segmentation_loss(region, evidence, 0.4, ignored=ignored)
    assert ours.item() == pytest.approx(theirs, rel=1e-9)


def test_labels_without_unions_and_ignored_pixels_give_the_losses_of_earlier_versions(rng: np.random.Generator) -> None:
    lesions, labels = random_labels(rng)
    masks, annotated = labels.masks, ALL.expand(4, 4)
    none = LesionLabels(
        masks,
        annotated,
        ignored=torch.zeros(4, 1, 3, 5, dtype=torch.bool),
        union_masks=torch.zeros(4, 1, 3, 5).double(),
        unions=torch.zeros(4, 1, 4, dtype=torch.bool),
    )
    for loss in (dice_loss, lesion_cross_entropy_loss):
        assert loss(lesions, *none).item() == pytest.approx(loss(lesions, masks, annotated).item(), rel=1e-12)


@pytest.mark.parametrize("loss", [dice_loss, lesion_cross_entropy_loss])
def test_two_processes_compute_the_loss_of_the_whole_batch(
    loss: Callable[..., Tensor], rng: np.random.Generator
) -> None:
    lesions, labels = random_labels(rng)

    def part(rows: slice, all_reduce: Callable[[Tensor], Tensor]) -> Tensor:
        cut = [each[rows] if isinstance(each, Tensor) else all_reduce for each in labels]
        return loss(lesions[rows], *cut)

    sent: list[Tensor] = []
    part(slice(2, 4), lambda sum_: sent.append(sum_) or sum_)
    first = part(slice(0, 2), lambda sum_: sum_ + sent.pop(0))
    assert first.item() == pytest.approx(loss(lesions, *labels).item())
