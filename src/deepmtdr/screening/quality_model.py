"""Score the quality of a photograph and name its main fault: logistic regression models.

The two of this module use the 26 features of `quality_features.py`, standardised and clipped at 4 standard deviations,
and the squares of some. The first model separates real photographs from copies with six kinds of synthetic degradation
(`synthetic/degradations.py`): its probability of "good" is the score, and the most probable degradation is the fault.
The second model separates fundus photographs, degraded or not, from other pictures. `benchmarks/quality_gate.py` fits
and evaluates both; docs/clinic.md has the figures.

Limitation: the degradations are synthetic. Photographs that people judged ungradable (label 5 of the DDR set) would be
better training data, but were not available.
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

from deepmtdr.screening.quality_features import FEATURE_NAMES, MaskedImage, image_features
from deepmtdr.screening.retina_model import compute_retina_features, load_retina_model

SQUARED_FEATURES = (
    "light",
    "brightest",
    "band0",
    "band2",
    "band3",
    "band4",
    "vessels",
    "red",
    "hues",
    "red_structure",
    "colour_noise",
)
"""Features of which both low and high values indicate a fault. Their squares follow after all features."""
GREY_RANGE = 4
"""Largest difference between the channels of a grey frame, of 255, for 99 % of its pixels."""
RETINA_COLOUR = np.array((1.69, 0.92, 0.39))
"""Red, green and blue of a retina relative to their mean: medians of the photographs of IDRiD, EyePACS and SRahimDR."""
CLIP_DEVIATIONS = 4.0
"""Standard deviations at which a feature is clipped, so that no single feature of an unusual picture decides."""
MODEL_FILE = "quality_model.csv"


class Fault(StrEnum):
    """Why a photograph was not graded. The values are for programs, `description` is for people."""

    NO_FIELD = "no_field_of_view"
    SEVERAL = "several_fields_of_view"
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
        """The fault in words, for a message: `too blurred`."""
        return _DESCRIPTIONS[self]


_DESCRIPTIONS = {
    Fault.NO_FIELD: "no field of view",
    Fault.SEVERAL: "several fields of view",
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
"""The classes of the first model after "good", in the order of the columns of `MODEL_FILE`."""


class QualityScore(NamedTuple):
    """Outputs of the three models for a frame."""

    quality: float
    """Probability that the photograph is fit to be graded, if it shows a fundus."""
    fault: Fault
    """The most probable fault; it is given for good photographs, too."""
    not_fundus: float
    """Probability of being no fundus photograph, at prior odds of 1:1."""
    no_retina: float
    """Probability of showing no retina by `retina_model.py`, at prior odds of 1:1."""


class QualityModel(NamedTuple):
    """Coefficients of both models: a row for each feature and each square."""

    mean: Float[np.ndarray, " features"]
    deviation: Float[np.ndarray, " features"]
    intercepts: Float[np.ndarray, " kinds"]
    """For "good", each of `POOR_QUALITY_FAULTS`, and "no fundus photograph"."""
    weights: Float[np.ndarray, "terms kinds"]


def score_quality(frame: UInt8[np.ndarray, "s s 3"]) -> QualityScore:
    """Score a frame.

    Args:
        frame: a photograph cropped to its field of view, RGB, of any size. The quality of a grey one is that of a copy
            in the colours of a retina: the model learnt the limits of brightness and contrast from colour photographs.

    Returns:
        Quality and fault; quality 0 and "too dark" for a frame with hardly any lit pixel.
    """
    own_colours = MaskedImage.of(frame)
    coloured = own_colours and _in_retina_colours(own_colours)
    if own_colours is None or coloured is None:
        return QualityScore(0.0, Fault.DARK, 0.0, 0.0)
    features = compute_retina_features(own_colours)
    own = features[: len(FEATURE_NAMES)]
    logits = _logits(own)
    not_fundus = float(expit(logits[-1]))
    kinds = softmax((logits if coloured is own_colours else _logits(image_features(coloured)))[:-1])
    no_retina = load_retina_model().probability_of_none(features)
    return QualityScore(float(kinds[0]), POOR_QUALITY_FAULTS[int(kinds[1:].argmax())], not_fundus, no_retina)


def _logits(features: NDArray) -> NDArray:
    model = load_quality_model()
    return model.intercepts + design_matrix(features, model.mean, model.deviation) @ model.weights


def _in_retina_colours(image: MaskedImage) -> MaskedImage | None:
    """A grey frame with the median colour of a retina and the same brightness; any other frame as it is."""
    if np.percentile(np.ptp(image.pixels, axis=2), 99) > GREY_RANGE:
        return image
    grey = image.pixels.mean(axis=2, keepdims=True)
    return MaskedImage.of(np.rint((grey * RETINA_COLOUR).clip(0, 255)).astype(np.uint8))


def design_matrix(features: NDArray, mean: NDArray, deviation: NDArray) -> NDArray:
    """Inputs of the models: standardised features and the squares of `SQUARED_FEATURES`.

    Args:
        features: of one frame, or a row for each of many frames.
        mean: of each feature in the training data.
        deviation: standard deviation of each feature in the training data.
    """
    standard = ((features - mean) / deviation).clip(-CLIP_DEVIATIONS, CLIP_DEVIATIONS)
    squared = standard[..., [FEATURE_NAMES.index(name) for name in SQUARED_FEATURES]] ** 2
    return np.concatenate([standard, squared], axis=-1)


@cache
def load_quality_model() -> QualityModel:
    """Read the coefficients from `MODEL_FILE`; the result is cached.

    Raises:
        ValueError: if its rows do not match the features, or a cell is no number.
    """
    text = resources.files("deepmtdr.screening").joinpath(MODEL_FILE).read_text(encoding="utf-8")
    _, first, *rows = csv.reader(text.splitlines())
    expected = [*FEATURE_NAMES, *(f"{name}^2" for name in SQUARED_FEATURES)]
    if (named := [row[0] for row in rows]) != expected:
        raise ValueError(f"{MODEL_FILE}: rows {', '.join(named)}; expected {', '.join(expected)}")
    cells = np.array([[float(cell or 0) for cell in row[1:]] for row in (first, *rows)])
    features = cells[1 : 1 + len(FEATURE_NAMES)]
    return QualityModel(features[:, 0], features[:, 1], cells[0, 2:], cells[1:, 2:])
