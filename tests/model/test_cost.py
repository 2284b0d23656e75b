"""Parameters and operations of each subnet, against numbers worked by hand."""

from __future__ import annotations

import pytest

from deepmtdr.model.cost import count_cost
from deepmtdr.model.deepmtdr import DeepMTDR, ModelConfig
from deepmtdr.model.grading import GradingConfig
from deepmtdr.model.segmentation import SegmentationConfig

SMALL = ModelConfig(segmentation=SegmentationConfig(width=4), grading=GradingConfig(width=4, hidden=8))


def test_operations_of_the_isr_subnet_at_x4_by_hand() -> None:
    # 16 px in, 64 px out; a 3x3 convolution from m to n channels is 2 * 9 * m * n operations per pixel.
    pixels, width = 16 * 16, 32
    stem, block, rise, last = 3 * width, 2 * width * width, width * 4 * width, width * 3
    by_hand = 18 * (pixels * (stem + 5 * block + rise) + 4 * pixels * rise + 16 * pixels * last)
    assert count_cost(SMALL, 4, 64)[0].flops == by_hand


def test_parameters_equal_the_networks_and_the_last_line_is_the_total() -> None:
    *parts, total = count_cost(SMALL, 4, 64)
    assert [part.name for part in parts] == ["isr", "segmentation", "grading", "gmsv"]
    assert total.parameters == sum(p.numel() for p in DeepMTDR(SMALL).parameters())
    assert total.flops == sum(part.flops for part in parts)


def test_operations_grow_with_the_area_of_the_frame() -> None:
    for small, large in zip(count_cost(SMALL, 4, 64)[:2], count_cost(SMALL, 4, 128)[:2], strict=True):
        assert large.flops == 4 * small.flops


def test_scale_1_counts_no_operations_of_the_isr_subnet() -> None:
    isr = count_cost(SMALL, 1, 64)[0]
    assert isr.flops == 0 and isr.parameters > 0


def test_evidence_costs_the_gradient_from_the_score_to_the_stem() -> None:
    # Each convolution's input gradient costs as much as the convolution; the stem needs none.
    _, _, grading, gmsv, _ = count_cost(SMALL, 4, 64)
    stem = 2 * 49 * 7 * 4 * 32 * 32
    assert gmsv.flops == grading.flops - stem


def test_counting_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    count_cost(SMALL, 1, 64)
    assert capsys.readouterr() == ("", "")
