"""Warm start: running statistics are the mean over the first batches instead of beginning at mean 0, variance 1."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from deepmtdr.model.grading import BasicBlock
from deepmtdr.training.activation_checkpointing import checkpoint_activations
from deepmtdr.training.batch_norm import reestimate_batch_norm, warm_start_batch_norm


def batches(count: int) -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [5 + 2 * torch.randn(4, 3, 6, 6) for _ in range(count)]


@pytest.mark.parametrize("count", [1, 3, 10])
def test_first_batches_have_equal_weights(count: int) -> None:
    norm, inputs = nn.BatchNorm2d(3), batches(count)
    with warm_start_batch_norm(norm):
        for batch in inputs:
            norm(batch)
    expected = torch.stack([batch.mean(dim=(0, 2, 3)) for batch in inputs]).mean(dim=0)
    assert torch.allclose(norm.running_mean, expected, atol=1e-5)  # pyright: ignore[reportArgumentType]
    assert norm.momentum == 0.1


def test_later_batches_have_the_weight_of_the_momentum() -> None:
    norm, inputs = nn.BatchNorm2d(3), batches(12)
    with warm_start_batch_norm(norm):
        for batch in inputs[:11]:
            norm(batch)
        before = norm.running_mean.clone()  # pyright: ignore[reportOptionalMemberAccess]
        norm(inputs[11])
    expected = 0.9 * before + 0.1 * inputs[11].mean(dim=(0, 2, 3))
    assert torch.allclose(norm.running_mean, expected, atol=1e-5)  # pyright: ignore[reportArgumentType]


def test_norm_that_has_counted_continues_and_a_frozen_one_does_not_change() -> None:
    counted, frozen = nn.BatchNorm2d(3), nn.BatchNorm2d(3).eval()
    counted.num_batches_tracked += 4  # pyright: ignore[reportOptionalOperand]
    (batch,) = batches(1)
    with warm_start_batch_norm(nn.Sequential(counted, frozen)):
        counted(batch)
        frozen(batch)
    assert torch.allclose(counted.running_mean, 0.2 * batch.mean(dim=(0, 2, 3)), atol=1e-5)  # pyright: ignore[reportArgumentType]
    assert not frozen.running_mean.any()  # pyright: ignore[reportOptionalMemberAccess]


def test_statistics_without_a_count_are_kept() -> None:
    norm, (batch,) = nn.BatchNorm2d(3), batches(1)
    norm.running_mean += 3  # pyright: ignore[reportOptionalOperand]
    with warm_start_batch_norm(norm):
        norm(batch)
    expected = 0.9 * 3 + 0.1 * batch.mean(dim=(0, 2, 3))
    assert torch.allclose(norm.running_mean, expected, atol=1e-5)  # pyright: ignore[reportArgumentType]


def test_features_computed_again_are_counted_once() -> None:
    torch.manual_seed(0)
    plain, again = BasicBlock(3, 3, 1), BasicBlock(3, 3, 1)
    again.load_state_dict(plain.state_dict())
    for block, wanted in ((plain, False), (again, True)):
        with warm_start_batch_norm(block), checkpoint_activations(block, wanted):
            for batch in batches(3):
                block(batch.requires_grad_()).sum().backward()
    assert all(torch.equal(one, again.state_dict()[name]) for name, one in plain.state_dict().items())


# A new estimate at the end of a stage


def test_new_statistics_are_the_mean_and_variance_over_all_batches() -> None:
    norm, inputs = nn.BatchNorm2d(3), [batch + n for n, batch in enumerate(batches(4))]
    norm.running_mean += 7  # pyright: ignore[reportOptionalOperand]
    reestimate_batch_norm(norm, norm, inputs)
    pixels = torch.cat(inputs).transpose(0, 1).flatten(1)
    assert norm.running_mean is not None and norm.running_var is not None
    assert torch.allclose(norm.running_mean, pixels.mean(dim=1), atol=1e-5)
    assert torch.allclose(norm.running_var, pixels.var(dim=1), rtol=0.01)  # the variance between the batches included


def test_new_estimate_changes_nothing_but_the_statistics_of_the_given_part() -> None:
    part = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.Dropout(0.5)).train()
    other = nn.BatchNorm2d(3).eval()
    part[2].eval()
    before = {name: tensor.clone() for name, tensor in nn.Sequential(part, other).state_dict().items()}
    reestimate_batch_norm(part, lambda batch: part(other(batch)), batches(2))
    after = nn.Sequential(part, other).state_dict()
    changed = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    assert changed == {"0.1.running_mean", "0.1.running_var", "0.1.num_batches_tracked"}
    assert (part[1].training, part[1].momentum, part[2].training, other.training) == (True, 0.1, False, False)
    assert all(p.grad is None for p in part.parameters())


def test_statistics_stay_without_batches() -> None:
    norm = nn.BatchNorm2d(3)
    norm.running_mean += 7  # pyright: ignore[reportOptionalOperand]
    reestimate_batch_norm(norm, norm, [])
    assert norm.running_mean is not None and norm.running_mean.tolist() == [7, 7, 7]
    reestimate_batch_norm(nn.Identity(), nn.Identity(), iter([torch.zeros(1)]))
