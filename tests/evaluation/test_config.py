"""Settings of an evaluation: the size of the input, and the scores that take long."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from deepmtdr.errors import InputSizeError
from deepmtdr.evaluation import EvaluationConfig, measure
from deepmtdr.model.deepmtdr import DeepMTDR
from deepmtdr.synthetic.drawings import write_drawings
from tiny_model import FRAME, tiny_recipe


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (EvaluationConfig(), (256, 4)),
        (EvaluationConfig(scale=8), (128, 8)),
        (EvaluationConfig(as_lr=512), (512, 2)),
        (EvaluationConfig(as_lr=128, scale=2), (128, 8)),
        (EvaluationConfig(scale=None), (1024, 1)),
    ],
)
def test_field_of_view_of_1000_px_is_reduced_to_as_lr_or_else_by_scale(
    config: EvaluationConfig, expected: tuple[int, int]
) -> None:
    assert config.input_scale(1000, 1024) == expected


def test_input_size_is_fixed_unless_neither_as_lr_nor_scale_is_given() -> None:
    assert EvaluationConfig().fixed_lr_size(1024) == 256
    assert EvaluationConfig(as_lr=512, scale=None).fixed_lr_size(1024) == 512
    assert EvaluationConfig(scale=None).fixed_lr_size(1024) is None
    with pytest.raises(InputSizeError, match="size 500 px, expected one of 128, 256, 512 for a frame of 1024 px"):
        EvaluationConfig(as_lr=500).fixed_lr_size(1024)


def test_ssim_and_single_lesions_are_scored_unless_slow_metrics_are_switched_off(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = DeepMTDR(tiny_recipe().model).eval()
    (drawing,) = write_drawings(tmp_path, [2], size=FRAME + 20)
    (normal, _), (quick, _) = (
        measure(model, drawing, config, frame=FRAME)
        for config in (EvaluationConfig(), EvaluationConfig(slow_metrics=False))
    )
    images = ("sr", "bicubic", "normalised_bicubic")
    psnr = {f"psnr_{place}_{image}" for place in ("fov", "fov_eroded", "whole") for image in images}
    assert set(quick.image) == psnr
    assert psnr | {"ssim_fov_sr", "ssim_whole_bicubic"} <= set(normal.image)
    assert normal.lesions["MA"].froc is not None and quick.lesions["MA"].froc is None
