"""VGG-16: equal to its description."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deepmtdr.baselines.vgg16 import BLOCKS, VGG16

CONVOLUTIONS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
"""Indices of the convolutions in `features` of the published state-dict."""


def described(state: dict[str, Tensor], rgb: Tensor) -> Tensor:
    """Column D of the paper's Table 1."""
    mean, sd = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x, places = (rgb - mean[:, None, None]) / sd[:, None, None], iter(CONVOLUTIONS)
    for convolutions in (2, 2, 3, 3, 3):
        for _ in range(convolutions):
            place = next(places)
            x = F.conv2d(x, state[f"features.{place}.weight"], state[f"features.{place}.bias"], padding=1).relu()
        x = F.max_pool2d(x, 2)
    assert x.shape[1:] == (512, 7, 7)
    x = x.flatten(1)
    for place in (0, 3, 6):
        x = x @ state[f"classifier.{place}.weight"].T + state[f"classifier.{place}.bias"]
        x = x.relu() if place < 6 else x
    return x


@pytest.mark.slow
def test_logits_at_224_px_equal_those_of_the_published_description() -> None:
    model, rgb = VGG16().eval(), torch.rand(1, 3, 224, 224)
    with torch.no_grad():
        graded = model.grade(rgb, torch.zeros(1, 4, 224, 224))
        torch.testing.assert_close(graded.logits, described(model.state_dict(), rgb), atol=1e-5, rtol=1e-4)
    assert [feature.shape[-1] for feature in graded.features] == [224, 112, 56, 28, 14]


def test_convolutions_have_the_indices_of_the_published_state_dict() -> None:
    with torch.device("meta"):
        model = VGG16()
    found = [n for n, layer in enumerate(model.features) if isinstance(layer, nn.Conv2d)]
    assert found == list(CONVOLUTIONS)
    assert [type(layer) for layer in model.classifier if not isinstance(layer, nn.Linear)] == [nn.ReLU, nn.Dropout] * 2


def test_features_are_the_inputs_of_the_poolings() -> None:
    with torch.device("meta"):
        model = VGG16()
        features = model.extract_features(torch.zeros(1, 3, 64, 64))
    assert [(f.shape[1], f.shape[-1]) for f in features] == [(block[-1], 64 >> n) for n, block in enumerate(BLOCKS)]


def test_parameter_count_by_hand() -> None:
    with torch.device("meta"):
        model = VGG16()
    widths = (3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)
    convolutions = sum((9 * i + 1) * o for i, o in pairwise(widths))
    dense = (25_088 + 1) * 4096 + (4096 + 1) * 4096 + (4096 + 1) * 5
    assert convolutions == 14_714_688
    assert sum(parameter.numel() for parameter in model.parameters()) == convolutions + dense
