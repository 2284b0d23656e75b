"""The scores against references on real photographs: bicubic against HR, masks against pixel values, grades."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.special import expit, softmax
from torchmetrics.functional import image

from deepmtdr.datasets.frames import read_masks
from deepmtdr.datasets.idrid import read_idrid_segmentation
from deepmtdr.evaluation.framed_photograph import to_batch
from deepmtdr.metrics import ms_ssim, psnr, ssim
from deepmtdr.model.isr import bicubic
from deepmtdr.photographs.decode import read_photograph
from deepmtdr.photographs.field_of_view import crop_to_frame, find_fov
from deepmtdr.photographs.geometry import crop_mask, fov_mask
from deepmtdr.photographs.resize import resize
from deepmtdr.terms import Lesion
from metric_references import GRADE_CHECKS, IMAGE_CHECKS, PIXEL_CHECKS, PROBABILITY_CHECKS, SCORE_CHECKS, nchw

pytestmark = pytest.mark.data

SIDE = 384
"""Side of the frame in these tests, px; smaller than usual for speed."""


class FramedExample(NamedTuple):
    """One photograph of IDRiD with all four lesion types."""

    sr: np.ndarray
    """Bicubic interpolation from a quarter of the side."""
    hr: np.ndarray
    fov: np.ndarray
    masks: dict[str, np.ndarray]


@pytest.fixture(scope="module")
def photographs(real_data: Path) -> list[FramedExample]:
    samples = [s for s in read_idrid_segmentation(real_data / "idrid") if all((s.lesion_masks or {}).values())]
    found = []
    for sample in samples[:3]:
        pixels = read_photograph(sample.photograph).pixels
        fov = find_fov(pixels)
        frame = crop_to_frame(pixels, fov, SIDE)
        sr = bicubic(to_batch(resize(frame, SIDE // 4)), 4).clamp(0, 1)[0].permute(1, 2, 0).numpy()
        masks = read_masks(sample, pixels.shape[:2]).lesions
        in_frame = {lesion: crop_mask(mask, fov, SIDE) >= 0.5 for lesion, mask in masks.items()}
        found.append(FramedExample(sr, frame.astype(np.float32) / 255, fov_mask(frame), in_frame))
    return found


def agree(checks: dict, *case: np.ndarray) -> None:
    found = {name: check.differences(*case) for name, check in checks.items()}
    assert {n: f for n, f in found.items() if max(f.values()) > checks[n].tolerance} == {}


def test_image_scores_of_bicubic_agree_with_references(photographs: list[FramedExample]) -> None:
    for example in photographs:
        agree(IMAGE_CHECKS, example.sr, example.hr)
        assert 30 < psnr(example.sr, example.hr, example.fov) < 45


def test_border_changes_ssim_of_photographs_by_a_few_thousandths_at_most(photographs: list[FramedExample]) -> None:
    """torchmetrics also counts windows across the border, which matter less in large images."""
    for example in photographs:
        pair = nchw(example.sr), nchw(example.hr)
        theirs = image.structural_similarity_index_measure(*pair, data_range=1.0)
        assert ssim(example.sr, example.hr) == pytest.approx(float(theirs), abs=4e-3)
        theirs = image.multiscale_structural_similarity_index_measure(*pair, data_range=1.0)
        assert ms_ssim(example.sr, example.hr) == pytest.approx(float(theirs), abs=4e-3)


def guesses(hr: np.ndarray, lesion: Lesion) -> dict[str, np.ndarray]:
    """Lesion scores without a network: the green channel, in 256 steps, and its contrast to the surroundings."""
    sign = -1 if lesion in (Lesion.MA, Lesion.HE) else 1
    green = hr[..., 1]
    contrast = sign * (gaussian_filter(green, 1) - gaussian_filter(green, 12))
    return {"tint": green if sign > 0 else 1 - green, "contrast": expit(60 * contrast - 4).astype(np.float32)}


@pytest.mark.parametrize("lesion", Lesion)
def test_pixel_scores_of_lesion_masks_agree_with_references(photographs: list[FramedExample], lesion: Lesion) -> None:
    fov = np.all([example.fov for example in photographs], axis=0)
    truth = np.stack([example.masks[lesion][fov] for example in photographs])
    assert truth.any(axis=1).all()
    for name in ("tint", "contrast"):
        agree(PIXEL_CHECKS, np.stack([guesses(example.hr, lesion)[name][fov] for example in photographs]), truth)


def test_grade_scores_of_a_simple_rule_agree_with_references(real_data: Path) -> None:
    """A higher grade for a larger variation of the green channel: often wrong, like real predictions."""
    samples = [s for s in read_idrid_segmentation(real_data / "idrid") if s.grade is not None]
    spread = np.array([read_photograph(s.photograph, min_side=256).pixels[..., 1].std() for s in samples])
    truth = np.array([int(s.grade) for s in samples if s.grade is not None])
    share = spread.argsort().argsort() / len(spread)
    predicted = np.quantile(truth, share, method="nearest").astype(np.int64)  # with the true number of each grade
    agree(GRADE_CHECKS, predicted, truth)
    agree(SCORE_CHECKS, share, truth >= 3)
    agree(PROBABILITY_CHECKS, softmax(-np.square(np.arange(5) - 4 * share[:, None]), axis=1), truth)
