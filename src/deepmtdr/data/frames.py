"""Photographs brought into the HR frame once and kept as memory-mapped arrays (Sec. V-A, readings R1 and R19)."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from deepmtdr.data.field_of_view import crop_mask, crop_to_frame, find_fov, way_into_frame
from deepmtdr.data.photograph import read_photograph
from deepmtdr.data.sample import Sample
from deepmtdr.errors import DataError, PhotographError
from deepmtdr.terms import FRAME, Lesion


@dataclass(frozen=True)
class Frame:
    """One photograph on its way into the HR frame, with its annotation there."""

    sample: Sample
    pixels: UInt8[np.ndarray, "s s 3"]
    """The field of view; `scale` times smaller than the HR frame."""
    scale: int
    """1: the photograph fills the HR frame itself. 2, 4, 8: a low-resolution one, which the ISR subnet leads there."""
    lesion_masks: UInt8[np.ndarray, "4 f f"] | None
    """Coverage of each pixel of the HR frame by each type, 0-255, zero for types not annotated; None: none was."""


class FrameCache:
    """Prepared frames in a folder: the first asking decodes, later ones map the file into memory."""

    def __init__(self, folder: Path, size: int = FRAME) -> None:
        self.folder = folder
        self.size = size

    def __call__(self, sample: Sample) -> Frame:
        """The frame of a sample, prepared if it is not yet.

        Raises:
            PhotographError: if the photograph cannot be decoded or shows no field of view.
            DataError: if a mask cannot be decoded, or has not the photograph's size.
        """
        stem = f"{sample.name}.{self._key(sample)}"
        pixels_file, masks_file = (self.folder / sample.dataset / f"{stem}.{of}.npy" for of in ("frame", "masks"))
        if not pixels_file.exists():
            pixels_file.parent.mkdir(parents=True, exist_ok=True)
            pixels, masks = self._prepare(sample)
            if masks is not None:
                _save(masks_file, masks)
            _save(pixels_file, pixels)  # last: its presence says that the frame is whole
        pixels = np.load(pixels_file, mmap_mode="r")
        masks = np.load(masks_file, mmap_mode="r") if sample.lesion_masks else None
        return Frame(sample, pixels, self.size // pixels.shape[0], masks)

    def _key(self, sample: Sample) -> str:
        try:
            stat = sample.photograph.stat()
        except OSError as error:
            raise PhotographError(f"{sample.photograph}: cannot be read ({error.strerror})") from error
        masks = {lesion.name: str(path) for lesion, path in sample.lesion_masks.items()}
        facts = [str(sample.photograph), stat.st_size, stat.st_mtime_ns, self.size, masks]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:12]

    def _prepare(self, sample: Sample) -> tuple[np.ndarray, np.ndarray | None]:
        photograph = read_photograph(sample.photograph)
        fov = find_fov(photograph.pixels)
        way = way_into_frame(max(1, round(fov.side * FRAME / self.size)))  # of a frame of FRAME px
        pixels = crop_to_frame(photograph.pixels, fov, self.size // way.scale)
        if not sample.lesion_masks:
            return pixels, None
        masks = np.zeros((len(Lesion), self.size, self.size), np.uint8)
        for lesion, mask in read_lesion_masks(sample, photograph.pixels.shape[:2]).items():
            masks[lesion] = np.rint(255 * crop_mask(mask, fov, self.size))
        return pixels, masks


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
        mask = (mask.any(axis=2) if mask.ndim == 3 else mask) != 0
        if mask.shape != tuple(shape):
            raise DataError(f"{path}: mask of {mask.shape} px, expected {tuple(shape)} as {sample.photograph.name}")
        masks[lesion] = mask
    return masks


def _save(path: Path, array: np.ndarray) -> None:
    temporary = path.with_suffix(f".{os.getpid()}.part")  # another run may prepare the same photograph
    with temporary.open("wb") as file:
        np.save(file, array)
    temporary.replace(path)
