"""Scores of the evidence of one photograph (Finding 3).

Does the evidence lie in the annotated lesions? This is measured by the AUC, as in Fig. 4 (c), and by the pointing
game. Does the predicted grade depend on the pixels with high evidence? These pixels are blurred first (deletion), or
restored first in a blurred photograph (insertion), and the photograph is graded again (Petsiuk et al. 2018).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.ndimage import gaussian_filter
from torch import Tensor

from deepmtdr.grade_decision import MOST_PROBABLE, GradeDecision
from deepmtdr.metrics import area_under_curve, evidence_auc, pointing_chance, pointing_game
from deepmtdr.metrics.evidence import POINTING_TOLERANCE, patch_chance, top_patch_precision
from deepmtdr.model.deepmtdr import DeepMTDR
from deepmtdr.terms import FRAME

Mask = Bool[np.ndarray, "f f"]
Probs = Float[np.ndarray, " c"]

BLUR_SIGMA = 64.0
"""Sigma of the blur, in pixels of a 1024 px frame. On three held-out photographs the shipped weights detected 24,155,
22,086 and 1,056 lesion pixels; after a blur of 64 px 26, 0 and 53; after a blur of 32 px 3,959, 4,597 and 361."""


class RegionScores(NamedTuple):
    """Agreement of the evidence with one region."""

    auc: float
    hit: float
    """1 if the maximum of the evidence lies in the region, else 0."""
    chance: float
    """Probability of a hit by a random pixel."""
    patch_precision: Float[np.ndarray, " k"]
    """Fraction of the k patches with the most evidence that touch the region, for k = 1, 2, ..."""
    patch_chance: float
    """Probability that a random patch of the field of view touches the region."""


class RemovalAreas(NamedTuple):
    """Areas under the three curves of one probability."""

    deletion: float
    """Area under the deletion curve: low if the probability depends on the pixels with the highest evidence."""
    insertion: float
    """Area under the insertion curve: high if these pixels are sufficient."""
    random: float
    """Area with the pixels in random order: deletion should be lower, insertion higher.

    This baseline is easy to beat: with random single pixels blurred, a lesion remains half visible.
    """


class RemovalCurves(NamedTuple):
    """Probability of each grade after equal fractions of the pixels, from none to all."""

    deletion: Float[np.ndarray, "n c"]
    """Probabilities while pixels are blurred, from the highest evidence to the lowest."""
    insertion: Float[np.ndarray, "n c"]
    """Probabilities while blurred pixels are restored in the same order."""
    random: Float[np.ndarray, "n c"]
    """Probabilities while pixels are blurred in random order.

    In reverse order this is the curve of an insertion in random order, so the same area is the baseline for both.
    """

    def disease_areas(self) -> RemovalAreas:
        """Areas for P(grade >= 1), which is what the evidence of GMSV explains (interpretation R5)."""
        return RemovalAreas(*(area_under_curve(1 - probs[:, 0]) for probs in self))

    def grade_areas(self, grade: int) -> RemovalAreas:
        """Areas for the probability of one grade; Petsiuk et al. use the predicted grade.

        This probability may increase while evidence is blurred: a network can be more certain of a middle grade when
        no lesion is visible.
        """
        return RemovalAreas(*(area_under_curve(probs[:, grade]) for probs in self))


class EvidenceScores(NamedTuple):
    """Scores of the evidence of one photograph."""

    lesions: dict[str, RegionScores]
    """Code of a lesion type -> its scores; only annotated types with a lesion."""
    any_lesion: RegionScores
    """Scores of all annotated lesions together; nan without lesions."""
    background: float
    """AUC of the field of view without the annotated lesions; nan without lesions."""
    removal: RemovalCurves | None
    """Deletion and insertion curves; None if `steps` was 0, or the field of view is empty."""


def evidence_scores(
    model: DeepMTDR,
    sr: Float[Tensor, "1 3 f f"],
    masks: Mapping[str, Bool[np.ndarray, "f f"]],
    inside: Bool[np.ndarray, "f f"],
    *,
    steps: int = 10,
    bf16: bool = False,
    decision: GradeDecision = MOST_PROBABLE,
    seed: int = 0,
) -> EvidenceScores:
    """Score the evidence of one photograph.

    Args:
        model: the network, in evaluation mode, on the device of `sr`.
        sr: the photograph in the frame, super-resolved or HR, RGB in [0, 1].
        masks: the masks of the annotated lesion types, by code; a type that is not annotated counts as background.
        inside: the field of view.
        steps: number of equal fractions of the pixels for deletion and insertion; each needs three predictions, which
            take almost all of the time. 0: neither is done.
        bf16: compute convolutions in bfloat16.
        decision: makes probabilities of the logits, see `Checkpoint.decision`.
        seed: seed of the random order.

    Raises:
        ValueError: if a mask or the field of view does not have the size of the frame, or `steps` is negative.
    """
    _check(sr, masks, inside, steps)
    with torch.autocast(sr.device.type, torch.bfloat16, enabled=bf16):
        prediction, evidence_map = model.predict(sr, scale=1)
    evidence = evidence_map[0, 0].float().clamp(0, 1).cpu().numpy()
    removal = None
    if steps and inside.any():
        removal = _removal(partial(_probs, model, bf16, decision), prediction.sr, evidence, inside, steps, seed)
    return EvidenceScores(*_in_regions(evidence, masks, inside), removal)


def _in_regions(
    evidence: Float[np.ndarray, "f f"], masks: Mapping[str, Mask], inside: Mask
) -> tuple[dict[str, RegionScores], RegionScores, float]:
    """Compute the scores of each annotated lesion type and of all lesions together, and the AUC of the background."""
    tolerance = POINTING_TOLERANCE * evidence.shape[0] / FRAME

    def scores(region: Mask) -> RegionScores:
        hit, chance = pointing_game(evidence, region, inside, tolerance), pointing_chance(region, inside, tolerance)
        precision, random = top_patch_precision(evidence, region, inside), patch_chance(region, inside)
        return RegionScores(evidence_auc(evidence, region, inside), hit, chance, precision, random)

    union = np.logical_or.reduce([np.zeros_like(inside), *masks.values()])
    by_type = {code: scores(mask) for code, mask in masks.items() if (mask & inside).any()}
    return by_type, scores(union), evidence_auc(evidence, inside & ~union, inside)


def _removal(
    predict: Callable[[Tensor], Probs],
    sr: Float[Tensor, "1 3 f f"],
    evidence: Float[np.ndarray, "f f"],
    inside: Mask,
    steps: int,
    seed: int,
) -> RemovalCurves:
    """Compute the three curves; `predict` computes the probabilities of a frame."""
    blurred, shuffled = _blurred(sr, inside), np.random.default_rng(seed).permutation(np.flatnonzero(inside))
    highest_first = shuffled[np.argsort(-evidence.ravel()[shuffled], kind="stable")]  # ties are in random order
    original, removed = (sr, predict(sr)), (blurred, predict(blurred))

    def curve(start: tuple[Tensor, Probs], goal: tuple[Tensor, Probs], order: Int[np.ndarray, " n"]) -> np.ndarray:
        between = [predict(frame) for frame in _intermediate_frames(start[0], goal[0], order, steps)]
        return np.stack([start[1], *between, goal[1]])

    return RemovalCurves(
        curve(original, removed, highest_first),
        curve(removed, original, highest_first),
        curve(original, removed, shuffled),
    )


def _probs(model: DeepMTDR, bf16: bool, decision: GradeDecision, frame: Float[Tensor, "1 3 f f"]) -> Probs:
    """Predict a frame. The frame is segmented again, because the grade depends on the lesion maps."""
    with torch.inference_mode(), torch.autocast(frame.device.type, torch.bfloat16, enabled=bf16):
        return decision.probabilities(model.segment_and_grade(frame).grade_logits[0].float().cpu().numpy())


def _intermediate_frames(start: Tensor, goal: Tensor, order: Int[np.ndarray, " n"], steps: int) -> Iterator[Tensor]:
    """Yield the frames between two frames; each has one more fraction of the pixels replaced, in the given order."""
    frame = start.clone(memory_format=torch.contiguous_format)
    pixels, target = frame.view(1, 3, -1), goal.reshape(1, 3, -1)
    for share in np.array_split(order, steps)[:-1]:
        taken = torch.from_numpy(share).to(frame.device)
        pixels[..., taken] = target[..., taken]
        yield frame


def _blurred(sr: Float[Tensor, "1 3 f f"], inside: Mask) -> Float[Tensor, "1 3 f f"]:
    """Blur the photograph. The black border is unchanged and does not darken the field of view.

    Petsiuk et al. replace deleted pixels by grey, and insert into a blurred image. Here deleted pixels are blurred too,
    because a grey patch on a retina could be taken for a lesion.
    """
    sigma = BLUR_SIGMA * inside.shape[0] / FRAME
    share = gaussian_filter(inside.astype(np.float32), sigma).clip(1e-6)
    channels = sr[0].float().cpu().numpy()
    smooth = [np.where(inside, gaussian_filter(channel * inside, sigma) / share, channel) for channel in channels]
    return torch.from_numpy(np.stack(smooth))[None].to(sr)


def _check(sr: Tensor, masks: Mapping[str, np.ndarray], inside: np.ndarray, steps: int) -> None:
    frame = tuple(sr.shape[-2:])
    for name, mask in [("field of view", inside), *((f"mask of {code}", m) for code, m in masks.items())]:
        if mask.shape != frame:
            raise ValueError(f"{name} has the shape {mask.shape}, expected {frame}, the size of the frame")
    if sr.shape[0] != 1:
        raise ValueError(f"found {sr.shape[0]} photographs, expected one")
    if steps < 0:
        raise ValueError(f"found {steps} steps, expected at least 0")
