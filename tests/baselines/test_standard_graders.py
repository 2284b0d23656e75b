"""Checks common to the standard ImageNet networks: published names, sizes, gradients, learning."""

from __future__ import annotations

import hashlib
import math
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from deepmtdr.baselines.densenet121 import DenseNet121
from deepmtdr.baselines.inception_v3 import InceptionV3
from deepmtdr.baselines.resnet18 import ResNet18
from deepmtdr.baselines.spp import VGG16SPP, DenseNet121SPP, ResNet18SPP, SqueezeNetSPP
from deepmtdr.baselines.squeezenet import SqueezeNet, SqueezeNet11
from deepmtdr.baselines.vgg16 import VGG16
from deepmtdr.losses import GradeLabels
from deepmtdr.model.deepmtdr import DeepMTDR, ModelConfig, Parts
from deepmtdr.model.gmsv import GMSVConfig
from deepmtdr.model.interfaces import Grader
from deepmtdr.model.isr import ISRConfig, ISRSubnet
from deepmtdr.model.preprocessing import rgb_to_input
from deepmtdr.synthetic.drawings import draw_photograph
from deepmtdr.terms import Grade


class Listing(NamedTuple):
    """Facts about the published ImageNet state-dict in PyTorch, without the batch counters."""

    tensors: int
    parameters: int
    digest: str
    """Beginning of the SHA-256 of its sorted lines "name shape"."""
    last: tuple[str, ...]
    """Prefixes of the layers with 1,000 classes."""


PUBLISHED: dict[type[Grader], Listing] = {
    InceptionV3: Listing(484, 27_161_264, "b57ada785681682b", ("fc.", "AuxLogits.fc.")),
    DenseNet121: Listing(606, 7_978_856, "222a58d1fd8d2818", ("classifier.",)),
    VGG16: Listing(32, 138_357_544, "ba63c2556d912509", ("classifier.6.",)),
    SqueezeNet: Listing(52, 1_248_424, "142983e4c19c76ad", ("classifier.",)),
    SqueezeNet11: Listing(52, 1_235_496, "3fbd2a746421cada", ("classifier.",)),
    ResNet18: Listing(102, 11_689_512, "2bb53b15765c4651", ("fc.",)),
}
PYRAMIDS: dict[type[Grader], tuple[type[Grader], str]] = {
    DenseNet121SPP: (DenseNet121, "classifier."),
    VGG16SPP: (VGG16, "classifier."),
    SqueezeNetSPP: (SqueezeNet, "classifier."),
    ResNet18SPP: (ResNet18, "spp_fc."),
}
SMALL: list[type[Grader]] = [DenseNet121, SqueezeNet, SqueezeNet11, DenseNet121SPP, SqueezeNetSPP, ResNet18SPP]
"""Networks that are small enough to be trained in a test; VGG-16 and Inception-v3 are marked slow."""
ALL = [*PUBLISHED, *PYRAMIDS]
LARGE = {VGG16, VGG16SPP, InceptionV3}
SLOWLY = [kind if kind not in LARGE else pytest.param(kind, marks=pytest.mark.slow) for kind in ALL]

LEARNT = math.log(2) / 2
"""If the cross-entropy of two photographs is below this, both true grades have a probability above a half."""


@pytest.fixture
def shrunk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Native sizes of 64 px in place of 224: the networks are the same, the test is faster."""
    for kind in (DenseNet121, VGG16, SqueezeNet, ResNet18):
        monkeypatch.setattr(kind, "size", 64)


def with_classes(name: str, tensor: Tensor, last: tuple[str, ...]) -> tuple[int, ...]:
    """The shape of a tensor in a network with 1,000 classes."""
    shape = tuple(tensor.shape)
    return (1000, *shape[1:]) if name.startswith(last) else shape


def on_paper(kind: type[Grader]) -> dict[str, Tensor]:
    """Names and shapes without the weights."""
    with torch.device("meta"):
        return {k: v for k, v in kind().state_dict().items() if not k.endswith("num_batches_tracked")}


def imagenet(kind: type[Grader]) -> dict[str, Tensor]:
    """A state-dict as published, with other weights and 1,000 classes."""
    last = PUBLISHED[kind].last
    return {k: torch.rand(with_classes(k, v, last)) for k, v in on_paper(kind).items()}


def photographs() -> tuple[Tensor, Tensor]:
    """Network inputs from a drawn eye without and one with retinopathy, 64 px."""
    drawn = [draw_photograph(seed, grade, 64).photograph for seed, grade in ((0, Grade.NEGATIVE), (4, Grade.SEVERE))]
    resized = [np.asarray(Image.fromarray(image).resize((64, 64), Image.Resampling.BICUBIC)) for image in drawn]
    frames = torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2) / 255
    return rgb_to_input(frames), torch.tensor([0, 3])


def loss_of(model: Grader, network_input: Tensor, grade: Tensor) -> Tensor:
    graded = model(network_input, network_input.new_zeros(len(network_input), 4, *network_input.shape[2:]))
    return model.loss(graded, GradeLabels(grade, torch.ones_like(grade, dtype=torch.bool)))


@pytest.mark.parametrize("kind", PUBLISHED)
def test_names_and_shapes_are_those_of_the_published_imagenet_state_dict(kind: type[Grader]) -> None:
    published, state = PUBLISHED[kind], on_paper(kind)
    lines = sorted(f"{k} {with_classes(k, v, published.last)}" for k, v in state.items())
    assert len(lines) == published.tensors
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest().startswith(published.digest)


@pytest.mark.parametrize("kind", PUBLISHED)
def test_parameter_count_is_the_published_one_with_a_thousand_classes(kind: type[Grader]) -> None:
    with torch.device("meta"):
        named = dict(kind().named_parameters())
    count = sum(torch.Size(with_classes(k, v, PUBLISHED[kind].last)).numel() for k, v in named.items())
    assert count == PUBLISHED[kind].parameters
    assert kind.published_parameters == pytest.approx(count / 1e6, abs=0.005)


@pytest.mark.parametrize("kind", ALL)
def test_channels_are_those_of_the_features_from_fine_to_coarse_after_their_relu(
    kind: type[Grader], shrunk: None
) -> None:
    model, network_input = kind().eval(), torch.rand(1, 3, 64, 64) * 6 - 3
    with torch.no_grad():
        graded = model(network_input, torch.zeros(1, 4, 64, 64))
    assert graded.logits.shape == (1, 5)
    assert graded.logits.sum().item() == pytest.approx(0, abs=1e-5)
    assert tuple(feature.shape[1] for feature in graded.features) == model.channels
    sides = [feature.shape[-1] for feature in graded.features]
    assert sides == sorted(sides, reverse=True)
    assert len(set(sides)) == len(sides)
    assert all((feature >= 0).all() and (feature == 0).any() for feature in graded.features)


@pytest.mark.parametrize("kind", SLOWLY)
def test_every_parameter_gets_a_finite_gradient_from_the_loss(kind: type[Grader], shrunk: None) -> None:
    model = kind().train()
    loss_of(model, *photographs()).backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert [name for name, gradient in gradients.items() if gradient is None or not gradient.isfinite().all()] == []
    live = sum(bool(gradient.any()) for gradient in gradients.values() if gradient is not None)
    assert live > 0.9 * len(gradients)


@pytest.mark.parametrize("kind", SLOWLY)
def test_logits_in_half_precision_are_close_to_those_in_single_precision(kind: type[Grader], shrunk: None) -> None:
    model, (network_input, grade) = kind().eval(), photographs()
    lesions = torch.zeros(2, 4, 64, 64)
    with torch.no_grad():
        full = model(network_input, lesions).logits
        with torch.autocast("cpu", torch.bfloat16):
            half = model(network_input, lesions).logits
            assert loss_of(model, network_input, grade).isfinite()
    assert half.dtype == torch.float32
    assert (half - full).abs().max() < 0.05 * full.abs().max() + 0.02


@pytest.mark.parametrize("kind", SLOWLY)
def test_it_overfits_two_drawn_photographs(kind: type[Grader], shrunk: None) -> None:
    torch.manual_seed(1)  # the ReLU after the last layer of SqueezeNet can lose a grade for good: not from this start
    model, (network_input, grade) = kind().train(), photographs()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-5 if kind in LARGE else 3e-4)
    entropies: list[float] = []
    while len(entropies) < 100 and (not entropies or entropies[-1] >= LEARNT):
        optimiser.zero_grad()
        graded = model(network_input, torch.zeros(2, 4, 64, 64))
        model.loss(graded, GradeLabels(grade, torch.ones(2, dtype=torch.bool))).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        entropies.append(float(nn.functional.cross_entropy(graded.logits.detach(), grade)))
    assert entropies[-1] < LEARNT, entropies


@pytest.mark.parametrize("kind", [k if k is not VGG16 else pytest.param(k, marks=pytest.mark.slow) for k in PUBLISHED])
def test_published_weights_load_except_for_the_last_layer(kind: type[Any]) -> None:
    model, state = kind(), imagenet(kind)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.load_imagenet(state)
    last = PUBLISHED[kind].last
    for name, tensor in model.state_dict().items():
        kept = name.startswith(last) or name.endswith("num_batches_tracked")
        assert torch.equal(tensor, before[name] if kept else state[name]), name


@pytest.mark.parametrize("kind", [k if k is not VGG16 else pytest.param(k, marks=pytest.mark.slow) for k in PUBLISHED])
def test_wrong_published_weights_are_an_error_and_change_nothing(kind: type[Any]) -> None:
    model, state = kind(), imagenet(kind)
    name = next(name for name in state if not name.startswith(PUBLISHED[kind].last))
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    with pytest.raises(ValueError, match=f"{name} is missing"):
        model.load_imagenet({key: tensor for key, tensor in state.items() if key != name})
    with pytest.raises(ValueError, match=rf"{name} is \(1,\), expected"):
        model.load_imagenet({**state, name: torch.zeros(1)})
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())


@pytest.mark.parametrize("kind", SMALL)
def test_evidence_has_the_size_of_the_frame(kind: type[Grader], shrunk: None) -> None:
    config = ModelConfig(isr=ISRConfig(width=4, blocks=1), gmsv=GMSVConfig())
    model = DeepMTDR(config, Parts(ISRSubnet(config.isr), None, kind(), task_aware=False)).eval()
    prediction, evidence = model.predict(torch.rand(1, 3, 24, 24), scale=4)
    assert prediction.grade_logits.shape == (1, 5)
    assert evidence.shape == (1, 1, 96, 96)
    assert evidence.isfinite().all()
    assert 0 <= evidence.min() <= evidence.max() <= 1


@pytest.mark.parametrize("kind", [DenseNet121, SqueezeNet])
def test_same_seed_gives_the_same_network(kind: type[Grader], shrunk: None) -> None:
    network_input, grade = photographs()
    losses = []
    for _ in range(2):
        torch.manual_seed(3)
        losses.append(float(loss_of(kind().train(), network_input, grade).detach()))
    assert losses[0] == losses[1]
