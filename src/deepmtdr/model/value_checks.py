"""Checks of what goes into the network and what comes out of it, for callers who are not part of training."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from deepmtdr.errors import PredictionError
from deepmtdr.terms import SCALES

RANGE_TOLERANCE = 0.01
"""How far a value of an image may lie outside [0, 1]: interpolation and noise exceed the range a little."""
EXPECTED_IMAGE = "expected a float32 tensor b x 3 x h x w, RGB in [0, 1]"


def check_image(image: object, scale: object) -> None:
    """Check the input of `DeepMTDR.predict`. Without it, 0 to 255 instead of 0 to 1 would get a grade, too.

    Args:
        image: should be a batch of images, RGB in [0, 1].
        scale: should be 1, 2, 4 or 8.

    Raises:
        ValueError: if one of them is something else; the message gives what was found and what was expected.
    """
    if not isinstance(scale, int) or scale not in (1, *SCALES):
        raise ValueError(f"found the scale {scale!r}, expected one of {', '.join(map(str, (1, *SCALES)))}")
    if not isinstance(image, Tensor):
        hint = "; `image_to_tensor(array)[None]` of deepmtdr.model.preprocessing makes one from an 8-bit array"
        raise ValueError(f"found an image of type {type(image).__name__}, {EXPECTED_IMAGE}{hint}")
    if image.ndim != 4 or image.shape[1] != 3 or not image.numel():
        shape = " x ".join(map(str, image.shape)) or "a number"
        raise ValueError(f"found an image of shape {shape}, {EXPECTED_IMAGE}{_shape_hint(image)}")
    if image.dtype not in (torch.float32, torch.bfloat16):
        hint = "; convert it with .float()" if image.is_floating_point() else "; use .float() / 255 for 8-bit images"
        raise ValueError(f"found an image of {image.dtype}, {EXPECTED_IMAGE}{hint}")
    low, high = (float(bound) for bound in image.detach().aminmax())
    if not (low >= -RANGE_TOLERANCE and high <= 1 + RANGE_TOLERANCE):  # "not": NaN is refused, too
        hint = "; divide by 255" if low >= 0 and 2 < high <= 255 else ""
        raise ValueError(f"found an image with values from {low:.4g} to {high:.4g}, {EXPECTED_IMAGE}{hint}")


def _shape_hint(image: Tensor) -> str:
    """Name the usual reason for a wrong shape."""
    if image.shape == (3, *image.shape[1:]) and image.ndim == 3:
        return "; add a batch dimension: image[None]"
    if image.ndim in (3, 4) and image.shape[-1] == 3:
        return "; the channels are last: use image.movedim(-1, -3)"
    if image.ndim == 4 and image.shape[1] == 1:
        return "; this image is grey, the network needs colour"
    return ""


def check_finite_outputs(outputs: Mapping[str, Tensor]) -> None:
    """Check that a network returned numbers.

    Args:
        outputs: name of an output -> its values.

    Raises:
        PredictionError: if a value is NaN or infinite.
    """
    if wrong := [name for name, values in outputs.items() if not values.isfinite().all()]:
        raise PredictionError(
            f"the network returned a value that is not finite ({', '.join(wrong)}), expected finite numbers; "
            "do not use these weights"
        )


def check_8_bit_rgb(image: np.ndarray) -> None:
    """Check that an array is an 8-bit image: a float image in [0, 1] would be divided by 255 and become black.

    Raises:
        ValueError: if it has another type of numbers, or another shape than h x w x 3.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3:
        shape = " x ".join(map(str, image.shape))
        raise ValueError(f"found an array of {image.dtype}, {shape}; expected 8-bit RGB, h x w x 3")
