"""Gradients of the task-aware losses at the SR image are limited to a share of the image loss's (R27)."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from deepmtdr.training.backward import combine_gradients


def gradient(*values: float) -> Tensor:
    """Gradient at an image of one row, of as many pixels as there are values."""
    return torch.tensor(values)[None, None, None]


def test_larger_gradient_is_scaled_to_the_share_by_hand() -> None:
    # The image loss has a norm of 5: a share of 0.3 is 1.5. (0, 10) becomes (0, 1.5), (-20, 0) becomes (-1.5, 0).
    image = gradient(3.0, 4.0)
    assert combine_gradients(image, [gradient(0.0, 10.0)], 0.3).flatten().tolist() == pytest.approx([3.0, 5.5])
    both = combine_gradients(image, [gradient(0.0, 10.0), gradient(-20.0, 0.0)], 0.3)
    assert both.flatten().tolist() == pytest.approx([1.5, 5.5])


def test_smaller_gradient_is_not_enlarged_and_none_stays_none() -> None:
    image = gradient(3.0, 4.0)
    assert combine_gradients(image, [gradient(0.1, 0.2)], 0.3).flatten().tolist() == pytest.approx([3.1, 4.2])
    assert torch.equal(combine_gradients(image, [gradient(0.0, 0.0)], 0.3), image)
    assert torch.equal(combine_gradients(image, [], 0.3), image)
    assert not combine_gradients(gradient(0.0, 0.0), [gradient(5.0, 5.0)], 0.3).any()


def test_each_photograph_has_its_own_limit() -> None:
    image = torch.cat([gradient(3.0, 4.0), gradient(0.0, 10.0)])
    task_aware = torch.cat([gradient(0.0, 100.0), gradient(1.0, 0.0)])
    combined = combine_gradients(image, [task_aware], 0.2)
    assert combined.flatten(1).tolist() == [pytest.approx([3.0, 5.0]), pytest.approx([1.0, 10.0])]


def test_component_against_the_image_loss_is_removed_on_request_only() -> None:
    image, against, along = gradient(2.0, 0.0), gradient(-4.0, 0.3), gradient(4.0, 0.3)
    assert combine_gradients(image, [against], 10.0).flatten().tolist() == pytest.approx([-2.0, 0.3])
    projected = combine_gradients(image, [against], 10.0, project_conflicts=True)
    assert projected.flatten().tolist() == pytest.approx([2.0, 0.3])
    kept = combine_gradients(image, [along], 10.0, project_conflicts=True)
    assert kept.flatten().tolist() == pytest.approx([6.0, 0.3])


def test_limit_is_applied_to_what_the_projection_leaves() -> None:
    combined = combine_gradients(gradient(2.0, 0.0), [gradient(-4.0, 3.0)], 0.5, project_conflicts=True)
    assert combined.flatten().tolist() == pytest.approx([2.0, 1.0])
