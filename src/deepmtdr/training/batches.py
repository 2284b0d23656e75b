"""Batches for the two stages, each a pure function of (frames, settings, random generator).

So a resumed run needs only the number of its step. Annotated and unannotated photographs are mixed in a stated ratio. A
photograph graded 0 has no lesions: where its pixels were not annotated it counts as annotated with empty masks (R22).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from deepmtdr.datasets.frames import Frame
from deepmtdr.model.preprocessing import CONTRAST_LIMIT, CONTRAST_STEPS_PER_UNIT
from deepmtdr.terms import Grade, Lesion
from deepmtdr.training.augmentation import random_crop, random_flip_rotate, rotate, rotation_margin, simulate_camera


class Batch(NamedTuple):
    """Photographs in the HR frame, or crops of them, with what is known."""

    hr: Float[Tensor, "b 3 s s"]
    """As sharp as the photographs are: what the ISR subnet is to reach."""
    degraded: Float[Tensor, "b 3 s s"]
    """The same through a lesser camera, blurred, grainy, compressed: the LR is derived from it."""
    lesion_masks: Float[Tensor, "b 4 s s"]
    annotated: Bool[Tensor, "b 4"]
    """Which types are known; elsewhere the masks say nothing."""
    grade: Int[Tensor, " b"]
    graded: Bool[Tensor, " b"]
    """Where False, `grade` says nothing."""


def known_lesions(frame: Frame) -> tuple[bool, ...]:
    """Which types are known for a frame: by annotation, or all of them by a grade of 0 (reading R22)."""
    if frame.sample.grade is Grade.NEGATIVE and not frame.sample.lesion_masks:
        return (True,) * len(Lesion)
    return frame.sample.annotated


class PhotographSampler:
    """Photographs to be drawn from: those with pixel-wise annotation, and the others by data set."""

    def __init__(self, frames: Iterable[Frame]) -> None:
        self.annotated: list[Frame] = []
        self.others: dict[str, list[Frame]] = {}
        for frame in sorted(frames, key=lambda frame: frame.sample.dataset):
            pool = self.annotated if frame.sample.lesion_masks else self.others.setdefault(frame.sample.dataset, [])
            pool.append(frame)

    def draw(self, count: int, annotated_share: float, rng: np.random.Generator) -> list[Frame]:
        """Draw photographs: the stated share annotated pixel-wise, the others evenly from each data set."""
        names, drawn = list(self.others), []
        for _ in range(count):
            pool = self.annotated
            if not pool or (names and rng.random() >= annotated_share):
                pool = self.others[names[rng.integers(len(names))]]
            drawn.append(pool[rng.integers(len(pool))])
        return drawn


def make_crop_batch(
    frames: Sequence[Frame],
    side: int,
    zoom: float,
    cameras: dict[str, float],
    rngs: Sequence[np.random.Generator],
    *,
    rotation: float = 0.0,
    camera_rngs: Sequence[np.random.Generator] | None = None,
) -> Batch:
    """Augmented crops of the given photographs, each of `side` px; `side` 0 takes whole frames.

    Args:
        frames: photographs that fill the HR frame (scale 1).
        side: of the crops, px.
        zoom: see `transforms.crop`.
        cameras: keyword arguments of `transforms.camera`.
        rngs: each photograph's source of every choice.
        rotation: largest angle by which a crop is turned, degrees; whole frames stay as they are.
        camera_rngs: sources of the cameras' choices; None: `rngs`.
    """
    shown, taken, masks = [], [], []
    for frame, rng, lens in zip(frames, rngs, camera_rngs or rngs, strict=True):
        both = random_flip_rotate(_cut(frame, side, zoom, rotation, rng), rng)
        hr, shot = simulate_camera(both[:3], lens, **cameras)  # pyright: ignore[reportArgumentType]
        shown.append(hr)
        taken.append(shot)
        masks.append(both[3:])
    return Batch(
        torch.stack(shown).contiguous(memory_format=torch.channels_last),
        torch.stack(taken).contiguous(memory_format=torch.channels_last),
        torch.stack(masks),
        torch.tensor([known_lesions(f) for f in frames]),
        *_grades(frames),
    )


def _cut(frame: Frame, side: int, zoom: float, rotation: float, rng: np.random.Generator) -> Float[Tensor, "7 s s"]:
    """Image and masks of one crop, or of the whole frame."""
    if not side:
        return torch.cat(random_crop(frame, frame.pixels.shape[0], 1.0, rng))
    if not rotation:
        return torch.cat(random_crop(frame, side, zoom, rng))
    degrees = rng.uniform(-rotation, rotation)
    margin = int(np.ceil(side * rotation_margin(degrees)))
    return rotate(torch.cat(random_crop(frame, margin, zoom, rng)), degrees, side)


class CachedOutput(NamedTuple):
    """What the standing ISR and segmentation subnets said of a photograph, kept for the grading stage."""

    frame: Frame
    image: np.ndarray
    """3 s s: what the grading subnet sees of the frame (local contrast, or RGB), -3 to 3 as 0 to 255."""
    lesions: np.ndarray
    """4 s s: probability x 255."""

    def downsampled(self, factor: int) -> CachedOutput:
        """The same `factor` times smaller: contrast by its mean, lesions by their maximum, so that none vanishes."""
        seen = F.avg_pool2d(torch.from_numpy(np.array(self.image)).float(), factor)
        lesions = F.max_pool2d(torch.from_numpy(np.array(self.lesions)).float(), factor)
        return CachedOutput(self.frame, seen.round().byte().numpy(), lesions.byte().numpy())


class GradingBatch(NamedTuple):
    """Whole frames with their lesion maps."""

    image: Float[Tensor, "b 3 s s"]
    """Frames as the grading subnet sees them; 0 (no contrast) where hidden, so that it learns to read lesion maps."""
    lesions: Float[Tensor, "b 4 s s"]
    grade: Int[Tensor, " b"]


IntensityScaling = Callable[[Tensor, float], Tensor]
"""What a network sees of a frame, in another light."""


def scale_contrast(seen: Float[Tensor, "3 s s"], factor: float) -> Float[Tensor, "3 s s"]:
    """Of local contrast: more of it or less."""
    return seen * factor


def scale_brightness(seen: Float[Tensor, "3 s s"], factor: float) -> Float[Tensor, "3 s s"]:
    """Of RGB spread over [-3, 3]: brighter or darker, black stays black and white white."""
    return (factor * (seen + CONTRAST_LIMIT)).clamp(0, 2 * CONTRAST_LIMIT) - CONTRAST_LIMIT


def make_grading_batch(
    cached_outputs: Sequence[CachedOutput],
    balance: float,
    hide_image: float,
    rngs: Sequence[np.random.Generator],
    scale_intensity: IntensityScaling = scale_contrast,
) -> GradingBatch:
    """Draw graded photographs, data sets evenly, grades with frequency ** -balance; another tone and turn each time.

    Args:
        cached_outputs: what is drawn from.
        balance: 0 takes grades as they are, 1 all alike.
        hide_image: how often the image is hidden.
        rngs: each photograph's source of every choice, also of which one it is.
        scale_intensity: how their light varies: `scale_brightness` where photographs were kept, not local contrast.
    """
    sets: dict[str, list[CachedOutput]] = {}
    for reading in cached_outputs:
        sets.setdefault(reading.frame.sample.dataset, []).append(reading)
    frames, lesions, drawn = [], [], []
    for rng in rngs:
        pool = sets[sorted(sets)[rng.integers(len(sets))]]
        grades = np.array([r.frame.sample.grade for r in pool], int)
        odds = np.bincount(grades, minlength=len(Grade))[grades] ** -float(balance)
        reading = pool[rng.choice(len(pool), p=odds / odds.sum())]
        maps = (torch.from_numpy(np.array(reading.lesions)).float() / 255) ** rng.uniform(0.7, 1.4)
        seen = torch.from_numpy(np.array(reading.image)).float() / CONTRAST_STEPS_PER_UNIT - CONTRAST_LIMIT
        seen = scale_intensity(seen, rng.uniform(0.7, 1.4)) * (rng.random() >= hide_image)
        both = random_flip_rotate(torch.cat([seen, maps]), rng)
        frames.append(both[:3])
        lesions.append(both[3:])
        drawn.append(reading.frame)
    return GradingBatch(torch.stack(frames), torch.stack(lesions), _grades(drawn)[0])


def _grades(frames: Sequence[Frame]) -> tuple[Tensor, Tensor]:
    grades = [f.sample.grade for f in frames]
    return torch.tensor([int(g or 0) for g in grades]), torch.tensor([g is not None for g in grades])
