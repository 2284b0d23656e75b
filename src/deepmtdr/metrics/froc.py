"""FROC: the fraction of lesions that are found at a number of false alarms per image.

Pixel scores weight a lesion by its area. Here each lesion counts the same, which matters for microaneurysms: they are
a few pixels wide. FROC is not part of the paper.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.ndimage import label

FROC_THRESHOLDS: Float[np.ndarray, " t"] = 1 / (1 + np.exp(-np.arange(-8, 8.5, 0.5)))
"""33 probabilities from 0.0003 to 0.9997 in even steps of the logit, because most probabilities are near 0 or 1."""

FALSE_POSITIVES_PER_IMAGE = (1 / 8, 1 / 4, 1 / 2, 1.0, 2.0, 4.0, 8.0)
"""False alarms per image at which the sensitivity is reported (Niemeijer et al. 2010)."""

MIN_OVERLAP = 0.2
"""Smallest fraction of a right detection that is annotated; sigma of Zhang et al. 2014."""


class FrocCounts(NamedTuple):
    """Number of lesions found and of false alarms at each threshold, in one image or in several merged ones."""

    thresholds: Float[np.ndarray, " t"]
    """Thresholds of the probability, ascending."""
    true_positives: Int[np.ndarray, " t"]
    """Number of annotated lesions that are found."""
    false_positives: Int[np.ndarray, " t"]
    """Number of detections that are not a lesion."""
    lesions: int
    """Number of annotated lesions."""
    images: int = 1

    def merge(self, other: FrocCounts) -> FrocCounts:
        """Add the counts of other images.

        Raises:
            ValueError: if their thresholds differ.
        """
        if not np.array_equal(self.thresholds, other.thresholds):
            raise ValueError(
                f"found counts at the thresholds {self.thresholds} and {other.thresholds}, expected the same thresholds"
            )
        hits, alarms = self.true_positives + other.true_positives, self.false_positives + other.false_positives
        return FrocCounts(self.thresholds, hits, alarms, self.lesions + other.lesions, self.images + other.images)

    def sensitivity_at(self, alarms_per_image: float) -> float:
        """Fraction of the lesions that are found at a number of false alarms per image.

        It is computed from the best thresholds: for each number of false alarms, the highest sensitivity at no more
        false alarms, interpolated linearly. The curve starts at (0, 0) and is level after its last point.

        Args:
            alarms_per_image: false alarms, mean over the images; at least 0.

        Returns:
            In [0, 1]; nan if no image has a lesion.
        """
        if not self.lesions:
            return float("nan")
        alarms, found = (
            np.append(0, self.false_positives / self.images),
            np.append(0, self.true_positives / self.lesions),
        )
        order = np.lexsort((found, alarms))
        alarms, best = alarms[order], np.maximum.accumulate(found[order])
        last = np.append(np.diff(alarms) > 0, True)  # among equal numbers of alarms, the highest sensitivity
        return float(np.interp(alarms_per_image, alarms[last], best[last]))

    def cpm(self) -> float:
        """Mean sensitivity at 1/8, 1/4, 1/2, 1, 2, 4 and 8 false alarms per image (Niemeijer et al. 2010 and 2011).

        Returns:
            In [0, 1]; nan if no image has a lesion.
        """
        return float(np.mean([self.sensitivity_at(alarms) for alarms in FALSE_POSITIVES_PER_IMAGE]))


def count_froc(
    probability: Float[np.ndarray, "h w"],
    truth: Bool[np.ndarray, "h w"],
    mask: Bool[np.ndarray, "h w"] | None = None,
    thresholds: Float[np.ndarray, " t"] = FROC_THRESHOLDS,
    overlap: float = MIN_OVERLAP,
) -> FrocCounts:
    """Count lesions found and false alarms in one image; `FrocCounts.merge` adds the counts of images.

    A true lesion is a connected component of the annotation. A detection is a connected component of the pixels with
    `p >= threshold`. Pixels that touch at a corner are connected. A detection is right if more than `overlap` of its
    pixels are annotated; otherwise it is a false alarm. A lesion is found if it shares a pixel with a right detection.
    One detection can find several lesions; several right detections on one lesion find it once.

    The rule is adapted from Zhang et al. 2014, the authors of e-ophtha, who apply the fraction to pixels (their text
    was not available to us). The ROC challenge (Niemeijer et al. 2010) requires a point within a lesion's radius, but
    masks have neither. With `overlap=0`, one single blob over the whole image would find every lesion without an alarm.

    Args:
        probability: probability of the lesion, in [0, 1].
        truth: True where the lesion is annotated.
        mask: the pixels that count (the field of view); None counts all.
        thresholds: ascending, above 0, the same for all images.
        overlap: sigma, in [0, 1).

    Returns:
        The counts of this image.

    Raises:
        ValueError: if a probability that counts is nan or outside [0, 1], or the thresholds are not ascending.
    """
    counts = np.ones(truth.shape, dtype=bool) if mask is None else mask
    p = probability[counts]
    if p.size and not (p.min() >= 0 and p.max() <= 1):  # written so that nan is an error too
        raise ValueError(f"found probabilities from {p.min()} to {p.max()}, expected numbers in [0, 1]")
    if not (np.diff(thresholds, prepend=0) > 0).all():
        raise ValueError(f"found the thresholds {thresholds}, expected ascending numbers above 0")
    lesion, number = label_components(truth & counts)
    inside = np.where(counts, probability, 0)
    found = np.array([_hits_and_alarms(inside >= t, lesion, overlap) for t in thresholds], dtype=np.int64)
    hits, alarms = found.reshape(-1, 2).T
    return FrocCounts(thresholds, hits, alarms, number)


def _hits_and_alarms(detected: Bool[np.ndarray, "h w"], lesion: Int[np.ndarray, "h w"], overlap: float) -> list[int]:
    """Lesions found and false alarms at one threshold; `lesion` has the numbers of the annotated lesions."""
    detection, number = label_components(detected)
    annotated = lesion > 0
    size = np.bincount(detection[detected], minlength=number + 1)
    shared = np.bincount(detection[annotated], minlength=number + 1)
    right = shared > overlap * size
    right[0] = False  # 0 is the background, not a detection
    return [np.unique(lesion[annotated][right[detection[annotated]]]).size, number - int(right.sum())]


def label_components(pixels: Bool[np.ndarray, "h w"]) -> tuple[Int[np.ndarray, "h w"], int]:
    """Number the connected components of a mask; pixels that touch at a corner are connected.

    Returns:
        For each pixel the number of its component, from 1, or 0 outside the mask; and the number of components.
    """
    numbers = np.zeros(pixels.shape, dtype=np.int32)
    return numbers, int(label(pixels, np.ones((3, 3)), output=numbers))  # pyright: ignore[reportArgumentType]
