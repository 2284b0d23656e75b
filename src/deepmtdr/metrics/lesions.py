"""How well lesions are found, pixel by pixel: pooled curves, Dice, IoU (Sec. V-B, reading R15)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int

from deepmtdr.metrics.ranking import auc_of_counts, average_precision_of_counts


def dice(predicted: Bool[np.ndarray, "*shape"], truth: Bool[np.ndarray, "*shape"]) -> float:
    """2 |P and T| / (|P| + |T|); nan if both are empty."""
    total = int(predicted.sum()) + int(truth.sum())
    return 2 * int((predicted & truth).sum()) / total if total else float("nan")


def iou(predicted: Bool[np.ndarray, "*shape"], truth: Bool[np.ndarray, "*shape"]) -> float:
    """|P and T| / |P or T|; nan if both are empty."""
    union = int((predicted | truth).sum())
    return int((predicted & truth).sum()) / union if union else float("nan")


class PooledCurve:
    """Precision-recall and ROC over all pixels of a test set at bounded memory: the IDRiD rule (reading R15).

    Pixels are counted in bins. Lesion probabilities crowd at 0, and at 1 where they saturate, so the bins follow the
    float format: `2**fineness` of them to each factor of 2 in p below one half, and in 1 - p above. By default a bin is
    0.05 % of p wide, bfloat16 and float16 values are exact, the scores agree with scikit-learn's to 1e-4, and the
    memory is 8 MB, whatever the number of photographs. The limit: a system all of whose probabilities lie within a few
    such bins (0.499 to 0.501) has them taken for ties.
    """

    def __init__(self, fineness: int = 11) -> None:
        self._shift = 23 - fineness  # a float32 has 23 bits of mantissa
        self._half = int(np.float32(0.5).view(np.uint32)) >> self._shift
        self.positives: Int[np.ndarray, " bins"] = np.zeros(2 * self._half + 1, dtype=np.int64)
        self.negatives: Int[np.ndarray, " bins"] = np.zeros(2 * self._half + 1, dtype=np.int64)

    def update(
        self,
        probability: Float[np.ndarray, "*shape"],
        truth: Bool[np.ndarray, "*shape"],
        mask: Bool[np.ndarray, "*shape"] | None = None,
    ) -> None:
        """Count the pixels of one photograph.

        Args:
            probability: in [0, 1].
            truth: True where the lesion is.
            mask: pixels that count (the field of view); None counts all.

        Raises:
            ValueError: if a probability that counts is nan or outside [0, 1].
        """
        chosen = np.ones(truth.shape, dtype=bool) if mask is None else mask
        p, lesion = probability[chosen].astype(np.float32), truth[chosen]
        if p.size and not (p.min() >= 0 and p.max() <= 1):  # nan fails it too
            raise ValueError(f"probabilities from {p.min()} to {p.max()}, expected numbers in [0, 1]")
        place = self._bin(p)
        self.positives += np.bincount(place[lesion], minlength=self.positives.size)
        self.negatives += np.bincount(place[~lesion], minlength=self.negatives.size)

    def _bin(self, p: Float[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        """The bin of each probability: the leading bits of p, or of 1 - p mirrored; it never falls as p grows."""
        upper = p > 0.5
        nearest = np.abs(np.where(upper, 1 - p, p))  # 1 - p is exact from one half on; abs takes the sign off -0.0
        leading = (nearest.view(np.uint32) >> self._shift).astype(np.int64)
        return np.where(upper, 2 * self._half - leading, leading)

    def merge(self, other: PooledCurve) -> None:
        """Add what another accumulator of the same fineness counted."""
        if other.positives.size != self.positives.size:
            raise ValueError(f"{other.positives.size} bins to be merged into {self.positives.size}, expected as many")
        self.positives += other.positives
        self.negatives += other.negatives

    @property
    def prevalence(self) -> float:
        """Fraction of positive pixels, the AUPR of a score that knows nothing; nan if nothing was counted."""
        total = int(self.positives.sum() + self.negatives.sum())
        return int(self.positives.sum()) / total if total else float("nan")

    def average_precision(self) -> float:
        """Pooled AUPR; nan if no pixel is positive."""
        return average_precision_of_counts(self.positives, self.negatives)

    def dice(self) -> float:
        """Pooled Dice of the pixels with p above one half; nan if there is neither such a pixel nor a positive one."""
        predicted = slice(self.positives.size // 2 + 1, None)  # the bin of one half itself is the middle one
        hits, alarms = int(self.positives[predicted].sum()), int(self.negatives[predicted].sum())
        total = hits + alarms + int(self.positives.sum())
        return 2 * hits / total if total else float("nan")

    def auc(self) -> float:
        """Pooled area under the ROC curve; nan if no pixel is positive, or all are."""
        return auc_of_counts(self.positives, self.negatives)
