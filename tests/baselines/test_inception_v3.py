"""Inception-v3: equal to its description; the weight of its auxiliary classifier."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from deepmtdr.baselines.inception_v3 import InceptionV3
from deepmtdr.losses import GradeLabels
from deepmtdr.model.interfaces import GradingOutput
from deepmtdr.systems import default_part_names
from grader_checks import randomise_batch_norms


@pytest.fixture(scope="module")
def model() -> InceptionV3:
    """The network with batch norms that change their input."""
    torch.manual_seed(0)
    made = InceptionV3().eval()
    randomise_batch_norms(made)
    return made


def described(state: dict[str, Tensor], rgb: Tensor) -> tuple[Tensor, Tensor]:
    """The network of the paper's Table 1 and Figs. 5-8, 10, one line per branch; logits and auxiliary logits."""

    def conv(x: Tensor, *names: str, stride: int = 1, pad: tuple[int, int] = (0, 0)) -> Tensor:
        for name in names:
            x = F.conv2d(x, state[f"{name}.conv.weight"], stride=stride, padding=pad)
            mean, variance, weight, bias = (
                state[f"{name}.bn.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
            )
            x = F.batch_norm(x, mean, variance, weight, bias, eps=0.001).relu()
        return x

    def same(x: Tensor, block: str, *names: str) -> Tensor:
        """Convolutions that keep the size of the grid."""
        for name in names:
            height, width = state[f"{block}.branch{name}.conv.weight"].shape[2:]
            x = conv(x, f"{block}.branch{name}", pad=(height // 2, width // 2))
        return x

    def average(x: Tensor) -> Tensor:
        return F.avg_pool2d(x, 3, 1, 1)

    x = conv(2 * rgb - 1, "Conv2d_1a_3x3", stride=2)
    x = conv(conv(x, "Conv2d_2a_3x3"), "Conv2d_2b_3x3", pad=(1, 1))
    x = conv(F.max_pool2d(x, 3, 2), "Conv2d_3b_1x1", "Conv2d_4a_3x3")
    x = F.max_pool2d(x, 3, 2)
    assert x.shape[1:] == (192, 35, 35)
    for b in ("Mixed_5b", "Mixed_5c", "Mixed_5d"):
        x = torch.cat([
            same(x, b, "1x1"), same(x, b, "5x5_1", "5x5_2"), same(x, b, "3x3dbl_1", "3x3dbl_2", "3x3dbl_3"),
            same(average(x), b, "_pool"),
        ], dim=1)  # fmt: skip
    assert x.shape[1:] == (288, 35, 35)
    b = "Mixed_6a"
    double = conv(same(x, b, "3x3dbl_1", "3x3dbl_2"), f"{b}.branch3x3dbl_3", stride=2)
    x = torch.cat([conv(x, f"{b}.branch3x3", stride=2), double, F.max_pool2d(x, 3, 2)], dim=1)
    assert x.shape[1:] == (768, 17, 17)
    for b in ("Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"):
        x = torch.cat([
            same(x, b, "1x1"), same(x, b, "7x7_1", "7x7_2", "7x7_3"),
            same(x, b, "7x7dbl_1", "7x7dbl_2", "7x7dbl_3", "7x7dbl_4", "7x7dbl_5"), same(average(x), b, "_pool"),
        ], dim=1)  # fmt: skip
    auxiliary = conv(F.avg_pool2d(x, 5, 3), "AuxLogits.conv0", "AuxLogits.conv1").flatten(1)
    auxiliary = auxiliary @ state["AuxLogits.fc.weight"].T + state["AuxLogits.fc.bias"]
    b = "Mixed_7a"
    single = conv(same(x, b, "3x3_1"), f"{b}.branch3x3_2", stride=2)
    seven = conv(same(x, b, "7x7x3_1", "7x7x3_2", "7x7x3_3"), f"{b}.branch7x7x3_4", stride=2)
    x = torch.cat([single, seven, F.max_pool2d(x, 3, 2)], dim=1)
    assert x.shape[1:] == (1280, 8, 8)
    for b in ("Mixed_7b", "Mixed_7c"):
        one, double = same(x, b, "3x3_1"), same(x, b, "3x3dbl_1", "3x3dbl_2")
        x = torch.cat([
            same(x, b, "1x1"), same(one, b, "3x3_2a"), same(one, b, "3x3_2b"),
            same(double, b, "3x3dbl_3a"), same(double, b, "3x3dbl_3b"), same(average(x), b, "_pool"),
        ], dim=1)  # fmt: skip
    assert x.shape[1:] == (2048, 8, 8)
    return x.mean(dim=(2, 3)) @ state["fc.weight"].T + state["fc.bias"], auxiliary


def test_logits_equal_those_of_the_published_description(model: InceptionV3) -> None:
    rgb = torch.rand(1, 3, 299, 299)
    with torch.no_grad():
        logits, auxiliary = described(model.state_dict(), rgb)
        graded = model.grade(rgb, torch.zeros(1, 4, 299, 299))
        torch.testing.assert_close(graded.logits, logits, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(model.AuxLogits(graded.features[3]), auxiliary, atol=1e-4, rtol=1e-4)
    assert [tuple(feature.shape[1:]) for feature in graded.features] == [
        (64, 147, 147), (192, 71, 71), (288, 35, 35), (768, 17, 17), (2048, 8, 8),
    ]  # fmt: skip


def test_auxiliary_classifier_is_not_used_in_evaluation_mode(model: InceptionV3) -> None:
    with torch.no_grad():
        assert model(torch.zeros(1, 3, 299, 299), torch.zeros(1, 4, 299, 299)).extra == ()


def test_auxiliary_logits_are_given_in_training_mode(model: InceptionV3) -> None:
    model.train()
    with torch.no_grad():
        extra = model(torch.rand(2, 3, 96, 96), torch.zeros(2, 4, 96, 96)).extra
    model.eval()
    assert [tuple(logits.shape) for logits in extra] == [(2, 5)]


def loss(model: InceptionV3, logits: Tensor, extra: tuple[Tensor, ...], known: list[bool]) -> float:
    grade = torch.tensor([2, 1][: len(logits)])
    return float(model.loss(GradingOutput(logits, (), extra), GradeLabels(grade, torch.tensor(known))))


def test_auxiliary_loss_has_the_weight_two_fifths(model: InceptionV3) -> None:
    even = torch.zeros(1, 5)  # ln 5 for any label, smoothed or not
    assert loss(model, even, (), [True]) == pytest.approx(math.log(5))
    assert loss(model, even, (even,), [True]) == pytest.approx(1.4 * math.log(5))


def test_class_weight_is_that_of_the_true_grade_with_smoothed_labels_too(model: InceptionV3) -> None:
    logits, weights = torch.tensor([[0.3, -1.0, 2.0, 0.0, 0.7]]), torch.tensor([1.0, 9.0, 3.0, 5.0, 7.0])
    labels = GradeLabels(torch.tensor([2]), torch.tensor([True]))
    plain = model.loss(GradingOutput(logits, ()), labels)
    assert torch.allclose(model.loss(GradingOutput(logits, ()), labels._replace(class_weights=weights)), 3 * plain)


def test_labels_are_smoothed_by_a_tenth_over_five_grades(model: InceptionV3) -> None:
    # Logits: ln 6 for the true grade, else 0: p = 0.6 and 0.1; the smoothed label is 0.92 and four times 0.02.
    logits = torch.zeros(1, 5)
    logits[0, 2] = math.log(6)
    by_hand = -0.92 * math.log(0.6) - 0.08 * math.log(0.1)
    assert loss(model, logits, (), [True]) == pytest.approx(by_hand, rel=1e-6)


def test_ungraded_photographs_do_not_count_in_the_loss(model: InceptionV3) -> None:
    logits = torch.randn(2, 5)
    assert loss(model, logits, (), [True, False]) == pytest.approx(loss(model, logits[:1], (), [True]))
    assert loss(model, logits, (logits,), [False, False]) == 0


def test_mdrn_super_resolves_for_it() -> None:
    assert default_part_names("Inception-v3").isr == "MDRN"  # 299 px are more than the 256 of an LR photograph
