"""Prepared photographs as the network takes them: in the HR frame or on the way there, mapped into memory when asked.

A prepared file is an uncompressed TIFF: every viewer opens it, and a crop is read without reading the rest. Nothing is
held open, so a set may be as large as the disk (Sec. V-A, readings R1 and R19).
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from deepmtdr.datasets.sample import Sample
from deepmtdr.errors import DataError
from deepmtdr.files import write_atomically
from deepmtdr.terms import Lesion


@dataclass(frozen=True)
class Frame:
    """One prepared photograph with its annotation."""

    sample: Sample
    """Its files are the prepared ones; masks are coverage, 0 to 255."""
    size: int
    """Side of the HR frame, px."""
    scale: int
    """1: the photograph fills the HR frame itself. 2, 4, 8: a low-resolution one, which the ISR subnet leads there."""

    @property
    def pixels(self) -> UInt8[np.ndarray, "s s 3"]:
        """The field of view, RGB, mapped from the file; `scale` times smaller than the HR frame."""
        return memmap_tiff(self.sample.photograph)

    @property
    def lesion_masks(self) -> UInt8[np.ndarray, "4 f f"] | None:
        """Coverage of each pixel of the HR frame by each type, zero for types not annotated; None: none was."""
        if not self.sample.lesion_masks:
            return None
        masks = np.zeros((len(Lesion), self.size, self.size), np.uint8)
        for lesion, path in self.sample.lesion_masks.items():
            if path is not None:
                masks[lesion] = memmap_tiff(path)
        return masks

    def without_masks(self) -> Frame:
        """The same without its annotation (Sec. V-D: less pixel-wise supervision)."""
        return replace(self, sample=replace(self.sample, lesion_masks={}))


def read_lesion_masks(sample: Sample, shape: tuple[int, ...]) -> Mapping[Lesion, np.ndarray]:
    """The annotated types' masks as the files hold them, on the photograph's own pixels.

    Args:
        sample: an annotated sample.
        shape: height and width of its photograph.

    Raises:
        DataError: naming the mask that cannot be decoded, or whose size is not the photograph's.
    """
    masks = {}
    for lesion, path in sample.lesion_masks.items():
        if path is None:
            masks[lesion] = np.zeros(shape, bool)
            continue
        try:
            with Image.open(path) as image:
                mask = np.asarray(image)
        except (OSError, SyntaxError, ValueError) as error:
            raise DataError(f"{path}: cannot be decoded as a mask ({error})") from error
        mask = (mask.max(axis=2) if mask.ndim == 3 else mask) > sample.mask_threshold
        if mask.shape != tuple(shape):
            raise DataError(f"{path}: mask of {mask.shape} px, expected {tuple(shape)} as {sample.photograph.name}")
        masks[lesion] = mask
    return masks


def write_tiff(path: Path, pixels: UInt8[np.ndarray, "h w *c"]) -> None:
    """Write an uncompressed TIFF, all or nothing."""
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "TIFF")
    write_atomically(path, content.getvalue())


def memmap_tiff(path: Path) -> UInt8[np.ndarray, "h w *c"]:
    """Map what `write_tiff` wrote into memory.

    Raises:
        DataError: if there is no such file, or it is compressed or damaged.
    """
    try:
        with Image.open(path, formats=("TIFF",)) as image:
            (tile,) = image.tile
            shape = (image.height, image.width, *((3,) if image.mode == "RGB" else ()))
        if tile[0] != "raw" or image.mode not in ("RGB", "L"):
            raise ValueError(f"{image.mode} by the decoder {tile[0]!r}")
        return np.memmap(path, np.uint8, "r", tile[2], shape)
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(
            f"{path}: expected a prepared file, an uncompressed 8-bit TIFF; found otherwise ({error})"
        ) from error
