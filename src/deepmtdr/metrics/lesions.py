"""Scores of lesion maps, pixel by pixel: pooled curves, Dice, IoU (Sec. V-B, interpretation R15)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int

from deepmtdr.metrics.ranking import auc_from_counts, average_precision_from_counts

DICE_THRESHOLD = 0.5
"""A pixel above this probability is a predicted lesion, for Dice and IoU."""


def dice(predicted: Bool[np.ndarray, "*shape"], truth: Bool[np.ndarray, "*shape"]) -> float:
    """Dice coefficient, 2 |P and T| / (|P| + |T|); nan if both are empty."""
    total = int(predicted.sum()) + int(truth.sum())
    return 2 * int((predicted & truth).sum()) / total if total else float("nan")


def iou(predicted: Bool[np.ndarray, "*shape"], truth: Bool[np.ndarray, "*shape"]) -> float:
    """Intersection over union, |P and T| / |P or T|; nan if both are empty."""
    union = int((predicted | truth).sum())
    return int((predicted & truth).sum()) / union if union else float("nan")


class PooledCurve:
    """Precision-recall and ROC curve over all pixels of a data set, in bounded memory: the rule of IDRiD (R15).

    Positive and negative pixels are counted for each distinct probability. If there are too many distinct values,
    neighbours are merged: at most the fraction `tolerance` of the positive pixels, or of the pixels with a higher
    probability, is merged into one value. AUPR and AUC therefore change by less than `tolerance`. At 1e-4 about
    200,000 values are kept (5 MB) for any number of photographs.
    """

    def __init__(self, tolerance: float = 1e-4) -> None:
        self.tolerance = tolerance
        self.values: Float[np.ndarray, " values"] = np.empty(0, np.float32)
        """Distinct probabilities, ascending; merged values are replaced by the highest of them."""
        self.positives: Int[np.ndarray, " values"] = np.empty(0, np.int64)
        self.negatives: Int[np.ndarray, " values"] = np.empty(0, np.int64)

    def update(
        self,
        probability: Float[np.ndarray, "*shape"],
        truth: Bool[np.ndarray, "*shape"],
        mask: Bool[np.ndarray, "*shape"] | None = None,
    ) -> None:
        """Add the pixels of one photograph.

        Args:
            probability: probability of each pixel, in [0, 1].
            truth: True where the lesion is annotated.
            mask: the pixels that count (the field of view); None counts all.

        Raises:
            ValueError: if a probability that counts is nan or outside [0, 1].
        """
        chosen = np.ones(truth.shape, dtype=bool) if mask is None else mask
        p, lesion = probability[chosen].astype(np.float32), truth[chosen]
        if p.size and not (p.min() >= 0 and p.max() <= 1):  # written so that nan is an error too
            raise ValueError(f"found probabilities from {p.min()} to {p.max()}, expected numbers in [0, 1]")
        at_lesions, positives = np.unique(p[lesion], return_counts=True)
        elsewhere, negatives = np.unique(p[~lesion], return_counts=True)
        self._add(at_lesions, positives, elsewhere, negatives)

    def merge(self, other: PooledCurve) -> None:
        """Add the counts of another curve."""
        self._add(other.values, other.positives, other.values, other.negatives)

    def _add(self, at: np.ndarray, positives: np.ndarray, elsewhere: np.ndarray, negatives: np.ndarray) -> None:
        values = np.unique(np.concatenate([self.values, at, elsewhere]))
        counts = np.zeros((2, values.size), np.int64)
        counts[:, np.searchsorted(values, self.values)] += [self.positives, self.negatives]
        counts[0, np.searchsorted(values, at)] += positives
        counts[1, np.searchsorted(values, elsewhere)] += negatives
        self.values, (self.positives, self.negatives) = values, counts
        pixels = int(counts.sum())
        if values.size > (np.log(max(pixels, 1)) + 1) / self.tolerance:
            self._merge_neighbours()

    def _merge_neighbours(self) -> None:
        """Merge as many neighbouring values as the tolerance allows, but not across one half, so that Dice is exact."""
        rank = np.cumsum((self.positives + self.negatives)[::-1])[::-1]
        found = np.cumsum(self.positives[::-1])[::-1] / max(int(self.positives.sum()), 1)
        # A group is one unit wide: `tolerance` of the rank, on a logarithmic scale, or of all positive pixels.
        group = np.floor((np.log(rank) / np.log1p(self.tolerance)) + found / self.tolerance)
        last = np.append((np.diff(group) != 0) | (np.diff(self.values > DICE_THRESHOLD)), True)
        first = np.append(0, np.flatnonzero(last)[:-1] + 1)
        self.values = self.values[last]
        self.positives, self.negatives = (np.add.reduceat(c, first) for c in (self.positives, self.negatives))

    @property
    def prevalence(self) -> float:
        """Fraction of positive pixels, which is the AUPR of a random score; nan without pixels."""
        total = int(self.positives.sum() + self.negatives.sum())
        return int(self.positives.sum()) / total if total else float("nan")

    def average_precision(self) -> float:
        """Area under the precision-recall curve of all pixels; nan if no pixel is positive."""
        return average_precision_from_counts(self.positives, self.negatives)

    def auc(self) -> float:
        """Area under the ROC curve of all pixels; nan if no pixel is positive, or all are."""
        return auc_from_counts(self.positives, self.negatives)

    def dice(self) -> float:
        """Dice of all pixels, with p > 0.5 as lesion; nan if no pixel is predicted or annotated as lesion."""
        predicted = self.values > DICE_THRESHOLD
        hits, alarms = int(self.positives[predicted].sum()), int(self.negatives[predicted].sum())
        total = hits + alarms + int(self.positives.sum())
        return 2 * hits / total if total else float("nan")

    def iou(self) -> float:
        """Intersection over union of all pixels, with p > 0.5 as lesion; nan where `dice` is nan."""
        dice = self.dice()
        return dice / (2 - dice)
