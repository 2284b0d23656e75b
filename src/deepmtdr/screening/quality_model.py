"""How fit a photograph is to be graded, in [0, 1], and what is wrong with it: two small logistic models.

Both take the 26 numbers of `appearance.py`, standardised and cut at 4 standard deviations, and the squares of some. The
first tells real photographs from copies spoilt in six kinds of ways (`data/degraded.py`): its probability of "good" is
the score, the most probable other kind is the reason. The second tells fundus photographs, spoilt or not, from any
other picture. Its fit, its judgement and the figures: `benchmarks/quality_gate.py` and docs/clinic.md. The degradations
are made, not met: photographs that readers refused (label 5 of the DDR set) would set it better; none were at hand.
"""

from __future__ import annotations

import csv
from enum import StrEnum
from functools import cache
from importlib import resources
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from scipy.special import expit, softmax

from deepmtdr.screening.quality_features import FEATURE_NAMES, compute_quality_features

SQUARED_FEATURES = (
    *("light", "brightest", "band0", "band2", "band3", "band4"),
    *("vessels", "red", "hues", "red_structure", "colour_noise"),
)
"""Features of which both too little and too much is wrong: their squares come after all features."""
CLIP_DEVIATIONS = 4.0
"""Standard deviations at which a feature is cut: no single one of a picture never met decides alone."""
MODEL_FILE = "quality_score.csv"


class Fault(StrEnum):
    """Why a photograph was not graded; the values are for machines, `description` is for people."""

    NO_FIELD = "no_field_of_view"
    NO_FUNDUS = "no_fundus"
    SMALL = "small"
    BLURRED = "blurred"
    DARK = "dark"
    BRIGHT = "bright"
    FAINT = "faint"
    COVERED = "covered"
    NOISY = "noisy"

    @property
    def description(self) -> str:
        """For a message: `too blurred`."""
        return _WORDS[self]


_WORDS = {
    Fault.NO_FIELD: "no field of view",
    Fault.NO_FUNDUS: "no fundus photograph",
    Fault.SMALL: "too small",
    Fault.BLURRED: "too blurred",
    Fault.DARK: "too dark",
    Fault.BRIGHT: "burnt out or under a flare",
    Fault.FAINT: "too little contrast",
    Fault.COVERED: "partly covered or in shadow",
    Fault.NOISY: "too noisy or compressed too much",
}
POOR_QUALITY_FAULTS = (Fault.BLURRED, Fault.DARK, Fault.BRIGHT, Fault.FAINT, Fault.COVERED, Fault.NOISY)
"""The kinds of the first model, after "good", in the order of its table's columns."""


class QualityScore(NamedTuple):
    """What the two models say of a frame."""

    quality: float
    """Probability that the photograph, if it is of a fundus, is fit to be graded."""
    fault: Fault
    """The most probable fault, whatever the quality."""
    not_fundus: float
    """Probability of being no fundus photograph at all, at even odds beforehand."""


class QualityModel(NamedTuple):
    """The table of both models: a row for each feature and each square."""

    mean: Float[np.ndarray, " features"]
    deviation: Float[np.ndarray, " features"]
    intercepts: Float[np.ndarray, " kinds"]
    """Of "good", of each of `POOR_QUALITY_FAULTS`, and of "no fundus photograph"."""
    weights: Float[np.ndarray, "terms kinds"]


def score_quality(frame: UInt8[np.ndarray, "s s 3"]) -> QualityScore:
    """Score a frame.

    Args:
        frame: a photograph cropped to its field of view, RGB, of any size.

    Returns:
        Quality 0 and "too dark" for a frame with next to no lit pixel.
    """
    features = compute_quality_features(frame)
    if features is None:
        return QualityScore(0.0, Fault.DARK, 0.0)
    model = load_quality_model()
    logits = model.intercepts + design_matrix(features, model.mean, model.deviation) @ model.weights
    kinds = softmax(logits[:-1])
    return QualityScore(float(kinds[0]), POOR_QUALITY_FAULTS[int(kinds[1:].argmax())], float(expit(logits[-1])))


def design_matrix(features: NDArray, mean: NDArray, deviation: NDArray) -> NDArray:
    """What the weights multiply: standardised features and the squares of those in `SQUARED_FEATURES`.

    Args:
        features: of one frame, or a row for each of many.
        mean: of each feature where the models were fitted.
        deviation: likewise.
    """
    standard = ((features - mean) / deviation).clip(-CLIP_DEVIATIONS, CLIP_DEVIATIONS)
    squared = standard[..., [FEATURE_NAMES.index(name) for name in SQUARED_FEATURES]] ** 2
    return np.concatenate([standard, squared], axis=-1)


@cache
def load_quality_model() -> QualityModel:
    """Read the shipped table, once.

    Raises:
        ValueError: if its rows are not those of the features, or a cell is no number.
    """
    text = resources.files("deepmtdr.screening").joinpath(MODEL_FILE).read_text(encoding="utf-8")
    _, first, *rows = csv.reader(text.splitlines())
    expected = [*FEATURE_NAMES, *(f"{name}^2" for name in SQUARED_FEATURES)]
    if (named := [row[0] for row in rows]) != expected:
        raise ValueError(f"{MODEL_FILE}: rows {', '.join(named)}; expected {', '.join(expected)}")
    cells = np.array([[float(cell or 0) for cell in row[1:]] for row in (first, *rows)])
    features = cells[1 : 1 + len(FEATURE_NAMES)]
    return QualityModel(features[:, 0], features[:, 1], cells[0, 2:], cells[1:, 2:])
