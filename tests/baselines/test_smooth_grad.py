"""SmoothGrad: equal to MONAI's, and the effect of the noise."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from deepmtdr.baselines import smooth_grad
from deepmtdr.baselines.bicubic import Bicubic
from deepmtdr.baselines.guided_backpropagation import gradient_magnitude, image_gradient
from deepmtdr.baselines.smooth_grad import SmoothGrad, gaussian_noise, value_range
from deepmtdr.model.deepmtdr import DeepMTDR, Parts
from deepmtdr.model.grading import dr_score
from deepmtdr.model.interfaces import GradingOutput
from grader_checks import PlainGrader

LESIONS = torch.zeros(1, 4, 16, 16)


class Plain(PlainGrader):
    """A grader whose input is the frame itself."""

    channels = (6,)

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.fc = nn.Conv2d(3, 6, 3, padding=1), nn.Linear(6, 5)

    def forward(self, network_input: Tensor, lesions: Tensor | None = None) -> GradingOutput:
        features = self.conv(network_input).relu()
        return GradingOutput(self.fc(features.square().mean(dim=(2, 3))), (features,))


class Scored(nn.Module):
    def __init__(self, grading: nn.Module) -> None:
        super().__init__()
        self.grading = grading

    def forward(self, network_input: Tensor) -> Tensor:
        return dr_score(self.grading(network_input).logits)[:, None]


def model_of(**sizes: Any) -> DeepMTDR:
    return DeepMTDR(None, Parts(Bicubic(), None, Plain(), SmoothGrad(**sizes))).eval()


def test_mean_gradient_equals_monais(monkeypatch: pytest.MonkeyPatch) -> None:
    """With `magnitude=False`, for one photograph; MONAI's default is the root of the summed squares over n."""
    visualize = pytest.importorskip("monai.visualize")
    model, frame = model_of(samples=4, noise_level=0.2), torch.rand(1, 3, 16, 16)
    torch.manual_seed(7)
    monai = visualize.SmoothGrad(Scored(model.grading), 0.2, n_samples=4, magnitude=False, verbose=False)
    theirs = monai(frame.clone(), index=0)
    torch.manual_seed(7)
    monkeypatch.setattr(smooth_grad, "gaussian_noise", lambda like, seed: torch.randn_like(like))
    _, ours = model.predict(frame, scale=1)
    assert torch.allclose(ours, gradient_magnitude(theirs), rtol=1e-4, atol=1e-5)


def test_without_noise_it_equals_the_gradient() -> None:
    model, frame = model_of(samples=2, noise_level=0.0), torch.rand(1, 3, 16, 16)
    plain = image_gradient(model.grading, frame.clone().requires_grad_(), LESIONS)
    assert torch.allclose(model.predict(frame, scale=1)[1], gradient_magnitude(plain), atol=1e-6)


def test_more_copies_come_closer_to_the_limit() -> None:
    frame = torch.rand(1, 3, 16, 16)
    everything = model_of(samples=400).predict(frame, scale=1)[1]
    distances = [(model_of(samples=n).predict(frame, scale=1)[1] - everything).abs().mean() for n in (1, 8, 64)]
    assert distances[0] > distances[1] > distances[2]


def test_noise_depends_on_the_copy_only() -> None:
    like = torch.zeros(3, 3, 32, 32)
    dice = torch.get_rng_state()
    assert gaussian_noise(like, 1).shape == (1, 3, 32, 32)
    assert torch.equal(gaussian_noise(like, 1), gaussian_noise(like[:1], 1))
    assert not torch.equal(gaussian_noise(like, 1), gaussian_noise(like, 2))
    assert gaussian_noise(like, 1).std().item() == pytest.approx(1, abs=0.05)
    assert torch.equal(torch.get_rng_state(), dice)


def test_value_range_is_that_of_each_image() -> None:
    image = torch.stack([torch.linspace(0, 1, 12), torch.linspace(-3, 3, 12)]).view(2, 3, 2, 2)
    assert value_range(image).flatten().tolist() == [1, 6]


def test_checkpointing_the_copies_does_not_change_the_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    gradients = []
    for again in (True, False):
        if not again:
            monkeypatch.setattr(smooth_grad, "checkpoint", lambda of, *args, use_reentrant: of(*args))
        model = model_of(samples=3).train()
        torch.manual_seed(2)
        frame = torch.rand(2, 3, 16, 16, requires_grad=True)
        evidence = model.evidence(model.segment_and_grade(frame), create_graph=True)
        gradients.append(torch.autograd.grad(evidence.square().sum(), frame)[0])
    assert gradients[0].any() and torch.allclose(*gradients, rtol=1e-4, atol=1e-7)


def test_graph_keeps_only_the_image_of_each_copy() -> None:
    """Memory grows by about the image and the mean of each copy, for any network: 8 copies against 2."""
    kept = []
    for samples in (2, 8):
        model, frame = model_of(samples=samples), torch.rand(1, 3, 16, 16, requires_grad=True)
        sizes: list[int] = []

        def note(tensor: Tensor, sizes: list[int] = sizes) -> Tensor:
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            model.evidence_method(model.grading, model.segment_and_grade(frame), create_graph=True)  # pyright: ignore[reportOptionalCall]
        kept.append(sum(sizes))
    assert (kept[1] - kept[0]) / 6 <= 2 * 3 * 16 * 16
