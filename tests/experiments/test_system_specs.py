"""How far a network looks, found and worked by hand; every system in the list once for each of its tasks."""

from __future__ import annotations

import pytest
from torch import nn

from deepmtdr.experiments.system_specs import SUBNET_OF_TASK, list_systems, receptive_field, trace_shapes
from deepmtdr.model.deepmtdr import DeepMTDR, ModelConfig, Parts
from deepmtdr.model.segmentation import CLASSES
from deepmtdr.systems import (
    GRADERS,
    MULTI_TASK_SYSTEMS,
    SEGMENTERS,
    SUPER_RESOLVERS,
    SYSTEMS,
    Bicubic,
    PartNames,
    build_system,
)

ASIDE = ("upscaling.2.", "to_rgb.2.", "to_rgb.8.", "cells.")
"""Parameters that serve x2 and x8 alone, or frames larger than 256 px (MMCNN)."""

PLAIN = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, CLASSES, 3, padding=1), nn.Softmax(dim=1))
DILATED = nn.Sequential(nn.Conv2d(3, CLASSES, 3, padding=4, dilation=4), nn.Sigmoid())
POOLED = nn.Sequential(
    nn.Conv2d(3, 4, 3, padding=1), nn.MaxPool2d(2), nn.Conv2d(4, CLASSES, 3, padding=1), nn.Upsample(scale_factor=2)
)


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        (PLAIN, 5),  # 3 + 2
        (DILATED, 9),  # 1 + 2 * 4
        (POOLED, 8),  # 3 cells of 2 px, and one px on either side
    ],
)
def test_a_receptive_field_is_the_one_worked_by_hand(network: nn.Module, expected: int) -> None:
    assert receptive_field(DeepMTDR(parts=Parts(Bicubic(), network, None)), "segmentation", 64) == expected


def test_a_field_that_reaches_over_the_border_is_not_told() -> None:
    assert receptive_field(DeepMTDR(parts=Parts(Bicubic(), DILATED, None)), "segmentation", 8) is None


def test_srcnn_looks_at_13_px_of_the_enlarged_image() -> None:
    # 9 + 1 + 5 - 2 = 13 px at x2, each of which bicubic interpolation makes of 4 px: 7 + 3 of the LR image.
    assert receptive_field(build_system("SRCNN", PartNames(), ModelConfig()), "isr", 64) == 10


def test_what_the_list_says_of_a_system() -> None:
    rows = {(one.name, one.task): one for one in list_systems()}
    assert rows["MMCNN", "grading"].sizes == (224, 448, 720) and rows["MMCNN", "grading"].before == "MDRN"
    assert rows["ResNet-18", "grading"] == ("ResNet-18", "grading", 11_176_512 + 513 * 5, 11.69, (224,), "bicubic")
    assert rows["ResNet-18 + SPP", "grading"].sizes == ()
    assert rows["Mahapatra et al.", "super-resolution"].parameters < 1_000_000  # its adversary has 23 million


def test_every_system_is_listed_once_for_each_of_its_tasks() -> None:
    rows = [(one.name, one.task) for one in list_systems()]
    assert len(rows) == len(set(rows))
    assert {name for name, _ in rows} == set(SYSTEMS)
    tasks = ("super-resolution", "segmentation", "grading")
    expected = {(name, task) for name in MULTI_TASK_SYSTEMS for task in tasks}
    for kinds, task in zip((SUPER_RESOLVERS, SEGMENTERS, GRADERS), tasks, strict=True):
        expected |= {(name, task) for name in kinds}
    assert set(rows) == expected


def test_a_pass_there_and_back_has_the_shapes_of_its_box() -> None:
    ours = build_system("DeepMT-DR", PartNames(), ModelConfig())
    assert trace_shapes(ours, "isr", 64)[:3] == ((3, 16, 16), (3, 64, 64), (3, 16, 16))
    assert trace_shapes(ours, "segmentation", 64)[:3] == ((3, 64, 64), (CLASSES, 64, 64), (3, 64, 64))
    assert trace_shapes(ours, "grading", 64)[:3] == ((3, 64, 64), (5,), (3, 64, 64))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "box"), [(one.name, SUBNET_OF_TASK[one.task]) for one in list_systems()])
def test_the_gradient_reaches_all_that_serves_this_scale_and_frame(name: str, box: str) -> None:
    model = build_system(name, PartNames(), ModelConfig())
    found = trace_shapes(model, box)
    aside = [p for key, _ in getattr(model, box).named_parameters() for p in ASIDE if key.startswith(p)]
    assert found.tensors - found.reached == len(aside)
