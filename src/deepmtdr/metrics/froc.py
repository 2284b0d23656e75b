"""How many lesions are found at how many false alarms: the FROC of microaneurysms (the field's, beside Sec. V-B).

A microaneurysm is a few pixels wide. Pixel scores weigh it by its area; here each one counts alike.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.ndimage import label

FROC_THRESHOLDS: Float[np.ndarray, " t"] = 1 / (1 + np.exp(-np.arange(-8, 8.5, 0.5)))
"""33 probabilities from 0.0003 to 0.9997, even steps of the logit: networks crowd theirs at both ends."""

FALSE_POSITIVES_PER_IMAGE = (1 / 8, 1 / 4, 1 / 2, 1.0, 2.0, 4.0, 8.0)
"""Where sensitivity is read (Niemeijer et al. 2010)."""

MIN_OVERLAP = 0.2
"""sigma of Zhang et al. 2014."""


class FrocCounts(NamedTuple):
    """Lesions found and false alarms at each threshold, of one image or of several that were merged."""

    thresholds: Float[np.ndarray, " t"]
    """Ascending."""
    true_positives: Int[np.ndarray, " t"]
    """True lesions that were found."""
    false_positives: Int[np.ndarray, " t"]
    """Detections that are no lesion."""
    lesions: int
    """True lesions there are."""
    images: int = 1

    def merge(self, other: FrocCounts) -> FrocCounts:
        """The counts of both.

        Raises:
            ValueError: if they were counted at different thresholds.
        """
        if not np.array_equal(self.thresholds, other.thresholds):
            raise ValueError(f"counts at {self.thresholds} and at {other.thresholds}, expected the same thresholds")
        hits, alarms = self.true_positives + other.true_positives, self.false_positives + other.false_positives
        return FrocCounts(self.thresholds, hits, alarms, self.lesions + other.lesions, self.images + other.images)

    def sensitivity_at(self, alarms_per_image: float) -> float:
        """The fraction of lesions found at so many false alarms per image.

        Of all thresholds with at most that many the best counts, and between two of them sensitivity is a line. The
        curve starts at a threshold that finds nothing, (0, 0), and goes on level beyond its last false alarm.

        Args:
            alarms_per_image: false alarms, mean over the images; at least 0.

        Returns:
            In [0, 1]; nan if no image has a lesion: there is nothing to find.
        """
        if not self.lesions:
            return float("nan")
        alarms, found = (
            np.append(0, self.false_positives / self.images),
            np.append(0, self.true_positives / self.lesions),
        )
        order = np.lexsort((found, alarms))
        alarms, best = alarms[order], np.maximum.accumulate(found[order])
        last = np.append(np.diff(alarms) > 0, True)  # of equally many alarms, the most that was found
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
    """Count what one image adds to an FROC curve; `FrocCounts.merge` adds images.

    A true lesion is a connected component of the annotation, a detection one of the pixels with `p >= threshold`; both
    by eight neighbours. A detection is right if more than `overlap` of its pixels are annotated, else it is a false
    alarm. A lesion is found if it shares a pixel with a right detection: one detection may find several lesions,
    several on one lesion find it once, and none of them is an alarm.

    The fraction is that of Zhang et al. 2014, from the makers of E-ophtha, for lesions annotated as areas; they count
    pixels by it (their text was not at hand), here lesions are counted. The ROC challenge (Niemeijer et al. 2010) asks
    for a point within a lesion's radius, and masks have neither. A mere touch (`overlap=0`) would reward a map that is
    one single blob: it touches every lesion, and raises no alarm.

    Args:
        probability: of the lesion, in [0, 1].
        truth: True where the lesion is.
        mask: pixels that count (the field of view), lesions and detections alike; None counts all.
        thresholds: ascending, above 0, the same for all images.
        overlap: sigma, in [0, 1).

    Returns:
        The counts of one image, two numbers per threshold.

    Raises:
        ValueError: if a probability that counts is nan or outside [0, 1], or the thresholds are not ascending.
    """
    counts = np.ones(truth.shape, dtype=bool) if mask is None else mask
    p = probability[counts]
    if p.size and not (p.min() >= 0 and p.max() <= 1):  # nan fails it too
        raise ValueError(f"probabilities from {p.min()} to {p.max()}, expected numbers in [0, 1]")
    if not (np.diff(thresholds, prepend=0) > 0).all():
        raise ValueError(f"thresholds {thresholds}, expected ascending ones above 0")
    lesion, number = _components(truth & counts)
    inside = np.where(counts, probability, 0)
    found = np.array([_hits_and_alarms(inside >= t, lesion, overlap) for t in thresholds], dtype=np.int64)
    hits, alarms = found.reshape(-1, 2).T
    return FrocCounts(thresholds, hits, alarms, number)


def _hits_and_alarms(detected: Bool[np.ndarray, "h w"], lesion: Int[np.ndarray, "h w"], overlap: float) -> list[int]:
    """Lesions found and false alarms at one threshold; `lesion` numbers the true ones."""
    detection, number = _components(detected)
    annotated = lesion > 0
    size = np.bincount(detection[detected], minlength=number + 1)
    shared = np.bincount(detection[annotated], minlength=number + 1)
    right = shared > overlap * size
    right[0] = False  # the background is no detection
    return [np.unique(lesion[annotated][right[detection[annotated]]]).size, number - int(right.sum())]


def _components(pixels: Bool[np.ndarray, "h w"]) -> tuple[Int[np.ndarray, "h w"], int]:
    """Pixels numbered from 1 by the connected component they are in, 0 for none, and how many components there are.

    Pixels that touch at a corner belong together.
    """
    numbers = np.zeros(pixels.shape, dtype=np.int32)
    return numbers, int(label(pixels, np.ones((3, 3)), output=numbers))  # pyright: ignore[reportArgumentType]
