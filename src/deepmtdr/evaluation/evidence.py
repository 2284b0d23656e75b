"""The evidence of one photograph held against its lesions and against the grade (Finding 3).

Two questions. Does the evidence lie in the annotated lesions? AUC, as in Fig. 4 (c), and the pointing game. Does the
grade rest on it? The photograph is spoilt where the evidence is highest first and read again (deletion), or a spoilt
one is brought back in the same order (insertion), after Petsiuk et al. 2018.
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

from deepmtdr.metrics import area_under_curve, evidence_auc, pointing_chance, pointing_game
from deepmtdr.metrics.evidence import POINTING_TOLERANCE
from deepmtdr.model.deepmtdr import DeepMTDR
from deepmtdr.terms import FRAME, Grade, Lesion

Mask = Bool[np.ndarray, "f f"]
Probs = Float[np.ndarray, " 5"]

BLUR_SIGMA = 64.0
"""Sigma of the blur that spoils, in pixels of the 1024 frame. On three held-out photographs the shipped weights saw
24,155, 22,086 and 1,056 lesion pixels; blurred by 64 px 26, 0 and 53, by 32 px still 3,959, 4,597 and 361."""


class RegionScores(NamedTuple):
    """How the evidence agrees with one region."""

    auc: float
    hit: float
    """1 if the highest evidence points at it, else 0."""
    chance: float
    """Of a hit by a pixel drawn at random."""


class RemovalAreas(NamedTuple):
    """Under three curves of one probability."""

    deletion: float
    """Low if the probability rests on the pixels of the highest evidence."""
    insertion: float
    """High if these pixels suffice."""
    random: float
    """Of pixels taken in random order: deletion should be lower, insertion higher than this.

    It is a mild one to be held against: pixels strewn singly leave a lesion half visible, a patch of evidence does not.
    """


class RemovalCurves(NamedTuple):
    """The probabilities of the grades after equal shares of the pixels, from none to all of them."""

    deletion: Float[np.ndarray, "n 5"]
    """Spoilt from the highest evidence to the lowest."""
    insertion: Float[np.ndarray, "n 5"]
    """Brought back in the same order."""
    random: Float[np.ndarray, "n 5"]
    """Spoilt in random order. Backwards it is an insertion in random order: its area serves for both."""

    @property
    def grade(self) -> Grade:
        """The one predicted from the whole photograph."""
        return Grade(int(self.deletion[0].argmax()))

    def disease_areas(self) -> RemovalAreas:
        """Of the probability of any grade but 0: GMSV gives evidence of that, whatever grade is predicted (R5)."""
        return RemovalAreas(*(area_under_curve(1 - probs[:, Grade.NEGATIVE]) for probs in self))

    def grade_areas(self) -> RemovalAreas:
        """Of the probability of the grade first predicted, as Petsiuk et al. have it.

        It may rise as evidence is spoilt: what was moderate for its lesions can be all the surer of a middle grade
        when nothing is seen.
        """
        return RemovalAreas(*(area_under_curve(probs[:, self.grade]) for probs in self))


class EvidenceScores(NamedTuple):
    """What is said of the evidence of one photograph."""

    lesions: dict[Lesion, RegionScores]
    """Of the annotated types that the photograph has."""
    any_lesion: RegionScores
    """Of all of them together; nan without any."""
    background: float
    """AUC of the field of view without the annotated lesions; nan without any."""
    removal: RemovalCurves | None
    """None if it was not asked for, or the field of view is empty."""


def evidence_scores(
    model: DeepMTDR,
    sr: Float[Tensor, "1 3 f f"],
    masks: Mapping[Lesion, Bool[np.ndarray, "f f"]],
    inside: Bool[np.ndarray, "f f"],
    *,
    steps: int = 10,
    bf16: bool = False,
    temperature: float = 1.0,
    seed: int = 0,
) -> EvidenceScores:
    """Score the evidence of one photograph.

    Args:
        model: the network, in evaluation mode, on the device of `sr`.
        sr: the photograph in the frame, super-resolved or HR, RGB in [0, 1].
        masks: the annotated lesion types; a type that is not annotated is background here.
        inside: the field of view.
        steps: equal shares of the pixels; each costs three readings of the frame, where all the time goes. 0 leaves
            deletion and insertion out.
        bf16: compute convolutions in bfloat16.
        temperature: of the probabilities, see `Checkpoint.temperature`.
        seed: of the random order.

    Returns:
        The scores.

    Raises:
        ValueError: if a mask or the field of view has another size than the frame, or `steps` is negative.
    """
    _check(sr, masks, inside, steps)
    with torch.autocast(sr.device.type, torch.bfloat16, enabled=bf16):
        prediction, given = model.predict(sr, scale=1)
    evidence = given[0, 0].float().clamp(0, 1).cpu().numpy()
    removal = None
    if steps and inside.any():
        removal = _removal(partial(_probs, model, bf16, temperature), prediction.sr, evidence, inside, steps, seed)
    return EvidenceScores(*_in_regions(evidence, masks, inside), removal)


def _in_regions(
    evidence: Float[np.ndarray, "f f"], masks: Mapping[Lesion, Mask], inside: Mask
) -> tuple[dict[Lesion, RegionScores], RegionScores, float]:
    """Where the evidence lies: each type, all of them, the background's AUC."""
    tolerance = POINTING_TOLERANCE * evidence.shape[0] / FRAME

    def scores(region: Mask) -> RegionScores:
        hit, chance = pointing_game(evidence, region, inside, tolerance), pointing_chance(region, inside, tolerance)
        return RegionScores(evidence_auc(evidence, region, inside), hit, chance)

    union = np.logical_or.reduce([np.zeros_like(inside), *masks.values()])
    present = {lesion: mask for lesion, mask in masks.items() if (mask & inside).any()}
    by_type = {lesion: scores(mask) for lesion, mask in present.items()}
    return by_type, scores(union), evidence_auc(evidence, inside & ~union, inside)


def _removal(
    read: Callable[[Tensor], Probs],
    sr: Float[Tensor, "1 3 f f"],
    evidence: Float[np.ndarray, "f f"],
    inside: Mask,
    steps: int,
    seed: int,
) -> RemovalCurves:
    """The three curves; `read` gives the probabilities of a frame."""
    spoilt, scattered = _blurred(sr, inside), np.random.default_rng(seed).permutation(np.flatnonzero(inside))
    highest_first = scattered[np.argsort(-evidence.ravel()[scattered], kind="stable")]  # ties stay scattered
    whole, gone = (sr, read(sr)), (spoilt, read(spoilt))

    def curve(start: tuple[Tensor, Probs], goal: tuple[Tensor, Probs], order: Int[np.ndarray, " n"]) -> np.ndarray:
        between = [read(frame) for frame in _on_the_way(start[0], goal[0], order, steps)]
        return np.stack([start[1], *between, goal[1]])

    return RemovalCurves(
        curve(whole, gone, highest_first), curve(gone, whole, highest_first), curve(whole, gone, scattered)
    )


def _probs(model: DeepMTDR, bf16: bool, temperature: float, frame: Float[Tensor, "1 3 f f"]) -> Probs:
    """Segment and grade: the lesion maps that the grade is read from change with the frame."""
    with torch.inference_mode(), torch.autocast(frame.device.type, torch.bfloat16, enabled=bf16):
        return model.segment_and_grade(frame).grade_logits[0].cpu().double().div(temperature).softmax(dim=0).numpy()


def _on_the_way(start: Tensor, goal: Tensor, order: Int[np.ndarray, " n"], steps: int) -> Iterator[Tensor]:
    """From one frame to another share by share, without either; the pixels in the order given."""
    frame = start.clone(memory_format=torch.contiguous_format)
    pixels, target = frame.view(1, 3, -1), goal.reshape(1, 3, -1)
    for share in np.array_split(order, steps)[:-1]:
        taken = torch.from_numpy(share).to(frame.device)
        pixels[..., taken] = target[..., taken]
        yield frame


def _blurred(sr: Float[Tensor, "1 3 f f"], inside: Mask) -> Float[Tensor, "1 3 f f"]:
    """The photograph without its details; the black around the field of view does not leak in, and stays.

    Petsiuk et al. delete to grey and insert into a blurred image. Here both are blurred: a grey patch on a retina would
    be a lesion itself.
    """
    sigma = BLUR_SIGMA * inside.shape[0] / FRAME
    share = gaussian_filter(inside.astype(np.float32), sigma).clip(1e-6)
    channels = sr[0].float().cpu().numpy()
    smooth = [np.where(inside, gaussian_filter(channel * inside, sigma) / share, channel) for channel in channels]
    return torch.from_numpy(np.stack(smooth))[None].to(sr)


def _check(sr: Tensor, masks: Mapping[Lesion, np.ndarray], inside: np.ndarray, steps: int) -> None:
    frame = tuple(sr.shape[-2:])
    for name, mask in [("field of view", inside), *((f"mask of {lesion.name}", m) for lesion, m in masks.items())]:
        if mask.shape != frame:
            raise ValueError(f"{name} has the shape {mask.shape}, expected {frame} as the frame has")
    if sr.shape[0] != 1:
        raise ValueError(f"{sr.shape[0]} photographs, expected one")
    if steps < 0:
        raise ValueError(f"{steps} steps, expected at least 0")
