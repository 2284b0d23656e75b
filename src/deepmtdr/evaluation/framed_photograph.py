"""Crop a photograph and its lesion masks to the field of view, in the size of the frame (interpretations R1, R19)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from deepmtdr.datasets.frames import read_lesion_masks, read_sample
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
    shape: tuple[int, int]
    """Height and width of the photograph, px."""
    lesion_masks: Mapping[str, Bool[np.ndarray, "h w"]]
    """Masks of the annotated lesion types on the photograph's pixels, by code."""


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

    def without_masks(self) -> FramedPhotograph:
        """Return a copy without lesion masks, for a system that does not segment."""
        return self._replace(lesion_masks={}, original=None)


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
    masks = read_lesion_masks(sample, pixels.shape[:2]) if sample.lesion_masks else {}
    # The masks of a prepared low-resolution photograph are larger than the photograph.
    height, width = next((mask.shape for mask in masks.values()), pixels.shape[:2])
    mask_fov = fov.scaled(height // pixels.shape[0])
    in_masks = {code: crop_mask(mask, mask_fov, frame) >= MIN_COVERAGE for code, mask in masks.items()}
    original = OriginalPhotograph(mask_fov, (height, width), masks)
    return FramedPhotograph(lr, hr, fov_mask(in_frame), scale, in_masks, fov.side, original)


def to_batch(image: UInt8[np.ndarray, "h w 3"]) -> Float[Tensor, "1 3 h w"]:
    """Convert an image to a batch of one, RGB in [0, 1]."""
    return image_to_tensor(image)[None]
