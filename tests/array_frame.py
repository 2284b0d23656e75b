"""Frames whose arrays are given, not prepared files."""

from __future__ import annotations

import numpy as np

from deepmtdr.datasets.frames import Frame
from deepmtdr.datasets.sample import Sample
from deepmtdr.labels import DIABETIC_RETINOPATHY, LabelSet


class ArrayFrame(Frame):
    """A photograph that fills the HR frame, with its masks."""

    def __init__(
        self,
        sample: Sample,
        pixels: np.ndarray,
        masks: np.ndarray | None = None,
        labels: LabelSet = DIABETIC_RETINOPATHY,
    ) -> None:
        super().__init__(sample, pixels.shape[0], 1, labels)
        object.__setattr__(self, "_arrays", (pixels, masks))

    @property
    def pixels(self) -> np.ndarray:
        return self._arrays[0]

    @property
    def lesion_masks(self) -> np.ndarray | None:
        return self._arrays[1]
