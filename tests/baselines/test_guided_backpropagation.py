"""Guided backpropagation: the rule by hand, equal to MONAI's, and its derivative for Eq. (5)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deepmtdr.baselines.guided_backpropagation import ReLUGradientMode, gradient_magnitude, image_gradient
from deepmtdr.model.grading import GradingConfig, GradingSubnet, dr_score
from deepmtdr.model.interfaces import GradingOutput
from grader_checks import PlainGrader

LESIONS = torch.zeros(1, 4, 16, 16)


class Relus(PlainGrader):
    """A grader built from modules, since MONAI replaces modules named `relu`."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv1, self.relu1 = nn.Conv2d(3, 6, 3, padding=1), nn.ReLU()
        self.conv2, self.relu2 = nn.Conv2d(6, 8, 3, 2, 1), nn.ReLU()
        self.fc = nn.Linear(8, 5)

    def forward(self, network_input: Tensor, lesions: Tensor | None = None) -> GradingOutput:
        fine = self.relu1(self.conv1(network_input))
        coarse = self.relu2(self.conv2(fine))
        return GradingOutput(self.fc(coarse.mean(dim=(2, 3))), (fine, coarse))


class Scored(nn.Module):
    """A grader with y_DR as its only class."""

    def __init__(self, grading: nn.Module) -> None:
        super().__init__()
        self.grading = grading

    def forward(self, network_input: Tensor) -> Tensor:
        return dr_score(self.grading(network_input, LESIONS.expand(len(network_input), -1, -1, -1)).logits)[:, None]


def slope(of: Callable[[Tensor], Tensor], at: float, *, guided: bool) -> float:
    x = torch.tensor([at], requires_grad=True)
    with ReLUGradientMode(guided=guided, softness=0.0):
        return torch.autograd.grad(of(x).sum(), x)[0].item()


@pytest.mark.parametrize(
    "relu",
    [F.relu, torch.relu, Tensor.relu, nn.ReLU(), nn.ReLU(inplace=True), lambda x: F.relu(x.clone(), inplace=True)],
    ids=["functional", "torch", "method", "module", "module in place", "in place"],
)
def test_only_positive_gradients_of_positive_inputs_pass(relu: Callable[[Tensor], Tensor]) -> None:
    # 5 relu(2 x) - 3 relu(x) at 1: the second path lowers the score and is blocked: 10; the true slope is 7.
    assert slope(lambda x: 5 * relu(2 * x) - 3 * relu(1 * x), 1.0, guided=True) == 10
    assert slope(lambda x: 5 * relu(2 * x) - 3 * relu(1 * x), 1.0, guided=False) == 7
    assert slope(lambda x: 5 * relu(2 * x), -1.0, guided=True) == 0


def test_forward_pass_is_that_of_relu() -> None:
    x = torch.tensor([-1.0, 0.0, 2.0])
    with ReLUGradientMode(guided=True, softness=0.1):
        assert F.relu(x).tolist() == [0, 0, 2]
        assert F.relu(input=x).tolist() == [0, 0, 2]


def test_gradient_equals_monais() -> None:
    """MONAI's is per channel, for one class and one photograph, by modules named `relu`, without the magnitude."""
    visualize = pytest.importorskip("monai.visualize")
    grading, frame = Relus().eval(), torch.randn(1, 3, 16, 16)
    theirs = visualize.GuidedBackpropGrad(Scored(grading))(frame.clone(), index=0)
    ours = image_gradient(grading, frame.clone().requires_grad_(), LESIONS, guided=True)
    plain = image_gradient(grading, frame.clone().requires_grad_(), LESIONS)
    assert torch.allclose(ours, theirs, rtol=1e-5, atol=1e-8)
    assert not torch.allclose(ours, plain, rtol=0.1)
    assert torch.allclose(plain, visualize.VanillaGrad(Scored(grading))(frame.clone(), index=0), rtol=1e-5, atol=1e-8)


def test_residual_network_is_guided_at_every_relu() -> None:
    """18 ReLUs: one for every convolution except the shortcuts, and one for the hidden layer."""
    relus = []

    class Counting(ReLUGradientMode):
        def passes(self, x: Tensor, gradient: Tensor) -> Tensor:
            relus.append(x.shape)
            return super().passes(x, gradient)

    grading = GradingSubnet(config=GradingConfig(width=2, hidden=4)).eval()
    frame = torch.randn(1, 3, 64, 64, requires_grad=True)
    with Counting(guided=True, softness=0.0):
        dr_score(grading(frame, torch.zeros(1, 4, 64, 64)).logits).sum().backward()
    assert len(relus) == 1 + 16 + 1


# Magnitude


def test_magnitude_is_summed_over_the_channels_and_1_at_the_99th_percentile() -> None:
    gradient = torch.zeros(1, 3, 10, 20)
    gradient[0, 0] = torch.arange(200.0).view(10, 20)
    gradient[0, 1] = -gradient[0, 0]
    magnitude = gradient_magnitude(gradient).flatten()
    assert magnitude[197:].tolist() == [1, 1, 1]  # the pixel of rank 197 = 0.99 * 199 has 2 * 197
    assert magnitude[100].item() == pytest.approx(100 / 197)


def test_percentile_is_constant_when_the_magnitude_is_differentiated() -> None:
    gradient = torch.arange(1.0, 601.0).view(1, 3, 10, 20).requires_grad_()
    (slopes,) = torch.autograd.grad(gradient_magnitude(gradient)[0, 0, 0, :5].sum(), gradient)
    assert (slopes[0, :, 0, :5] > 0).all() and (slopes != 0).sum() == 15


def test_magnitude_of_no_gradient_is_0_and_of_one_pixel_is_1() -> None:
    gradient = torch.zeros(2, 3, 20, 20)
    gradient[1, 2, 5, 7] = -1e-6
    magnitude = gradient_magnitude(gradient)
    assert not magnitude[0].any()
    assert magnitude[1, 0, 5, 7] == 1 and magnitude[1].sum() == 1


# The derivative of the gradient


def test_exact_derivative_is_zero_and_the_softened_one_is_not() -> None:
    """A network of ReLUs without LayerNorm is piecewise linear, so that the gradient's own gradient is 0."""
    grading = GradingSubnet(config=GradingConfig(width=2, hidden=4, head_norm=False)).eval()
    frame = torch.randn(1, 3, 64, 64, requires_grad=True)
    for guided in (True, False):
        maps = [
            image_gradient(grading, frame, torch.zeros(1, 4, 64, 64), guided=guided, create_graph=True, softness=s)
            for s in (0.0, 0.1)
        ]
        exact, soft = (torch.autograd.grad(m.square().sum(), frame, allow_unused=True)[0] for m in maps)
        assert torch.equal(*maps)
        assert exact is None or not exact.any()
        assert soft.any()


def test_softened_derivative_of_one_unit_by_hand() -> None:
    # d(3 relu(2 x))/dx = 6 [2 x > 0]; the step's slope at 2 x = 0.1 with softness 0.1: s (1 - s) / 0.1, s = sigmoid(1).
    x = torch.tensor([0.05], dtype=torch.float64, requires_grad=True)
    with ReLUGradientMode(guided=True, softness=0.1):
        (gradient,) = torch.autograd.grad((3 * F.relu(2 * x)).sum(), x, create_graph=True)
    assert gradient.item() == 6
    s = torch.sigmoid(torch.tensor(1.0, dtype=torch.float64)).item()
    assert torch.autograd.grad(gradient.sum(), x)[0].item() == pytest.approx(6 * 2 * s * (1 - s) / 0.1)


def test_softened_derivative_of_a_layer_equals_that_of_soft_steps() -> None:
    torch.manual_seed(2)
    into, out, weight = (torch.randn(*size, dtype=torch.float64) for size in ((7, 4), (7,), (4,)))
    x = torch.randn(4, dtype=torch.float64, requires_grad=True)
    with ReLUGradientMode(guided=False, softness=0.3):
        (gradient,) = torch.autograd.grad((out * F.relu(into @ x)).sum(), x, create_graph=True)
    (ours,) = torch.autograd.grad((weight * gradient).sum(), x)

    def softly(at: Tensor) -> float:
        return (weight * ((out * torch.sigmoid(into @ at / 0.3)) @ into)).sum().item()

    with torch.no_grad():
        ahead, behind = (torch.tensor([softly(x + s * e) for e in torch.eye(4)]) for s in (1e-5, -1e-5))
    assert torch.allclose(ours.float(), (ahead - behind) / 2e-5, rtol=1e-2, atol=1e-2)


def test_gradients_computed_later_use_the_true_derivative() -> None:
    """The derivative of the evidence, through batch norm's statistics, is not guided: equal to finite differences."""
    torch.manual_seed(4)
    grading = GradingSubnet(config=GradingConfig(width=2, hidden=4, dropout=0.0)).double().train()
    frame, lesions = torch.randn(2, 3, 64, 64, dtype=torch.float64, requires_grad=True), torch.zeros(2, 4, 64, 64)
    weight, direction = torch.randn_like(frame), torch.randn_like(frame)

    def weighted(image: Tensor, create_graph: bool = False) -> Tensor:
        how = {"guided": True, "create_graph": create_graph, "softness": 0.0}
        return (weight * image_gradient(grading, image, lesions.double(), **how)).sum()

    (ours,) = torch.autograd.grad(weighted(frame, create_graph=True), frame)
    ahead, behind = (weighted((frame.detach() + s * direction).requires_grad_()).item() for s in (1e-7, -1e-7))
    assert (ours * direction).sum().item() == pytest.approx((ahead - behind) / 2e-7, rel=1e-4)
