"""DenseNet-121: equal to its description and to MONAI's; both published files load."""

from __future__ import annotations

import re
import warnings

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from deepmtdr.baselines.densenet121 import DenseLayer, DenseNet121, Transition
from grader_checks import randomise_batch_norms


@pytest.fixture(scope="module")
def model() -> DenseNet121:
    """The network with batch norms that change their input."""
    torch.manual_seed(0)
    made = DenseNet121().eval()
    randomise_batch_norms(made)
    return made


def imagenet_normalised(rgb: Tensor) -> Tensor:
    mean, sd = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return (rgb - mean[:, None, None]) / sd[:, None, None]


def described(state: dict[str, Tensor], rgb: Tensor) -> Tensor:
    """DenseNet-BC of the paper's Table 1."""

    def activated(x: Tensor, name: str) -> Tensor:
        mean, variance, weight, bias = (
            state[f"features.{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return F.batch_norm(x, mean, variance, weight, bias).relu()

    def conv(x: Tensor, name: str, stride: int = 1) -> Tensor:
        weight = state[f"features.{name}.weight"]
        return F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)

    x = F.max_pool2d(activated(conv(imagenet_normalised(rgb), "conv0", 2), "norm0"), 3, 2, 1)
    for block, layers in enumerate((6, 12, 24, 16), 1):
        for layer in range(1, layers + 1):
            name = f"denseblock{block}.denselayer{layer}"
            new = conv(activated(x, f"{name}.norm1"), f"{name}.conv1")
            x = torch.cat([x, conv(activated(new, f"{name}.norm2"), f"{name}.conv2")], dim=1)
        if block < 4:
            x = conv(activated(x, f"transition{block}.norm"), f"transition{block}.conv")
            x = F.avg_pool2d(x, 2)
    x = activated(x, "norm5").mean(dim=(2, 3))
    return x @ state["classifier.weight"].T + state["classifier.bias"]


def test_logits_equal_those_of_the_published_description(model: DenseNet121) -> None:
    rgb = torch.rand(2, 3, 96, 96)
    with torch.no_grad():
        logits = model.grade(rgb, torch.zeros(2, 4, 96, 96)).logits
        torch.testing.assert_close(logits, described(model.state_dict(), rgb), atol=1e-4, rtol=1e-4)


def test_logits_equal_monais_with_the_same_weights(model: DenseNet121) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        densenet = pytest.importorskip("monai.networks.nets.densenet")
        theirs = densenet.DenseNet121(spatial_dims=2, in_channels=3, out_channels=5).eval()
    names = {re.sub(r"(denselayer\d+)\.", r"\1.layers.", name): tensor for name, tensor in model.state_dict().items()}
    names = {re.sub(r"^classifier\.", "class_layers.out.", name): tensor for name, tensor in names.items()}
    theirs.load_state_dict(names)
    rgb = torch.rand(2, 3, 128, 128)
    with torch.no_grad():
        logits = model.grade(rgb, torch.zeros(2, 4, 128, 128)).logits
        torch.testing.assert_close(logits, theirs(imagenet_normalised(rgb)), atol=1e-5, rtol=1e-5)


def test_dense_layer_keeps_its_input_and_adds_its_growth_rate() -> None:
    x = torch.rand(2, 64, 4, 4)
    y = DenseLayer(64)(x)
    assert y.shape == (2, 96, 4, 4)
    assert torch.equal(y[:, :64], x)


def test_transition_halves_channels_and_size() -> None:
    activated, halved = Transition(8).eval()(torch.rand(1, 8, 4, 4) - 0.5)
    assert activated.shape == (1, 8, 4, 4)
    assert halved.shape == (1, 4, 2, 2)
    assert activated.min() == 0


def test_channels_before_each_transition_by_hand() -> None:
    with torch.device("meta"):
        # 64 + 6 x 32 = 256, halved; 128 + 12 x 32 = 512; 256 + 24 x 32 = 1,024; 512 + 16 x 32 = 1,024.
        assert DenseNet121().channels == (64, 256, 512, 1024, 1024)


def test_the_first_published_file_loads_too() -> None:
    model, other = DenseNet121(), DenseNet121()
    first = {re.sub(r"(denselayer\d+\.(?:norm|conv))([12])\.", r"\1.\2.", k): v for k, v in other.state_dict().items()}
    assert "features.denseblock1.denselayer1.norm.1.weight" in first
    model.load_imagenet(first)
    ours, theirs = model.state_dict(), other.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours if not name.startswith("classifier."))
