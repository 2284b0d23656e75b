"""Crop a photograph and its lesion masks to the field of view, in the size of the frame (interpretations R1, R19)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from deepmtdr.datasets.frames import SampleMasks, read_masks, read_sample
from deepmtdr.datasets.sample import Sample
from deepmtdr.evaluation.config import EvaluationConfig
from deepmtdr.model.preprocessing import image_to_tensor
from deepmtdr.photographs.field_of_view import crop_to_frame, find_fov
from deepmtdr.photographs.geometry import FieldOfView, crop_mask, fov_mask
from deepmtdr.photographs.resize import resize

MIN_COVERAGE = 0.5
"""A pixel of the frame counts as lesion if the annotation covers at least this fraction of it."""


class OriginalPhotograph(NamedTuple):
    """The data with which maps of the frame are transformed back to the photograph."""

    fov: FieldOfView
    masks: SampleMasks
    """Masks of the annotated lesion types and union labels, and the ignored pixels, on the photograph's pixels."""


class FramedPhotograph(NamedTuple):
    """A photograph cropped to its field of view, with its labels in the frame."""

    lr: UInt8[np.ndarray, "s s 3"]
    """Input of the network, RGB."""
    hr: UInt8[np.ndarray, "f f 3"] | None
    """The HR frame, RGB; None if the field of view is nearest to a low-resolution size."""
    inside: Bool[np.ndarray, "f f"]
    """The field of view."""
    scale: int
    """Factor by which `lr` is enlarged to the frame; 1 skips the ISR subnet."""
    lesion_masks: Mapping[str, Bool[np.ndarray, "f f"]]
    """Masks of the annotated lesion types, by code."""
    fov_side: int | None = None
    """Diameter of the field of view in pixels of the photograph; None if unknown."""
    original: OriginalPhotograph | None = None
    """The photograph before cropping; None if unknown."""
    union_masks: Mapping[str, Bool[np.ndarray, "f f"]] = MappingProxyType({})
    """Masks of the union labels, such as "EX+SE"."""
    ignored: Bool[np.ndarray, "f f"] | None = None
    """Pixels that count for nothing in the scores of lesions (interpretation R32); None: all count."""

    @property
    def counted(self) -> Bool[np.ndarray, "f f"]:
        """The pixels that count in the scores of lesions: the field of view without the ignored pixels."""
        return self.inside if self.ignored is None else self.inside & ~self.ignored

    @property
    def has_masks(self) -> bool:
        """Whether any lesion type is annotated, alone or in a union label."""
        return bool(self.lesion_masks or self.union_masks)

    def without_masks(self) -> FramedPhotograph:
        """Return a copy without lesion masks, for a system that does not segment."""
        return self._replace(lesion_masks={}, original=None, union_masks={}, ignored=None)


def load_into_frame(sample: Sample, config: EvaluationConfig, frame: int) -> FramedPhotograph:
    """Read a photograph and its masks, crop them to the field of view and resize them.

    Args:
        sample: the photograph and its labels.
        config: `as_lr` and `scale` are used.
        frame: side of the HR frame, px.

    Raises:
        DeepMTDRError: if the photograph or one of its masks cannot be read, or it has no field of view.
    """
    pixels = read_sample(sample).pixels
    fov = find_fov(pixels)
    lr_size, scale = config.input_scale(fov.side, frame)
    in_frame = crop_to_frame(pixels, fov, frame)
    hr = in_frame if fov.side >= frame else None
    lr = crop_to_frame(pixels, fov, lr_size) if hr is None else resize(hr, lr_size)
    masks = read_masks(sample, pixels.shape[:2])
    # The masks of a prepared low-resolution photograph are larger than the photograph.
    mask_fov = fov.scaled(masks.shape[0] // pixels.shape[0])
    lesions, unions = (
        {code: crop_mask(mask, mask_fov, frame) >= MIN_COVERAGE for code, mask in own.items()}
        for own in (masks.lesions, masks.unions)
    )
    ignored = None if masks.ignored is None else crop_mask(masks.ignored, mask_fov, frame) > 0
    original = OriginalPhotograph(mask_fov, masks)
    return FramedPhotograph(lr, hr, fov_mask(in_frame), scale, lesions, fov.side, original, unions, ignored)


def to_batch(image: UInt8[np.ndarray, "h w 3"]) -> Float[Tensor, "1 3 h w"]:
    """Convert an image to a batch of one, RGB in [0, 1]."""
    return image_to_tensor(image)[None]
