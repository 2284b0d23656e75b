"""The scores beside the judges on real photographs: bicubic against HR, masks against how dark a pixel is, grades."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.special import expit, softmax
from torchmetrics.functional import image

from deepmtdr.datasets.frames import read_lesion_masks
from deepmtdr.datasets.idrid import read_idrid_segmentation
from deepmtdr.evaluation.measure import as_tensor
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
"""Of the frame here, smaller than the project's for speed, px."""


class Seen(NamedTuple):
    """One photograph of IDRiD that shows all four lesions."""

    sr: np.ndarray
    """Bicubic, from a quarter of the side."""
    hr: np.ndarray
    fov: np.ndarray
    masks: dict[Lesion, np.ndarray]


@pytest.fixture(scope="module")
def photographs(real_data: Path) -> list[Seen]:
    samples = [s for s in read_idrid_segmentation(real_data / "idrid") if all((s.lesion_masks or {}).values())]
    found = []
    for sample in samples[:3]:
        pixels = read_photograph(sample.photograph).pixels
        fov = find_fov(pixels)
        frame = crop_to_frame(pixels, fov, SIDE)
        sr = bicubic(as_tensor(resize(frame, SIDE // 4)), 4).clamp(0, 1)[0].permute(1, 2, 0).numpy()
        masks = read_lesion_masks(sample, pixels.shape[:2])
        in_frame = {lesion: crop_mask(mask, fov, SIDE) >= 0.5 for lesion, mask in masks.items()}
        found.append(Seen(sr, frame.astype(np.float32) / 255, fov_mask(frame), in_frame))
    return found


def agree(judged: dict, *case: np.ndarray) -> None:
    found = {name: score.differences(*case) for name, score in judged.items()}
    assert {n: f for n, f in found.items() if max(f.values()) > judged[n].tolerance} == {}


def test_bicubic_against_hr_is_judged_alike(photographs: list[Seen]) -> None:
    for seen in photographs:
        agree(IMAGE_CHECKS, seen.sr, seen.hr)
        assert 30 < psnr(seen.sr, seen.hr, seen.fov) < 45


def test_on_photographs_the_border_moves_ssim_by_a_few_thousandths_at_most(photographs: list[Seen]) -> None:
    """What is left between torchmetrics' own numbers and ours: windows over the border, fewer in a larger image."""
    for seen in photographs:
        pair = nchw(seen.sr), nchw(seen.hr)
        theirs = image.structural_similarity_index_measure(*pair, data_range=1.0)
        assert ssim(seen.sr, seen.hr) == pytest.approx(float(theirs), abs=4e-3)
        theirs = image.multiscale_structural_similarity_index_measure(*pair, data_range=1.0)
        assert ms_ssim(seen.sr, seen.hr) == pytest.approx(float(theirs), abs=4e-3)


def guesses(hr: np.ndarray, lesion: Lesion) -> dict[str, np.ndarray]:
    """Scores without a network: how dark or bright green is, in 256 steps, and against its surroundings."""
    sign = -1 if lesion in (Lesion.MA, Lesion.HE) else 1
    green = hr[..., 1]
    contrast = sign * (gaussian_filter(green, 1) - gaussian_filter(green, 12))
    return {"tint": green if sign > 0 else 1 - green, "contrast": expit(60 * contrast - 4).astype(np.float32)}


@pytest.mark.parametrize("lesion", Lesion)
def test_lesion_masks_against_simple_scores_are_judged_alike(photographs: list[Seen], lesion: Lesion) -> None:
    fov = np.all([seen.fov for seen in photographs], axis=0)
    truth = np.stack([seen.masks[lesion][fov] for seen in photographs])
    assert truth.any(axis=1).all()
    for name in ("tint", "contrast"):
        agree(PIXEL_CHECKS, np.stack([guesses(seen.hr, lesion)[name][fov] for seen in photographs]), truth)


def test_grades_given_by_a_simple_measure_are_judged_alike(real_data: Path) -> None:
    """A photograph whose green varies more is given a higher grade: wrong often, as real predictions are."""
    samples = [s for s in read_idrid_segmentation(real_data / "idrid") if s.grade is not None]
    spread = np.array([read_photograph(s.photograph, min_side=256).pixels[..., 1].std() for s in samples])
    truth = np.array([int(s.grade) for s in samples if s.grade is not None])
    share = spread.argsort().argsort() / len(spread)
    predicted = np.quantile(truth, share, method="nearest").astype(np.int64)  # as many of each grade as there are
    agree(GRADE_CHECKS, predicted, truth)
    agree(SCORE_CHECKS, share, truth >= 3)
    agree(PROBABILITY_CHECKS, softmax(-np.square(np.arange(5) - 4 * share[:, None]), axis=1), truth)
