"""Prepared photographs and their lesion masks, mapped into memory (Sec. V-A, interpretations R1 and R19).

A prepared file is an uncompressed TIFF: every viewer opens it, and a crop is read without reading the rest. No file
stays open, so a set may be as large as the disk.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

from deepmtdr.datasets.mask_files import MaskProblem, read_mask
from deepmtdr.datasets.sample import Sample
from deepmtdr.errors import DataError, PhotographError
from deepmtdr.files import write_atomically
from deepmtdr.labels import DIABETIC_RETINOPATHY, LabelSet
from deepmtdr.photographs.decode import Photograph, read_photograph
from deepmtdr.terms import SCALES

IGNORED = "ignored"
"""Key and folder of the masks of pixels that count for nothing."""


class MaskChannels(NamedTuple):
    """Channels of the masks that training cuts out of frames, after one channel for each lesion type."""

    unions: tuple[str, ...] = ()
    """The union labels (`Sample.union_masks`), one channel each."""
    ignored: bool = False
    """Whether a last channel has the pixels that count for nothing."""


def mask_channels(frames: Iterable[Frame]) -> MaskChannels:
    """Return the channels that the masks of all these frames need, so that their crops can be stacked."""
    samples = [frame.sample for frame in frames]
    unions = sorted({union for sample in samples for union in sample.union_masks})
    return MaskChannels(tuple(unions), any(sample.ignored_mask is not None for sample in samples))


LESIONS_ONLY = MaskChannels()
"""No channels besides the lesion types."""


@dataclass(frozen=True)
class Frame:
    """One prepared photograph with its annotation."""

    sample: Sample
    """The sample; its files are the prepared ones, and its masks are coverage, 0 to 255."""
    size: int
    """Side of the HR frame, px."""
    scale: int
    """1: the file is the HR frame. 2, 4, 8: a low-resolution photograph, which the ISR subnet enlarges."""
    labels: LabelSet = DIABETIC_RETINOPATHY
    """The label set, whose order is the order of the masks."""

    @property
    def pixels(self) -> UInt8[np.ndarray, "s s 3"]:
        """The field of view, RGB, mapped into memory; `scale` times smaller than the HR frame."""
        return memmap_tiff(self.sample.photograph)

    @property
    def lesion_masks(self) -> UInt8[np.ndarray, "l f f"] | None:
        """Coverage of the HR frame by each lesion type, 0 to 255; 0 for types not annotated; None: no type was."""
        if not self.sample.lesion_masks:
            return None
        masks = np.zeros((len(self.labels.lesions), self.size, self.size), np.uint8)
        for code, path in self.sample.lesion_masks.items():
            if path is not None:
                masks[self.labels.channel(code)] = memmap_tiff(path)
        return masks

    def masks(self, channels: MaskChannels = LESIONS_ONLY) -> UInt8[np.ndarray, "n f f"] | None:
        """Coverage of the HR frame, 0 to 255, by each lesion type, then by each channel of `channels`.

        Returns:
            0 in the channels of types and union labels that are not annotated; None: nothing is annotated or ignored.
        """
        lesions, ignored = self.lesion_masks, self.sample.ignored_mask
        paths = [self.sample.union_masks.get(union) for union in channels.unions]
        paths += [ignored] if channels.ignored else []
        if lesions is None and not any(paths):
            return None
        masks = np.zeros((len(self.labels.lesions) + len(paths), self.size, self.size), np.uint8)
        if lesions is not None:
            masks[: len(lesions)] = lesions
        for channel, path in enumerate(paths, start=len(self.labels.lesions)):
            if path is not None:
                masks[channel] = memmap_tiff(path)
        return masks

    def without_masks(self) -> Frame:
        """The photograph without its masks (Sec. V-D: less pixel-wise supervision)."""
        return replace(self, sample=self.sample.without_masks())


def read_sample(sample: Sample) -> Photograph:
    """Decode the photograph of a sample.

    Raises:
        PhotographError: if the file cannot be decoded, or if a prepared set has no file of it (with the reason).
    """
    if sample.problem:
        raise PhotographError(sample.problem)
    return read_photograph(sample.photograph)


class SampleMasks(NamedTuple):
    """The masks of one photograph, all of one size."""

    lesions: dict[str, Bool[np.ndarray, "h w"]]
    """Code of an annotated lesion type -> its mask."""
    unions: dict[str, Bool[np.ndarray, "h w"]]
    """Union label -> its mask."""
    ignored: Bool[np.ndarray, "h w"] | None
    """Pixels that count for nothing; None: all count."""
    shape: tuple[int, int]
    """Height and width of the masks, px."""
    problems: dict[str, tuple[MaskProblem, ...]]
    """Code, union label or `IGNORED` -> possible problems of its file."""


def read_masks(sample: Sample, shape: tuple[int, ...]) -> SampleMasks:
    """Read the masks of the annotated lesion types and union labels, and of the ignored pixels.

    Args:
        sample: a photograph and its labels.
        shape: height and width of the photograph.

    Returns:
        Masks of the size of the photograph, or 2, 4 or 8 times that size: the masks of a prepared low-resolution
        photograph are in the HR frame.

    Raises:
        DataError: if a mask cannot be decoded or has another size; the message names it.
    """
    paths = {**sample.lesion_masks, **sample.union_masks}
    files = {code: read_mask(path, sample.mask_threshold) for code, path in paths.items() if path}
    if sample.ignored_mask is not None:
        threshold = None if sample.mask_threshold is None else 0  # of a prepared set: any coverage counts
        paths[IGNORED], files[IGNORED] = sample.ignored_mask, read_mask(sample.ignored_mask, threshold)
    masks = {code: file.marked for code, file in files.items()}
    height, width = shape[:2]
    sizes = [(scale * height, scale * width) for scale in (1, *SCALES)]
    size = next((mask.shape for mask in masks.values() if mask.shape in sizes), sizes[0])
    for code, mask in masks.items():
        if mask.shape != size:
            found = f"mask of {mask.shape} px, expected {(height, width)} as {sample.photograph.name}"
            raise DataError(f"{paths[code]}: {found}")
    empty = np.zeros(size, bool)
    lesions, unions = (
        {code: masks.get(code, empty) for code in codes} for codes in (sample.lesion_masks, sample.union_masks)
    )
    problems = {code: file.problems for code, file in files.items() if file.problems}
    return SampleMasks(lesions, unions, masks.get(IGNORED), (size[0], size[1]), problems)


def write_tiff(path: Path, pixels: UInt8[np.ndarray, "h w *c"]) -> None:
    """Write an uncompressed TIFF in one step.

    A set has several files for each of up to 100,000 photographs, which can be prepared again: to flush each of them to
    the disk takes 20 ms, so it is not done. After a power failure such a file may be cut off: `memmap_tiff` reports it.
    """
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "TIFF")
    write_atomically(path, content.getvalue(), durable=False)


def memmap_tiff(path: Path) -> UInt8[np.ndarray, "h w *c"]:
    """Map a file of `write_tiff` into memory.

    Raises:
        DataError: if there is no such file, or it is compressed or damaged.
    """
    try:
        with Image.open(path, formats=("TIFF",)) as image:
            (tile,) = image.tile
            shape = (image.height, image.width, *((3,) if image.mode == "RGB" else ()))
        if tile[0] != "raw" or image.mode not in ("RGB", "L"):
            raise ValueError(f"pixel format {image.mode}, compression {tile[0]!r}")
        return np.memmap(path, np.uint8, "r", tile[2], shape)
    except (OSError, SyntaxError, ValueError) as error:
        found = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise DataError(
            f"{path}: expected a prepared file (uncompressed 8-bit TIFF), found: {found}; prepare the data set again"
        ) from error
