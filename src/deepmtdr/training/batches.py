"""Batches for the training stages: pure functions of frames, settings and a random generator.

A resumed run therefore needs only the number of its step. A photograph with grade 0 has no lesions: if it has no lesion
masks, it counts as annotated with empty masks (interpretation R22).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor
from torch.nn import functional as F

from deepmtdr.datasets.frames import LESIONS_ONLY, Frame, MaskChannels, mask_channels
from deepmtdr.errors import DataError
from deepmtdr.labels import union_codes
from deepmtdr.model.preprocessing import CONTRAST_LIMIT, uint8_to_input
from deepmtdr.recipe import Augmentation
from deepmtdr.training.augmentation import (
    Crop,
    draw_tone,
    local_mean_of_crop,
    random_crop,
    random_flip_rotate,
    rotate,
    rotation_margin,
    simulate_camera,
)


class Batch(NamedTuple):
    """Photographs in the HR frame, or crops of them, with their labels."""

    hr: Float[Tensor, "b 3 s s"]
    """HR images, the target of the ISR subnet."""
    degraded: Float[Tensor, "b 3 s s"]
    """HR images with blur, noise and compression, from which the LR images are made."""
    lesion_masks: Float[Tensor, "b l s s"]
    annotated: Bool[Tensor, "b l"]
    """Whether each lesion type is annotated; masks of other types have no meaning."""
    grade: Int[Tensor, " b"]
    graded: Bool[Tensor, " b"]
    """Whether the grade is known; where False, `grade` has no meaning."""
    local_mean: Float[Tensor, "b 3 s s"] | None = None
    """Local means of the frames of `hr` at the pixels of its crops, for `local_contrast` (interpretation R30); None:
    whole frames, from which the network computes them.
    """
    ignored: Bool[Tensor, "b 1 s s"] | None = None
    """Pixels that count for nothing in the segmentation losses (interpretation R32); None: all pixels count."""
    union_masks: Float[Tensor, "b u s s"] | None = None
    """Masks of the union labels of the run, such as "EX+SE" (interpretation R32); None: there are none."""
    unions: Bool[Tensor, "b u l"] | None = None
    """Lesion types of each union label; all False where a photograph does not have the label."""

    @property
    def has_masks(self) -> Bool[Tensor, " b"]:
        """Whether any lesion type is annotated, alone or in a union label."""
        known = self.annotated.any(dim=1)
        return known if self.unions is None else known | self.unions.any(dim=(1, 2))


class CachedOutput(NamedTuple):
    """Output of the frozen ISR and segmentation subnets for one photograph, kept for the grading stage."""

    frame: Frame
    image: UInt8[np.ndarray, "3 s s"]
    """Input of the grading subnet (local contrast, or RGB): -3 to 3 as 0 to 255."""
    lesions: UInt8[np.ndarray, "l s s"]
    """Lesion probabilities, 0 to 255."""

    def downsampled(self, factor: int) -> CachedOutput:
        """Reduce the side by `factor`: mean of the image, maximum of the lesions, so that no lesion vanishes."""
        image = F.avg_pool2d(torch.from_numpy(np.array(self.image)).float(), factor)
        lesions = F.max_pool2d(torch.from_numpy(np.array(self.lesions)).float(), factor)
        return CachedOutput(self.frame, image.round().byte().numpy(), lesions.byte().numpy())


class GradingBatch(NamedTuple):
    """Whole frames with their lesion maps and grades."""

    image: Float[Tensor, "b 3 s s"]
    """Inputs of the grading subnet; 0 where the image is hidden, so that the network learns from the lesion maps."""
    lesions: Float[Tensor, "b l s s"]
    grade: Int[Tensor, " b"]


def known_lesions(frame: Frame) -> tuple[bool, ...]:
    """Return which lesion types are known: the annotated types, or all types at grade 0 (interpretation R22)."""
    if frame.sample.grade == 0 and not frame.sample.has_masks:
        return (True,) * len(frame.labels.lesions)
    return frame.sample.annotated(frame.labels)


class PhotographSampler:
    """Draws photographs with lesion masks, with union labels only, and without masks from each data set.

    Raises:
        DataError: from the constructor, if there are no photographs.
    """

    def __init__(self, frames: Iterable[Frame]) -> None:
        self.annotated: list[Frame] = []
        self.union_only: list[Frame] = []
        self.others: dict[str, list[Frame]] = {}
        frames = sorted(frames, key=lambda frame: frame.sample.dataset)
        for frame in frames:
            pool = self.annotated if frame.sample.lesion_masks else self.union_only
            pool = pool if frame.sample.has_masks else self.others.setdefault(frame.sample.dataset, [])
            pool.append(frame)
        if not frames:
            raise DataError("found no photograph to draw from, expected at least one")
        self.channels = mask_channels(frames)
        """Channels of the masks that the crops of all these photographs have."""

    def draw(
        self,
        count: int,
        annotated_share: float,
        rng: np.random.Generator,
        union_share: float = 0.25,
        balance: float = 0.0,
    ) -> list[Frame]:
        """Draw photographs.

        Args:
            count: number of photographs.
            annotated_share: share of photographs with lesion masks or union labels; the rest has no masks and is drawn
                evenly from each data set.
            rng: random generator.
            union_share: share of the photographs with union labels only among those with masks.
            balance: within each of these groups, grades are drawn with frequency ** -balance; photographs without a
                grade count as another grade. 0: grades are drawn as often as they occur.
        """
        names, drawn = list(self.others), []
        for _ in range(count):
            pool = self.annotated or self.union_only
            if not pool or (names and rng.random() >= annotated_share):
                pool = self.others[names[rng.integers(len(names))]]
            elif self.union_only and rng.random() < union_share:
                pool = self.union_only
            drawn.append(pool[_draw_by_grade(pool, balance, rng) if balance else rng.integers(len(pool))])
        return drawn


def make_crop_batch(
    frames: Sequence[Frame],
    side: int,
    augmentation: Augmentation,
    rngs: Sequence[np.random.Generator],
    camera_rngs: Sequence[np.random.Generator] | None = None,
    channels: MaskChannels = LESIONS_ONLY,
) -> Batch:
    """Make augmented crops of the given photographs.

    Args:
        frames: photographs that fill the HR frame (scale 1).
        side: side of the crops, px; 0: whole frames, without zoom and rotation.
        augmentation: ranges of the random changes.
        rngs: a random generator for each photograph.
        camera_rngs: a random generator for each photograph, for the changes of `simulate_camera`; None: `rngs`.
        channels: union labels and ignored pixels of the run (`PhotographSampler.channels`); others are left out.
    """
    ideal, degraded, masks, means = [], [], [], []
    for frame, rng, camera_rng in zip(frames, rngs, camera_rngs or rngs, strict=True):
        crop = Crop.unstack(random_flip_rotate(_cut(frame, side, augmentation, rng, channels), rng))
        tone = draw_tone(camera_rng, augmentation)
        images = simulate_camera(crop.image, camera_rng, augmentation, tone)
        ideal.append(images[0])
        degraded.append(images[1])
        masks.append(crop.masks)
        if side:
            means.append(local_mean_of_crop(frame, crop.positions, tone))
    return Batch(
        torch.stack(ideal).contiguous(memory_format=torch.channels_last),
        torch.stack(degraded).contiguous(memory_format=torch.channels_last),
        torch.stack(masks)[:, : len(frames[0].labels.lesions)],
        torch.tensor([known_lesions(frame) for frame in frames]),
        *_grades(frames),
        torch.stack(means).contiguous(memory_format=torch.channels_last) if means else None,
        *_ignored_and_unions(frames, torch.stack(masks), channels),
    )


def _ignored_and_unions(
    frames: Sequence[Frame], masks: Float[Tensor, "b n s s"], channels: MaskChannels
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Return the last three fields of a batch. A pixel is ignored if an ignored region covers any part of it."""
    labels = frames[0].labels
    ignored = masks[:, -1:] > 0 if channels.ignored else None
    if not channels.unions:
        return ignored, None, None
    unions = [
        [[union in f.sample.union_masks and code in union_codes(union) for code in labels.codes] for f in frames]
        for union in channels.unions
    ]
    first = len(labels.lesions)
    return ignored, masks[:, first : first + len(unions)], torch.tensor(unions).transpose(0, 1)


def _cut(
    frame: Frame, side: int, augmentation: Augmentation, rng: np.random.Generator, channels: MaskChannels
) -> Float[Tensor, "c s s"]:
    """Cut out one crop, or take the whole frame, as one stack of the channels of `Crop`."""
    if not side:
        return random_crop(frame, frame.pixels.shape[0], 1.0, rng, channels=channels).stack()
    if not augmentation.rotation:
        return random_crop(frame, side, augmentation.zoom, rng, channels=channels).stack()
    degrees = rng.uniform(-augmentation.rotation, augmentation.rotation)
    margin = int(np.ceil(side * rotation_margin(degrees)))
    return rotate(random_crop(frame, margin, augmentation.zoom, rng, channels=channels).stack(), degrees, side)


def scale_contrast(network_input: Float[Tensor, "3 s s"], factor: float) -> Float[Tensor, "3 s s"]:
    """Change the contrast, for inputs that are local contrast."""
    return network_input * factor


def scale_brightness(network_input: Float[Tensor, "3 s s"], factor: float) -> Float[Tensor, "3 s s"]:
    """Change the brightness, for inputs that are RGB scaled to [-3, 3]: black stays black, white is the limit."""
    return (factor * (network_input + CONTRAST_LIMIT)).clamp(0, 2 * CONTRAST_LIMIT) - CONTRAST_LIMIT


class InputKind(NamedTuple):
    """How the input of a grading network is augmented."""

    scale_intensity: Callable[[Tensor, float], Tensor]
    """Function that changes the light of a network input by a factor."""
    outside: float
    """Network input outside the field of view."""


LOCAL_CONTRAST = InputKind(scale_contrast, 0.0)
SCALED_RGB = InputKind(scale_brightness, -CONTRAST_LIMIT)


@dataclass(frozen=True)
class GradingAugmentation:
    """Ranges of the random changes to a photograph of the grading stage, besides flips and quarter turns."""

    hide_image: float = 0.0
    """How often the image is hidden."""
    rotation: float = 0.0
    """Largest rotation, degrees."""
    zoom: float = 1.0
    """The content is enlarged by a factor in [1/zoom, zoom]."""


NO_AUGMENTATION = GradingAugmentation()


def make_grading_batch(
    cached_outputs: Sequence[CachedOutput],
    balance: float,
    rngs: Sequence[np.random.Generator],
    augmentation: GradingAugmentation = NO_AUGMENTATION,
    kind: InputKind = LOCAL_CONTRAST,
) -> GradingBatch:
    """Draw graded photographs: data sets equally often, grades with frequency ** -balance; each augmented anew.

    Args:
        cached_outputs: the photographs to draw from.
        balance: 0: grades are drawn as often as they occur; 1: all equally often.
        rngs: a random generator for each photograph of the batch; it also chooses the photograph.
        augmentation: ranges of the random changes.
        kind: kind of the network input.
    """
    sets: dict[str, list[CachedOutput]] = {}
    for output in cached_outputs:
        sets.setdefault(output.frame.sample.dataset, []).append(output)
    images, lesions, frames = [], [], []
    for rng in rngs:
        pool = sets[sorted(sets)[rng.integers(len(sets))]]
        output = pool[_draw_by_grade([output.frame for output in pool], balance, rng)]
        maps = (torch.from_numpy(np.array(output.lesions)).float() / 255) ** rng.uniform(0.7, 1.4)
        image = uint8_to_input(torch.from_numpy(np.array(output.image)))
        image = kind.scale_intensity(image, rng.uniform(0.7, 1.4)) * (rng.random() >= augmentation.hide_image)
        both = random_flip_rotate(torch.cat([image, maps]), rng)
        both = _rotate_and_zoom(both, augmentation, kind.outside, rng)
        images.append(both[:3])
        lesions.append(both[3:])
        frames.append(output.frame)
    return GradingBatch(torch.stack(images), torch.stack(lesions), _grades(frames)[0])


def _rotate_and_zoom(
    both: Float[Tensor, "c s s"], augmentation: GradingAugmentation, outside: float, rng: np.random.Generator
) -> Float[Tensor, "c s s"]:
    """Rotate and enlarge image and lesion maps alike, by random amounts; draws nothing if both are switched off."""
    if not augmentation.rotation and augmentation.zoom == 1:
        return both
    degrees = rng.uniform(-augmentation.rotation, augmentation.rotation)
    zoom = augmentation.zoom ** rng.uniform(-1, 1)
    shift = both.new_tensor([outside] * 3 + [0.0] * (len(both) - 3))[:, None, None]
    return rotate(both - shift, degrees, both.shape[-1], zoom) + shift


def _draw_by_grade(frames: Sequence[Frame], balance: float, rng: np.random.Generator) -> int:
    """Draw the number of a photograph, with a probability of (frequency of its grade) ** -balance."""
    grades = np.array([-1 if frame.sample.grade is None else int(frame.sample.grade) for frame in frames])
    _, grade, counts = np.unique(grades, return_inverse=True, return_counts=True)
    odds = counts[grade] ** -float(balance)
    return int(rng.choice(len(frames), p=odds / odds.sum()))


def _grades(frames: Sequence[Frame]) -> tuple[Tensor, Tensor]:
    grades = [frame.sample.grade for frame in frames]
    return torch.tensor([int(grade or 0) for grade in grades]), torch.tensor([grade is not None for grade in grades])
