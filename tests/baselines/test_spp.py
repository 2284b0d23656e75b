"""The four networks of Fig. 3 (a) with SPP: any resolution, the same trunk as without SPP."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from deepmtdr.baselines.densenet121 import DenseNet121
from deepmtdr.baselines.resnet18 import ResNet18
from deepmtdr.baselines.spp import CELLS, VGG16SPP, DenseNet121SPP, ResNet18SPP, SqueezeNetSPP
from deepmtdr.baselines.squeezenet import SqueezeNet
from deepmtdr.baselines.vgg16 import VGG16
from deepmtdr.model.interfaces import Grader
from deepmtdr.model.preprocessing import rgb_to_input

PLAIN: dict[type[Grader], type[Grader]] = {
    VGG16SPP: VGG16, SqueezeNetSPP: SqueezeNet, ResNet18SPP: ResNet18, DenseNet121SPP: DenseNet121,
}  # fmt: skip
SLOWLY = [kind if kind is not VGG16SPP else pytest.param(kind, marks=pytest.mark.slow) for kind in PLAIN]
DENSE = {VGG16SPP: ("classifier.0.", 512), SqueezeNetSPP: ("classifier.1.", 512), ResNet18SPP: ("spp_fc.", 512),
         DenseNet121SPP: ("classifier.", 1024)}  # fmt: skip
"""The layer after the pyramid, and the channels before it."""


def nothing(frame: Tensor) -> Tensor:
    return frame.new_zeros(len(frame), 4, *frame.shape[2:])


@pytest.mark.parametrize("kind", PLAIN)
def test_dense_layer_has_21_cells_of_every_channel_as_input(kind: type[Grader]) -> None:
    with torch.device("meta"):
        state = kind().state_dict()
    name, channels = DENSE[kind]
    assert CELLS == 21
    assert state[f"{name}weight"].shape[1] == 21 * channels


@pytest.mark.parametrize("kind", SLOWLY)
@pytest.mark.parametrize("side", [64, 80, 128, 256])
def test_frames_of_any_size_are_graded_without_resizing(kind: type[Grader], side: int) -> None:
    model, frame = kind().eval(), rgb_to_input(torch.rand(1, 3, side, side))
    with torch.no_grad():
        graded = model(frame, nothing(frame))
    assert graded.logits.shape == (1, 5)
    assert graded.logits.isfinite().all()
    stride = 32 if kind in (ResNet18SPP, DenseNet121SPP) else 16
    assert graded.features[-1].shape[-1] == pytest.approx(side / stride, abs=1)


@pytest.mark.parametrize("kind", SLOWLY)
def test_weights_before_the_pyramid_are_those_of_the_network_without_spp(kind: type[Any]) -> None:
    plain, model, frame = PLAIN[kind]().eval(), kind().eval(), torch.rand(1, 3, 96, 96)
    model.load_imagenet(plain.state_dict())
    with torch.no_grad():
        graded, other = (network.grade(frame, nothing(frame)) for network in (model, plain))
    assert model.channels == plain.channels
    for ours, theirs in zip(graded.features, other.features, strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("kind", SLOWLY)
def test_published_weights_do_not_change_the_last_layer(kind: type[Any]) -> None:
    model, name = kind(), f"{DENSE[kind][0]}weight"
    before = model.state_dict()[name].clone()
    model.load_imagenet(PLAIN[kind]().state_dict())
    assert torch.equal(model.state_dict()[name], before)


@pytest.mark.parametrize("kind", [SqueezeNetSPP, ResNet18SPP, DenseNet121SPP])
def test_logits_equal_those_of_cells_pooled_by_hand(kind: type[Grader]) -> None:
    model, frame = kind().eval(), torch.rand(1, 3, 256, 256)
    with torch.no_grad():
        graded = model.grade(frame, nothing(frame))
    last, cells = graded.features[-1][0], []
    side = last.shape[-1]
    for level in (4, 2, 1):
        edges = [(i * side // level, -(-(i + 1) * side // level)) for i in range(level)]
        grid = [[last[:, a:b, c:d].amax(dim=(1, 2)) for c, d in edges] for a, b in edges]
        cells.append(torch.stack([torch.stack(row, dim=1) for row in grid], dim=1).flatten())
    state, (name, _) = model.state_dict(), DENSE[kind]
    by_hand = state[f"{name}weight"] @ torch.cat(cells) + state[f"{name}bias"]
    torch.testing.assert_close(graded.logits[0], by_hand, atol=1e-5, rtol=1e-4)
