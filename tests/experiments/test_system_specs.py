"""Receptive fields against values worked by hand; the list of systems is complete."""

from __future__ import annotations

import pytest
from torch import Tensor, nn

from deepmtdr.baselines.bicubic import Bicubic
from deepmtdr.experiments.system_specs import SUBNET_OF_TASK, list_systems, receptive_field, trace_shapes
from deepmtdr.losses import LesionLabels, LossWeights
from deepmtdr.model.deepmtdr import DeepMTDR, ModelConfig, Parts
from deepmtdr.model.interfaces import DEFAULT_WEIGHTS, Segmenter
from deepmtdr.systems import (
    GRADERS,
    MULTI_TASK_SYSTEMS,
    SEGMENTERS,
    SUPER_RESOLVERS,
    SYSTEMS,
    PartNames,
    build_system,
)

UNUSED = ("upscaling.2.", "to_rgb.2.", "to_rgb.8.", "cells.")
"""Parameters that are used at x2 and x8 only, or for frames larger than 256 px (MMCNN)."""


class Layers(Segmenter):
    """A segmentation network of a few layers."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, network_input: Tensor) -> Tensor:
        return self.layers(network_input)

    def loss(self, classes: Tensor, labels: LesionLabels, weights: LossWeights = DEFAULT_WEIGHTS) -> Tensor:
        return classes.mean()


PLAIN = Layers(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 5, 3, padding=1), nn.Softmax(dim=1))
DILATED = Layers(nn.Conv2d(3, 5, 3, padding=4, dilation=4), nn.Sigmoid())
POOLED = Layers(
    nn.Conv2d(3, 4, 3, padding=1),
    nn.MaxPool2d(2),
    nn.Conv2d(4, 5, 3, padding=1),
    nn.Upsample(scale_factor=2),
)


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        (PLAIN, 5),  # 3 + 2
        (DILATED, 9),  # 1 + 2 * 4
        (POOLED, 8),  # 3 cells of 2 px, and one px on either side
    ],
)
def test_receptive_field_equals_the_one_worked_by_hand(network: Layers, expected: int) -> None:
    assert receptive_field(DeepMTDR(parts=Parts(Bicubic(), network, None)), "segmentation", 64) == expected


def test_receptive_field_over_the_border_is_none() -> None:
    assert receptive_field(DeepMTDR(parts=Parts(Bicubic(), DILATED, None)), "segmentation", 8) is None


def test_receptive_field_of_srcnn_is_13_px_of_the_enlarged_image() -> None:
    # 9 + 1 + 5 - 2 = 13 px at x2; bicubic interpolation makes each of them from 4 px: 7 + 3 px of the LR image.
    assert receptive_field(build_system("SRCNN", PartNames(), ModelConfig()), "isr", 64) == 10


def test_list_has_the_sizes_of_known_systems() -> None:
    rows = {(one.name, one.task): one for one in list_systems()}
    assert rows["MMCNN", "grading"].sizes == (224, 448, 720) and rows["MMCNN", "grading"].before == "MDRN"
    assert rows["ResNet-18", "grading"] == ("ResNet-18", "grading", 11_176_512 + 513 * 5, 11.69, (224,), "bicubic")
    assert rows["ResNet-18 + SPP", "grading"].sizes == ()
    assert rows["Mahapatra et al.", "super-resolution"].parameters < 1_000_000  # its discriminator has 23 million


def test_every_system_is_listed_once_for_each_of_its_tasks() -> None:
    rows = [(one.name, one.task) for one in list_systems()]
    assert len(rows) == len(set(rows))
    assert {name for name, _ in rows} == set(SYSTEMS)
    tasks = ("super-resolution", "segmentation", "grading")
    expected = {(name, task) for name in MULTI_TASK_SYSTEMS for task in tasks}
    for kinds, task in zip((SUPER_RESOLVERS, SEGMENTERS, GRADERS), tasks, strict=True):
        expected |= {(name, task) for name in kinds}
    assert set(rows) == expected


def test_shapes_of_a_forward_and_backward_pass() -> None:
    ours = build_system("DeepMT-DR", PartNames(), ModelConfig())
    assert trace_shapes(ours, "isr", 64)[:3] == ((3, 16, 16), (3, 64, 64), (3, 16, 16))
    assert trace_shapes(ours, "segmentation", 64)[:3] == ((3, 64, 64), (5, 64, 64), (3, 64, 64))
    assert trace_shapes(ours, "grading", 64)[:3] == ((3, 64, 64), (5,), (3, 64, 64))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "subnet"), [(one.name, SUBNET_OF_TASK[one.task]) for one in list_systems()])
def test_gradient_reaches_all_parameters_that_this_scale_and_frame_use(name: str, subnet: str) -> None:
    model = build_system(name, PartNames(), ModelConfig())
    found = trace_shapes(model, subnet)
    unused = [p for key, _ in model.subnets[subnet].named_parameters() for p in UNUSED if key.startswith(p)]
    assert found.tensors - found.reached == len(unused)
